"""Clusters that Envoy Gateway makes of an HTTPRoute: one per rule, with both versions in it, unless a backend has a filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canarykit.errors import ClusterError
from canarykit.model import ROLES, Role
from canarykit.routers.gateway_api import rules_of
from canarykit.routers.objects import Target
from canarykit.routers.rules import noted, to_change
from canarykit.telemetry.catalogue import Labels

__all__ = ["CONTROLLER", "clusters_of"]

CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"
"""What Envoy Gateway calls itself in the status of a route."""


def clusters_of(route: Mapping[str, Any], target: Target) -> dict[Role, Labels] | None:
    """Clusters of both versions, by their label; None when another controller serves the route.

    Parameters
    ----------
    route : mapping
        The HTTPRoute.
    target : Target
        The Services.

    Raises
    ------
    ClusterError
        Both versions are in one cluster, so that no counter tells them apart.
    """
    parents = route.get("status", {}).get("parents", [])
    if all(parent.get("controllerName") != CONTROLLER for parent in parents):
        return None
    meta = route["metadata"]
    rules, before = rules_of(route, target), noted(route)
    names: dict[str, list[str]] = {role: [] for role in ROLES}
    for rule in to_change(rules, before):  # what is added to a rule has stable's filters
        if not any(ref.get("filters") for ref in route["spec"]["rules"][rule.number]["backendRefs"]):
            raise ClusterError(
                f"Envoy Gateway has one cluster for rule {rule.number} of HTTPRoute {meta['name']}, with both versions in "
                "it, so that its counters cannot tell them apart: give one of its backendRefs a filter (such as a "
                "ResponseHeaderModifier) in a route of your own, route=; or say which series are whose, as select=; or leave "
                "out prometheus= and have the pods asked"
            )
        for backend in rule.ours:
            place = f"httproute/{meta['namespace']}/{meta['name']}/rule/{rule.number}/backend/{backend.position}"
            names[backend.role].append(place.replace(".", "[.]"))
    return {role: {"envoy_cluster_name": f"~({'|'.join(names[role])})"} for role in ROLES}
