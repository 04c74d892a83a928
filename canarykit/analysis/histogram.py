"""Histograms: what their counts say of quantiles and means."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from canarykit.analysis.bets import Array
from canarykit.model import Counts

__all__ = ["moments_of", "quantile_of"]


def quantile_of(cells: Counts | Array, edges: Sequence[float], quantile: float) -> float:
    """Quantile of a histogram, log-linear inside its bucket; NaN when it is empty.

    Parameters
    ----------
    cells : (cells,) array
        Requests per bucket, weighted or not.
    edges : sequence of float
        Upper edge of each bucket.
    quantile : float
        0 to 1.

    Notes
    -----
    Section 2 of docs/statistics.md: log-linear inside a bucket.
    """
    cumulative = np.cumsum(cells)
    if not cumulative[-1]:
        return float("nan")
    target = quantile * cumulative[-1]
    index = int(np.searchsorted(cumulative, target))
    if index == 0 or math.isinf(edges[index]) or edges[index - 1] <= 0:
        return float(edges[index])
    inside = (target - cumulative[index - 1]) / cells[index]
    return float(edges[index - 1] * (edges[index] / edges[index - 1]) ** inside)


def moments_of(cells: Counts | Array, values: Sequence[float] | Array) -> tuple[float, float]:
    """Mean and variance of counted values; NaN when there are none.

    Parameters
    ----------
    cells : (cells,) array
        Requests per bin.
    values : sequence of float
        Value of each bin.

    Notes
    -----
    Of counted values; the variance is that of the sample, without correction.
    """
    total = float(np.sum(cells))
    if not total:
        return float("nan"), float("nan")
    y = np.asarray(values, dtype=float)
    mean = float(cells @ y) / total
    return mean, float(cells @ (y - mean) ** 2) / total
