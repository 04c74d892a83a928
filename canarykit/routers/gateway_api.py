"""The split of an HTTPRoute of the Gateway API: the weights of its backendRefs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import ROLES, Role, TrafficSplit
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.base import Capabilities
from canarykit.routers.objects import Target, unchanged
from canarykit.routers.patches import Form, read_split, written_split
from canarykit.routers.route import RouteRouter, whole_weights
from canarykit.routers.rules import Backend, Rule, key_of, noted, split_rules, to_change
from canarykit.routers.testers import Testers
from canarykit.routers.ways import Way, best, host_of

__all__ = [
    "FORM",
    "GatewayApiRouter",
    "accepted",
    "backends",
    "mirrored",
    "patch",
    "route",
    "rules_of",
    "split_of",
    "way_of",
    "weights",
]

FORM = Form("HTTPRoute", "rule", "rules", "backendRefs", unsaid=1)
MAX_WEIGHT = 1_000_000


def weights(split: TrafficSplit) -> dict[Role, int]:
    """Whole weights whose ratio is the split, as small as can be: 0.1 % is 1 : 999.

    Raises
    ------
    RoutingError
        The split is finer than the Gateway API's weights of up to a million.
    """
    canary, total = whole_weights(split, MAX_WEIGHT, "an HTTPRoute")
    return {"stable": total - canary, "canary": canary}


def rules_of(found: Mapping[str, Any], target: Target) -> list[Rule]:
    """Rules of a route, as far as they concern us."""
    rules = []
    for number, rule in enumerate(found.get("spec", {}).get("rules") or []):
        ours, others = [], 0
        for position, ref in enumerate(rule.get("backendRefs") or []):
            role, weight = role_of(ref, found, target), int(ref.get("weight", FORM.unsaid))
            if role is None:
                others += weight
            else:
                ours.append(Backend(position, role, ref.get("weight"), weight))
        matches = rule.get("matches") or []
        asks = bool(matches) and all(match.get("headers") or match.get("queryParams") for match in matches)
        rules.append(Rule(number, key_of(matches), tuple(ours), others, asks))
    return rules


def role_of(ref: Mapping[str, Any], found: Mapping[str, Any], target: Target) -> Role | None:
    """Version whose Service a backend is; a Service of the same name in another namespace is not ours."""
    if ref.get("kind", "Service") != "Service" or ref.get("group", "") or not _near(ref, found):
        return None
    return next((role for role in ROLES if ref.get("name") == target.service(role)), None)


def _near(ref: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether a backend is in the route's own namespace."""
    return ref.get("namespace") in (None, found["metadata"].get("namespace"))


def backends(found: Mapping[str, Any], target: Target) -> list[tuple[int, int, Role, int]]:
    """Where a route splits between our Services: rule, position in it, role, weight."""
    chosen = split_rules(rules_of(found, target), noted(found))
    return [(rule.number, backend.position, backend.role, backend.weight) for rule in chosen for backend in rule.ours]


def split_of(found: Mapping[str, Any], target: Target) -> TrafficSplit:
    """Split that a route says; 0 % where the canary is still to be added to it.

    Raises
    ------
    RoutingError
        No rule of it names the Services, or those that do disagree.
    """
    return read_split(FORM, found, target, rules_of(found, target))


def patch(found: Mapping[str, Any], target: Target, split: TrafficSplit) -> list[dict[str, Any]]:
    """JSON patch that sets our weights, and fails when anything has been written since the route was read.

    Raises
    ------
    RoutingError
        No rule names both Services, or one has backends beside them: their share would change with ours.
    """
    return written_split(FORM, found, target, rules_of(found, target), weights(split))


def way_of(found: Mapping[str, Any], target: Target, paths: Sequence[str]) -> Way:
    """Way to the versions through the rules that are split, by which these paths are reached best."""
    rules, before = rules_of(found, target), noted(found)
    spec = found.get("spec", {})
    host = host_of(spec.get("hostnames") or [])
    ways = []
    for rule in to_change(rules, before):
        body = spec["rules"][rule.number]
        ways += [_way(match, host, _replaced(body)) for match in body.get("matches") or [{}]]
    return best(ways, paths) if ways else Way(host)


def _way(match: Mapping[str, Any], host: str | None, replaced_by: str | None) -> Way:
    path = match.get("path", {})
    kind, value = path.get("type", "PathPrefix"), path.get("value", "/")
    given = {
        field: {entry["name"]: entry["value"] for entry in match.get(field) or [] if entry.get("type", "Exact") == "Exact"}
        for field in ("headers", "queryParams")
    }
    prefix = value if kind in ("PathPrefix", "Exact") else "/"  # of an expression nobody knows what it takes
    return Way(host, prefix, replaced_by, kind == "Exact", given["headers"], given["queryParams"], match.get("method"))


def _replaced(rule: Mapping[str, Any]) -> str | None:
    """What a rule's versions see in place of the prefix that was asked for."""
    for entry in rule.get("filters") or []:
        path = entry.get("urlRewrite", {}).get("path", {})
        if path.get("type") == "ReplacePrefixMatch":
            return str(path.get("replacePrefixMatch") or "/")
    return None


def route(
    target: Target, *, gateway: str, hostname: str | None, path: str = "/", testers: Testers | None = None
) -> dict[str, Any]:
    """Return the HTTPRoute that the kit makes where the user has none: all on stable, and a header for testers.

    Parameters
    ----------
    target : Target
        The Services.
    gateway : str
        ``"namespace/name"`` of the Gateway.
    hostname : str, optional
        Name that it answers to; any by default.
    path : str
        Prefix of the paths that it takes.
    testers : Testers, optional
        Values of the header; the names of the roles by default.
    """
    namespace, _, name = gateway.rpartition("/")
    parent = {"name": name, **({"namespace": namespace} if namespace else {})}

    def backend(role: Role, weight: int) -> dict[str, Any]:
        return {"name": target.service(role), "port": target.port, "weight": weight}

    match = {"path": {"type": "PathPrefix", "value": path}}
    forced = [
        {
            "matches": [{**match, "headers": [{"name": ROLE_HEADER, "value": value}]}],
            "backendRefs": [backend(role, 1)],
        }
        for role, value in (testers or Testers()).values.items()
    ]
    spec: dict[str, Any] = {
        "parentRefs": [parent],
        "rules": [{"matches": [match], "backendRefs": [backend("stable", 100), backend("canary", 0)]}, *forced],
    }
    if hostname:
        spec["hostnames"] = [hostname]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": target.app, "labels": dict(target.labels)},
        "spec": spec,
    }


def _forces(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Values of the testers' header that a rule asks for; none when it is no rule for testers of the kit's."""
    asked = [match.get("headers") or [] for match in rule.get("matches") or []]
    return tuple(header["value"] for headers in asked for header in headers if header["name"].lower() == ROLE_HEADER)


class GatewayApiRouter(RouteRouter):
    """Router of an HTTPRoute; `gateway` is ``"namespace/name"`` of its Gateway. Parameters as of `RouteRouter`."""

    kind = "HTTPRoute"
    form = FORM
    capabilities = Capabilities(frozenset({"testers", "mirroring", "fractions"}))
    advice = "install the Gateway API's definitions and a gateway, or choose another router"

    def objects(self) -> list[dict[str, Any]]:
        """Return the HTTPRoute, unless the user has one.

        Raises
        ------
        RoutingError
            No Gateway is named.
        """
        if self._adopted:
            return []
        if self.gateway is None:
            raise RoutingError('name the Gateway that is to serve the route, as gateway="namespace/name"')
        return [route(self._target, gateway=self.gateway, hostname=self.hostname, testers=self._testers)]

    def rules(self, found: Mapping[str, Any]) -> list[Rule]:
        """Rules of the route, as far as they concern us."""
        return rules_of(found, self._target)

    def beside(self, stable: Mapping[str, Any]) -> Mapping[str, Any]:
        """Name of the canary's Service, and its port."""
        return {"name": self._target.service("canary"), "port": self._target.port}

    def way(self, found: Mapping[str, Any], paths: Sequence[str]) -> Way:
        """Way to the versions through the user's own route."""
        return way_of(found, self._target, paths)

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the route says."""
        return split_of(found, self._target)

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of our weights alone."""
        return patch(found, self._target, split), "json"

    def refusal(self, found: Mapping[str, Any], generation: int) -> str | None:
        """Say why no gateway serves the route as written."""
        return accepted(found, generation)

    def mirroring(self, found: Mapping[str, Any], percent: float) -> list[dict[str, Any]]:
        """Patch of our filter alone."""
        return mirrored(found, self._target, percent)

    def testing(self, found: Mapping[str, Any], testers: Testers) -> tuple[Any, str] | None:
        """Patch of the rules for testers alone; none where somebody has taken away all rules that they would be beside."""
        rules = found.get("spec", {}).get("rules") or []
        if not rules or sorted(value for rule in rules for value in _forces(rule)) == sorted(testers.values.values()):
            return None
        hostname = (found["spec"].get("hostnames") or [None])[0]
        fresh = route(self._target, gateway=self.gateway or "", hostname=hostname, testers=testers)["spec"]["rules"][1:]
        kept = [rule for rule in rules if not _forces(rule)]
        return [unchanged(found), {"op": "replace", "path": "/spec/rules", "value": [*kept, *fresh]}], "json"


def mirrored(found: Mapping[str, Any], target: Target, percent: float) -> list[dict[str, Any]]:
    """JSON patch that has the rules which are split send a copy to the canary; 0 percent ends that, wherever it is.

    Filters of others stay.

    Raises
    ------
    RoutingError
        It is no whole percent, or no rule is split.
    """
    if not percent.is_integer():
        raise RoutingError(f"an HTTPRoute mirrors whole percents; {percent} % is finer")
    name = target.service("canary")
    backend = {"name": name, "port": target.port}
    if percent:
        split_of(found, target)
        rules = [rule.number for rule in split_rules(rules_of(found, target), noted(found))]
    else:
        rules = list(range(len(found.get("spec", {}).get("rules", []))))
    changes: list[dict[str, Any]] = [unchanged(found)]
    for rule in rules:
        filters, path = found["spec"]["rules"][rule].get("filters", []), f"/spec/rules/{rule}/filters"
        kept = [entry for entry in filters if not _mirrors_to(name, entry, found)]
        # Whole percents are in the standard channel; 100 needs no word.
        copy = {"backendRef": backend, **({"percent": int(percent)} if percent < 100 else {})}
        wanted = [*kept, {"type": "RequestMirror", "requestMirror": copy}] if percent else kept
        if wanted and wanted != filters:
            changes.append({"op": "add", "path": path, "value": wanted})
        elif filters and not wanted:
            changes.append({"op": "remove", "path": path})
    return changes


def _mirrors_to(name: str, entry: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    ref = entry.get("requestMirror", {}).get("backendRef", {})
    return bool(ref.get("name") == name and _near(ref, found))


def accepted(found: Mapping[str, Any], generation: int) -> str | None:
    """Say why no gateway serves a route as written; None when one does."""
    parents = found.get("status", {}).get("parents", [])
    if not parents:
        return "no gateway has taken it up: is its parentRef the name of a Gateway with a running controller?"
    refused = []
    for parent in parents:
        conditions = {condition["type"]: condition for condition in parent.get("conditions", [])}
        bad = [
            f"{kind}: {conditions[kind].get('reason')}: {conditions[kind].get('message')}"
            if kind in conditions
            else f"{kind}: unknown"
            for kind in ("Accepted", "ResolvedRefs")
            if kind not in conditions or conditions[kind]["status"] != "True"
        ]
        stale = any(conditions.get(kind, {}).get("observedGeneration", 0) < generation for kind in ("Accepted", "ResolvedRefs"))
        if not bad and not stale:
            return None
        name = parent.get("parentRef", {}).get("name", "?")
        refused.append(
            f"gateway {name} " + ("has not looked at it" if stale and not bad else f"does not accept it ({'; '.join(bad)})")
        )
    return "; ".join(refused)
