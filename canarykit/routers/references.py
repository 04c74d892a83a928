"""Which routes lead to a Service: it must not be removed while one does, because its users would get errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from canarykit.errors import ForbiddenError
from canarykit.routers.grants import allowing
from canarykit.routers.hosts import service_of
from canarykit.routers.objects import MANAGED, Api
from canarykit.routers.rules import NOTE

__all__ = ["References", "references", "services_in"]

_ROUTES = {
    "HTTPRoute": "an HTTPRoute",
    "GRPCRoute": "a GRPCRoute",
    "VirtualService": "a VirtualService",
    "Ingress": "an Ingress",
}
_BY_GRANT = ("HTTPRoute", "GRPCRoute")
"""Kinds that lead to a Service of another namespace only where a ReferenceGrant of that namespace lets them."""

_HERE_ONLY = ("Ingress",)
"""Kinds that lead to Services of their own namespace alone."""

_NO_RIGHT = "could not be seen (no right to list them)"


@dataclass(frozen=True, slots=True)
class References:
    """What leads to the Services of a namespace.

    Parameters
    ----------
    by : mapping of str to list of str
        Routes that name a Service, in words, by its name.
    unseen : list of str
        Kinds of route that may not be listed, in words: here, or in other namespaces.
    granted : mapping of str to list of str
        By the name of a Service: what lets routes of other namespaces lead to it, in words, where these may not be listed.
    """

    by: Mapping[str, list[str]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)
    granted: Mapping[str, list[str]] = field(default_factory=dict)

    def held(self, service: str) -> bool:
        """Whether a Service must stay: a route leads to it, or one may that cannot be seen and that somebody has allowed."""
        return service in self.by or service in self.granted

    def allowed(self, services: Collection[str]) -> str:
        """Say what may lead to Services unseen; empty where nothing was granted."""
        grants = dict.fromkeys(words for name in sorted(services) for words in self.granted.get(name, []))
        return f"{' and '.join(grants)}, and whether one does {_NO_RIGHT}" if grants else ""

    def doubt(self, services: Collection[str]) -> str:
        """Say that nobody knows whether a route leads to those of these Services that are not held; empty where it is known."""
        names = sorted(name for name in services if not self.held(name))
        if not names or not self.unseen:
            return ""
        named = f"Service{'s' * (len(names) > 1)} {' and '.join(names)}"
        return (
            f"whether {' or '.join(self.unseen)} leads to {named} {_NO_RIGHT}: where one does, its users get errors; "
            "deploy/rbac.yaml has the rights to see it"
        )


def references(api: Api, services: Collection[str], *, carrying: bool = False, beside: str = "") -> References:
    """Find the routes that name Services of a namespace: there, and elsewhere as far as that may be seen.

    Parameters
    ----------
    api : Api
        The namespace.
    services : collection of str
        Names.
    carrying : bool
        Leave out those that give the Service no weight.
    beside : str
        Leave out what the kit made for this service.

    Raises
    ------
    ClusterError
        The API server stays away.
    """
    by: dict[str, list[str]] = {}
    hidden: list[str] = []
    unseen: list[str] = []
    for kind, words in _ROUTES.items() if services else ():
        found, where = _listed(api, kind)
        if where == "elsewhere":
            hidden.append(kind)
        elif where == "anywhere":
            unseen.append(words)
        for body in found:
            place = body["metadata"].get("namespace", api.namespace)
            if place == api.namespace and beside and _made_for(beside, body):
                continue
            elsewhere = "" if place == api.namespace else f" in namespace {place}"
            for name in sorted(services_in(kind, body, api.namespace, carrying=carrying) & set(services)):
                by.setdefault(name, []).append(f"{kind} {body['metadata']['name']}{elsewhere}")
    grants = _grants(api) if set(hidden) & set(_BY_GRANT) else []
    granted: dict[str, list[str]] = {}
    for kind in hidden:
        if kind not in _BY_GRANT or grants is None:
            unseen.append(f"{_ROUTES[kind]} of another namespace")
            continue
        for name in sorted(services):
            for grant, place in allowing(grants, kind, name, api.namespace):
                granted.setdefault(name, []).append(
                    f"ReferenceGrant {grant} lets {_ROUTES[kind]} of namespace {place} lead here"
                )
    return References(by, unseen, granted)


def _listed(api: Api, kind: str) -> tuple[list[dict[str, Any]], str]:
    """Routes of a kind that may be seen, and where others may be that cannot: "elsewhere", "anywhere", or nowhere at all."""
    for everywhere in (False,) if kind in _HERE_ONLY else (True, False):
        try:
            found = api.list(kind, everywhere=everywhere)
        except ForbiddenError:
            continue
        return found, "" if everywhere or kind in _HERE_ONLY or not api.serves(kind) else "elsewhere"
    return [], "anywhere" if api.serves(kind) else ""


def _grants(api: Api) -> list[dict[str, Any]] | None:
    """ReferenceGrants of the namespace; None when they may not be listed, or are of a version that is not known here."""
    try:
        return api.list("ReferenceGrant") if api.serves("ReferenceGrant") else None
    except ForbiddenError:
        return None


def _made_for(app: str, body: Mapping[str, Any]) -> bool:
    """Whether the kit made a route for a service.

    The labels alone do not notify: a program of Pulumi puts them on the user's own route, too. In such a one the kit has noted
    the weights of before, which it never does in what it made itself.
    """
    said, notes = (body["metadata"].get(part) or {} for part in ("labels", "annotations"))
    return said.get(MANAGED) == "canarykit" and said.get("app.kubernetes.io/part-of") == app and NOTE not in notes


def services_in(kind: str, body: Mapping[str, Any], namespace: str, *, carrying: bool = False) -> set[str]:
    """Names of the Services of a namespace that a route names anywhere: as a backend, by a filter, as a mirror.

    Parameters
    ----------
    kind : str
        Kind of the route.
    body : mapping
        The route, of any namespace.
    namespace : str
        Namespace of the Services.
    carrying : bool
        Leave out those that have no weight.
    """
    place = body["metadata"].get("namespace", namespace)
    found = set()
    for field_name, part in _parts(body.get("spec", {})):
        if carrying and part.get("weight") == 0:
            continue
        if kind == "VirtualService" and field_name in ("route", "mirror", "mirrors"):
            found.add(service_of(str(part.get("destination", part).get("host", "")), of=namespace, place=place))
        elif kind == "Ingress" and field_name == "service" and place == namespace:
            found.add(part.get("name"))
        elif field_name in ("backendRefs", "backendRef") and part.get("kind", "Service") == "Service":
            found.add(part.get("name") if part.get("namespace", place) == namespace else None)
    return {name for name in found if name}


def _parts(value: Any, field_name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All objects within an object, with the field that holds them."""
    if isinstance(value, Mapping):
        yield field_name, value
        for name, inside in value.items():
            yield from _parts(inside, name)
    elif isinstance(value, list):
        for inside in value:
            yield from _parts(inside, field_name)
