"""What every kind of workload can do: both versions of a service, whoever made their Deployments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from canarykit.model import Role, Service

__all__ = ["Workloads"]


class Workloads(Protocol):
    """Both versions of a service that is deployed."""

    @property
    def service(self) -> Service:
        """What runs: after a promotion stable is the canary's version."""
        ...

    @property
    def wanted(self) -> Mapping[Role, int]:
        """How many pods the kit gave a version; none of a version whose number others choose."""
        ...

    def ensure_capacity(self, role: Role, share: float) -> None:
        """See that a version has as many pods ready as a share of the traffic needs, one at least.

        Raises
        ------
        ClusterError
            It has not within a minute.
        """
        ...

    def stable(self, replicas: int) -> Mapping[str, Any]:
        """Return stable's Deployment; where the kit made it and somebody deleted it, it is made again with so many pods."""
        ...

    def mend(self, service: str) -> None:
        """Make a Service of the kit's again when somebody deleted it, which is said."""
        ...

    def promote(self, within: float, cancelled: Callable[[], bool]) -> None:
        """Let stable take the canary's version within so many seconds, or keep the old one if cancelled.

        Raises
        ------
        UnrestoredError
            Neither: what was written could not be taken back.
        ClusterError
            It keeps the old one.
        """
        ...

    def scale(self, role: Role, replicas: int) -> None:
        """Have so many pods of a version, where the kit chooses their number."""
        ...
