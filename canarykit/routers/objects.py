"""What routers on Kubernetes share: the objects they may ask for, what they split, and whose an object is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from canarykit.errors import ConflictError, RoutingError
from canarykit.model import Role, TrafficSplit
from canarykit.places import Place, Places, managed_places
from canarykit.routers.base import Router, apply

__all__ = [
    "BEFORE",
    "MANAGED",
    "Api",
    "NothingThere",
    "Target",
    "address",
    "balancer_url",
    "made_by_the_kit",
    "retried",
    "to_stable",
    "unchanged",
]  # fmt: skip

MANAGED = "app.kubernetes.io/managed-by"

BEFORE = "canarykit.dev/before"
"""Annotation of an object that the kit has adopted: what it was before, as JSON."""

_T = TypeVar("_T")

_ATTEMPTS = 8
_PAUSE = 0.05


class Api(Protocol):
    """Objects of one namespace."""

    @property
    def namespace(self) -> str:
        """Which."""
        ...

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object; None when there is none, or no such kind."""
        ...

    def list(self, kind: str, selector: str = "", *, everywhere: bool = False, fields: str = "") -> list[dict[str, Any]]:
        """Read all objects of a kind."""
        ...

    def serves(self, kind: str) -> bool:
        """Whether the cluster knows a kind; also where its objects may not be read."""
        ...

    def apply(self, body: Mapping[str, Any], *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Write the fields that we own."""
        ...

    def patch(self, kind: str, name: str, body: Any, *, how: str = "merge", sub: str = "") -> dict[str, Any]:
        """Change an object."""
        ...

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object."""
        ...


class NothingThere(RoutingError):
    """What is to be split does not exist, so that no canary gets anything through it."""


def to_stable(router: Router) -> None:
    """Send everything to stable, whatever the route says, unless it does already or there is none.

    Raises
    ------
    RoutingError
        The gateway does not serve it.
    """
    try:
        if router.observed() == TrafficSplit(0):
            return
    except NothingThere:
        return
    except RoutingError:
        pass  # rules that disagree, or no weights at all
    apply(router, TrafficSplit(0))


@dataclass(frozen=True, slots=True)
class Target:
    """What a router splits the traffic of.

    Parameters
    ----------
    app : str
        Name of the service; routes that the kit makes are named after it.
    port : int
        Port of both Services.
    labels : mapping of str to str
        Put on every object that the kit makes.
    places : mapping of role to Place, optional
        Objects of both versions; by default those that the kit makes.
    """

    app: str
    port: int
    labels: Mapping[str, str]
    places: Places = field(default_factory=dict)

    def place(self, role: Role) -> Place:
        """Objects of a version."""
        return (self.places or managed_places(self.app))[role]

    def service(self, role: Role) -> str:
        """Name of a version's Service."""
        return self.place(role).service


def made_by_the_kit(found: Mapping[str, Any] | None, target: Target) -> bool:
    """Whether an object is the kit's to remove: it made it, rather than adopted it, and it is there."""
    if found is None:
        return False
    labels, notes = (found["metadata"].get(field, {}) for field in ("labels", "annotations"))
    return labels.get(MANAGED) == target.labels.get(MANAGED) and BEFORE not in notes


def retried(change: Callable[[], _T]) -> _T:
    """Read, change and write again while someone else writes in between.

    Parameters
    ----------
    change : callable
        Reads the object anew each time, and raises `ConflictError` when it has changed meanwhile.

    Raises
    ------
    ConflictError
        Someone else wrote in between each time.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return change()
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * (attempt + 1))
    raise AssertionError("unreachable")


def unchanged(found: Mapping[str, Any]) -> dict[str, Any]:
    """First line of a JSON patch: it fails when anything was written since the object was read."""
    return {"op": "test", "path": "/metadata/resourceVersion", "value": found["metadata"]["resourceVersion"]}


def balancer_url(ingress: Sequence[Mapping[str, Any]], port: int) -> str | None:
    """Address of a load balancer by the ingress points in a Service's status; None while it has none."""
    hosts = [point.get("ip") or point.get("hostname") for point in ingress]
    return next((address("http", host, port) for host in hosts if host), None)


def address(scheme: str, host: str, port: int) -> str:
    """URL of a host, which may be an IPv6 address."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}" + ("" if port == 80 and scheme == "http" else f":{port}")
