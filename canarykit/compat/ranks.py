"""Two samples compared by ranks: the shift of location and its interval, as R and Kayenta compute them."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, rankdata

from canarykit.analysis.bets import Array

__all__ = ["common_language_effect", "mann_whitney"]

_PRECISION = 1e-4  # of the roots, absolute: R's and Kayenta's, so that the same data gives the same verdict


def mann_whitney(canary: Array, stable: Array, *, confidence: float = 0.98) -> tuple[float, float, float]:
    """Interval and Hodges-Lehmann estimate of the canary's shift of location.

    Parameters
    ----------
    canary, stable : (n,) float array
        Finite values, one at least.
    confidence : float
        Level of the interval.

    Returns
    -------
    tuple of float
        Lower end, upper end, estimate.

    Raises
    ------
    ValueError
        All values are tied once the shift is taken off: one value against one.

    Notes
    -----
    Normal approximation with corrections for ties and continuity, inverted: the ends are where the statistic of the
    shifted canary reaches the normal quantile, the estimate where it crosses zero (R's `wilcox.test`, `exact=FALSE`).
    """
    x, y = np.asarray(canary, dtype=float), np.asarray(stable, dtype=float)
    low, high = float(x.min() - y.max()), float(x.max() - y.min())
    quantile = float(norm.ppf(1 - (1 - confidence) / 2))
    ends = (_root(x, y, target, low, high) for target in (quantile, -quantile, 0.0))
    lower, upper, estimate = ends
    return lower, upper, estimate


def _root(x: Array, y: Array, target: float, low: float, high: float) -> float:
    # The statistic falls as the shift grows; beyond its range the end of the differences is taken.
    if _statistic(x - low, y) <= target:
        return low
    if _statistic(x - high, y) >= target:
        return high
    return float(brentq(lambda shift: _statistic(x - shift, y) - target, low, high, xtol=_PRECISION))


def _statistic(x: Array, y: Array) -> float:
    ranks = rankdata(np.concatenate([x, y]))
    m, n = len(x), len(y)
    away = ranks[:m].sum() - m * (m + 1) / 2 - m * n / 2
    _, ties = np.unique(ranks, return_counts=True)
    variance = m * n / 12 * ((m + n + 1) - float((ties.astype(float) ** 3 - ties).sum()) / ((m + n) * (m + n - 1)))
    if variance <= 0:
        raise ValueError("all values are tied: there is no interval")
    return float(away - 0.5 * np.sign(away)) / math.sqrt(variance)


def common_language_effect(canary: Array, stable: Array) -> float:
    """Share of pairs in which the canary's value is the larger one, ties counting half (McGraw and Wong 1992).

    Parameters
    ----------
    canary, stable : (n,) float array
        Finite values.
    """
    m, n = len(canary), len(stable)
    ranks = rankdata(np.concatenate([canary, stable]))
    return float((ranks[:m].sum() - m * (m + 1) / 2) / (m * n))
