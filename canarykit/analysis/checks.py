"""Checks that guard the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from canarykit.analysis.bets import log_wealth, mixture
from canarykit.model import TrafficSplit, Window

__all__ = ["SplitCheck", "dispersion", "drift", "warm_up"]


def dispersion(windows: Iterable[Window], table: str = "outcome") -> float:
    """How much more labels vary from window to window than those of independent requests: φ of an A/A split.

    Bursts that hit one version alone (a bad pod, a cold start) are the main threat to any comparison. Split stable's own
    pods into two, and give what this returns to `Judge(dispersion=φ)`, which takes evidence to the power of 1/φ.

    Parameters
    ----------
    windows : iterable of Window
        Of equal versions.
    table : str
        Of a rate: what went badly is its second cell.

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
        As in `dispersion`.

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


class SplitCheck:
    """Sample-ratio mismatch: does the gateway serve the split that was configured?

    Every request is an event; bets on a share that differs by some percent, in both directions. An alarm is about
    the router, never about the canary. Source: Lindon and Malek (2022); docs/statistics.md, section 6.

    Parameters
    ----------
    alpha : float
        Chance of a false alarm, however often one looks.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        self._line = np.log(1 / alpha)
        self._bets = np.linspace(-0.3, 0.3, 21)
        raw = -0.5 * (self._bets / 0.1) ** 2
        self._prior = raw - np.logaddexp.reduce(raw)
        self._wealth = np.zeros_like(self._bets)
        self._asked = self._served = 0.0
        self._split: TrafficSplit | None = None
        self._since = -math.inf
        self.alarm: str | None = None

    @property
    def log_e(self) -> float:
        """Evidence, natural log, that the served share is not the configured one."""
        return mixture(self._wealth, self._prior)

    def update(self, window: Window, requests_take: float = 0.0) -> None:
        """Take in one window.

        Parameters
        ----------
        window : Window
            One that begins sooner after a change of weight than requests take is left out: where they are counted when
            they end, many of them were drawn under the earlier weight.
        requests_take : float
            Seconds within which almost all requests end.
        """
        if window.split != self._split:
            self._split, self._since = window.split, window.start
        if window.start < self._since + requests_take and window.end - window.start < _LONG * requests_take:
            return
        stable, canary = window.requests
        if not stable + canary or not 0 < window.split.share < 1:
            return
        self._wealth += log_wealth(canary, stable + canary, window.split.share, self._bets)
        self._asked += (stable + canary) * window.split.share
        self._served += canary
        if self.alarm is None and self.log_e >= self._line:
            self.alarm = (
                f"the gateway gave the canary {self._served:,.0f} requests where the configured weights ask for "
                f"{self._asked:,.0f}: check the router; nothing is said about the canary"
            )
