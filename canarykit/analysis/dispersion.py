"""How much rates vary from window to window beyond chance: φ, estimated while a rollout goes on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from canarykit.analysis.bets import Array
from canarykit.analysis.state import Stateful

__all__ = ["DispersionEstimate"]

_GRID: Array = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0])
"""Values of φ that are considered."""

_HALF_LOG: Array = 0.5 * np.log(_GRID)
_HALF_INVERSE: Array = 0.5 / _GRID

_ONE = 0.6
"""Prior probability that φ is 1."""

_PRIOR: Array = np.log(np.array([_ONE, *[(1 - _ONE) / (len(_GRID) - 1)] * (len(_GRID) - 1)]))

_EVENTS = 0.5
"""Expected bad requests that make a block of windows large enough to be compared with the next."""

_LENGTHS = (3, 10, 30)
"""Windows per block, at least: a burst of ten windows is seen in blocks of ten, and in single windows only at its edges."""

_AMONG = (1, 10)
"""Windows per block, at least, in which stable's replicas are compared with each other."""

_CAUTIOUS, _LIKELY = 0.95, 0.5


class _Rate(Stateful):
    """Rates of one version over successive blocks, which are no longer than they must be.

    Successive differences ignore what changes slowly, such as a day curve.
    """

    _STATE = ("_bad", "_requests", "_last")

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


class _Difference(Stateful):
    """Differences of both versions' rates over successive blocks: what both have in common, such as a day curve, cancels.

    Parameters
    ----------
    length : int
        Windows per block, at least.
    """

    _STATE = ("_windows", "_bad", "_requests", "_last")

    def __init__(self, length: int) -> None:
        self._length, self._windows = length, 0
        self._bad, self._requests = [0, 0], [0, 0]
        self._last: tuple[tuple[int, int], tuple[int, int]] | None = None

    def update(self, bad: tuple[int, int], requests: tuple[int, int]) -> float | None:
        """Take in one window, stable first; return as `_Rate` does."""
        self._windows += 1
        for row in (0, 1):
            self._bad[row] += bad[row]
            self._requests[row] += requests[row]
        if self._windows < self._length or not all(self._requests):
            return None
        rate = sum(self._last[0]) / sum(self._last[1]) if self._last is not None else 0.0
        if max(sum(self._bad), rate * sum(self._requests)) < 2 * _EVENTS:
            return None
        last, now = self._last, ((self._bad[0], self._bad[1]), (self._requests[0], self._requests[1]))
        self._last, self._windows, self._bad, self._requests = now, 0, [0, 0], [0, 0]
        if last is None:
            return None
        difference = variance = 0.0
        for row, sign in ((0, -1), (1, 1)):
            difference += sign * (now[0][row] / now[1][row] - last[0][row] / last[1][row])
            variance += _variance((last[0][row], last[1][row]), (now[0][row], now[1][row]))
        return difference**2 / variance if variance else 0.0


class _Among(Stateful):
    """Rates of stable's replicas against each other, in the same block of windows.

    Where each replica has bursts of its own, several replicas teach in one block what one version's rate teaches in many.

    Parameters
    ----------
    length : int
        Windows per block, at least.
    """

    _STATE = ("_windows", "_served")

    def __init__(self, length: int) -> None:
        self._length, self._windows = length, 0
        self._served: dict[str, tuple[int, int]] = {}

    def update(self, replicas: Mapping[str, tuple[int, int]]) -> tuple[float | None, int]:
        """Take in one window; return the sum of squared and standardised deviations and its degrees of freedom."""
        self._windows += bool(replicas)
        for name, (events, total) in replicas.items():
            bad, requests = self._served.get(name, (0, 0))
            self._served[name] = (bad + events, requests + total)
        served = [(bad, requests) for bad, requests in self._served.values() if requests]
        bad, requests = sum(bad for bad, _ in served), sum(requests for _, requests in served)
        if self._windows < self._length or not served or bad < _EVENTS * len(served):
            return None, 1
        self._windows, self._served, rate = 0, {}, bad / requests
        if len(served) < 2 or rate == 1:
            return None, 1
        return sum((one - n * rate) ** 2 / (n * rate * (1 - rate)) for one, n in served), len(served) - 1


def _variance(last: tuple[float, float], now: tuple[float, float]) -> float:
    """Variance of the difference of two rates that are the same, from independent requests."""
    pooled = (now[0] + last[0]) / (now[1] + last[1])
    return float(pooled * (1 - pooled) * (1 / now[1] + 1 / last[1]))


class _Posterior(Stateful):
    """Posterior of φ from squared and standardised differences: φ times a chi-square, of one degree of freedom by default."""

    _STATE = ("_log", "cautious", "likely")

    def __init__(self, cautious: float) -> None:
        self._log, self._probabilities = _PRIOR.copy(), np.array([cautious, _LIKELY]) - 1e-9
        self.cautious = self.likely = 1.0
        self._summarise()

    def update(self, square: float | None, degrees: int = 1) -> None:
        if square is not None:
            self._log -= degrees * _HALF_LOG + square * _HALF_INVERSE
            self._summarise()

    def _summarise(self) -> None:
        masses = np.exp(self._log - self._log.max())
        cumulative = np.cumsum(masses / masses.sum())
        cautious, likely = np.minimum(np.searchsorted(cumulative, self._probabilities), len(_GRID) - 1)
        self.cautious, self.likely = float(_GRID[cautious]), float(_GRID[likely])


class DispersionEstimate(Stateful):
    """Posterior of φ from past windows of both versions.

    Requests that fail independently have φ = 1. Where failures come in bursts that hit one version and not the other, labels
    vary φ times as much as chance allows, and evidence is to be taken to the power of 1/φ.

    Notes
    -----
    Section 6 of docs/statistics.md, "φ during a rollout". Whoever uses it asks before the window that is judged is taken in.
    """

    _STATE = ("known", "_fine", "_rates", "_long", "_among")

    def __init__(self) -> None:
        self.known = False
        """Whether there was anything to learn from."""
        # Single windows teach fast, so that their doubt costs little; long blocks only speak up when they see a burst.
        self._fine, self._rates = _Posterior(_CAUTIOUS), (_Rate(), _Rate())
        self._long = tuple((_Posterior(_ONE), _Difference(length)) for length in _LENGTHS)
        self._among = tuple((_Posterior(_ONE), _Among(length)) for length in _AMONG)

    @property
    def cautious(self) -> float:
        """φ for blame: it takes more caution than clearing, which takes many requests anyway."""
        return max(self._fine.cautious, *(posterior.cautious for posterior, _ in (*self._long, *self._among)))

    @property
    def likely(self) -> float:
        """φ for clearing."""
        return max(self._fine.likely, *(posterior.likely for posterior, _ in (*self._long, *self._among)))

    def update(
        self,
        bad: tuple[int, int],
        requests: tuple[int, int],
        replicas: Mapping[str, tuple[int, int]] = MappingProxyType({}),
    ) -> None:
        """Take in one window.

        Parameters
        ----------
        bad, requests : tuple of int
            Bad and all requests of stable and canary; a version without requests says nothing.
        replicas : mapping of str to tuple of int
            Bad and all requests of each of stable's replicas, where they are known. A canary that is bad at times must not
            hide behind its own bursts.
        """
        for rate, events, total in zip(self._rates, bad, requests, strict=True):
            square = rate.update(events, total)
            self.known = self.known or square is not None
            self._fine.update(square)
        for posterior, difference in self._long:
            posterior.update(difference.update(bad, requests))
        for posterior, among in self._among:
            posterior.update(*among.update(replicas))
