"""Evidence that stays valid however often one looks: bets on labels, added up.

Given that a request went badly, its label (canary or stable) is Bernoulli with the canary's share of the requests, if
the versions do not differ. A bet on the ratio λ multiplies its wealth by λ / (1 + ρ(λ − 1)) for each bad canary
request and by 1 / (1 + ρ(λ − 1)) for each bad stable one; a mixture of bets that reaches 1/α does so with
probability at most α under "no difference" (Ville). Source: Lindon and Malek (2022); sections 1 to 4 of the statistics
design. State is a few arrays, and goes through JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from canarykit.analysis.bets import (
    EFFECTS,
    Array,
    Bets,
    drawn_without_replacement,
    log_prior,
    log_sum,
    log_wealth,
    log_wealth_of_cells,
    mixture,
)
from canarykit.analysis.state import Stateful

__all__ = ["CeilingEvidence", "LabelEvidence", "QuantileEvidence", "RateEvidence", "threshold"]

_GRID: Array = np.linspace(-6.0, 6.0, 481)


class RateEvidence(Stateful):
    """Evidence about the ratio of two rates.

    Parameters
    ----------
    tolerate, margin : float
        Ratios to show exceeded, and not exceeded.
    mde : float, optional
        A ratio of interest; takes half the mass of the bets.
    both_cells : bool
        Bet on the good requests, too: for rates that are not small, and exact only when 1 is tolerated.

    Notes
    -----
    Sections 1 to 4 of docs/statistics.md; Lindon and Malek (2022).
    """

    _STATE = ("_wealth", "_past")

    def __init__(self, tolerate: float, margin: float, mde: float | None = None, *, both_cells: bool = False) -> None:
        self._worse = np.log(tolerate) + EFFECTS
        self._prior = log_prior(EFFECTS)
        self._worse_prior = self._prior
        if mde is not None:
            self._worse = np.append(self._worse, np.log(mde))
            self._worse_prior = np.append(self._prior + np.log(0.5), np.log(0.5))
        self._safe = np.log(margin) - EFFECTS
        nulls = [np.log(tolerate), np.log(margin)]
        self._points = np.concatenate([nulls, self._worse, self._safe, _GRID])
        self._growth = np.expm1(self._points)
        self._of_worse = slice(2, 2 + len(self._worse))
        self._of_safe = slice(2 + len(self._worse), 2 + len(self._worse) + len(self._safe))
        self._both = both_cells and tolerate == 1
        self._wealth = np.zeros_like(self._points)
        self._past = np.zeros(2)
        self._interval_prior = log_prior(_GRID)

    def update(self, canary: float, total: float, share: float, served: tuple[float, float] = (0, 0)) -> None:
        """Take in one window.

        Parameters
        ----------
        canary, total : float
            Bad requests, of the canary and of both versions.
        share : float
            The canary's share of all requests of the window.
        served : tuple of float
            Requests of stable and of the canary; only needed when both cells are bet on.
        """
        if not 0 < share < 1:
            return
        if total:
            self._wealth += canary * self._points - total * np.log1p(share * self._growth)
        if self._both:
            self._bet_on_good(canary, total, share, served)

    def _bet_on_good(self, canary: float, total: float, share: float, served: tuple[float, float]) -> None:
        requests = sum(served)
        if self._past[1] >= 50 and 0 < self._past[0] < self._past[1]:
            p = self._past[0] / self._past[1]
            ratios = np.log(np.maximum(1 - np.exp(self._worse) * p, 1e-3) / (1 - p))
            self._wealth[self._of_worse] += log_wealth(served[1] - canary, requests - total, share, ratios)
            if abs(share * requests - served[1]) < 1e-9:
                cells = np.stack([ratios, self._worse], axis=1)
                self._wealth[self._of_worse] -= drawn_without_replacement(np.array([requests - total, total]), share, cells)
        self._past += total, requests

    @property
    def log_e(self) -> float:
        """Evidence that the ratio is above `tolerate`."""
        return mixture(self._wealth[self._of_worse], self._worse_prior) - float(self._wealth[0])

    @property
    def log_e_safe(self) -> float:
        """Evidence that the ratio is below `margin`."""
        return mixture(self._wealth[self._of_safe], self._prior) - float(self._wealth[1])

    @property
    def effect(self) -> float:
        """The likeliest ratio; NaN before any bad request."""
        wealth = self._wealth[-len(_GRID) :]
        if not wealth.any():
            return float("nan")
        return float(np.exp(_GRID[int(np.argmax(wealth))]))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the ratio: every λ that a two-sided mixture does not reject, rounded outwards."""
        wealth = self._wealth[-len(_GRID) :]
        kept = np.flatnonzero(wealth > mixture(wealth, self._interval_prior) + np.log(alpha))
        low, high = _GRID[max(kept[0] - 1, 0)], _GRID[min(kept[-1] + 1, len(_GRID) - 1)]
        return (
            0.0 if kept[0] == 0 else float(np.exp(low)),
            float("inf") if kept[-1] == len(_GRID) - 1 else float(np.exp(high)),
        )

    def shown_above(self, log_line: float) -> float:
        """The largest ratio that the one-sided test rejects at a line (natural log), as it does `tolerate`; 0 when none.

        It is read off a grid whose step divides that of the bets, so that the test is the same at each ratio.
        """
        wealth = self._wealth[-len(_GRID) :]
        step = _GRID[1] - _GRID[0]
        offsets = np.round(EFFECTS / step).astype(int)
        prior = log_prior(EFFECTS)
        nulls = np.arange(len(_GRID) - offsets[-1])
        rejected = np.flatnonzero(log_sum(wealth[nulls[:, None] + offsets] + prior) - wealth[nulls] >= log_line)
        return float(np.exp(_GRID[rejected[-1]])) if len(rejected) else 0.0


class CeilingEvidence(Stateful):
    """Evidence that one version's rate is below a ceiling, for events so rare that a ratio says nothing.

    Parameters
    ----------
    ceiling : float
        Share of requests.

    Notes
    -----
    Section 4 of docs/statistics.md: likelihood ratios of a grid of rates below the ceiling against the ceiling.
    """

    _STATE = ("_wealth",)

    def __init__(self, ceiling: float) -> None:
        # Half the mass on "next to never": that is the usual case where a ceiling is asked for.
        self._rates = ceiling * np.exp(-np.append(EFFECTS, 6.0))
        self._prior = np.append(log_prior(EFFECTS), 0.0) + np.log(0.5)
        self._bad = np.log(self._rates / ceiling)
        self._good = np.log1p(-self._rates) - np.log1p(-ceiling)
        self._wealth = np.zeros_like(self._rates)

    def update(self, bad: float, requests: float) -> None:
        """Take in one window of the canary."""
        self._wealth += bad * self._bad + (requests - bad) * self._good

    @property
    def log_e(self) -> float:
        """Evidence that the rate is below the ceiling."""
        return mixture(self._wealth, self._prior)


class QuantileEvidence(Stateful):
    """Evidence about the ratio of two quantiles, from a histogram.

    For a ratio g, "canary slower than b·g" is as frequent as "stable slower than b" when the canary's quantile is g times
    stable's. Each ratio has bets in both directions. b is stable's quantile so far, and never comes from the window that
    is judged; where b·g lies inside a bucket, the edge on the cautious side is taken.
    Source: section 3 of docs/statistics.md, after Lindon et al. (2022).

    Parameters
    ----------
    edges : sequence of float
        Upper edges of the buckets, rising; the last may be infinity.
    quantile, tolerate, margin : float
        Which quantile; ratios to show exceeded (rounded up to the grid) and not exceeded (rounded down).
    """

    _STATE = ("_wealth", "_past")
    _SETTLED = 50
    _LOG_STEP = float(np.log(2) / 16)

    def __init__(self, edges: Sequence[float], quantile: float, tolerate: float, margin: float) -> None:
        self.quantile = quantile
        self._edges = np.asarray(edges, dtype=float)
        reach = int(np.ceil(np.log(max(4.0, 2 * margin)) / self._LOG_STEP))
        self._reach = reach
        self._ratios = np.exp(np.arange(-reach, reach + 1) * self._LOG_STEP)
        self._alarm = reach + int(np.ceil(np.log(tolerate) / self._LOG_STEP - 1e-9))
        self._clear = reach + int(np.floor(np.log(margin) / self._LOG_STEP + 1e-9))
        self._prior = log_prior(EFFECTS)
        self._wealth = np.zeros((2, len(self._ratios), len(EFFECTS)))
        self._past = np.zeros(len(edges))

    def update(self, stable: Array, canary: Array) -> tuple[int, int] | None:
        """Take in one window; return requests slower than stable's quantile (stable, canary), if there was one yet."""
        n_stable, n_canary = stable.sum(), canary.sum()
        events = None
        if self._past.sum() >= self._SETTLED and n_stable and n_canary:
            edge = int(np.searchsorted(np.cumsum(self._past), self.quantile * self._past.sum()))
            slower_stable = n_stable - stable[: edge + 1].sum()
            slower = n_canary - np.cumsum(canary)
            share = n_canary / (n_canary + n_stable)
            wanted = self._edges[edge] * self._ratios
            last = len(self._edges) - 1
            at_least = np.minimum(np.searchsorted(self._edges, wanted * (1 - 1e-9)), last)
            at_most = np.searchsorted(self._edges, wanted * (1 + 1e-9), side="right") - 1
            above = slower[at_least]
            below = np.where(at_most >= 0, slower[at_most], n_canary)
            for row, counts, effects in ((0, above, EFFECTS), (1, below, -EFFECTS)):
                cost = np.log1p(share * np.expm1(effects))
                self._wealth[row] += counts[:, None] * (effects - cost) - slower_stable * cost
            events = int(slower_stable), int(slower[edge])
        self._past = self._past + stable
        return events

    @property
    def log_e(self) -> float:
        """Evidence that the quantile's ratio is above `tolerate`."""
        return mixture(self._wealth[0, self._alarm], self._prior)

    @property
    def log_e_safe(self) -> float:
        """Evidence that it is below `margin`."""
        return mixture(self._wealth[1, self._clear], self._prior)

    @property
    def effect(self) -> float:
        """The ratio that speaks as much for "slower" as for "faster"; NaN before any bet."""
        slower, faster = log_sum(self._wealth + self._prior)
        balance = slower - faster
        rejected = np.flatnonzero(balance < 0)
        if not balance.any() or not len(rejected):
            return float("nan")
        first = int(rejected[0])
        if first == 0:
            return float(self._ratios[0])
        inside = balance[first - 1] / (balance[first - 1] - balance[first])
        return float(self._ratios[first - 1] * np.exp(inside * self._LOG_STEP))

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the quantile's ratio, α/2 for each side."""
        slower, faster = log_sum(self._wealth + self._prior)
        line = np.log(2 / alpha)
        too_low, too_high = np.flatnonzero(slower >= line), np.flatnonzero(faster >= line)
        low = float(self._ratios[too_low[-1]]) if len(too_low) else 0.0
        high = float(self._ratios[too_high[0]]) if len(too_high) else float("inf")
        return low, high


class LabelEvidence(Stateful):
    """Evidence that outcomes of any kind are distributed differently: histograms, scores, classes.

    Parameters
    ----------
    cells : int
        How many outcomes there are.
    bets : callable
        Takes stable's and the canary's counts so far, shape (cells,) each; returns log ratios and log prior.

    Notes
    -----
    Sections 1 and 2 of docs/statistics.md; Lindon and Malek (2022).
    """

    _STATE = ("_wealth", "_past", "_made_from")
    _SETTLED = 50
    _RENEW = 1.25

    def __init__(self, cells: int, bets: Callable[[Array, Array], Bets]) -> None:
        self._bets = bets
        self._past = np.zeros((2, cells))
        self._made_from = self._past
        self._ratios, self._prior = bets(self._past[0], self._past[1])
        self._wealth = np.zeros(len(self._prior))

    def update(self, counts: Array, share: float) -> None:
        """Take in one window.

        Parameters
        ----------
        counts : (2, cells) array
            Requests per version and cell, stable first.
        share : float
            The canary's share of the window's requests.
        """
        seen = self._past[0].sum()
        if seen >= self._SETTLED and 0 < share < 1:
            if seen >= self._RENEW * self._made_from[0].sum():
                # Never from the window that is judged; and not at every window, as the past changes ever less.
                self._make(self._past)
            self._wealth += log_wealth_of_cells(counts, share, self._ratios)
        self._past = self._past + counts

    def _make(self, past: Array) -> None:
        """Make the bets from what was counted before."""
        self._made_from = past
        self._ratios, self._prior = self._bets(past[0], past[1])

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Take over what another one knew, and make its bets again."""
        super().restore(state)
        self._make(self._made_from)
        return self

    @property
    def log_e(self) -> float:
        """Evidence that the canary's outcomes differ as the bets say."""
        return mixture(self._wealth, self._prior)


def threshold(
    events: int, share: float, *, alpha: float = 0.05, mde: float | None = None, runs: int = 4000, seed: int = 0
) -> float:
    """Value of E that a rate's evidence reaches with probability α within a declared number of events.

    The labels of events are pivotal, so this can be simulated once. The guarantee ends at that horizon.

    Parameters
    ----------
    events : int
        Bad requests of both versions together, at most.
    share : float
        The canary's share of the requests.
    alpha, mde
        See `RateEvidence` and `Judge`.
    runs, seed : int
        Simulated rollouts.

    Returns
    -------
    float
        Between 1 and 1/α: a threshold in place of 1/α.

    Notes
    -----
    "Declared horizon" in section 1 of docs/statistics.md.
    """
    rng = np.random.default_rng(seed)
    effects, prior = EFFECTS, log_prior(EFFECTS)
    if mde is not None:
        effects, prior = np.append(EFFECTS, np.log(mde)), np.append(prior + np.log(0.5), np.log(0.5))
    lost = np.log1p(share * np.expm1(effects))
    canary, highest = np.zeros(runs), np.zeros(runs)
    for number in range(1, events + 1):
        canary += rng.random(runs) < share
        np.maximum(highest, log_sum(canary[:, None] * effects - number * lost + prior), out=highest)
    return float(min(np.exp(np.quantile(highest, 1 - alpha)), 1 / alpha))
