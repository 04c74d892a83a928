"""What every cluster can do."""

from __future__ import annotations

from typing import Protocol

from canarykit.model import Role, Service
from canarykit.routers.base import Router
from canarykit.telemetry.base import Telemetry

__all__ = ["Cluster"]


class Cluster(Protocol):
    """Runs both versions of a service behind one address."""

    @property
    def url(self) -> str:
        """Address of the gateway; traffic for the service goes here."""
        ...

    @property
    def router(self) -> Router:
        """Splits the traffic."""
        ...

    @property
    def telemetry(self) -> Telemetry:
        """Counts it."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether nothing here is measured."""
        ...

    def deploy(self, service: Service) -> None:
        """Bring up both versions, all traffic on stable; return when both are ready.

        Raises
        ------
        ClusterError
            A version does not come up; quotes its last log lines.
        """
        ...

    def warm(self, role: Role) -> None:
        """Make sure that a version can answer before it gets weight.

        Raises
        ------
        ClusterError
            It cannot.
        """
        ...

    def trouble(self, role: Role) -> str | None:
        """What is wrong with a version's replicas, in a sentence; None when nothing is."""
        ...

    def promote(self) -> None:
        """Replace stable's replicas by ones of the canary's version, behind the canary's back, which has all traffic."""
        ...

    def retire_canary(self) -> None:
        """Let the canary's replicas finish what they have, and end them. They have no weight any more."""
        ...

    def teardown(self) -> None:
        """Remove all that was made. May be called again."""
        ...
