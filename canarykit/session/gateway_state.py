"""GatewayState: the split that is written at the gateway, who wrote it, and whether it is waited for."""

from __future__ import annotations

from canarykit.clusters.base import Cluster
from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.base import Change
from canarykit.session.events import Events
from canarykit.session.lifecycle import Overtaken

__all__ = ["GatewayState"]


class GatewayState:
    """What was read from the gateway, or written to it, last.

    Changes need the experiment's lock; the attributes are values, replaced whole, and may be read without.

    Parameters
    ----------
    cluster : Cluster
        Its router is read.
    events : Events
        Told what someone else did.
    """

    def __init__(self, cluster: Cluster, events: Events) -> None:
        self._cluster, self._events = cluster, events
        self.edit: str | None = None
        """What someone else did to the split, as it was read back last; None when it is the one in force."""
        self.in_place: TrafficSplit | None = None
        """The split that was read or written last, whoever chose it; None when it could not be read."""
        self.pending: Change | None = None
        """What is written and was not seen to be served yet: until then nothing is counted."""

    def in_force(self, split: TrafficSplit) -> None:
        """Note that a split is served, and is the one that was asked for."""
        self.edit, self.in_place, self.pending = None, split, None

    def wait_for(self, change: Change) -> None:
        """Wait until a change is served."""
        self.pending, self.in_place = change, change.split

    def drop(self, change: Change) -> None:
        """Wait for a change no longer: the weight in force is what it was."""
        if self.pending is change:
            self.pending = None

    def need_no_return(self, split: TrafficSplit) -> None:
        """Check that nobody returns all traffic to stable just now: nothing may be written over that."""
        if self.pending is not None:
            raise Overtaken(f"all traffic is being returned to stable, so {split} is not given")

    def read_back(self, asked: TrafficSplit) -> None:
        """Read the split back, unless a change is under way; what someone else did to it is told once."""
        if self.pending is not None:
            return
        before, self.edit = self.edit, self._edit(asked)
        if self.edit is not None and self.edit != before:
            self._events.note("problem", self.edit)

    def _edit(self, asked: TrafficSplit) -> str | None:
        try:
            self.in_place = seen = self._cluster.router.observed()
        except RoutingError as error:
            self.in_place = None
            return f"the split cannot be read back: {error}"
        if seen.is_near(asked):
            return None
        return (
            f"the gateway serves {seen} to the canary, not the {asked} it was told: "
            "someone else changed it, or it was restarted"
        )
