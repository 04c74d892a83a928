"""The split of an HTTPRoute of the Gateway API: the weights of its backendRefs, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.objects import Target, unchanged
from canarykit.routers.route import RouteRouter, whole_weights
from canarykit.wire import ROLE_HEADER

__all__ = ["GatewayApiRouter", "accepted", "backends", "mirrored", "patch", "route", "split_of", "weights"]

MAX_WEIGHT = 1_000_000


def weights(split: TrafficSplit) -> dict[str, int]:
    """Whole weights whose ratio is the split, as small as can be: 0.1 % is 1 : 999.

    Raises
    ------
    RoutingError
        The split is finer than the Gateway API's weights of up to a million.
    """
    canary, total = whole_weights(split, MAX_WEIGHT, "an HTTPRoute")
    return {"stable": total - canary, "canary": canary}


def backends(found: Mapping[str, Any], target: Target) -> list[tuple[int, int, str, int]]:
    """Where a route names our Services: rule, position in it, role, weight."""
    places = []
    for rule_number, rule in enumerate(found.get("spec", {}).get("rules", [])):
        refs = rule.get("backendRefs", [])
        roles = {
            role: position
            for position, ref in enumerate(refs)
            for role in ("stable", "canary")
            if ref["name"] == target.service(role) and ref.get("kind", "Service") == "Service" and _near(ref, found)
        }
        if len(roles) == 2:  # a rule for testers names one version alone: it has no split
            places += [(rule_number, position, role, int(refs[position].get("weight", 1))) for role, position in roles.items()]
    return places


def _near(ref: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether a backend is in the route's own namespace: a Service of the same name elsewhere is not ours."""
    return ref.get("namespace") in (None, found["metadata"].get("namespace"))


def split_of(found: Mapping[str, Any], target: Target) -> TrafficSplit:
    """Split that a route says.

    Raises
    ------
    RoutingError
        No rule of it names both Services, or its rules disagree.
    """
    places = backends(found, target)
    name = found["metadata"]["name"]
    if not places:
        raise _unsplit(name, target)
    splits = set()
    for rule in {place[0] for place in places}:
        parts = {role: weight for number, _, role, weight in places if number == rule}
        total = sum(parts.values())
        splits.add(TrafficSplit(round(100 * parts["canary"] / total, 9)) if total else None)
    if len(splits) > 1 or None in splits:
        raise RoutingError(
            f"the rules of HTTPRoute {name} split the traffic differently, or not at all: {sorted(map(str, splits))}"
        )
    (split,) = splits
    assert split is not None
    return split


def _unsplit(name: str, target: Target) -> RoutingError:
    return RoutingError(
        f"HTTPRoute {name} has no rule with both backends {target.service('stable')} and {target.service('canary')}: "
        "add them to the rule that is to be split"
    )


def patch(found: Mapping[str, Any], target: Target, split: TrafficSplit) -> list[dict[str, Any]]:
    """JSON patch that sets our weights, and fails when anything has been written since the route was read.

    Raises
    ------
    RoutingError
        No rule names both Services, or one has backends beside them: their share would change with ours.
    """
    new, name = weights(split), found["metadata"]["name"]
    changes, places = [unchanged(found)], backends(found, target)
    if not places:
        raise _unsplit(name, target)
    for rule in sorted({place[0] for place in places}):
        refs, ours = found["spec"]["rules"][rule]["backendRefs"], {place[1] for place in places if place[0] == rule}
        if any(ref.get("weight", 1) for position, ref in enumerate(refs) if position not in ours):
            raise RoutingError(
                f"rule {rule} of HTTPRoute {name} has backends beside the two versions: give the two a rule of their own"
            )
    for rule, position, role, _ in sorted(places):
        path = f"/spec/rules/{rule}/backendRefs/{position}"
        changes.append({"op": "add", "path": f"{path}/weight", "value": new[role]})
    return changes


def route(target: Target, *, gateway: str, hostname: str | None, path: str = "/") -> dict[str, Any]:
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
    """
    namespace, _, name = gateway.rpartition("/")
    parent = {"name": name, **({"namespace": namespace} if namespace else {})}

    def backend(role: str, weight: int) -> dict[str, Any]:
        return {"name": f"{target.app}-{role}", "port": target.port, "weight": weight}

    match = {"path": {"type": "PathPrefix", "value": path}}
    testers = [
        {
            "matches": [{**match, "headers": [{"name": ROLE_HEADER, "value": role}]}],
            "backendRefs": [backend(role, 1)],
        }
        for role in ("stable", "canary")
    ]
    spec: dict[str, Any] = {
        "parentRefs": [parent],
        "rules": [{"matches": [match], "backendRefs": [backend("stable", 100), backend("canary", 0)]}, *testers],
    }
    if hostname:
        spec["hostnames"] = [hostname]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": target.app, "labels": dict(target.labels)},
        "spec": spec,
    }


class GatewayApiRouter(RouteRouter):
    """Router of an HTTPRoute; `gateway` is ``"namespace/name"`` of its Gateway. Parameters as of `RouteRouter`."""

    kind = "HTTPRoute"
    features = frozenset({"testers", "mirroring", "fractions"})
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
        return [route(self._target, gateway=self.gateway, hostname=self.hostname)]

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the route says."""
        return split_of(found, self._target)

    def splits(self, found: Mapping[str, Any]) -> bool:
        """Whether a rule of it still names both versions."""
        return bool(backends(found, self._target))

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of our weights alone."""
        return patch(found, self._target, split), "json"

    def refusal(self, found: Mapping[str, Any], generation: int) -> str | None:
        """Say why no gateway serves the route as written."""
        return accepted(found, generation)

    def mirroring(self, found: Mapping[str, Any], percent: float) -> list[dict[str, Any]]:
        """Patch of our filter alone."""
        return mirrored(found, self._target, percent)


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
        rules = sorted({place[0] for place in backends(found, target)})
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
