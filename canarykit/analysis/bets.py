"""What is bet on: ratios of likelihood per outcome cell, chosen before the labels are seen.

A bet k claims that a request with outcome j is r_k(j) times likelier under the canary. All are returned as logarithms,
shape (bets, cells), with the logarithm of their prior, shape (bets,). Where r does not decrease as outcomes get worse,
the evidence holds against the whole null "canary no worse". Source: sections 1 and 2 of docs/statistics.md, after
Lindon and Malek (2022) and Turner, Ly and Grünwald (2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import isotonic_regression

__all__ = [
    "EFFECTS",
    "Array",
    "Bets",
    "class_bets",
    "drawn_without_replacement",
    "latency_bets",
    "log_prior",
    "log_sum",
    "log_wealth",
    "log_wealth_of_cells",
    "mixture",
    "score_bets",
    "slowed",
]

Array = npt.NDArray[np.float64]
Bets = tuple[Array, Array]
"""Log ratios (bets, cells) and log prior (bets,)."""

EFFECTS: Array = np.linspace(0.05, 3.35, 23)
"""Logarithms of the ratios of two rates that are bet on."""

_CLIP = float(np.log(1e3))
_SMOOTHING = 0.5
_SPREAD = 0.05
_SLOWDOWNS = (1.025, 1.05, 1.1, 1.2, 1.45, 2.1)
_STRETCHES = (1.5, 2.7)
_STRETCHED_ABOVE = 0.9
_TAILS = (0.3, 0.1, 0.03, 0.01, 0.003)
_EXCESSES = (1.5, 4.0)
_MASSES = (0.4, 0.4, 0.2)
_SCORE_SLOPES = (0.5, 1.0, 2.0, 4.0, 8.0)
_CLASS_RATIOS = (0.25, 0.5, 0.67, 1.5, 2.0, 4.0)
_CLASS_STRENGTH = 50.0


def log_sum(values: Array) -> Array:
    """Logarithm of a sum of exponentials over the last axis (scipy's does the same at ten times the overhead)."""
    most = values.max(axis=-1, keepdims=True)
    return np.asarray(most[..., 0] + np.log(np.exp(values - most).sum(axis=-1)))


def mixture(wealth: Array, prior: Array) -> float:
    """Log wealth of a mixture of bets: logsumexp over bets of wealth + log prior."""
    return float(log_sum(wealth + prior))


def log_prior(effects: Array) -> Array:
    """Logarithm of a half-normal prior over log ratios, summing to one.

    Notes
    -----
    Section 1 of docs/statistics.md, "Prior over effects".
    """
    raw = -0.5 * effects**2
    return np.asarray(raw - log_sum(raw), dtype=float)


def log_wealth(canary: float, total: float, share: float, log_ratios: Array) -> Array:
    """Log wealth that each bet on one cell gains from one window.

    Parameters
    ----------
    canary, total : float
        Requests with that outcome: of the canary, and of both versions.
    share : float
        Share of the window's requests that went to the canary, 0 < share < 1.
    log_ratios : (bets,) float array
        Natural logarithm of the ratio that each bet claims.

    Returns
    -------
    (bets,) float array, natural log

    Notes
    -----
    The one formula, section 1 of docs/statistics.md.
    """
    return canary * log_ratios - total * np.log1p(share * np.expm1(log_ratios))


def log_wealth_of_cells(counts: Array, share: float, log_ratios: Array) -> Array:
    """Log wealth that each bet on all cells gains from one window: the same formula, summed over the cells.

    Parameters
    ----------
    counts : (2, cells) array
        Requests per version and cell, stable first.
    share : float
        Share of the window's requests that went to the canary, 0 < share < 1.
    log_ratios : (bets, cells) float array
        Natural logarithm of the ratio that each bet claims of each cell.

    Returns
    -------
    (bets,) float array, natural log

    Notes
    -----
    The one formula, section 1 of docs/statistics.md.
    """
    used = np.flatnonzero(counts.any(axis=0))
    ratios, totals = log_ratios[:, used], counts[:, used].sum(axis=0)
    gained = ratios @ counts[1, used] - np.log1p(share * np.expm1(ratios)) @ totals
    if totals.sum() and abs(share * totals.sum() - counts[1].sum()) < 1e-9:
        gained -= drawn_without_replacement(totals, share, ratios)
    return np.asarray(gained)


def drawn_without_replacement(totals: Array, share: float, log_ratios: Array) -> Array:
    """What a bet must give back when the share is the window's own: its labels are then drawn without replacement.

    Bets that are above one in some cells and below one in others would gain a little from that in every window; those
    on one side only lose by it, and are left as they are.

    Parameters
    ----------
    totals : (cells,) array
        Requests of both versions.
    share : float
        The canary's part of them.
    log_ratios : (bets, cells) float array
        Logarithm of the likelihood ratio of each bet and cell, natural log.

    Returns
    -------
    (bets,) float array, natural log, 0 or more

    Notes
    -----
    The expected factor is the chance that a Poisson-binomial law hits the canary's requests over the chance that the
    binomial does; both by their normal approximations.
    """
    labels = share * np.exp(log_ratios) / (1 + share * np.expm1(log_ratios))
    spread = np.maximum((labels * (1 - labels)) @ totals, 1e-12)
    total = totals.sum()
    away = labels @ totals - total * share
    return np.asarray(np.maximum(0.5 * np.log(total * share * (1 - share) / spread) - away**2 / (2 * spread), 0.0))


def slowed(past: Array, edges: Sequence[float], factors: Sequence[float] | Array) -> Array:
    """Log ratios of the buckets' shares when every duration is multiplied, shape (factors, cells).

    Parameters
    ----------
    past : (cells,) float array
        Stable's requests per bucket before the window that is judged.
    edges : sequence of float
        Upper edges of the buckets, rising; the last may be infinity.
    factors : sequence of float
        Factors by which durations are multiplied; log-linear interpolation inside buckets.

    Notes
    -----
    Section 2 of docs/statistics.md, the first family of latency.
    """
    shares, points, cumulative = _distribution(past, edges)
    return np.array([_moved(points - by, shares, points, cumulative) for by in np.log(factors)])


def _distribution(past: Array, edges: Sequence[float]) -> tuple[Array, Array, Array]:
    """Shares of the buckets, logarithms of their edges (with a lowest one), and the distribution function there."""
    grid = np.log(_finite(edges))
    points = np.concatenate([[grid[0] - (grid[1] - grid[0])], grid])
    shares = _smoothed(past, points)
    return shares, points, np.concatenate([[0.0], np.cumsum(shares)])


def _smoothed(past: Array, points: Array) -> Array:
    """Shares of the buckets, with a kernel (Silverman 1986) as wide as the counts are few, in log units.

    A bet is a ratio of neighbouring buckets: the noise of raw counts would cost more than the bet can win.
    """
    count, total = len(past), past.sum()
    spread = _SPREAD / count  # one request's worth, so that no bucket is impossible
    if total < 2:
        return np.asarray((past + spread) / (total + _SPREAD))
    middles = (points[:-1] + points[1:]) / 2
    cumulative = np.cumsum(past) / total
    quartiles = np.interp([0.25, 0.75], cumulative, points[1:])
    mean = past @ middles / total
    deviation = float(np.sqrt(past @ (middles - mean) ** 2 / total))
    width = 0.9 * min(deviation, float(quartiles[1] - quartiles[0]) / 1.34) * total**-0.2
    if width <= 0:
        return np.asarray((past + spread) / (total + _SPREAD))
    kernel = np.exp(-0.5 * ((middles[:, None] - middles[None, :]) / width) ** 2) * np.diff(points)[:, None]
    kernel[:, -1] = kernel[-1, :] = 0.0  # the open bucket stays what it is
    kernel[-1, -1] = 1.0
    return np.asarray((kernel / kernel.sum(axis=0) @ past + spread) / (total + _SPREAD))


def _moved(origins: Array, shares: Array, points: Array, cumulative: Array) -> Array:
    """Log ratios when what ends up at each edge came from `origins`, in log units."""
    values = np.interp(origins, points, cumulative)
    values[0], values[-1] = 0.0, 1.0
    return np.asarray(np.log(np.maximum(np.diff(values), 1e-12) / shares))


def latency_bets(past: Array, edges: Sequence[float], mde: float | None = None) -> Bets:
    """Bets that the canary is slower, in three families.

    Whole slow-downs; stretches of the slowest tenth; exceedances of a threshold. No ratio decreases from one bucket to the
    next slower one, so the evidence is one-sided. The stretches are few: each bet more costs all others of the mass, and
    whatever lies between slow-downs and exceedances is near enough to one of the two.

    Parameters
    ----------
    past, edges
        See `slowed`.
    mde : float, optional
        A slowdown of interest; takes half the mass.

    Notes
    -----
    Section 2 of docs/statistics.md, "Latency and other histograms"; Lindon and Malek (2022).
    """
    shares, points, cumulative = _distribution(past, edges)
    slower = slowed(past, edges, _SLOWDOWNS)
    start = float(np.interp(_STRETCHED_ABOVE, cumulative, points))
    stretched = [
        _moved(np.where(points > start, start + (points - start) / c, points), shares, points, cumulative) for c in _STRETCHES
    ]
    exceeding = []
    for tail in _TAILS:
        first = int(np.searchsorted(cumulative[1:], 1 - tail))
        beyond = np.arange(len(shares)) > first
        share = float(shares[beyond].sum())
        for excess in _EXCESSES:
            ratio = min(excess, 0.99 / share) if share else excess
            rest = max((1 - ratio * share) / (1 - share), 1e-3) if share < 1 else 1.0
            exceeding.append(np.where(beyond, np.log(ratio), np.log(rest)))
    families = [slower, np.array(stretched), np.array(exceeding)]
    ratios = _monotone(np.concatenate(families), shares)
    prior = np.concatenate(
        [np.full(len(family), np.log(mass / len(family))) for family, mass in zip(families, _MASSES, strict=True)]
    )
    if mde is not None:
        stated = _monotone(slowed(past, edges, [mde]), shares)
        ratios, prior = np.concatenate([ratios, stated]), np.append(prior, 0.0) + np.log(0.5)
    return ratios, prior


def _monotone(log_ratios: Array, shares: Array) -> Array:
    """Nearest ratios that do not decrease as outcomes get worse, where buckets weigh what they hold.

    A running maximum would do for validity, but one noisy bucket at the fast end would mute all the others.
    """
    rows = [isotonic_regression(row, weights=shares).x for row in np.clip(log_ratios, -_CLIP, _CLIP)]
    return np.asarray(rows)


def _finite(edges: Sequence[float]) -> Array:
    """Edges with the open last bucket closed, one bucket's width further."""
    values = np.asarray(edges, dtype=float)
    if np.isinf(values[-1]):
        values = np.append(values[:-1], values[-2] * (values[-2] / values[-3] if len(values) > 2 else 2.0))
    return values


def score_bets(past: Array, values: Sequence[float], *, worse_only: bool = True) -> Bets:
    """Bets that the canary's scores in [0, 1] are lower (or, of both kinds, that they differ).

    Parameters
    ----------
    past : (cells,) float array
        Stable's requests per bin before the window that is judged.
    values : sequence of float
        Score of each bin, 0 to 1.
    worse_only : bool
        Bet on lower scores only.

    Notes
    -----
    Section 2 of docs/statistics.md, "Score in [0, 1]": exponential tilts of stable's past shares.
    """
    shares = (past + _SMOOTHING) / (past + _SMOOTHING).sum()
    y = np.asarray(values, dtype=float)
    slopes = np.array([-eta for eta in _SCORE_SLOPES] + ([] if worse_only else list(_SCORE_SLOPES)))
    raw = slopes[:, None] * y[None, :]
    ratios = raw - np.log((shares * np.exp(raw)).sum(axis=1, keepdims=True))
    return np.clip(ratios, -_CLIP, _CLIP), np.full(len(slopes), -np.log(len(slopes)))


def class_bets(past: Array, past_canary: Array) -> Bets:
    """Bets that predicted classes are distributed differently.

    Half the mass on one class that is more or less frequent; half on the canary's past shares, shrunk to stable's.

    Parameters
    ----------
    past, past_canary : (classes,) float array
        Requests per class before the window that is judged, of stable and of the canary.

    Notes
    -----
    Section 2 of docs/statistics.md, "Classes"; Turner, Ly and Grünwald (2024).
    """
    shares = (past + _SMOOTHING) / (past + _SMOOTHING).sum()
    count = len(shares)
    single = []
    for j in range(count):
        for ratio in _CLASS_RATIOS:
            bounded = min(ratio, 0.99 / shares[j])
            row = np.full(count, np.log((1 - bounded * shares[j]) / (1 - shares[j]))) if count > 1 else np.zeros(1)
            row[j] = np.log(bounded)
            single.append(row)
    plugged = (past_canary + _CLASS_STRENGTH * shares) / (past_canary.sum() + _CLASS_STRENGTH)
    ratios = np.clip(np.array([*single, np.log(plugged / shares)]), -_CLIP, _CLIP)
    prior = np.append(np.full(len(single), np.log(0.5 / len(single))), np.log(0.5))
    return ratios, prior
