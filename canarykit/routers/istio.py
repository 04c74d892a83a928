"""The split of an Istio VirtualService: the weights of the destinations that are ours, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import ROLES, Role, TrafficSplit
from canarykit.routers.objects import Target, unchanged
from canarykit.routers.route import RouteRouter, whole_weights
from canarykit.wire import ROLE_HEADER

__all__ = ["IstioRouter", "destinations", "mirrored", "patch", "split_of", "virtual_service"]

MAX_TOTAL = 1_000_000


def role_of(destination: Mapping[str, Any], target: Target) -> Role | None:
    """Version that a destination names: by a host of its own, or as a subset of one host."""
    host, subset = str(destination.get("host", "")).split(".")[0], destination.get("subset")
    for role in ROLES:
        if host == target.service(role) or (host == target.app and subset == role):
            return role
    return None


def destinations(found: Mapping[str, Any], target: Target) -> list[tuple[int, int, Role, int]]:
    """Where a VirtualService names both our versions: route, position in it, role, weight."""
    places: list[tuple[int, int, Role, int]] = []
    for number, http in enumerate(found.get("spec", {}).get("http", [])):
        ours = [
            (number, position, role, int(entry.get("weight", 0)))
            for position, entry in enumerate(http.get("route", []))
            if (role := role_of(entry["destination"], target)) is not None
        ]
        if {place[2] for place in ours} == set(ROLES):
            places += ours
    return places


def split_of(found: Mapping[str, Any], target: Target) -> TrafficSplit:
    """Split that a VirtualService says.

    Raises
    ------
    RoutingError
        No route of it names both versions, or its routes disagree.
    """
    places, name = destinations(found, target), found["metadata"]["name"]
    if not places:
        raise _unsplit(name, target)
    splits = set()
    for number in {place[0] for place in places}:
        parts = {role: weight for route, _, role, weight in places if route == number}
        total = sum(parts.values())
        splits.add(round(100 * parts["canary"] / total, 9) if total else None)
    if len(splits) > 1 or None in splits:
        raise RoutingError(f"the http routes of VirtualService {name} split the traffic differently, or not at all")
    return TrafficSplit(splits.pop() or 0.0)


def _unsplit(name: str, target: Target) -> RoutingError:
    return RoutingError(
        f"VirtualService {name} has no http route with both destinations {target.service('stable')} and "
        f"{target.service('canary')}: add them to the route that is to be split"
    )


def patch(found: Mapping[str, Any], target: Target, split: TrafficSplit) -> list[dict[str, Any]]:
    """JSON patch that sets our weights, and fails when anything has been written since the object was read.

    Raises
    ------
    RoutingError
        No route names both versions, or one has destinations beside them: their share would change with ours.
    """
    canary, total = whole_weights(split, MAX_TOTAL, "a VirtualService")
    new = {"stable": total - canary, "canary": canary}
    places = destinations(found, target)
    if not places:
        raise _unsplit(found["metadata"]["name"], target)
    for number in {place[0] for place in places}:
        if len(found["spec"]["http"][number]["route"]) > 2:
            raise RoutingError(
                f"http route {number} of VirtualService {found['metadata']['name']} has destinations beside the two versions: "
                "give the two a route of their own"
            )
    return [
        unchanged(found),
        *(
            {"op": "add", "path": f"/spec/http/{number}/route/{position}/weight", "value": new[role]}
            for number, position, role, _ in places
        ),
    ]


def mirrored(found: Mapping[str, Any], target: Target, percent: float) -> list[dict[str, Any]]:
    """JSON patch that has the routes which are split send a copy to the canary; 0 percent ends that, wherever it is.

    Raises
    ------
    RoutingError
        No route is split, or one has a mirror of somebody else, beside which there cannot be another.
    """
    changes, name = [unchanged(found)], found["metadata"]["name"]
    if not percent:
        return changes + [
            {"op": "remove", "path": f"/spec/http/{number}/{key}"}
            for number, http in enumerate(found.get("spec", {}).get("http", []))
            for key in ("mirror", "mirrorPercentage")
            if key in http and _mirrors_to_canary(http, target)
        ]
    split_of(found, target)
    for number in sorted({place[0] for place in destinations(found, target)}):
        path, http = f"/spec/http/{number}", found["spec"]["http"][number]
        if http.get("mirrors") or ("mirror" in http and not _mirrors_to_canary(http, target)):
            raise RoutingError(
                f"http route {number} of VirtualService {name} has a mirror of its own, and Istio knows one for each route: "
                "remove it, or do without mirroring to the canary"
            )
        (where,) = [e["destination"] for e in http["route"] if role_of(e["destination"], target) == "canary"]
        changes.append({"op": "add", "path": f"{path}/mirror", "value": where})
        changes.append({"op": "add", "path": f"{path}/mirrorPercentage", "value": {"value": float(percent)}})
    return changes


def _mirrors_to_canary(http: Mapping[str, Any], target: Target) -> bool:
    return "mirror" in http and role_of(http["mirror"], target) == "canary"


def virtual_service(target: Target, namespace: str, *, gateway: str | None, hostname: str | None) -> dict[str, Any]:
    """Return the VirtualService that the kit makes: all on stable, a header for testers, the role on each answer.

    Parameters
    ----------
    target : Target
        The Services.
    namespace : str
        Of the Services: a gateway elsewhere must be able to find them.
    gateway : str, optional
        ``"namespace/name"`` of the Istio Gateway; the mesh itself by default.
    hostname : str, optional
        Name that it answers to.
    """

    def route(role: Role, weight: int) -> dict[str, Any]:
        return {
            "destination": {"host": f"{target.service(role)}.{namespace}.svc.cluster.local", "port": {"number": target.port}},
            "weight": weight,
            "headers": {"response": {"set": {ROLE_HEADER: role}}},
        }

    testers = [
        {"name": f"testers-{role}", "match": [{"headers": {ROLE_HEADER: {"exact": role}}}], "route": [route(role, 100)]}
        for role in ROLES
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": target.app, "labels": dict(target.labels)},
        "spec": {
            "hosts": [hostname or ("*" if gateway else f"{target.app}.{namespace}.svc.cluster.local")],
            "gateways": [gateway or "mesh"],
            "http": [*testers, {"name": "split", "route": [route("stable", 100), route("canary", 0)]}],
        },
    }


class IstioRouter(RouteRouter):
    """Router of a VirtualService; `gateway` is ``"namespace/name"`` of an Istio Gateway. Parameters as of `RouteRouter`."""

    kind = "VirtualService"
    features = frozenset({"testers", "mirroring", "fractions"})
    advice = "install Istio, or choose another router"

    def objects(self) -> list[dict[str, Any]]:
        """Return the VirtualService, unless the user has one."""
        if self._adopted:
            return []
        return [virtual_service(self._target, self._api.namespace, gateway=self.gateway, hostname=self.hostname)]

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the object says."""
        return split_of(found, self._target)

    def splits(self, found: Mapping[str, Any]) -> bool:
        """Whether a route of it still names both versions."""
        return bool(destinations(found, self._target))

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of our weights alone."""
        return patch(found, self._target, split), "json"

    def mirroring(self, found: Mapping[str, Any], percent: float) -> list[dict[str, Any]]:
        """Patch of the mirror alone."""
        return mirrored(found, self._target, percent)
