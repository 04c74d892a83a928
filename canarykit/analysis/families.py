"""Several questions at once: which of them alarm, when each may be looked at as often as one likes.

Evidence of several questions is combined by averages of e-values; never average p-values, and never running maxima.
Source: section 4 of docs/statistics.md; Wang and Ramdas (2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from canarykit.analysis.bets import Array

__all__ = ["closure", "e_bh"]


def closure(e: Sequence[float] | Array, weights: Sequence[float] | None = None) -> Array:
    """E-values adjusted for asking all questions: each alarms where its own adjusted value reaches 1/α.

    Parameters
    ----------
    e : (questions,) float array
        E-values.
    weights : sequence of float, optional
        Share of the error budget of each; equal by default.

    Returns
    -------
    (questions,) float array
        For each, the least weighted mean over all sets of questions that hold it.

    Notes
    -----
    Section 4 of docs/statistics.md; closed testing with means of e-values, Vovk and Wang (2021).
    """
    values = np.asarray(e, dtype=float)
    shares = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=float)
    adjusted = np.empty(len(values))
    for j in range(len(values)):
        # A further question lowers the mean when it is below it: the smallest come first.
        order = [k for k in np.argsort(values, kind="stable") if k != j]
        sums = shares[j] * values[j] + np.concatenate([[0.0], np.cumsum(shares[order] * values[order])])
        adjusted[j] = (sums / (shares[j] + np.concatenate([[0.0], np.cumsum(shares[order])]))).min()
    return adjusted


def e_bh(e: Sequence[float], alpha: float = 0.05) -> list[int]:
    """Questions that alarm among many, with a false discovery rate of at most α.

    Parameters
    ----------
    e : sequence of float
        E-values, in any dependence.
    alpha : float
        Expected share of false alarms among the alarms, at most.

    Returns
    -------
    list of int
        Their positions, strongest first.

    Notes
    -----
    Wang and Ramdas (2022): the largest k whose k-th largest e-value is at least m / (k α).
    """
    values = np.asarray(e, dtype=float)
    order = np.argsort(-values, kind="stable")
    enough = values[order] >= len(values) / (np.arange(1, len(values) + 1) * alpha)
    count = int(np.flatnonzero(enough)[-1]) + 1 if enough.any() else 0
    return [int(position) for position in order[:count]]
