"""Which router a cluster was asked for, bound to a service."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

from canarykit.clusters.kube.discovery import gateway_of, url_of
from canarykit.clusters.kube.workloads.manifests import MANAGER
from canarykit.errors import CanaryError, ClusterError, PlanError
from canarykit.model import Outcome, Role
from canarykit.places import Places, read_places
from canarykit.routers import router_class
from canarykit.routers.base import KubeRouter
from canarykit.routers.objects import Api, Target
from canarykit.routers.testers import Testers

__all__ = ["as_bound", "bind", "checked", "end_testers", "end_testers_at", "target_of"]

_SETTLES = 600
"""Seconds at most: a return of traffic to stable is confirmed no sooner than that, and load balancers follow in minutes."""


def target_of(app: str, port: int, places: Places = MappingProxyType({})) -> Target:
    """Return what routers split the traffic of: the Services of `app`, and the labels of what is made for them."""
    labels = {"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": app, "app.kubernetes.io/managed-by": MANAGER}
    return Target(app, port, labels, places)


def checked(testers: bool | str, settle: float) -> dict[str, Any]:
    """Return what was asked for of testers and of a slow gateway, when it can be.

    Raises
    ------
    PlanError
        It cannot; says why.
    """
    Testers.of(testers)
    if isinstance(settle, bool) or not isinstance(settle, int | float) or not 0 <= settle <= _SETTLES:
        raise PlanError(f"settle= takes seconds from 0 to {_SETTLES}, not {settle!r}")
    return {"testers": testers, "settle": float(settle)}


def bind(
    client: Api,
    app: str,
    asked: Mapping[str, Any],
    *,
    port: int,
    pod_port: int,
    replicas: int,
    ready: str | Mapping[Role, str],
    places: Mapping[Role, Mapping[str, Any]] = MappingProxyType({}),
    notify: Callable[[str], object] = lambda line: None,
) -> KubeRouter:
    """Return the router that was asked for, of this service.

    Parameters
    ----------
    client : Api
        The namespace.
    app : str
        The service.
    asked : mapping
        router, url, gateway, hostname, route, testers and settle, as of `KubeCluster`.
    port, pod_port : int
        Where the Services and the pods listen.
    replicas : int
        Pods per version.
    ready : str or mapping of role to str
        Path that each version answers.
    places : mapping of role to mapping, optional
        Objects of both versions, as plain data; by default those that the kit makes.
    notify : callable
        Takes one line when something is believed that was not seen.

    Raises
    ------
    PlanError
        Nothing is known by that name.
    RoutingError
        It lacks what it needs.
    """
    made: Callable[..., KubeRouter] = router_class(asked["router"])
    target, url, gateway = target_of(app, port, read_places(places)), asked["url"], asked["gateway"]
    if asked["router"] == "replicas":
        return made(client, target, url=url, pods=2 * replicas, port=pod_port, ready=ready, notify=notify)
    if asked["router"] == "gateway-api":
        gateways: list[dict[str, Any]] = []
        if url is None or gateway is None:
            with contextlib.suppress(ClusterError):  # a role within one namespace may not see them
                gateways = client.list("Gateway", everywhere=True)
        gateway, found = gateway_of(gateways, gateway)
        url = url or url_of(found)
    if url is None:
        raise PlanError(f"nobody tells this user where the gateway of router {asked['router']} is reached: give url=")
    options = {"gateway": gateway, "hostname": asked["hostname"], "name": asked["route"], "settle": asked.get("settle", 1.0)}
    return made(client, target, url=url, ready=ready, testers=Testers.of(asked.get("testers", True)), notify=notify, **options)


def as_bound(asked: Mapping[str, Any], router: KubeRouter) -> dict[str, Any]:
    """Return what was asked for with what was found for it, so that whoever binds it again looks for nothing.

    Parameters
    ----------
    asked : mapping
        See `bind`.
    router : Router
        The router that `bind` returned.
    """
    if router.capabilities.scales:
        return dict(asked)  # its Service may have no address yet
    return {**asked, "url": router.url, "gateway": router.gateway, "hostname": router.hostname}


def end_testers_at(phase: object, router: KubeRouter | None, notify: Callable[[str], object]) -> None:
    """Have no header lead to the canary once a rollout has ended; where that fails it is told, and no error.

    Whatever it is that fails, such as a route that somebody has edited into a form which nobody expects: how the rollout ended
    must be written down all the same.

    Parameters
    ----------
    phase : object
        Phase of the rollout; an outcome where it has ended.
    router : Router or None
        Router of the service.
    notify : callable
        Takes one line.
    """
    if router is not None and phase in get_args(Outcome):
        end_testers(router, notify)


def end_testers(router: KubeRouter, notify: Callable[[str], object]) -> None:
    """Have no header lead to the canary any more, because no rollout is under way; where that fails it is told, and no error.

    Parameters
    ----------
    router : Router
        Router of the service.
    notify : callable
        Takes one line.
    """
    try:
        router.admit_testers(False)
    except Exception as error:  # traffic has returned, or is about to: that is worth more
        said = error if isinstance(error, CanaryError) else f"{type(error).__name__}: {error}"
        with contextlib.suppress(Exception):  # who reads may have gone
            notify(f"the rollout has ended, and the header for testers may lead to the canary still: {said}")
