"""Guardrails about how a version answers over HTTP: errors, latency, refused and denied requests."""

from __future__ import annotations

import numpy as np

from canarykit.errors import PlanError
from canarykit.model import Counts, Guardrail, Metric

__all__ = [
    "DENIED_CELLS",
    "LATENCY_EDGES",
    "OUTCOME_CELLS",
    "REFUSED_CELLS",
    "default",
    "denied",
    "error_rate",
    "latency",
    "latency_cells",
    "refused",
]

OUTCOME_CELLS = ("ok", "error")
REFUSED_CELLS = ("accepted", "refused")
DENIED_CELLS = ("admitted", "denied")

_OF_CLIENTS = 0.1
"""Weight of guardrails about refusals: a version that refuses is found at once, so they need little of the error budget."""

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
    *,
    tolerate: float = 1.0,
    margin: float = 1.5,
    ceiling: float | None = 0.005,
    mde: float | None = None,
    limit: float | None = 0.1,
) -> Guardrail:
    """Share of requests that the version failed (5xx, a failing gRPC status, no answer, or one that broke off).

    Parameters
    ----------
    tolerate, margin, ceiling, mde, limit
        See `Guardrail`. A stable version that fails more than a tenth of its requests is no reference.
    """
    metric = Metric("error rate", "outcome", "rate", OUTCOME_CELLS)
    return Guardrail(metric, tolerate=tolerate, margin=margin, ceiling=ceiling, mde=mde, limit=limit)


def default() -> tuple[Guardrail, ...]:
    """Guardrails of a rollout that names none: error rate, p95 latency, refused and denied requests."""
    return error_rate(), latency(), refused(), denied()


def refused(
    *,
    tolerate: float = 1.0,
    margin: float = 2.0,
    ceiling: float | None = 0.005,
    mde: float | None = None,
    limit: float | None = 0.5,
) -> Guardrail:
    """Share of requests that the version did not accept as they were sent (400, 404, 405, 413, 415, 422, …).

    Clients cause them, and cause them in both versions alike: a new version that refuses more of the same requests has
    changed what it accepts. It has a tenth of the error budget that the error rate has.

    Parameters
    ----------
    tolerate, margin, ceiling, mde, limit
        See `Guardrail`. A stable version that refuses more than half of its requests is no reference.
    """
    metric = Metric("refused requests", "refused", "rate", REFUSED_CELLS)
    return Guardrail(metric, tolerate=tolerate, margin=margin, ceiling=ceiling, mde=mde, weight=_OF_CLIENTS, limit=limit)


def denied(
    *,
    tolerate: float = 1.0,
    margin: float = 2.0,
    ceiling: float | None = 0.005,
    mde: float | None = None,
    limit: float | None = 0.5,
) -> Guardrail:
    """Share of requests that the version did not admit (401, 403, 407), or not so many of (429).

    It has a tenth of the error budget that the error rate has.

    Parameters
    ----------
    tolerate, margin, ceiling, mde, limit
        See `Guardrail`. A stable version that denies more than half of its requests is no reference.
    """
    metric = Metric("denied requests", "denied", "rate", DENIED_CELLS)
    return Guardrail(metric, tolerate=tolerate, margin=margin, ceiling=ceiling, mde=mde, weight=_OF_CLIENTS, limit=limit)


def latency(quantile: float = 0.95, *, tolerate: float = 1.2, margin: float = 1.5, mde: float | None = None) -> Guardrail:
    """Time from the request's arrival at the gateway to the end of its answer, at a quantile.

    Two *instances* of one version easily differ by some percent, so a slowdown below `tolerate`
    is shown but is no alarm.

    Parameters
    ----------
    quantile : float
        Between 0 and 1; 0.95 by default.
    tolerate, margin, mde
        Ratios of the quantile; see `Guardrail`.

    Raises
    ------
    PlanError
        The quantile is not between 0 and 1.
    """
    if not 0 < quantile < 1:
        raise PlanError(f"latency takes a quantile between 0 and 1 such as 0.95, not {quantile}")
    metric = Metric(f"p{100 * quantile:g} latency", "latency", "quantile", LATENCY_EDGES, "s", quantile)
    return Guardrail(metric, tolerate=tolerate, margin=margin, mde=mde)
