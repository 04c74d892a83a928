"""How traffic is split; one file each."""

from __future__ import annotations

from importlib import import_module

from canarykit.errors import PlanError
from canarykit.routers.base import KubeRouter

__all__ = ["ROUTERS", "able", "router_class"]

ROUTERS = {
    "gateway-api": "canarykit.routers.gateway_api:GatewayApiRouter",
    "istio": "canarykit.routers.istio:IstioRouter",
    "ingress-nginx": "canarykit.routers.ingress_nginx:IngressNginxRouter",
    "kserve": "canarykit.routers.kserve:KServeRouter",
    "replicas": "canarykit.routers.replicas:ReplicasRouter",
}
"""Routers of a Kubernetes cluster, by the name that people give them."""


def router_class(name: str) -> type[KubeRouter]:
    """Return the router of that name.

    Raises
    ------
    PlanError
        There is none.
    """
    if name not in ROUTERS:
        raise PlanError(f"no router is known as {name!r}: choose one of {', '.join(ROUTERS)}")
    module, _, found = ROUTERS[name].partition(":")
    made: type[KubeRouter] = getattr(import_module(module), found)
    return made


def able(feature: str) -> str:
    """Say which routers have a feature: ``testers``, ``mirroring``, ``affinity``, ``fractions``."""
    names = [name for name in ROUTERS if feature in router_class(name).capabilities.features]
    return f"{' and '.join(names)} can" if names else "no router here can do it without breaking its split or its way back"
