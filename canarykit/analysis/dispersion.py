"""How much rates vary from window to window beyond chance: φ, estimated while a rollout goes on."""

from __future__ import annotations

import numpy as np

from canarykit.analysis.bets import Array

__all__ = ["DispersionEstimate"]

_GRID: Array = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0])
"""Values of φ that are considered."""

_PRIOR: Array = np.log(np.array([0.6, *[0.4 / 7] * 7]))

_EVENTS = 0.7
"""Expected bad requests that make a block of windows large enough to be compared with the next."""


class _Blocks:
    """Rates of one version over successive blocks of windows.

    Successive differences ignore what changes slowly, such as a day curve.
    """

    def __init__(self) -> None:
        self._bad = self._requests = 0.0
        self._last: tuple[float, float] | None = None

    def update(self, bad: float, requests: float) -> float | None:
        """Take in one window; return the squared and standardised difference of two blocks when one is full."""
        self._bad += bad
        self._requests += requests
        if not self._requests:
            return None
        expected = self._requests * self._last[0] / self._last[1] if self._last else 0.0
        if max(self._bad, expected) < _EVENTS:
            return None
        last, (bad, requests) = self._last, (self._bad, self._requests)
        self._last, self._bad, self._requests = (bad, requests), 0.0, 0.0
        if last is None:
            return None
        pooled = (bad + last[0]) / (requests + last[1])
        if pooled >= 1:
            return 0.0  # a version that fails every request does so evenly
        variance = pooled * (1 - pooled) * (1 / requests + 1 / last[1])
        return float((bad / requests - last[0] / last[1]) ** 2 / variance)


class DispersionEstimate:
    """Posterior of φ from past windows of both versions.

    Requests that fail independently have φ = 1. Where failures come in bursts that hit one version and not the other, labels
    vary φ times as much as chance allows, and evidence is to be taken to the power of 1/φ.

    Notes
    -----
    Section 6 of docs/statistics.md, "φ during a rollout": each squared difference is φ times a chi-square with one degree of
    freedom, over a grid of φ with a prior of 60 % on 1. Whoever uses it asks before the window that is judged is taken in.
    """

    def __init__(self) -> None:
        self._log_posterior = _PRIOR.copy()
        self._versions = (_Blocks(), _Blocks())

    def update(self, bad: tuple[int, int], requests: tuple[int, int]) -> None:
        """Take in one window.

        Parameters
        ----------
        bad, requests : tuple of int
            Bad and all requests of stable and canary; a version without requests says nothing.
        """
        for blocks, events, total in zip(self._versions, bad, requests, strict=True):
            square = blocks.update(events, total)
            if square is not None:
                self._log_posterior -= 0.5 * np.log(_GRID) + 0.5 * square / _GRID

    def quantile(self, probability: float) -> float:
        """Value of φ that the posterior exceeds with a probability of one minus this.

        Parameters
        ----------
        probability : float
            0 to 1.
        """
        masses = np.exp(self._log_posterior - self._log_posterior.max())
        cumulative = np.cumsum(masses / masses.sum())
        return float(_GRID[min(int(np.searchsorted(cumulative, probability - 1e-9)), len(_GRID) - 1)])
