"""Who counts a service's requests: the gateway that a Prometheus scrapes, or the servers in the pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from canarykit.clusters.kube.api.client import ROLE_THAT_SUFFICES, Client, message_of
from canarykit.clusters.kube.envoy_gateway import clusters_of
from canarykit.clusters.kube.workloads.diagnose import serving
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.clusters.kube.workloads.prepared import Prepared
from canarykit.errors import PlanError
from canarykit.model import ROLES, Role
from canarykit.places import Place
from canarykit.protocol import check_address
from canarykit.routers.gateway_api import backends
from canarykit.routers.objects import Target
from canarykit.telemetry.base import Telemetry
from canarykit.telemetry.catalogue import EXPOSITIONS, Exposition, exposition, labels_of, matchers_of, unreached
from canarykit.telemetry.prometheus import PrometheusTelemetry, Select
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry

__all__ = ["Counting"]


@dataclass(frozen=True)
class Counting:
    """Where counts come from, as `KubeCluster` was asked.

    Parameters
    ----------
    prometheus, prometheus_token_file, metrics, select, port, path, ignore
        See `KubeCluster`.

    Raises
    ------
    PlanError
        Nothing is known by that name, or a word that makes no sense here.
    """

    prometheus: str | None = field(default=None, repr=False)
    prometheus_token_file: str | None = None
    metrics: str | Exposition | None = None
    select: str | Mapping[str, str] | None = None
    port: int | None = None
    path: str | None = None
    ignore: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.prometheus is not None:
            check_address("prometheus=", self.prometheus, user=True)
        by_gateway = exposition(self.who).backend is not None
        if self.prometheus is None:
            if by_gateway:
                raise PlanError(
                    f"metrics={self._name} are a gateway's, and pods have none of them: give prometheus=, the address of a "
                    "Prometheus that scrapes it, or name the server in the pods"
                )
            for name in ("select", "prometheus_token_file"):
                if getattr(self, name) is not None:
                    raise PlanError(f"{name}= is for a Prometheus: give prometheus= as well, or leave it out")
        elif self.port is not None or self.path is not None:
            raise PlanError("port= and path= say where the metrics of pods are: leave them out beside prometheus=")
        if self.port is not None and not (type(self.port) is int and 0 < self.port < 65536):
            raise PlanError(f"port= takes the port of the pods' metrics, 1 to 65535, not {self.port!r}")
        for name, path in (("path", self.path), *(("ignore", path) for path in self._ignored or ())):
            if path is not None and not path.startswith("/"):
                raise PlanError(f"{name}= takes paths that begin with a slash, such as /metrics, not {path!r}")
        if self.select is not None:
            matchers_of(self.select)
        elif self.prometheus is not None:
            labels_of(self.who, "namespace", Place("app", "app", {}), "stable")

    @property
    def who(self) -> str | Exposition:
        """Who counts."""
        return self.metrics or ("canarykit" if self.prometheus is None else "traefik")

    @property
    def _name(self) -> str:
        return repr(self.who) if isinstance(self.who, str) else self.who.requests

    @property
    def _ignored(self) -> tuple[str, ...] | None:
        """Paths to leave out in place of those of the catalogue; a text has them separated by commas."""
        if self.ignore is None:
            return None
        words = self.ignore.split(",") if isinstance(self.ignore, str) else self.ignore
        return tuple(word.strip() for word in words if word.strip())

    def entry(self, ready: Iterable[str]) -> Exposition:
        """What the counters are called, and what of them is left out: probes of the versions, and what `ignore` says."""
        return exposition(self.who).ignoring(ready, ignore=self._ignored)

    def selected(self, namespace: str, target: Target, route: Mapping[str, Any] | None) -> dict[Role, Select]:
        """Series of each version in Prometheus.

        Parameters
        ----------
        namespace : str
            Where the versions run.
        target : Target
            Objects of both versions.
        route : mapping, optional
            The HTTPRoute that splits the traffic, where one does and it is there.

        Raises
        ------
        ClusterError
            Nothing tells the versions apart.
        """
        if self.select is not None:
            return {**matchers_of(self.select, namespace, target.app)}
        if self.who == "envoy" and route is not None and (found := clusters_of(route, target)) is not None:
            return {**found}
        options: dict[str, Any] = {"port": target.port}
        if route is not None:
            rules = sorted({place[0] for place in backends(route, target)})
            options |= {"route": route["metadata"]["name"], "rules": rules}
        places = {role: (self.who, namespace, target.place(role)) for role in ROLES}
        return {role: [labels_of(*place, role, **options), *unreached(*place)] for role, place in places.items()}

    def check(self, namespace: str, target: Target, route: Mapping[str, Any] | None) -> None:
        """Refuse what cannot tell the versions apart; parameters as of `selected`."""
        if self.prometheus is not None:
            self.selected(namespace, target, route)

    def telemetry(
        self, client: Client, prepared: Prepared, target: Target, pods: Pods, *, route: Mapping[str, Any] | None
    ) -> Telemetry:
        """Return what counts the requests of a service.

        Parameters
        ----------
        client : Client
            The namespace.
        prepared : Prepared
            The service on this cluster.
        target : Target
            Objects of both versions.
        pods : Pods
            Which there are.
        route : mapping, optional
            The HTTPRoute that splits the traffic, where one does.
        """
        entry = self.entry(prepared.ready.values())
        if self.prometheus is not None:
            select = self.selected(client.namespace, target, route)
            token: dict[str, Any] = {"token_file": self.prometheus_token_file} if self.prometheus_token_file else {}
            return PrometheusTelemetry(self.prometheus, entry, select, **token)
        port, path = self.port or entry.port or prepared.port, self.path or entry.path
        replicas = partial(_replicas, client, pods, port, path)
        return ScrapeTelemetry(replicas, entry, f"at port {port} {path} of each pod")


def _replicas(client: Client, pods: Pods, port: int, path: str) -> list[Replica]:
    """Pods that count requests, and the way to their pages through the API server."""
    return [
        Replica(role, pod["metadata"]["name"], partial(_page, client, pod["metadata"]["name"], port, path))
        for role, found in pods.by_role().items()
        for pod in found
        if serving(pod)
    ]


def _page(client: Client, pod: str, port: int, path: str = "/metrics") -> str:
    status, text = client.through(pod, port, path)
    if status == 200:
        return text
    said = f"{pod} answers {status} at port {port} {path}: {message_of(text) or text[:200]}"
    if status == 403:
        raise OSError(f"{said}; {ROLE_THAT_SUFFICES}")
    # With mutual TLS of a mesh the API server reaches no port of the server, and says that it is away.
    mesh = "; behind mutual TLS of Istio they are at port=15020, path=/stats/prometheus" if status in (502, 503) else ""
    own = ", ".join(f"{name}: {entry.port}" for name, entry in EXPOSITIONS.items() if entry.port)
    raise OSError(f"{said}; its metrics may be on another port: set port=, and path= where it is not /metrics ({own}{mesh})")
