"""What every router can do."""

from __future__ import annotations

from typing import Protocol

from canarykit.model import TrafficSplit

__all__ = ["Router"]


class Router(Protocol):
    """Sets and reads the split of a gateway."""

    def apply(self, split: TrafficSplit) -> float:
        """Set the split; return when the data plane serves it.

        Returns
        -------
        float
            Seconds until it was in force.

        Raises
        ------
        RoutingError
            It was not in force after a bounded time, or cannot be served at all; says what was seen.
        """
        ...

    def observed(self) -> TrafficSplit:
        """Read the split back from the gateway."""
        ...

    def reset(self) -> None:
        """Return to 100 % stable and remove what the router added."""
        ...
