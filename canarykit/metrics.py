"""The catalogue of guardrails: each function names a metric and what is tolerated of it."""

from __future__ import annotations

import numpy as np

from canarykit.errors import PlanError
from canarykit.model import Counts, Guardrail, Metric

__all__ = [
    "ANSWER_CELLS",
    "LATENCY_EDGES",
    "OUTCOME_CELLS",
    "accuracy",
    "error_rate",
    "latency",
    "latency_cells",
]

OUTCOME_CELLS = ("ok", "error")
ANSWER_CELLS = ("right", "wrong")

# Where we own the histogram its buckets grow by 2^(1/16), 4.4 %: a tolerated ratio is rounded to whole
# buckets, always to the cautious side, and with the usual 2^(1/8) a tolerated 1.2 would become 1.3.
BUCKETS_PER_OCTAVE = 16
SHORTEST, LONGEST = 50e-6, 120.0
_COUNT = int(np.ceil(np.log2(LONGEST / SHORTEST) * BUCKETS_PER_OCTAVE))
LATENCY_EDGES: tuple[float, ...] = (
    *(float(SHORTEST * 2 ** (i / BUCKETS_PER_OCTAVE)) for i in range(_COUNT + 1)),
    float("inf"),
)
"""Upper edges of the latency buckets in seconds; the last is infinity and holds what never ended."""


def latency_cells(seconds: np.ndarray | list[float]) -> Counts:
    """Count durations into the buckets of `LATENCY_EDGES`.

    Parameters
    ----------
    seconds : (n,) float array
        Durations in seconds; infinity for a request that never ended.

    Returns
    -------
    (cells,) int array

    Raises
    ------
    ValueError
        A duration is NaN or negative.
    """
    durations = np.asarray(seconds, dtype=float)
    if np.isnan(durations).any() or (durations < 0).any():
        raise ValueError("durations must be numbers of seconds, 0 or more; NaN is not a duration")
    cells = np.searchsorted(LATENCY_EDGES, durations, side="left")
    return np.bincount(cells, minlength=len(LATENCY_EDGES)).astype(np.int64)


def error_rate(
    *, tolerate: float = 1.0, margin: float = 1.5, ceiling: float | None = 0.005, mde: float | None = None
) -> Guardrail:
    """Share of requests that the version failed (5xx, or no answer).

    Parameters
    ----------
    tolerate, margin, ceiling, mde
        As in `Guardrail`.
    """
    metric = Metric("error rate", "outcome", "rate", OUTCOME_CELLS)
    return Guardrail(metric, tolerate=tolerate, margin=margin, ceiling=ceiling, mde=mde)


def accuracy(*, tolerate: float = 1.0, margin: float = 1.5, mde: float | None = None) -> Guardrail:
    """Share of answers that agree with the label; what is compared is the share of *wrong* ones.

    Parameters
    ----------
    tolerate, margin, mde
        As in `Guardrail`, ratios of wrong answers.
    """
    metric = Metric("accuracy", "answers", "rate", ANSWER_CELLS, shown="good")
    return Guardrail(metric, tolerate=tolerate, margin=margin, mde=mde)


def latency(quantile: float = 0.95, *, tolerate: float = 1.2, margin: float = 1.5, mde: float | None = None) -> Guardrail:
    """Time from the request's arrival at the gateway to the end of its answer, at a quantile.

    Two *instances* of one version easily differ by some percent, so a slowdown below `tolerate`
    is shown but is no alarm.

    Parameters
    ----------
    quantile : float
        Between 0 and 1; 0.95 by default.
    tolerate, margin, mde
        As in `Guardrail`, ratios of the quantile.

    Raises
    ------
    PlanError
        The quantile is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise PlanError(f"latency takes a quantile between 0 and 1 such as 0.95, not {quantile}")
    metric = Metric(f"p{100 * quantile:g} latency", "latency", "quantile", LATENCY_EDGES, "s", quantile)
    return Guardrail(metric, tolerate=tolerate, margin=margin, mde=mde)
