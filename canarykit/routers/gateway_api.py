"""The split of an HTTPRoute of the Gateway API: the weights of its backendRefs, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.objects import Api, Probe, Target, retried, until_served
from canarykit.wire import ROLE_HEADER

__all__ = ["GatewayApiRouter", "backends", "patch", "route", "split_of", "weights"]

MAX_WEIGHT = 1_000_000


def weights(split: TrafficSplit) -> dict[str, int]:
    """Whole weights whose ratio is the split, as small as can be: 0.1 % is 1 : 999.

    Raises
    ------
    RoutingError
        The split is finer than the Gateway API's weights of up to a million.
    """
    share = Fraction(split.share).limit_denominator(MAX_WEIGHT)
    if abs(float(share) - split.share) > 1e-9:
        raise RoutingError(f"an HTTPRoute splits in parts of a million; {split.canary} % is finer")
    total = max(share.denominator, 100)
    if (share * total).denominator != 1:
        total = share.denominator
    canary = int(share * total)
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
            if ref["name"] == target.service(role) and ref.get("kind", "Service") == "Service"
        }
        if len(roles) == 2:  # a rule for testers names one version alone: it has no split
            places += [(rule_number, position, role, int(refs[position].get("weight", 1))) for role, position in roles.items()]
    return places


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
        raise RoutingError(
            f"HTTPRoute {name} has no rule with both backends {target.service('stable')} and {target.service('canary')}: "
            "add them to the rule that is to be split"
        )
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


def patch(found: Mapping[str, Any], target: Target, split: TrafficSplit) -> list[dict[str, Any]]:
    """JSON patch that sets our weights, and fails when anything has been written since the route was read."""
    new = weights(split)
    changes: list[dict[str, Any]] = [
        {"op": "test", "path": "/metadata/resourceVersion", "value": found["metadata"]["resourceVersion"]}
    ]
    for rule, position, role, _ in backends(found, target):
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


class GatewayApiRouter:
    """Router of an HTTPRoute: the user's own, of which only the weights are touched, or one that the kit makes.

    Parameters
    ----------
    api : Api
        The namespace's objects.
    target : Target
        The Services.
    gateway : str, optional
        ``"namespace/name"`` of the Gateway, when the kit makes the route.
    url : str
        Where the gateway is reached.
    hostname : str, optional
        Name that the route answers to.
    name : str, optional
        Of the user's own route; the kit makes one named after the service by default.
    ready : str
        A path that both versions answer.
    within : float
        Seconds until a split must be served.
    """

    kind = "HTTPRoute"
    session_affinity = mirroring = False

    def __init__(
        self,
        api: Api,
        target: Target,
        *,
        url: str,
        gateway: str | None = None,
        hostname: str | None = None,
        name: str | None = None,
        ready: str = "/v2/health/ready",
        within: float = 30.0,
    ) -> None:
        self._api, self._target = api, target
        self._gateway, self._name, self._within = gateway, name or target.app, within
        self._adopted, self.hostname, self.url = name is not None, hostname, url
        self._probe = Probe(url, ready, host=hostname)
        self._before: int | None = None

    def objects(self) -> list[dict[str, Any]]:
        """Objects that the kit makes for this router; none when it adopts the user's route.

        Raises
        ------
        RoutingError
            No Gateway is named.
        """
        if self._adopted:
            return []
        if self._gateway is None:
            raise RoutingError('name the Gateway that is to serve the route, as gateway="namespace/name"')
        return [route(self._target, gateway=self._gateway, hostname=self.hostname)]

    def apply(self, split: TrafficSplit) -> float:
        """Set the split; return the seconds until the gateway served it."""
        start = time.perf_counter()
        seen: dict[str, TrafficSplit] = {}

        def change() -> dict[str, Any]:
            found = self._read()
            seen["before"] = split_of(found, self._target)
            return self._api.patch(self.kind, self._name, patch(found, self._target, split), how="json")

        written = retried(change)
        self._wait_accepted(written["metadata"]["generation"])
        until_served(self._probe, seen["before"], split, within=self._within, what=f"HTTPRoute {self._name}")
        return time.perf_counter() - start

    def observed(self) -> TrafficSplit:
        """Read the split back from the route."""
        return split_of(self._read(), self._target)

    def reset(self) -> None:
        """Send everything to stable; remove the route if the kit made it."""
        found = self._api.get(self.kind, self._name)
        if found is None:
            return
        if self._adopted:
            retried(
                lambda: self._api.patch(self.kind, self._name, patch(self._read(), self._target, TrafficSplit(0)), how="json")
            )
        elif found["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == "canarykit":
            self._api.delete(self.kind, self._name)
        self._probe.close()

    def _read(self) -> dict[str, Any]:
        found = self._api.get(self.kind, self._name)
        if found is None:
            raise RoutingError(
                f"there is no HTTPRoute {self._name} in namespace {self._api.namespace}, or this cluster has no Gateway API: "
                "install its definitions and a gateway, or choose another router"
            )
        return found

    def _wait_accepted(self, generation: int) -> None:
        """Wait until a gateway has accepted the route as written, with its backends resolved."""
        end = time.monotonic() + self._within
        while True:
            said = accepted(self._read(), generation)
            if said is None:
                return
            if time.monotonic() > end:
                raise RoutingError(f"HTTPRoute {self._name}: {said} after {self._within:g} s")
            time.sleep(0.02)


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
        stale = any(condition.get("observedGeneration", 0) < generation for condition in conditions.values())
        if not bad and not stale:
            return None
        name = parent.get("parentRef", {}).get("name", "?")
        refused.append(
            f"gateway {name} " + ("has not looked at it" if stale and not bad else f"does not accept it ({'; '.join(bad)})")
        )
    return "; ".join(refused)
