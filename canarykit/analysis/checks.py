"""Checks that guard the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from canarykit.analysis.bets import Array, log_wealth, mixture
from canarykit.analysis.settling import Settling
from canarykit.model import TrafficSplit, Window

__all__ = ["SplitCheck", "dispersion", "drift", "warm_up"]


def dispersion(windows: Iterable[Window], table: str = "outcome") -> float:
    """How much more labels vary from window to window than those of independent requests: φ of an A/A split.

    Bursts that hit one version alone (a bad pod, a cold start) are the main threat to any comparison. Split stable's own
    pods into two, and give what this returns to `Judge(dispersion=φ)`, which takes evidence to the power of 1/φ.

    Parameters
    ----------
    windows : iterable of Window
        Windows of two equal versions.
    table : str
        Name of a rate's table; its second cell counts bad requests.

    Returns
    -------
    float
        Pearson's dispersion, 1 or more; NaN when no window has a bad request.

    Notes
    -----
    Section 6 of docs/statistics.md.
    """
    squares = []
    for window in windows:
        counts = window.counts.get(table)
        if counts is None or not counts.sum(axis=1).all() or not counts[:, 1].sum():
            continue
        share, bad = float(counts[1].sum() / counts.sum()), float(counts[:, 1].sum())
        squares.append((counts[1, 1] - bad * share) ** 2 / (bad * share * (1 - share)))
    return max(1.0, float(np.mean(squares))) if squares else float("nan")


def drift(windows: Iterable[Window], table: str = "outcome") -> float:
    """How much stable's own rate varies over time: Pearson's dispersion of its windows, 1 when it does not.

    A verdict does not mind: it compares versions within each window. A picture of one level for a whole day does.

    Parameters
    ----------
    windows, table
        See `dispersion`.

    Notes
    -----
    Pearson's chi-square over its degrees of freedom; section 6 of docs/statistics.md.
    """
    rows = [window.counts[table][0] for window in windows if table in window.counts and window.counts[table][0].sum()]
    if not rows:
        return float("nan")
    counts = np.array(rows, dtype=float)
    requests = counts.sum(axis=1)
    rate = counts[:, 1].sum() / requests.sum()
    if not 0 < rate < 1:
        return 1.0
    return float(np.mean((counts[:, 1] - requests * rate) ** 2 / (requests * rate * (1 - rate))))


def warm_up(windows: Iterable[Window], seconds: float) -> Iterator[Window]:
    """Leave out the canary's first moments and the same moments of stable, in whole windows; they are marked, not dropped.

    Parameters
    ----------
    windows : iterable of Window
        In order.
    seconds : float
        Since the canary's first weight. Decide it beforehand.

    Notes
    -----
    Section 6 of docs/statistics.md, "Warm-up".
    """
    began: float | None = None
    for window in windows:
        if began is None and window.split.share > 0:
            began = window.start
        cold = began is not None and window.start < began + seconds
        yield replace(window, judged=False) if cold else window


_LONG = 30
"""A window so many times longer than requests take has too few of an earlier weight in it to look like a lie."""

_QUEUES = 2.0
"""Requests of a version whose queue grows take ever longer: a difference has to last so many times as long as they take."""


class SplitCheck:
    """Sample-ratio mismatch: does the gateway serve the split that was configured?

    Every request is an event; bets on a share that differs by some percent, in both directions. An alarm is about
    the router, never about the canary. Source: Lindon and Malek (2022); docs/statistics.md, section 6.

    The check counts assigned requests, not finished ones: a burst may wait at one version and not at the other. Requests in
    flight are added where the source knows them. Elsewhere a difference has to last longer than requests take.

    Where the versions are read one after another, a pause or a burst is counted for one of them first. A difference then has
    to be greater than either version's counts vary from window to window under one weight, and to last longer than that.

    Parameters
    ----------
    alpha : float
        Chance of a false alarm, however often one looks.
    assigned_only : bool
        Whether all that is counted was assigned by the router. Otherwise an alarm does not blame it.
    """

    def __init__(self, alpha: float = 0.05, *, assigned_only: bool = True) -> None:
        self._line = np.log(1 / alpha)
        self._assigned_only = assigned_only
        self._bets = np.linspace(-0.3, 0.3, 21)
        raw = -0.5 * (self._bets / 0.1) ** 2
        self._prior = raw - np.logaddexp.reduce(raw)
        self._kept = self._old = self._new = self._waiting = _Counted(np.zeros_like(self._bets))
        self._split: TrafficSplit | None = None
        self._before: TrafficSplit | None = None
        self._settling: Settling | None = None
        self._since, self._suspected, self._slowest = -math.inf, math.inf, 0.0
        self._range = _Range()
        self._fact = ""
        self.alarm: str | None = None

    @property
    def log_e(self) -> float:
        """Evidence, natural log, that the served share is not the configured one.

        It has to show with requests in flight and without: the former end a queue's difference, and the latter one that
        requests make which were forced to a version and are in flight.
        """
        return min(
            mixture(self._wealth(self._ended + self._waiting), self._prior), mixture(self._wealth(self._ended), self._prior)
        )

    @property
    def _ended(self) -> _Counted:
        """Earlier weights, the present one while the gateway may not have followed it yet, and since then."""
        return self._kept + self._old + self._new

    def _wealth(self, counted: _Counted) -> Array:
        """What each bet won, less what a difference wins that comes from reading the versions one after another."""
        share = 0.0 if self._split is None else self._split.share
        most = self._range.canary(share)
        if not most:
            return counted.wealth
        missing = (counted.asked - counted.served) / (1 - share)
        unread = min(max(missing, -most), most)
        return counted.wealth + log_wealth(unread, unread, share, self._bets)

    def because(self, causes: Sequence[str]) -> str | None:
        """Return the alarm, with what explains it in place of the router; None when there is none.

        Parameters
        ----------
        causes : sequence of str
            Problems of the versions meanwhile, such as pods that were missing.
        """
        if self.alarm is None or not causes:
            return self.alarm
        return f"{'; '.join(causes)}. Meanwhile {self._fact}; nothing is said about the canary's answers"

    def begin(self, before: TrafficSplit | None = None) -> None:
        """Count anew, under another weight or the same: what is in flight was assigned under the one before.

        Parameters
        ----------
        before : TrafficSplit, optional
            In force until now, which a slow gateway goes on to serve for a while; None when nobody knows.
        """
        zero = _Counted(np.zeros_like(self._bets))
        ended = self._ended + self._waiting
        self._kept = replace(ended, wealth=self._wealth(ended))
        self._range = _Range()
        self._old = self._new = self._waiting = zero
        self._before, self._split, self._settling = before or self._split, None, None

    def update(self, window: Window, requests_take: float = 0.0, slowest: float = 0.0) -> None:
        """Take in one window.

        Parameters
        ----------
        window : Window
            One that begins sooner after a change of weight than requests take is left out where nobody knows what is in
            flight: many requests that end in it were drawn under the earlier weight.
        requests_take : float
            Seconds within which almost all requests end.
        slowest : float
            Seconds that the slowest request of the window took.
        """
        if window.split != self._split:
            before = self._split or self._before
            self._split, self._since, self._settling = window.split, window.start, None
            if before is not None and 0 < window.split.share < 1:
                self._settling = Settling(before.share, window.split.share, window.start)
        if (
            window.in_flight is None
            and window.start < self._since + requests_take
            and window.end - window.start < _LONG * requests_take
        ):
            return
        stable, canary = window.requests
        share = window.split.share
        if not stable + canary + sum(window.in_flight or ()) or not 0 < share < 1:
            return
        self._range = self._range.wider(window)
        self._take(window.end, canary, stable + canary, share)
        in_flight = window.in_flight or (0, 0)
        self._waiting = self._counted(in_flight[1], sum(in_flight), share)
        self._sound(window, max(requests_take, slowest, window.apart))

    def _counted(self, canary: int, total: int, share: float) -> _Counted:
        return _Counted(log_wealth(canary, total, share, self._bets), total * share, float(canary))

    def _take(self, end: float, canary: int, total: int, share: float) -> None:
        """Count a window. Once the counts follow a new weight, those before are forgotten: a slow gateway does not lie."""
        found, settling = self._counted(canary, total, share), self._settling
        if settling is None:
            self._new = self._new + found
            return
        follows = settling.update(end, canary, total)
        self._new = self._new + found
        if settling.anew and not settling.settled:
            self._old, self._new = self._old + self._new, _Counted(np.zeros_like(self._bets))
        elif follows:
            self._old = _Counted(np.zeros_like(self._bets))

    def _sound(self, window: Window, requests_take: float) -> None:
        """Alarm when the difference is there, and is no queue."""
        if self.log_e < self._line or (self._settling is not None and self._settling.moving):
            self._suspected, self._slowest = math.inf, 0.0
            return
        self._slowest = max(self._slowest, requests_take)
        is_long = window.end - window.start >= _LONG * self._slowest
        self._suspected = min(self._suspected, window.start if is_long else window.end)
        lasts = window.end - self._suspected
        if self.alarm is None and (window.in_flight is not None or lasts >= _QUEUES * self._slowest):
            found = self._ended + self._waiting
            counted = f"{found.served:,.0f} requests where the configured weights ask for {found.asked:,.0f}"
            who = "the gateway gave the canary" if self._assigned_only else "the canary's pods counted"
            self._fact = f"{who} {counted}"
            self.alarm = self._sentence()

    def _sentence(self) -> str:
        if not self._assigned_only:
            return (
                f"{self._fact}. They count what is sent to them directly as well (probes, scrapes, requests to a Service of "
                "their own), so this may not be the router: leave such requests out (ignore=), or have the gateway's counters "
                "read; nothing is said about the canary"
            )
        if self._settling is not None and not self._settling.settled:
            since = f"{self._settling.seconds:.0f} s after the weight was changed from {self._before} to {self._split}"
            return (
                f"{self._fact}: {since} it is not seen to follow. Check whether the router has taken up the change; nothing is "
                "said about the canary"
            )
        return f"{self._fact}: check the router; nothing is said about the canary"


@dataclass(frozen=True, slots=True)
class _Range:
    """Fewest and most requests of stable and canary in a window of one weight, where the versions are read apart."""

    least: tuple[float, float] = (math.inf, math.inf)
    most: tuple[float, float] = (0.0, 0.0)

    def wider(self, window: Window) -> _Range:
        """Return the range with another window in it."""
        if not window.apart:
            return self
        least, most = zip(
            *((min(a, n), max(b, n)) for a, b, n in zip(self.least, self.most, window.requests, strict=True)), strict=True
        )
        return _Range(least, most)

    def canary(self, share: float) -> float:
        """How many requests the canary may have been given that are not read yet, or the other way round.

        The first and the last moments of the windows are of one version alone, and traffic differs between the two by no
        more than it differs between windows.
        """
        if not 0 < share < 1:
            return 0.0
        stable, canary = (max(b - a, 0.0) for a, b in zip(self.least, self.most, strict=True))
        return max(canary, stable * share / (1 - share))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Evidence of some requests: what each bet won, how many the canary was to get, and how many it got."""

    wealth: Array
    asked: float = 0.0
    served: float = 0.0

    def __add__(self, other: _Counted) -> _Counted:
        return _Counted(self.wealth + other.wealth, self.asked + other.asked, self.served + other.served)
