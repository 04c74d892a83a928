"""Whether a gateway has taken up a new weight, as the counts show it."""

from __future__ import annotations

import math

__all__ = ["PATIENCE", "Settling"]

PATIENCE = 120.0
"""Seconds that a gateway may take to follow a change: load balancers of clouds were seen to take a minute."""

_SURE = math.log(1e3)
"""Evidence at which the counts are believed to follow the new weight."""

_LEAST = 1e-3
"""Share that is assumed of a split of exactly 0 %: a request that was under way at the change is no proof by itself."""

_OLD = 3.0
"""Standard errors within which the counts are of the old share."""

_MOVES = 1.0
"""Standard errors by which the second half of the counts is nearer to the new share than the first."""

_STILL = 10.0
"""Seconds for which the counts have to stand still, at neither share, before the gateway is said to lie."""


class Settling:
    """Follows the counts from one share to another.

    The counts are tested for a change of share in their midst (Page's cumulative sum). Until that is found, a gateway which
    serves the old share, or one that moves to the new one, is slow rather than wrong, for as long as `PATIENCE`.

    Parameters
    ----------
    before, after : float
        Shares of the canary, 0 to 1.
    since : float
        When the change was written, seconds on the clock of the windows.
    """

    def __init__(self, before: float, after: float, since: float) -> None:
        self._before = min(max(before, min(_LEAST, after / 50)), 1 - min(_LEAST, (1 - after) / 50))
        self._after, self._since, self._last, self._moved = after, since, since, since
        self._counts: list[tuple[int, int]] = []
        self._gain = 0.0
        self._late = False
        self.settled = math.isclose(before, after)
        """Whether the counts are known to follow the new share."""

    @property
    def anew(self) -> bool:
        """Whether nothing speaks for the new share yet, so that what follows it begins after this window."""
        return self._gain <= 0

    @property
    def seconds(self) -> float:
        """Since the change."""
        return self._last - self._since

    @property
    def moving(self) -> bool:
        """Whether what is counted is of a gateway that may still follow, or was some seconds ago."""
        return self.seconds <= PATIENCE and self._last - self._moved < _STILL

    def update(self, end: float, canary: int, total: int) -> bool:
        """Take in a window; return whether it shows that the new share is served by now, and was not at first.

        Parameters
        ----------
        end : float
            End of the window, seconds.
        canary, total : int
            Requests of the canary, and of both versions.
        """
        self._last = end
        if self.seconds <= PATIENCE:
            self._counts.append((canary, total))
            if (not self.settled and self._is_old()) or self._moves():
                self._moved = end
        if self.settled:
            return False
        gain = canary * math.log(self._after / self._before)
        gain += (total - canary) * math.log((1 - self._after) / (1 - self._before))
        self._gain = max(self._gain + gain, 0.0)
        if self.anew:
            self._late = True
            return False
        self.settled = self._gain >= _SURE
        return self.settled and self._late

    def _is_old(self) -> bool:
        """Whether the counts are of the old share, as far as they tell."""
        canary, total = _sums(self._counts)
        spread = math.sqrt(max(total * self._before * (1 - self._before), 1.0))
        return abs(canary - total * self._before) < _OLD * spread

    def _moves(self) -> bool:
        """Whether the second half of the counts is nearer to the new share than the first."""
        half = len(self._counts) // 2
        (first, of_first), (second, of_second) = _sums(self._counts[:half]), _sums(self._counts[half:])
        if not of_first or not of_second:
            return False
        share = (first + second) / (of_first + of_second)
        error = math.sqrt(max(share * (1 - share), 1e-9) * (1 / of_first + 1 / of_second))
        return (second / of_second - first / of_first) * math.copysign(1, self._after - self._before) > _MOVES * error


def _sums(counts: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(canary for canary, _ in counts), sum(total for _, total in counts)
