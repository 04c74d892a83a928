"""What every source of counts can do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from canarykit.model import TrafficSplit, Window

__all__ = ["Telemetry"]


class Telemetry(Protocol):
    """Reads what happened to requests, one window at a time."""

    @property
    def delay(self) -> float:
        """Seconds after which a finished request is surely in what is read."""
        ...

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count from now on only requests that began after `since`, under this split.

        Parameters
        ----------
        split : TrafficSplit
            The weight in force.
        since : float
            Seconds since the epoch at which it was.
        """
        ...

    def label(self, answers: Iterable[tuple[str, bool]]) -> None:
        """Tell which answers were right.

        Parameters
        ----------
        answers : iterable of (request id, right)
            In any order, before or after the gateway reports the request.
        """
        ...

    def read(self, now: float) -> Window:
        """Return the window since the last read.

        Raises
        ------
        TelemetryError
            The source cannot be read.
        """
        ...
