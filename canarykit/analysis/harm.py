"""How many requests a canary may have hurt, at most: a bound that is valid at every look. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import product
from types import MappingProxyType
from typing import Self

import numpy as np
from scipy.special import logsumexp

from canarykit.analysis.bets import Array
from canarykit.analysis.state import Stateful
from canarykit.errors import PlanError
from canarykit.model import Counts, Guardrail, Metric, Window

__all__ = ["Harm"]

_STRENGTHS = np.array([1.0, *np.geomspace(0.8, 0.04, 8)])
"""κ of each bet. The first one is the best as long as nothing of the canary went badly, and is lost once something has."""

_LOG_PRIOR = np.log(np.array([0.7, *[0.3 / 8] * 8]))

_NONE: Mapping[str, float] = MappingProxyType({})

_RECENT = 10
"""Windows from which the rate of requests is known."""


class Harm(Stateful):
    """Bounds the excess of the canary's bad requests over what stable would have made of them.

    Parameters
    ----------
    guardrails : sequence of Guardrail
        Each rate counts, with a weight of 1. A request is failed, refused, denied or slow; what is counted beside that
        (answers, rates of one's own, a second guardrail of one table) is bounded apart.
    weights : mapping of str to float
        Harm of one slow request or of a score that is 0, by the guardrail's name: 0 to 1, of one failed request. By default
        these do not count.
    alpha : float
        Chance that a bound is ever passed.

    Raises
    ------
    PlanError
        A weight of a guardrail that is not there, or of one that has none; or one beyond 0 to 1.

    Notes
    -----
    Section 7 of docs/statistics.md, "Harm".
    """

    _STATE = ("_wealth", "_requests", "_bad", "_past", "_recent", "until", "outcomes")

    def __init__(self, guardrails: Sequence[Guardrail], weights: Mapping[str, float] = _NONE, *, alpha: float = 0.05) -> None:
        self.weights, self.alpha = dict(weights), alpha
        _check(guardrails, self.weights)
        self._kinds = [each for each in guardrails if self._weight(each) > 0]
        first = {each.metric.table: number for number, each in reversed(list(enumerate(self._kinds)))}
        self._together = [first[table] for table in _OF_A_REQUEST if table in first]
        self._apart = [number for number in range(len(self._kinds)) if number not in self._together]
        kinds = len(self._kinds)
        self._wealth = np.zeros((kinds, len(_STRENGTHS)))
        self._requests = np.zeros((kinds, 2))
        self._bad = np.zeros((kinds, 2))
        self._past = [np.zeros(len(each.metric.cells)) for each in self._kinds]
        self._recent: deque[tuple[float, float]] = deque(maxlen=_RECENT)
        self.until = -math.inf
        """End of the last window."""
        self.outcomes = np.zeros((2, 2), dtype=np.int64)
        """Requests of stable and canary that did not fail, and those that did."""

    def _weight(self, guardrail: Guardrail) -> float:
        return self.weights.get(guardrail.name, 1.0 if guardrail.metric.kind == "rate" else 0.0)

    def after(self, window: Window) -> Self:
        """Return the bound that has taken in one window more; this one stays as it is."""
        other = self.copy()
        other._take(window)
        return other

    def _take(self, window: Window) -> None:
        self.until = window.end
        self.outcomes = self.outcomes + window.counts.get("outcome", 0)
        self._recent.append((window.end - window.start, float(sum(window.requests))))
        for number, guardrail in enumerate(self._kinds):
            table = window.counts.get(guardrail.metric.table)
            if table is None:
                continue
            bad = self._weight(guardrail) * np.array([_badness(row, guardrail.metric, self._past[number]) for row in table])
            self._past[number] = self._past[number] + table[0]
            stable, canary = (float(n) for n in table.sum(axis=1))
            self._requests[number] += (stable, canary)
            self._bad[number] += bad
            if canary:
                ratio = canary / stable if stable else 0.0
                with np.errstate(divide="ignore"):
                    lost = bad[1] * np.log1p(-_STRENGTHS) if bad[1] else 0.0
                self._wealth[number] += lost + bad[0] * np.log1p(ratio * _STRENGTHS)

    @property
    def rate(self) -> float:
        """Requests per second of late; NaN before the first window."""
        seconds, requests = (sum(part) for part in zip(*self._recent, strict=True)) if self._recent else (0.0, 0.0)
        return requests / seconds if seconds else math.nan

    @property
    def share(self) -> float:
        """Largest excess of bad requests among the canary's, as a share; 1 before any was counted."""
        return min(sum(self._bounds(per_request=True)), 1.0)

    @property
    def most(self) -> float:
        """Requests that the canary has hurt so far, at most."""
        return sum(self._bounds(per_request=False))

    @property
    def seen(self) -> float:
        """Bad requests of the canary, less as many as stable's share makes of them; weighted as the bound is."""
        stable, canary = self._requests[:, 0], self._requests[:, 1]
        usual = np.divide(self._bad[:, 0] * canary, stable, out=np.zeros_like(canary), where=stable > 0)
        return max(float((self._bad[:, 1] - usual).sum()), 0.0)

    def _bounds(self, *, per_request: bool) -> list[float]:
        """Bound of what is counted together, and of each kind that is counted apart, which share the chance of error."""
        groups = [self._together] if self._together else []
        groups += [[number] for number in self._apart if self._requests[number, 1]]
        line = math.log(len(groups) / self.alpha) if groups else 0.0
        found = []
        for group in groups:
            canary = self._requests[group, 1].max()
            if not canary:
                found.append(1.0 if per_request else 0.0)
                continue
            most = min(_root(_of_sets(self._wealth[group]), line), canary)
            found.append(most / canary if per_request else most)
        return found or [1.0 if per_request else 0.0]


_OF_A_REQUEST = ("outcome", "refused", "denied", "latency")
"""Tables in which a request is bad in one at most."""


def _of_sets(wealth: Array) -> Array:
    """Wealth of all sets of kinds but the empty one: what is better in one must not hide what is worse in another."""
    sets = np.array([chosen for chosen in product((0.0, 1.0), repeat=len(wealth)) if any(chosen)])
    lost = np.isneginf(wealth)
    return np.where(sets @ lost > 0, -np.inf, sets @ np.where(lost, 0.0, wealth))


def _root(wealth: Array, line: float) -> float:
    """Largest excess that the bets do not refute, over all sets: log Σ prior · exp(wealth + κ · excess) = line."""
    fixed = _LOG_PRIOR + wealth
    # The function is convex and rises: Newton's steps from beyond the root never pass it.
    excess = ((line - fixed) / _STRENGTHS).min(axis=1)
    for _ in range(60):
        terms = fixed + _STRENGTHS * excess[:, None]
        value = logsumexp(terms, axis=1)
        slope = np.exp(terms - value[:, None]) @ _STRENGTHS
        step = (value - line) / slope
        excess = excess - step
        if np.abs(step).max() < 1e-6:
            break
    return max(float(excess.max()), 0.0)


def _badness(row: Counts, metric: Metric, past: Array) -> float:
    """How many requests of a version were bad, as far as a guardrail says; a score counts by what it lacks."""
    if metric.kind == "rate":
        return float(row[1])
    if metric.kind == "score":
        return float(row @ (1 - np.asarray(metric.cells, dtype=float)))
    # Slow: beyond the bucket that held stable's quantile in the windows before, so that the line is not drawn afterwards.
    if not past.any():
        return 0.0
    edge = int(np.searchsorted(np.cumsum(past), (metric.quantile or 0.0) * past.sum()))
    return float(row[edge + 1 :].sum())


def _check(guardrails: Sequence[Guardrail], weights: Mapping[str, float]) -> None:
    known = {each.name: each.metric.kind for each in guardrails}
    for name, weight in weights.items():
        if name not in known:
            raise PlanError(f"harm of {name!r}: no guardrail is called so, only {', '.join(known)}")
        if known[name] == "classes":
            raise PlanError(f"harm of {name!r}: shares of classes are neither good nor bad, so they have no harm")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise PlanError(f"harm of {name!r} is that of one failed request at most, a number from 0 to 1, not {weight!r}")
