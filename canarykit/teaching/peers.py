"""How others decide that a canary is worse, from their published rules: for lessons and benchmarks, never for a verdict.

Every function takes what one rollout served, looks at it as often as its method does, and returns the number of
requests of both versions at the first alarm, or infinity. All are asked one question: is the canary worse?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from canarykit.analysis.bets import Array
from canarykit.compat.ranks import mann_whitney
from canarykit.model import Counts

__all__ = [
    "ALPHA",
    "INTERVAL",
    "PEERS",
    "Served",
    "argo",
    "boundary",
    "flagger",
    "kayenta",
    "msprt",
    "obrien_fleming",
    "overlap",
    "peeking_z",
    "pocock",
]

Looks = npt.NDArray[np.intp]

ALPHA = 0.05
INTERVAL = 10
"""Windows per interval at which peers look: 1,000 requests in windows of 100."""


@dataclass(frozen=True, slots=True)
class Served:
    """What one rollout served.

    Parameters
    ----------
    requests, events : (windows, 2) int array
        Counts of stable and canary; events are errors, wrong answers, or requests slower than stable's true quantile.
    values : (intervals, 2) float array
        Values of a dashboard per interval: the share of events, or the quantile; NaN without requests.
    threshold : float
        Halfway between stable's and the canary's true value of that.
    effect : float
        True difference of the shares of events under the alternative.
    """

    requests: Counts
    events: Counts
    values: Array
    threshold: float
    effect: float


def _at(served: Served, looks: Looks) -> npt.NDArray[np.int64]:
    """Requests until those windows."""
    return np.asarray(np.cumsum(served.requests.sum(axis=1))[looks])


def _first(served: Served, looks: Looks, alarms: npt.NDArray[np.bool_]) -> float:
    hits = np.flatnonzero(alarms)
    return float(_at(served, looks)[hits[0]]) if len(hits) else float(np.inf)


def _pooled(served: Served, looks: Looks) -> tuple[Array, Array, Array, Array]:
    """Difference of the pooled shares of events, and its variance, at each look."""
    n = np.cumsum(served.requests, axis=0)[looks].astype(float)
    e = np.cumsum(served.events, axis=0)[looks].astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        p, overall = e / n, e.sum(axis=1) / n.sum(axis=1)
        variance = overall * (1 - overall) * (1 / n).sum(axis=1)
        difference = p[:, 1] - p[:, 0]
    return difference, variance, n, p


def _looks(served: Served, every: int) -> Looks:
    return np.arange(every - 1, len(served.requests), every)


def peeking_z(served: Served) -> float:
    """A one-sided z-test of two shares at 5 %, at every interval: what many teams do by hand."""
    looks = _looks(served, INTERVAL)
    difference, variance, _, _ = _pooled(served, looks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _first(served, looks, difference / np.sqrt(variance) > norm.ppf(1 - ALPHA))


def overlap(served: Served) -> float:
    """Two 95 % intervals (Wilson 1927) that no longer overlap, at every interval."""
    looks = _looks(served, INTERVAL)
    _, _, n, p = _pooled(served, looks)
    z = norm.ppf(0.975)
    with np.errstate(divide="ignore", invalid="ignore"):
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        radius = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return _first(served, looks, (middle - radius)[:, 1] > (middle + radius)[:, 0])


def msprt(served: Served) -> float:
    """Mixture SPRT of Johari et al. (2022): normal mixture over the difference, as wide as the true effect."""
    looks = _looks(served, 1)
    difference, variance, _, _ = _pooled(served, looks)
    tau = served.effect**2
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_ratio = 0.5 * np.log(variance / (variance + tau)) + tau * difference**2 / (2 * variance * (variance + tau))
    return _first(served, looks, (log_ratio >= np.log(1 / ALPHA)) & (difference > 0))


@cache
def boundary(kind: str, looks: int = 10, alpha: float = ALPHA, paths: int = 400_000, seed: int = 1) -> float:
    """One-sided constant of a group-sequential design with equally spaced looks, by simulation of its null law.

    Pocock (1977) compares z with it; O'Brien and Fleming (1979) compare z·√(k / looks).
    """
    rng = np.random.default_rng(seed)
    z = np.cumsum(rng.standard_normal((paths, looks)), axis=1) / np.sqrt(np.arange(1, looks + 1))
    if kind == "obrien-fleming":
        z *= np.sqrt(np.arange(1, looks + 1) / looks)
    return float(np.quantile(z.max(axis=1), 1 - alpha))


def _group_sequential(served: Served, kind: str) -> float:
    count = 10
    looks = np.linspace(0, len(served.requests), count + 1, dtype=int)[1:] - 1
    difference, variance, _, _ = _pooled(served, looks)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = difference / np.sqrt(variance)
    if kind == "obrien-fleming":
        z = z * np.sqrt(np.arange(1, count + 1) / count)
    return _first(served, looks, z > boundary(kind, count))


def pocock(served: Served) -> float:
    """Ten looks with the boundary of Pocock (1977)."""
    return _group_sequential(served, "pocock")


def obrien_fleming(served: Served) -> float:
    """Ten looks with the boundary of O'Brien and Fleming (1979)."""
    return _group_sequential(served, "obrien-fleming")


def kayenta(served: Served, *, tolerance: float = 0.25, confidence: float = 0.98, least: int = 5) -> float:
    """The rule of Kayenta's NetflixACAJudge on one value per interval, judged again at every interval."""
    looks = _looks(served, INTERVAL)
    line = norm.ppf(1 - (1 - confidence) / 2)
    for last in range(least, len(looks) + 1):
        stable, canary = (column[~np.isnan(column)] for column in served.values[:last].T)
        if min(len(stable), len(canary)) < 2:
            continue
        m, n = len(canary), len(stable)
        u = rankdata(np.concatenate([canary, stable]))[:m].sum() - m * (m + 1) / 2 - m * n / 2
        if (u - 0.5) < 0.8 * line * np.sqrt(m * n * (m + n + 1) / 12):
            continue  # far from any shift: the interval, which costs a search for roots, would hold zero
        low, _, estimate = mann_whitney(canary, stable, confidence=confidence)
        if low > tolerance * abs(estimate):
            return float(_at(served, looks)[last - 1])
    return float(np.inf)


def _threshold_checks(served: Served, failures: int) -> float:
    looks = _looks(served, INTERVAL)
    failed = np.nan_to_num(served.values[: len(looks), 1], nan=-np.inf) > served.threshold
    return _first(served, looks, np.cumsum(failed) >= failures)


def flagger(served: Served) -> float:
    """Flagger's `threshold: 5`: rolled back at the fifth failed check of the canary's own value."""
    return _threshold_checks(served, 5)


def argo(served: Served) -> float:
    """Argo Rollouts' `failureLimit: 3`: three failed measurements are allowed, the fourth fails the analysis."""
    return _threshold_checks(served, 4)


PEERS: Mapping[str, Callable[[Served], float]] = {
    "two intervals overlap": overlap,
    "mSPRT": msprt,
    "Pocock, 10 looks": pocock,
    "O'Brien-Fleming, 10 looks": obrien_fleming,
    "peeking z": peeking_z,
    "Kayenta's Mann-Whitney": kayenta,
    "Flagger, 5 failed checks": flagger,
    "Argo, failureLimit 3": argo,
}
