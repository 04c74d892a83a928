"""Where each version's own Service is reached, beside the gateway."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.port_forward import Forward
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.errors import ClusterError
from canarykit.model import Role
from canarykit.places import Places
from canarykit.routers.objects import balancer_url

__all__ = ["Endpoints"]

_CONNECT_WITHIN = 1.0


class Endpoints:
    """Addresses of the Services of both versions, and the ports of this machine that lead to them.

    Parameters
    ----------
    client : Client
        The namespace.
    places : mapping of role to Place
        Objects of both versions.
    pods : Pods
        Pods that a forwarded port leads to.
    port : int
        Where they listen.
    """

    def __init__(self, client: Client, places: Places, pods: Pods, port: int) -> None:
        self._client, self._places, self._pods, self._port = client, places, pods, port
        self._forwards: dict[str, Forward] = {}

    def url(self, role: Role) -> str:
        """Address of a version: of a node, of its load balancer, or of this machine.

        A load balancer has its address before it listens there, and some are not reached from everywhere: until it accepts
        connections from here, a port of this machine leads to a pod.

        Raises
        ------
        ClusterError
            Its Service is gone, or no pod of it is ready.
        """
        name = self._places[role].service
        found = self._client.get("Service", name)
        if found is None:
            raise ClusterError(f"Service {name} is gone: somebody deleted it")
        port = found["spec"]["ports"][0]
        if found["spec"]["type"] == "NodePort":
            return f"http://{self._ready_pod(role)['status']['hostIP']}:{port['nodePort']}"
        ingress = found.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        balancer = balancer_url(ingress, port["port"])
        return balancer if balancer is not None and _listens(balancer) else self._forward(role)

    def close(self) -> None:
        """Close the ports of this machine."""
        for forward in self._forwards.values():
            forward.close()
        self._forwards = {}

    def _forward(self, role: Role) -> str:
        def ready_pod() -> str:
            return str(self._ready_pod(role)["metadata"]["name"])

        if role not in self._forwards:
            self._forwards[role] = Forward(self._client.connection, self._client.namespace, ready_pod, self._port)
        return self._forwards[role].url

    def _ready_pod(self, role: Role) -> dict[str, Any]:
        ready = self._pods.ready(role)
        if not ready:
            raise ClusterError(f"{role} has no pod that is ready")
        return ready[-1]


def _listens(url: str) -> bool:
    """Whether a connection from here is accepted."""
    place = urlsplit(url)
    try:
        socket.create_connection((place.hostname, place.port or 80), timeout=_CONNECT_WITHIN).close()
    except OSError:
        return False
    return True
