"""Guardrails about what a version answers: accuracy, scores and predicted classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from canarykit.errors import PlanError
from canarykit.model import ROLES, Counts, Guardrail, Metric

__all__ = ["ANSWER_CELLS", "CONFUSION", "accuracy", "classes", "confusion_cells", "score"]

ANSWER_CELLS = ("right", "wrong")
CONFUSION = "confusion"
"""Table of a window that `confusion_cells` counts; its classes are in the journal's facts."""


def confusion_cells(answers: Iterable[tuple[str, Any, Any]], names: Sequence[Any]) -> Counts:
    """Count labelled answers by label and by what was said.

    Parameters
    ----------
    answers : iterable of (version, label, said)
        Version is stable or canary; others, and labels that are no class, are not counted.
    names : sequence of k
        The classes.

    Returns
    -------
    (2, k * (k + 1)) int array
        Per label a row of k + 1 cells: what was said; the last is for what is no class.
    """
    index = {name: at for at, name in enumerate(names)}
    columns = len(names) + 1
    cells = np.zeros((len(ROLES), len(names) * columns), dtype=np.int64)
    for role, label, said in answers:
        if role in ROLES and label in index:
            known = isinstance(said, str | int | float) and said in index
            cells[ROLES.index(role), index[label] * columns + (index[said] if known else len(names))] += 1
    return cells


def accuracy(
    *,
    tolerate: float = 1.0,
    margin: float = 1.5,
    ceiling: float | None = 0.005,
    mde: float | None = None,
    limit: float | None = 0.9,
) -> Guardrail:
    """Share of labelled requests that were answered rightly; what is compared is the share of *wrong* answers.

    A labelled request that was refused, failed, or answered with what cannot be read is not right.

    Parameters
    ----------
    tolerate, margin, ceiling, mde, limit
        Ratios and shares of wrong answers; see `Guardrail`. The ceiling lets a version pass that is hardly ever wrong. A
        stable version that is wrong in more than nine answers of ten is no reference.
    """
    metric = Metric("accuracy", "answers", "rate", ANSWER_CELLS, shown="good")
    return Guardrail(metric, tolerate=tolerate, margin=margin, ceiling=ceiling, mde=mde, limit=limit)


def score(name: str, values: tuple[float, ...], *, margin: float = 0.05) -> Guardrail:
    """Mean of a score in [0, 1], higher is better: a confidence, or what a judge gave.

    Parameters
    ----------
    name : str
        Name of the metric; also the table of a window that it reads.
    values : tuple of float
        Score of each bin.
    margin : float
        Promote only when the mean is shown to be lower by no more than this.

    Raises
    ------
    PlanError
        Fewer than two bins, or scores outside [0, 1].
    """
    if len(values) < 2 or not all(0 <= value <= 1 for value in values):
        raise PlanError(f"{name}: scores need two bins or more with values between 0 and 1, not {values}")
    return Guardrail(Metric(name, name, "score", tuple(values), shown="good"), tolerate=0.0, margin=margin)


def classes(name: str, names: tuple[str, ...], *, margin: float = 0.05) -> Guardrail:
    """Shares of predicted classes: that the canary predicts as stable does.

    Parameters
    ----------
    name : str
        Name of the metric; also the table of a window that it reads.
    names : tuple of str
        The classes.
    margin : float
        Promote only when no share is shown to differ by more than this.

    Raises
    ------
    PlanError
        Fewer than two classes.
    """
    if len(set(names)) < 2:
        raise PlanError(f"{name}: classes need two names or more, not {names}")
    return Guardrail(Metric(name, name, "classes", tuple(names)), tolerate=0.0, margin=margin)
