"""How much rates vary from window to window beyond chance: φ, estimated while a rollout goes on."""

from __future__ import annotations

import numpy as np

from canarykit.analysis.bets import Array

__all__ = ["DispersionEstimate"]

_GRID: Array = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0])
"""Values of φ that are considered."""

_ONE = 0.6
"""Prior probability that φ is 1."""

_PRIOR: Array = np.log(np.array([_ONE, *[(1 - _ONE) / (len(_GRID) - 1)] * (len(_GRID) - 1)]))

_EVENTS = 0.7
"""Expected bad requests that make a block of windows large enough to be compared with the next."""

_LENGTHS = (3, 10, 30)
"""Windows per block, at least: a burst of ten windows is seen in blocks of ten, and in single windows only at its edges."""

_CAUTIOUS, _LIKELY = 0.9, 0.5


class _Rate:
    """Rates of one version over successive blocks, which are no longer than they must be.

    Successive differences ignore what changes slowly, such as a day curve.
    """

    def __init__(self) -> None:
        self._bad = self._requests = 0.0
        self._last: tuple[float, float] | None = None

    def update(self, bad: int, requests: int) -> float | None:
        """Take in one window; return the squared and standardised difference of two blocks when one is full."""
        self._bad += bad
        self._requests += requests
        if not self._requests:
            return None
        expected = self._requests * self._last[0] / self._last[1] if self._last else 0.0
        if max(self._bad, expected) < _EVENTS:
            return None
        last, now = self._last, (self._bad, self._requests)
        self._last, self._bad, self._requests = now, 0.0, 0.0
        if last is None:
            return None
        # A version that fails every request does so evenly.
        variance = _variance(last, now)
        return (now[0] / now[1] - last[0] / last[1]) ** 2 / variance if variance else 0.0


class _Difference:
    """Differences of both versions' rates over successive blocks: what both have in common, such as a day curve, cancels.

    Parameters
    ----------
    length : int
        Windows per block, at least.
    """

    def __init__(self, length: int) -> None:
        self._length, self._windows = length, 0
        self._now = np.zeros((2, 2))
        self._last: Array | None = None

    def update(self, table: Array) -> float | None:
        """Take in one window, as (version, bad and all requests); return as `_Rate` does."""
        self._windows += 1
        self._now = self._now + table
        if self._windows < self._length or not self._now[:, 1].all():
            return None
        rate = self._last[:, 0].sum() / self._last[:, 1].sum() if self._last is not None else 0.0
        if max(self._now[:, 0].sum(), rate * self._now[:, 1].sum()) < 2 * _EVENTS:
            return None
        last, now = self._last, self._now
        self._last, self._now, self._windows = now, np.zeros((2, 2)), 0
        if last is None:
            return None
        (stable, canary), (stable_before, canary_before) = now[:, 0] / now[:, 1], last[:, 0] / last[:, 1]
        variance = sum(_variance(tuple(last[row]), tuple(now[row])) for row in (0, 1))
        return float(((canary - stable) - (canary_before - stable_before)) ** 2 / variance) if variance else 0.0


def _variance(last: tuple[float, float], now: tuple[float, float]) -> float:
    """Variance of the difference of two rates that are the same, from independent requests."""
    pooled = (now[0] + last[0]) / (now[1] + last[1])
    return float(pooled * (1 - pooled) * (1 / now[1] + 1 / last[1]))


class _Posterior:
    """Posterior of φ from squared and standardised differences, each φ times a chi-square with one degree of freedom."""

    def __init__(self) -> None:
        self._log = _PRIOR.copy()

    def update(self, square: float | None) -> None:
        if square is not None:
            self._log = self._log - 0.5 * np.log(_GRID) - 0.5 * square / _GRID

    def quantile(self, probability: float) -> float:
        masses = np.exp(self._log - self._log.max())
        cumulative = np.cumsum(masses / masses.sum())
        return float(_GRID[min(int(np.searchsorted(cumulative, probability - 1e-9)), len(_GRID) - 1)])


class DispersionEstimate:
    """Posterior of φ from past windows of both versions.

    Requests that fail independently have φ = 1. Where failures come in bursts that hit one version and not the other, labels
    vary φ times as much as chance allows, and evidence is to be taken to the power of 1/φ.

    Notes
    -----
    Section 6 of docs/statistics.md, "φ during a rollout". Whoever uses it asks before the window that is judged is taken in.
    """

    def __init__(self) -> None:
        self.known = False
        """Whether there was anything to learn from."""
        self._fine, self._rates = _Posterior(), (_Rate(), _Rate())
        self._long = tuple((_Posterior(), _Difference(length)) for length in _LENGTHS)
        self.cautious, self.likely = self._summary()
        """φ for blame and for clearing: to blame a canary takes more caution than to clear it, which takes many requests."""

    def update(self, bad: tuple[int, int], requests: tuple[int, int]) -> None:
        """Take in one window.

        Parameters
        ----------
        bad, requests : tuple of int
            Bad and all requests of stable and canary; a version without requests says nothing.
        """
        for rate, events, total in zip(self._rates, bad, requests, strict=True):
            square = rate.update(events, total)
            self.known = self.known or square is not None
            self._fine.update(square)
        table = np.array([bad, requests], dtype=float).T
        for posterior, difference in self._long:
            posterior.update(difference.update(table))
        self.cautious, self.likely = self._summary()

    def _summary(self) -> tuple[float, float]:
        # Single windows teach fast, so that their doubt costs little; long blocks only speak up when they see a burst.
        longer = [posterior for posterior, _ in self._long]
        cautious = max(self._fine.quantile(_CAUTIOUS), *(posterior.quantile(_ONE) for posterior in longer))
        return cautious, max(posterior.quantile(_LIKELY) for posterior in (self._fine, *longer))
