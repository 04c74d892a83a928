"""What every source of counts can do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from canarykit.model import TrafficSplit, Window

__all__ = ["Answered", "Telemetry"]


class Answered(Protocol):
    """One request of the kit's own traffic that came to an end."""

    @property
    def sent(self) -> float:
        """When it was due, seconds since the epoch."""
        ...

    @property
    def role(self) -> str:
        """Version that answered, as the answer's headers say; empty when they do not."""
        ...

    @property
    def status(self) -> int:
        """Of the answer; 0 when there was none."""
        ...

    @property
    def lost(self) -> str | None:
        """Why no server's answer arrived; None when one did."""
        ...

    @property
    def right(self) -> bool | None:
        """Whether the answer agrees with the label; None when nobody knows."""
        ...

    @property
    def label(self) -> Any:
        """The right answer; None when nobody knows."""
        ...

    @property
    def said(self) -> Any:
        """What the version answered; None when that cannot be read."""
        ...

    @property
    def unread(self) -> str | None:
        """Why an accepted request's answer cannot be read; None when it can, or nobody has tried."""
        ...


class Telemetry(Protocol):
    """Reads what happened to requests, one window at a time."""

    @property
    def delay(self) -> float:
        """Seconds after which a finished request is surely in what is read."""
        ...

    @property
    def tables(self) -> frozenset[str]:
        """Tables of a `Window` that it counts from traffic alone; ``"answers"`` needs labels, and is not among them."""
        ...

    @property
    def assigned_only(self) -> bool:
        """Whether it counts only requests that the router assigned at random.

        False where probes, scrapes, or requests to a version's own address may be among them: then a count that does not
        follow the weight says nothing about the router.
        """
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

    @property
    def latency_edges(self) -> tuple[float, ...] | None:
        """Upper edges of its latency buckets in seconds; None when they are the kit's own, `LATENCY_EDGES`."""
        ...

    @property
    def sources(self) -> Mapping[str, str]:
        """Where each count comes from, for the record: a log, pages, resolved queries."""
        ...

    def read(self, now: float) -> Window:
        """Return the window since the last read.

        Raises
        ------
        TelemetryError
            The source cannot be read.
        """
        ...
