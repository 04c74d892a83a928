"""Checks that guard the numbers."""

from __future__ import annotations

import numpy as np

from canarykit.analysis.bets import log_wealth, mixture
from canarykit.model import Window

__all__ = ["SplitCheck"]


class SplitCheck:
    """Sample-ratio mismatch: does the gateway serve the split that was configured?

    Every request is an event; bets on a share that differs by some percent, in both directions. An alarm is about
    the router, never about the canary. Source: Lindon and Malek (2022); `statistics.md` section 6.

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
        self.alarm: str | None = None

    @property
    def log_e(self) -> float:
        """Evidence, natural log, that the served share is not the configured one."""
        return mixture(self._wealth, self._prior)

    def update(self, window: Window) -> None:
        """Take in one window."""
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
