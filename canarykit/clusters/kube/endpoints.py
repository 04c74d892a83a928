"""Where each version's own Service is reached, beside the gateway."""

from __future__ import annotations

from typing import Any

from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.forward import Forward
from canarykit.clusters.kube.pods import Pods
from canarykit.errors import ClusterError
from canarykit.routers.objects import balancer_url

__all__ = ["Endpoints"]


class Endpoints:
    """Addresses of the Services of both versions, and the ports of this machine that lead to them.

    Parameters
    ----------
    client : Client
        The namespace.
    app : str
        The service.
    pods : Pods
        What a port leads to.
    port : int
        Where they listen.
    """

    def __init__(self, client: Client, app: str, pods: Pods, port: int) -> None:
        self._client, self._app, self._pods, self._port = client, app, pods, port
        self._forwards: list[Forward] = []

    def url(self, role: str) -> str:
        """Address of a version: of a node, of its load balancer, or of this machine.

        Raises
        ------
        ClusterError
            Its Service is gone, or no pod of it is ready.
        """
        name = f"{self._app}-{role}"
        found = self._client.get("Service", name)
        if found is None:
            raise ClusterError(f"Service {name} is gone: somebody deleted it")
        port = found["spec"]["ports"][0]
        if found["spec"]["type"] == "NodePort":
            return f"http://{self._ready_pod(role)['status']['hostIP']}:{port['nodePort']}"
        ingress = found.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        return balancer_url(ingress, port["port"]) or self._forward(role)

    def close(self) -> None:
        """Close the ports of this machine."""
        for forward in self._forwards:
            forward.close()
        self._forwards = []

    def _forward(self, role: str) -> str:
        def ready_pod() -> str:
            return str(self._ready_pod(role)["metadata"]["name"])

        forward = Forward(self._client.api, self._client.namespace, ready_pod, self._port)
        self._forwards.append(forward)
        return forward.url

    def _ready_pod(self, role: str) -> dict[str, Any]:
        ready = self._pods.ready(role)
        if not ready:
            raise ClusterError(f"{role} has no pod that is ready")
        return ready[-1]
