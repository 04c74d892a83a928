"""Which routes lead to a Service: it must not be removed while one does, because its users would get errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from canarykit.errors import ForbiddenError
from canarykit.routers.objects import MANAGED, Api

__all__ = ["References", "references", "services_in"]

_ROUTES = ("HTTPRoute", "GRPCRoute", "VirtualService", "Ingress")


@dataclass(frozen=True, slots=True)
class References:
    """What leads to the Services of a namespace.

    Parameters
    ----------
    by : mapping of str to list of str
        Routes that name a Service, in words, by its name.
    unseen : list of str
        Kinds of route that may not be listed.
    """

    by: Mapping[str, list[str]] = field(default_factory=dict)
    unseen: list[str] = field(default_factory=list)


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
    unseen = []
    for kind in _ROUTES if services else ():
        found = _listed(api, kind)
        if found is None:
            unseen.append(kind)
        for body in found or []:
            if beside and _made_for(beside, body):
                continue
            place = body["metadata"].get("namespace", api.namespace)
            elsewhere = "" if place == api.namespace else f" in namespace {place}"
            for name in sorted(services_in(kind, body, api.namespace, carrying=carrying) & set(services)):
                by.setdefault(name, []).append(f"{kind} {body['metadata']['name']}{elsewhere}")
    return References(by, unseen)


def _listed(api: Api, kind: str) -> list[dict[str, Any]] | None:
    """All routes of a kind that may be seen; None when none may."""
    for everywhere in (True, False):
        try:
            return api.list(kind, everywhere=everywhere)
        except ForbiddenError:
            continue
    return None


def _made_for(app: str, body: Mapping[str, Any]) -> bool:
    said = body["metadata"].get("labels") or {}
    return said.get(MANAGED) == "canarykit" and said.get("app.kubernetes.io/part-of") == app


def services_in(kind: str, body: Mapping[str, Any], namespace: str, *, carrying: bool = False) -> set[str]:
    """Names of the Services of a namespace that a route names anywhere: as a backend, by a filter, as a mirror.

    Parameters
    ----------
    kind : str
        Of the route.
    body : mapping
        The route, of any namespace.
    namespace : str
        Of the Services.
    carrying : bool
        Leave out those that have no weight.
    """
    place = body["metadata"].get("namespace", namespace)
    found = set()
    for field_name, part in _parts(body.get("spec", {})):
        if carrying and part.get("weight") == 0:
            continue
        if kind == "VirtualService" and field_name in ("route", "mirror", "mirrors"):
            found.add(_service_of(str(part.get("destination", part).get("host", "")), place, namespace))
        elif kind == "Ingress" and field_name == "service" and place == namespace:
            found.add(part.get("name"))
        elif field_name in ("backendRefs", "backendRef") and part.get("kind", "Service") == "Service":
            found.add(part.get("name") if part.get("namespace", place) == namespace else None)
    return {name for name in found if name}


def _service_of(host: str, place: str, namespace: str) -> str | None:
    """Name of the Service of a namespace that a host of a VirtualService in another one means."""
    name, _, rest = host.partition(".")
    near, _, domain = rest.partition(".")
    if not rest:
        return name if place == namespace else None
    return name if near == namespace and (not domain or domain.split(".")[0] == "svc") else None


def _parts(value: Any, field_name: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """All objects within an object, with the field that holds them."""
    if isinstance(value, Mapping):
        yield field_name, value
        for name, inside in value.items():
            yield from _parts(inside, name)
    elif isinstance(value, list):
        for inside in value:
            yield from _parts(inside, field_name)
