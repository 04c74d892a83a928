"""Handwritten digits: the data set that ships with scikit-learn, and models of it, good and bad."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from canarykit.errors import PlanError

__all__ = ["KINDS", "held_out", "model", "training"]

KINDS = ("stable", "good", "slow", "failing", "wrong")

_SPLIT_SEED = 20_240_613
_TRAINING = 897
_INK = 5.8


def _data() -> npt.NDArray[np.float64]:
    """Images and labels, read without importing scikit-learn (that takes seconds)."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise PlanError("the digits need scikit-learn: pip install scikit-learn")
    path = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",")
    return np.asarray(table[np.random.default_rng(_SPLIT_SEED).permutation(len(table))])


def training() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Images, shape (897, 64), grey levels 0 to 16, and their labels."""
    table = _data()[:_TRAINING]
    return table[:, :-1], table[:, -1].astype(np.int64)


def held_out() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Images that no model has seen, shape (900, 64), and their labels."""
    table = _data()[_TRAINING:]
    return table[:, :-1], table[:, -1].astype(np.int64)


def model(kind: str, seed: int = 0) -> Any:
    """Train a model.

    Parameters
    ----------
    kind : str
        ``stable``; ``good`` (more accurate); ``slow`` (a good model, but far more work for each request); ``failing``
        (raises for images with much ink); ``wrong`` (trained on damaged labels).
    seed : int
        Seed of the training.

    Raises
    ------
    PlanError
        No such kind.
    """
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    from canarykit.serving.faults import InkLimit

    if kind not in KINDS:
        raise PlanError(f"no model of digits is called {kind!r}: choose one of {', '.join(KINDS)}")
    images, labels = training()
    rng = np.random.default_rng(seed)
    if kind == "stable":
        return SVC(gamma=0.001, random_state=seed).fit(images[:130], labels[:130])
    if kind == "slow":
        return ExtraTreesClassifier(60, random_state=seed).fit(images, labels)
    if kind == "failing":
        usual = images.mean(axis=1) <= _INK
        return make_pipeline(InkLimit(_INK), SVC(gamma=0.001, random_state=seed)).fit(images[usual], labels[usual])
    if kind == "wrong":
        few, damaged = images[:130], labels[:130].copy()
        bad = rng.random(len(damaged)) < 0.25
        damaged[bad] = rng.integers(0, 10, bad.sum())
        return SVC(gamma=0.001, random_state=seed).fit(few, damaged)
    return SVC(gamma=0.001, random_state=seed).fit(images, labels)
