"""The split of an Istio VirtualService: the weights of the destinations that are ours, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import ROLES, Role, TrafficSplit
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.base import Capabilities
from canarykit.routers.hosts import service_of
from canarykit.routers.objects import Target, unchanged
from canarykit.routers.patches import Form, read_split, written_split
from canarykit.routers.route import RouteRouter, whole_weights
from canarykit.routers.rules import Backend, Rule, key_of, noted, split_rules, to_change
from canarykit.routers.testers import Testers
from canarykit.routers.ways import Way, best, host_of

__all__ = ["FORM", "IstioRouter", "mirrored", "patch", "rules_of", "split_of", "virtual_service", "way_of"]

FORM = Form("VirtualService", "http route", "http", "route", unsaid=0)
MAX_TOTAL = 1_000_000
_FORCED = "testers-"
"""How the names of the kit's routes for testers begin."""

_OF_REQUESTS = ("headers", "withoutHeaders", "queryParams", "sourceLabels", "sourceNamespace")
"""Fields of a match that tell who asks, rather than what for."""


def role_of(destination: Mapping[str, Any], target: Target, namespace: str | None) -> Role | None:
    """Version that a destination of a VirtualService in a namespace names: by a host of its own, or as a subset of one host."""
    host = service_of(str(destination.get("host", "")), of=namespace, place=namespace)
    subset = destination.get("subset")
    for role in ROLES:
        if host == target.service(role) or (host == target.app and subset == role):
            return role
    return None


def rules_of(found: Mapping[str, Any], target: Target) -> list[Rule]:
    """HTTP routes of a VirtualService, as far as they concern us."""
    rules, namespace = [], found["metadata"].get("namespace")
    for number, http in enumerate(found.get("spec", {}).get("http") or []):
        entries = http.get("route") or []
        unsaid = 100 if len(entries) == 1 else FORM.unsaid
        ours, others = [], 0
        for position, entry in enumerate(entries):
            role, weight = role_of(entry.get("destination", {}), target, namespace), int(entry.get("weight", unsaid))
            if role is None:
                others += weight
            else:
                ours.append(Backend(position, role, entry.get("weight"), weight))
        matches = http.get("match") or []
        asks = bool(matches) and all(any(match.get(field) for field in _OF_REQUESTS) for match in matches)
        rules.append(Rule(number, key_of(matches), tuple(ours), others, asks))
    return rules


def split_of(found: Mapping[str, Any], target: Target) -> TrafficSplit:
    """Split that a VirtualService says; 0 % where the canary is still to be added to it.

    Raises
    ------
    RoutingError
        No route of it names the versions, or those that do disagree.
    """
    return read_split(FORM, found, target, rules_of(found, target))


def patch(found: Mapping[str, Any], target: Target, split: TrafficSplit) -> list[dict[str, Any]]:
    """JSON patch that sets our weights, and fails when anything has been written since the object was read.

    Raises
    ------
    RoutingError
        No route names both versions, or one has destinations beside them: their share would change with ours.
    """
    canary, total = whole_weights(split, MAX_TOTAL, "a VirtualService")
    return written_split(FORM, found, target, rules_of(found, target), {"stable": total - canary, "canary": canary})


def way_of(found: Mapping[str, Any], target: Target, paths: Sequence[str]) -> Way:
    """Way to the versions through the routes that are split, by which these paths are reached best."""
    rules, before = rules_of(found, target), noted(found)
    spec = found.get("spec", {})
    host = host_of(spec.get("hosts") or [])
    ways = []
    for rule in to_change(rules, before):
        http = spec["http"][rule.number]
        ways += [_way(match, host, http.get("rewrite", {}).get("uri")) for match in http.get("match") or [{}]]
    return best(ways, paths) if ways else Way(host)


def _way(match: Mapping[str, Any], host: str | None, replaced_by: str | None) -> Way:
    uri, given = match.get("uri", {}), {}
    for field in ("headers", "queryParams"):
        asked = {name: said.get("exact", said.get("prefix")) for name, said in (match.get(field) or {}).items()}
        given[field] = {name: value for name, value in asked.items() if value is not None}
    exact = "exact" in uri
    method = match.get("method", {}).get("exact")
    prefix = uri.get("exact") or uri.get("prefix") or "/"
    return Way(host, prefix, replaced_by, exact, given["headers"], given["queryParams"], method)


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
            if key in http and _mirrors_to_canary(http, found, target)
        ]
    split_of(found, target)
    for rule in split_rules(rules_of(found, target), noted(found)):
        path, http = f"/spec/http/{rule.number}", found["spec"]["http"][rule.number]
        if http.get("mirrors") or ("mirror" in http and not _mirrors_to_canary(http, found, target)):
            raise RoutingError(
                f"http route {rule.number} of VirtualService {name} has a mirror of its own, and Istio knows one for each "
                "route: remove it, or do without mirroring to the canary"
            )
        (where,) = [http["route"][backend.position]["destination"] for backend in rule.ours if backend.role == "canary"]
        changes.append({"op": "add", "path": f"{path}/mirror", "value": where})
        changes.append({"op": "add", "path": f"{path}/mirrorPercentage", "value": {"value": float(percent)}})
    return changes


def _mirrors_to_canary(http: Mapping[str, Any], found: Mapping[str, Any], target: Target) -> bool:
    return "mirror" in http and role_of(http["mirror"], target, found["metadata"].get("namespace")) == "canary"


def virtual_service(
    target: Target, namespace: str, *, gateway: str | None, hostname: str | None, testers: Testers | None = None
) -> dict[str, Any]:
    """Return the VirtualService that the kit makes: all on stable, a header for testers, the role on each answer.

    Parameters
    ----------
    target : Target
        The Services.
    namespace : str
        Namespace of the Services: a gateway elsewhere must be able to find them.
    gateway : str, optional
        ``"namespace/name"`` of the Istio Gateway; the mesh itself by default.
    hostname : str, optional
        Name that it answers to.
    testers : Testers, optional
        Values of the header; the names of the roles by default.
    """

    def route(role: Role, weight: int) -> dict[str, Any]:
        return {
            "destination": {"host": f"{target.service(role)}.{namespace}.svc.cluster.local", "port": {"number": target.port}},
            "weight": weight,
            "headers": {"response": {"set": {ROLE_HEADER: role}}},
        }

    forced = [
        {"name": f"{_FORCED}{role}", "match": [{"headers": {ROLE_HEADER: {"exact": value}}}], "route": [route(role, 100)]}
        for role, value in (testers or Testers()).values.items()
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": target.app, "labels": dict(target.labels)},
        "spec": {
            "hosts": [hostname or ("*" if gateway else f"{target.app}.{namespace}.svc.cluster.local")],
            "gateways": [gateway or "mesh"],
            "http": [*forced, {"name": "split", "route": [route("stable", 100), route("canary", 0)]}],
        },
    }


class IstioRouter(RouteRouter):
    """Router of a VirtualService; `gateway` is ``"namespace/name"`` of an Istio Gateway. Parameters as of `RouteRouter`."""

    kind = "VirtualService"
    form = FORM
    capabilities = Capabilities(frozenset({"testers", "mirroring", "fractions"}))
    advice = "install Istio, or choose another router"

    def objects(self) -> list[dict[str, Any]]:
        """Return the VirtualService, unless the user has one."""
        return [] if self._adopted else [self._made_with(self._testers)]

    def _made_with(self, testers: Testers) -> dict[str, Any]:
        namespace = self._api.namespace
        return virtual_service(self._target, namespace, gateway=self.gateway, hostname=self.hostname, testers=testers)

    def rules(self, found: Mapping[str, Any]) -> list[Rule]:
        """HTTP routes of the object, as far as they concern us."""
        return rules_of(found, self._target)

    def beside(self, stable: Mapping[str, Any]) -> Mapping[str, Any]:
        """Destination of the canary, written as stable's is."""
        where = stable["destination"]
        if where.get("subset") == "stable" and where["host"].split(".")[0] == self._target.app:
            return {"destination": {**where, "subset": "canary"}}
        _, dot, rest = where["host"].partition(".")
        return {"destination": {**where, "host": f"{self._target.service('canary')}{dot}{rest}"}}

    def way(self, found: Mapping[str, Any], paths: Sequence[str]) -> Way:
        """Way to the versions through the user's own object."""
        return way_of(found, self._target, paths)

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the object says."""
        return split_of(found, self._target)

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of our weights alone."""
        return patch(found, self._target, split), "json"

    def mirroring(self, found: Mapping[str, Any], percent: float) -> list[dict[str, Any]]:
        """Patch of the mirror alone."""
        return mirrored(found, self._target, percent)

    def testing(self, found: Mapping[str, Any], testers: Testers) -> tuple[Any, str] | None:
        """Patch of the routes for testers alone; none where somebody has taken away all that they would be beside."""
        routes = found.get("spec", {}).get("http") or []
        forced = [http for http in routes if str(http.get("name", "")).startswith(_FORCED)]
        fresh = [http for http in self._made_with(testers)["spec"]["http"] if http["name"].startswith(_FORCED)]
        if not routes or [http.get("match") for http in forced] == [http["match"] for http in fresh]:
            return None
        kept = [http for http in routes if http not in forced]
        return [unchanged(found), {"op": "replace", "path": "/spec/http", "value": [*fresh, *kept]}], "json"
