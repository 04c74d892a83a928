"""What every source of counts can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from canarykit.model import TrafficSplit, Window

__all__ = ["Telemetry"]


class Telemetry(Protocol):
    """Reads what happened to requests, one window at a time."""

    @property
    def delay(self) -> float:
        """Seconds after which a finished request is surely in what is read."""

    @property
    def tables(self) -> frozenset[str]:
        """Tables of a `Window` that it counts from traffic alone; ``"answers"`` needs labels, and is not among them."""

    @property
    def assigned_only(self) -> bool:
        """Whether it counts only requests that the router assigned at random.

        False where probes, scrapes, or requests to a version's own address may be among them: then a count that does not
        follow the weight says nothing about the router.
        """

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count from now on only requests that began after `since`, under this split.

        Parameters
        ----------
        split : TrafficSplit
            The weight in force.
        since : float
            Seconds since the epoch at which it was.
        """

    @property
    def latency_edges(self) -> tuple[float, ...] | None:
        """Upper edges of its latency buckets in seconds; None when they are the kit's own, `LATENCY_EDGES`."""

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each count comes from, for the record: a log, pages, resolved queries."""

    def read(self, now: float) -> Window:
        """Return the window since the last read.

        Raises
        ------
        TelemetryError
            The source cannot be read.
        """
