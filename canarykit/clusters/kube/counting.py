"""Who counts a service's requests: the gateway that a Prometheus scrapes, or the servers in the pods."""

from __future__ import annotations

from functools import partial

from canarykit.clusters.kube.client import ROLE_THAT_SUFFICES, Client, message_of
from canarykit.clusters.kube.diagnose import serving
from canarykit.clusters.kube.pods import Pods
from canarykit.model import ROLES
from canarykit.telemetry.base import Telemetry
from canarykit.telemetry.catalogue import labels_of
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry

__all__ = ["telemetry_of"]


def telemetry_of(client: Client, app: str, pods: Pods, port: int, *, prometheus: str | None, metrics: str | None) -> Telemetry:
    """Return what counts the requests of a service.

    Parameters
    ----------
    client : Client
        The namespace.
    app : str
        The service.
    pods : Pods
        Which there are.
    port : int
        Where they listen.
    prometheus, metrics : str, optional
        As of `KubeCluster`.
    """
    if prometheus is not None:
        name = metrics or "traefik"
        select = {role: labels_of(name, client.namespace, app, role) for role in ROLES}
        return PrometheusTelemetry(prometheus, name, select)
    return ScrapeTelemetry(partial(_replicas, client, pods, port), metrics or "canarykit")


def _replicas(client: Client, pods: Pods, port: int) -> list[Replica]:
    """Pods that count requests, and the way to their pages through the API server."""
    return [
        Replica(role, pod["metadata"]["name"], partial(_page, client, pod["metadata"]["name"], port))
        for role, found in pods.by_role().items()
        for pod in found
        if serving(pod)
    ]


def _page(client: Client, pod: str, port: int) -> str:
    status, text = client.through(pod, port, "/metrics")
    if status != 200:
        more = f"; {ROLE_THAT_SUFFICES}" if status == 403 else ""
        raise OSError(f"its metrics page answers {status}: {message_of(text) or text[:200]}{more}")
    return text
