"""Bets on labels: evidence that stays valid however often one looks.

Given that a request went badly, its label (canary or stable) is Bernoulli with the canary's share of the requests, if
the versions do not differ. A bet on the ratio λ multiplies its wealth by λ / (1 + ρ(λ − 1)) for each bad canary
request and by 1 / (1 + ρ(λ − 1)) for each bad stable one; a mixture of bets that reaches 1/α does so with
probability at most α under "no difference" (Ville). Source: Lindon and Malek (2022); `statistics.md` sections 1 to 4.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = [
    "EFFECTS",
    "Array",
    "CeilingEvidence",
    "QuantileEvidence",
    "RateEvidence",
    "log_prior",
    "log_wealth",
    "mixture",
]

Array = npt.NDArray[np.float64]

EFFECTS: Array = np.linspace(0.05, 3.35, 23)
"""Logarithms of the ratios that are bet on."""

_GRID: Array = np.linspace(-6.0, 6.0, 481)


def log_prior(effects: Array) -> Array:
    """Logarithm of a half-normal prior over log ratios, summing to one."""
    raw = -0.5 * effects**2
    return np.asarray(raw - _log_sum(raw), dtype=float)


def log_wealth(canary: float, total: float, share: float, log_ratios: Array) -> Array:
    """Log wealth that each bet gains from one window.

    Parameters
    ----------
    canary, total : float
        Bad requests of the canary, and of both versions.
    share : float
        Share of the window's requests that went to the canary, 0 < share < 1.
    log_ratios : (bets,) float array
        Natural logarithm of the ratio that each bet claims.

    Returns
    -------
    (bets,) float array, natural log
    """
    return canary * log_ratios - total * np.log1p(share * np.expm1(log_ratios))


def mixture(wealth: Array, prior: Array) -> float:
    """Log wealth of the mixture of bets: logsumexp over bets of wealth + log prior."""
    return float(_log_sum(wealth + prior))


def _log_sum(values: Array) -> Array:
    """Logarithm of a sum of exponentials over the last axis (scipy's does the same at ten times the overhead)."""
    most = values.max(axis=-1, keepdims=True)
    return np.asarray(most[..., 0] + np.log(np.exp(values - most).sum(axis=-1)))


class RateEvidence:
    """Evidence about the ratio of two rates, from the bad requests alone.

    Parameters
    ----------
    tolerate, margin : float
        Ratios to show exceeded, and not exceeded.
    mde : float, optional
        A ratio of interest; takes half the mass of the bets.
    """

    def __init__(self, tolerate: float, margin: float, mde: float | None = None) -> None:
        self._worse = np.log(tolerate) + EFFECTS
        self._prior = log_prior(EFFECTS)
        self._worse_prior = self._prior
        if mde is not None:
            self._worse = np.append(self._worse, np.log(mde))
            self._worse_prior = np.append(self._prior + np.log(0.5), np.log(0.5))
        self._safe = np.log(margin) - EFFECTS
        nulls = [np.log(tolerate), np.log(margin)]
        self._points = np.concatenate([nulls, self._worse, self._safe, _GRID])
        self._wealth = np.zeros_like(self._points)

    def update(self, canary: float, total: float, share: float) -> None:
        """Take in the bad requests of one window, with the canary's share of all its requests."""
        if total and 0 < share < 1:
            self._wealth += log_wealth(canary, total, share, self._points)

    @property
    def log_e(self) -> float:
        """Evidence that the ratio is above `tolerate`."""
        worse = self._wealth[2 : 2 + len(self._worse)]
        return mixture(worse, self._worse_prior) - float(self._wealth[0])

    @property
    def log_e_safe(self) -> float:
        """Evidence that the ratio is below `margin`."""
        start = 2 + len(self._worse)
        return mixture(self._wealth[start : start + len(self._safe)], self._prior) - float(self._wealth[1])

    @property
    def effect(self) -> float:
        """The likeliest ratio; NaN before any bad request."""
        wealth = self._wealth[-len(_GRID) :]
        if not wealth.any():
            return float("nan")
        return float(np.exp(_GRID[int(np.argmax(wealth))]))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the ratio: every λ that a two-sided mixture does not reject."""
        wealth = self._wealth[-len(_GRID) :]
        kept = np.flatnonzero(wealth > mixture(wealth, log_prior(_GRID)) + np.log(alpha))
        low, high = _GRID[max(kept[0] - 1, 0)], _GRID[min(kept[-1] + 1, len(_GRID) - 1)]
        return (
            0.0 if kept[0] == 0 else float(np.exp(low)),
            float("inf") if kept[-1] == len(_GRID) - 1 else float(np.exp(high)),
        )


class CeilingEvidence:
    """Evidence that one version's rate is below a ceiling, for events so rare that a ratio says nothing.

    Parameters
    ----------
    ceiling : float
        Share of requests.
    """

    def __init__(self, ceiling: float) -> None:
        # Half the mass on "next to never": that is the usual case where a ceiling is asked for.
        self._rates = ceiling * np.exp(-np.append(EFFECTS, 6.0))
        self._prior = np.append(log_prior(EFFECTS), 0.0) + np.log(0.5)
        self._ceiling = ceiling
        self._wealth = np.zeros_like(self._rates)

    def update(self, bad: float, requests: float) -> None:
        """Take in one window of the canary."""
        self._wealth += bad * np.log(self._rates / self._ceiling)
        self._wealth += (requests - bad) * (np.log1p(-self._rates) - np.log1p(-self._ceiling))

    @property
    def log_e(self) -> float:
        """Evidence that the rate is below the ceiling."""
        return mixture(self._wealth, self._prior)


class QuantileEvidence:
    """Evidence about the ratio of two quantiles, from a histogram with buckets of equal growth.

    For a shift of g buckets, "canary slower than b·γ^g" is as frequent as "stable slower than b" when the canary's
    quantile is γ^g times stable's. Each shift has bets in both directions. b is stable's quantile so far, and never
    comes from the window that is judged. Source: `statistics.md` section 3, after Lindon et al. (2022).

    Parameters
    ----------
    edges : sequence of float
        Upper edges of the buckets; the last is infinity, the others grow by a constant factor.
    quantile, tolerate, margin : float
        Which quantile; ratios to show exceeded (rounded up to whole buckets) and not exceeded (rounded down).
    """

    _SETTLED = 50

    def __init__(self, edges: tuple[float, ...], quantile: float, tolerate: float, margin: float) -> None:
        self.quantile = quantile
        self._log_growth = float(np.log(edges[1] / edges[0]))
        self._reach = int(np.ceil(np.log(max(4.0, 2 * margin)) / self._log_growth))
        self._shifts = np.arange(-self._reach, self._reach + 1)
        self._alarm = self._reach + int(np.ceil(np.log(tolerate) / self._log_growth - 1e-9))
        self._clear = self._reach + int(np.floor(np.log(margin) / self._log_growth + 1e-9))
        self._bets = np.concatenate([EFFECTS, -EFFECTS])
        self._prior = log_prior(EFFECTS)
        self._wealth = np.zeros((len(self._shifts), len(self._bets)))
        self._past = np.zeros(len(edges))

    def update(self, stable: Array, canary: Array) -> tuple[int, int] | None:
        """Take in one window; return requests slower than stable's quantile (stable, canary), if there was one yet."""
        n_stable, n_canary = stable.sum(), canary.sum()
        events = None
        if self._past.sum() >= self._SETTLED and n_stable and n_canary:
            edge = int(np.searchsorted(np.cumsum(self._past), self.quantile * self._past.sum()))
            slower_stable = n_stable - np.cumsum(stable)[edge]
            at = np.clip(edge + self._shifts, 0, len(stable) - 1)
            slower_canary = n_canary - np.cumsum(canary)[at]
            share = n_canary / (n_canary + n_stable)
            total = (slower_canary + slower_stable)[:, None]
            self._wealth += slower_canary[:, None] * self._bets - total * np.log1p(share * np.expm1(self._bets))
            events = int(slower_stable), int(slower_canary[self._reach])
        self._past += stable
        return events

    @property
    def _up(self) -> Array:
        return _log_sum(self._wealth[:, : len(EFFECTS)] + self._prior)

    @property
    def _down(self) -> Array:
        return _log_sum(self._wealth[:, len(EFFECTS) :] + self._prior)

    @property
    def log_e(self) -> float:
        """Evidence that the quantile's ratio is above `tolerate`."""
        return mixture(self._wealth[self._alarm, : len(EFFECTS)], self._prior)

    @property
    def log_e_safe(self) -> float:
        """Evidence that it is below `margin`."""
        return mixture(self._wealth[self._clear, len(EFFECTS) :], self._prior)

    @property
    def effect(self) -> float:
        """The ratio that speaks as much for "slower" as for "faster"; NaN before any bet."""
        balance = self._up - self._down
        rejected = np.flatnonzero(balance < 0)
        if not balance.any() or not len(rejected):
            return float("nan")
        first = int(rejected[0])
        if first == 0:
            return float(np.exp(self._shifts[0] * self._log_growth))
        inside = balance[first - 1] / (balance[first - 1] - balance[first])
        return float(np.exp((self._shifts[first - 1] + inside) * self._log_growth))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the quantile's ratio, α/2 for each side."""
        line = np.log(2 / alpha)
        too_low = np.flatnonzero(self._up >= line)
        too_high = np.flatnonzero(self._down >= line)
        low = float(np.exp(self._shifts[too_low[-1]] * self._log_growth)) if len(too_low) else 0.0
        high = float(np.exp(self._shifts[too_high[0]] * self._log_growth)) if len(too_high) else float("inf")
        return low, high
