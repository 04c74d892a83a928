"""Which router a cluster was asked for, bound to a service."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from canarykit.clusters.kube.discovery import gateway_of, url_of
from canarykit.clusters.kube.manifests import MANAGER
from canarykit.errors import ClusterError, PlanError
from canarykit.routers import router_class
from canarykit.routers.objects import Api, Target

__all__ = ["as_bound", "bind", "target_of"]


def target_of(app: str, port: int) -> Target:
    """Return what routers split the traffic of: the Services of `app`, and the labels of what is made for them."""
    labels = {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": app, "app.kubernetes.io/managed-by": MANAGER}
    return Target(app, port, labels)


def bind(client: Api, app: str, asked: Mapping[str, Any], *, port: int, pod_port: int, replicas: int, ready: str) -> Any:
    """Return the router that was asked for, of this service.

    Parameters
    ----------
    client : Api
        The namespace.
    app : str
        The service.
    asked : mapping
        router, url, gateway, hostname and route, as of `KubeCluster`.
    port, pod_port : int
        Where the Services and the pods listen.
    replicas : int
        Pods per version.
    ready : str
        A path that both versions answer.

    Raises
    ------
    PlanError
        Nothing is known by that name.
    RoutingError
        It lacks what it needs.
    """
    made = router_class(asked["router"])
    target, url, gateway = target_of(app, port), asked["url"], asked["gateway"]
    if asked["router"] == "replicas":
        return made(client, target, url=url, pods=2 * replicas, port=pod_port, ready=ready)
    if asked["router"] == "gateway-api":
        gateways: list[dict[str, Any]] = []
        if url is None or gateway is None:
            with contextlib.suppress(ClusterError):  # a role within one namespace may not see them
                gateways = client.list("Gateway", everywhere=True)
        gateway, found = gateway_of(gateways, gateway)
        url = url or url_of(found)
    if url is None:
        raise PlanError(f"nobody tells this user where the gateway of router {asked['router']} is reached: give url=")
    return made(client, target, url=url, gateway=gateway, hostname=asked["hostname"], name=asked["route"], ready=ready)


def as_bound(asked: Mapping[str, Any], router: Any) -> dict[str, Any]:
    """Return what was asked for with what was found for it, so that whoever binds it again looks for nothing.

    Parameters
    ----------
    asked : mapping
        As of `bind`.
    router : Router
        What `bind` made of it.
    """
    if router.scales:
        return dict(asked)  # its Service may have no address yet
    return {**asked, "url": router.url, "gateway": router.gateway, "hostname": router.hostname}
