"""Evidence about a slowdown, from buckets too coarse to hold a quantile and its tolerated multiple apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from canarykit.analysis.bets import Array, log_prior, log_sum, log_wealth_of_cells, mixture, slowed
from canarykit.analysis.state import Stateful

__all__ = ["SlowdownEvidence"]

_STEPS_PER_OCTAVE, _OCTAVES = 16, 2
_SETTLED, _RENEW = 50, 1.25


class SlowdownEvidence(Stateful):
    """Evidence about the ratio of all durations, canary to stable.

    Each bet says "the canary's durations are stable's times g"; the evidence against a ratio is the mixture of the bets
    beyond it over the bet on it, as for rates. Inside a bucket stable's past durations are taken to be log-linear:
    exact where an edge meets an edge, and close elsewhere.

    Parameters
    ----------
    edges : sequence of float
        Upper edges of the buckets, rising; the last may be infinity.
    tolerate, margin : float
        Ratios to show exceeded, and not exceeded.

    Notes
    -----
    Section 4 of docs/statistics.md, with the first family of section 2.
    """

    _STATE = ("_wealth", "_past", "_made_from")

    def __init__(self, edges: Sequence[float], tolerate: float, margin: float) -> None:
        grid = np.arange(-_OCTAVES * _STEPS_PER_OCTAVE, _OCTAVES * _STEPS_PER_OCTAVE + 1) * np.log(2) / _STEPS_PER_OCTAVE
        nulls = np.log([tolerate, margin])
        self._edges = tuple(edges)
        self._points = np.concatenate([nulls, grid[np.abs(grid[:, None] - nulls).min(axis=1) > 1e-9]])
        self._worse = np.flatnonzero(self._points > nulls[0])
        self._better = np.flatnonzero(self._points < nulls[1])
        self._wealth = np.zeros(len(self._points))
        self._past = np.zeros(len(edges))
        self._made_from = self._past
        self._ratios = np.zeros((len(self._points), len(edges)))

    def update(self, counts: Array, share: float) -> None:
        """Take in one window.

        Parameters
        ----------
        counts : (2, cells) array
            Requests per version and bucket, stable first.
        share : float
            The canary's share of the window's requests.
        """
        seen = self._past.sum()
        if seen >= _SETTLED and 0 < share < 1:
            if seen >= _RENEW * self._made_from.sum():
                self._make(self._past)
            self._wealth += log_wealth_of_cells(counts, share, self._ratios)
        self._past = self._past + counts[0]

    def _make(self, past: Array) -> None:
        """Make the bets from what was counted before."""
        self._made_from = past
        self._ratios = slowed(past, self._edges, np.exp(self._points))

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Take over what another one knew, and make its bets again."""
        super().restore(state)
        if self._made_from.any():
            self._make(self._made_from)
        return self

    def _against(self, null: int, bets: npt.NDArray[np.intp]) -> float:
        prior = log_prior(self._points[bets] - self._points[null])
        return mixture(self._wealth[bets], prior) - float(self._wealth[null])

    @property
    def log_e(self) -> float:
        """Evidence that the ratio is above `tolerate`."""
        return self._against(0, self._worse)

    @property
    def log_e_safe(self) -> float:
        """Evidence that it is below `margin`."""
        return self._against(1, self._better)

    @property
    def effect(self) -> float:
        """The likeliest ratio; NaN before any bet."""
        return float(np.exp(self._points[np.argmax(self._wealth)])) if self._wealth.any() else float("nan")

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the ratio: every bet that the mixture of all does not reject, rounded outwards."""
        line = float(log_sum(self._wealth + log_prior(self._points))) + np.log(alpha)
        order = np.argsort(self._points)
        kept = np.flatnonzero(self._wealth[order] > line)
        points, last = self._points[order], len(order) - 1
        low = 0.0 if kept[0] == 0 else float(np.exp(points[kept[0] - 1]))
        return low, float("inf") if kept[-1] == last else float(np.exp(points[kept[-1] + 1]))
