"""Which router a cluster was asked for, bound to a service."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.discovery import gateway_of, url_of
from canarykit.clusters.kube.manifests import MANAGER
from canarykit.errors import ClusterError, PlanError
from canarykit.routers.gateway_api import GatewayApiRouter
from canarykit.routers.objects import Target

__all__ = ["bind"]


def bind(client: Client, app: str, asked: Mapping[str, Any], port: int, ready: str) -> Any:
    """Return the router that was asked for, of this service.

    Raises
    ------
    PlanError
        Nothing is known by that name.
    RoutingError
        It lacks what it needs.
    """
    if asked["router"] != "gateway-api":
        raise PlanError(f"no router is known as {asked['router']!r}")
    gateways: list[dict[str, Any]] = []
    with contextlib.suppress(ClusterError):  # a role within one namespace may not see them
        gateways = client.list("Gateway", everywhere=True)
    labels = {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": app, "app.kubernetes.io/managed-by": MANAGER}
    name, gateway = gateway_of(gateways, asked["gateway"])
    url = asked["url"] or url_of(gateway)
    if url is None:
        raise PlanError(f"Gateway {name} does not tell its address to this user: give url=, where it is reached")
    target = Target(app, port, labels)
    return GatewayApiRouter(client, target, url=url, gateway=name, hostname=asked["hostname"], name=asked["route"], ready=ready)
