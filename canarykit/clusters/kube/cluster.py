"""KubeCluster: the same two versions as Deployments, behind a gateway of the cluster."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import yaml

from canarykit.clusters.base import SystemClock
from canarykit.clusters.kube import manifests
from canarykit.clusters.kube.binding import bind
from canarykit.clusters.kube.changes import Changes, difference
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.diagnose import progress, serving
from canarykit.clusters.kube.forward import Forward
from canarykit.clusters.kube.guard import Guard
from canarykit.clusters.kube.jobs import JobLoad
from canarykit.clusters.kube.lease import Lease
from canarykit.clusters.kube.manifests import Model, Workload
from canarykit.clusters.kube.ownership import adopted, mine, remove, restored
from canarykit.clusters.kube.pods import Pods
from canarykit.clusters.kube.writing import refuse, write
from canarykit.errors import ClusterError, PlanError
from canarykit.load import Load
from canarykit.model import ROLES, Role, Service, TrafficSplit
from canarykit.routers import router_class
from canarykit.routers.base import Router
from canarykit.routers.objects import balancer_url
from canarykit.serving import storage
from canarykit.telemetry.base import Telemetry
from canarykit.telemetry.catalogue import exposition, labels_of
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry

__all__ = ["KubeCluster", "from_address"]

_POLL = 0.2
_CAPACITY_WITHIN = 60.0


class KubeCluster:
    """Versions as Deployments of a Kubernetes cluster.

    Parameters
    ----------
    context : str, optional
        Of the kubeconfig; its current one by default.
    namespace : str
        Where everything is written; made when it is not there.
    router : str
        Who splits the traffic; `canarykit.routers.ROUTERS` has the names.
    url : str, optional
        Where the gateway is reached; read from the Gateway's status when it may be.
    gateway : str, optional
        ``"namespace/name"`` of the Gateway; the only one there is by default.
    hostname : str, optional
        Name that the route answers to.
    route : str, optional
        Name of your own route, of which only the weights are touched; the kit makes one by default.
    workload : Workload, optional
        Ports, resources, nodes of the pods.
    prometheus : str, optional
        Address of a Prometheus that scrapes the gateway; the pods' own metrics are read by default.
    metrics : str, optional
        Who counts, as `canarykit.telemetry.catalogue` has it: the gateway that Prometheus scrapes, ``"traefik"`` by default,
        or else the servers in the pods, ``"canarykit"``.
    adopt : bool
        Take over objects of these names that someone else made; `teardown` gives them back as they were.
    ready_within : float
        Seconds that a version may take until it is ready.
    lease : int
        Seconds without a sign of life after which traffic returns to stable by itself.
    tell : callable, optional
        Takes one line of progress; by default an experiment tells it, or else it is printed.

    Raises
    ------
    ClusterError
        No such context, or the kubernetes package is missing.
    PlanError
        A name that nothing is known by.
    """

    simulated = False
    clock = SystemClock()

    def __init__(
        self,
        context: str | None = None,
        namespace: str = "ai-services",
        *,
        router: str = "gateway-api",
        url: str | None = None,
        gateway: str | None = None,
        hostname: str | None = None,
        route: str | None = None,
        workload: Workload | None = None,
        prometheus: str | None = None,
        metrics: str | None = None,
        adopt: bool = False,
        ready_within: float = 120.0,
        lease: int = 60,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        router_class(router)
        exposition(metrics or "canarykit")
        self.client = Client(context, namespace, tell=lambda line: self._passing(line))
        self._asked = {"router": router, "url": url, "gateway": gateway, "hostname": hostname, "route": route}
        self.workload = (workload or Workload()).fronted()
        self._prometheus, self._metrics = prometheus, metrics
        self._adopt, self._ready_within = adopt, ready_within
        self._lease_seconds, self._given = lease, tell
        self._tell: Callable[[str], object] = tell or print
        self._passing = self._tell
        self._service: Service | None = None
        self._models: dict[Role, Model] = {}
        self._router: Any = None
        self._telemetry: Telemetry | None = None
        self._lease: Lease | None = None
        self._guard: Guard | None = None
        self._forwards: list[Forward] = []

    def narrate(self, tell: Callable[[str], object], passing: Callable[[str], object]) -> None:
        """Tell what happens, and what is being waited for, through these, unless `tell` was given at the beginning."""
        if self._given is None:
            self._tell, self._passing = tell, passing

    # Before anything is written ----------------------------------------------------------------------------------------

    def plan(self, service: Service) -> Changes:
        """Ask the server what `deploy` would change; nothing is written.

        Raises
        ------
        ClusterError, PlanError
            As `deploy` would.
        """
        self._look_at_namespace(make=False)
        models = self._model_files(service)
        changes = []
        for body in [*manifests.objects(service, self.workload, models), *self._bind(service).objects()]:
            before = self.client.get(body["kind"], body["metadata"]["name"])
            if before is not None and body["kind"] == "HTTPRoute":
                after = before  # the weights that are in force stay
            elif self._namespace_is_there:
                after = self.client.apply(body, dry_run=True, force=self._adopt)
            else:
                after = dict(body)
            changes.append(difference(before, after))
        return Changes(changes)

    def export(self, service: Service, path: str | Path | None = None) -> str:
        """Return the objects as YAML for ``kubectl apply``; write them to a file when a path is given."""
        made: list[Mapping[str, Any]] = [manifests.namespace(self.client.namespace)]
        made += manifests.objects(service, self.workload, self._model_files(service)) + self._bind(service).objects()
        for body in made[1:]:
            body["metadata"]["namespace"] = self.client.namespace
        text = yaml.safe_dump_all(made, sort_keys=False)
        if path is not None:
            Path(path).write_text(text)
        return text

    # Life --------------------------------------------------------------------------------------------------------------

    def deploy(self, service: Service) -> None:
        """Bring up both versions; all traffic on stable, unless a rollout of the same versions is under way.

        Everything is checked by the server before the first object is written.

        Raises
        ------
        ClusterError
            A version does not come up, and why; objects of these names are someone else's; no permission; the
            namespace is being deleted. What this call made is removed again.
        RoutingError
            No gateway serves the route.
        """
        if self._service is not None:
            raise ClusterError("this cluster runs a service already: tear it down first, or connect to another one")
        models = self._model_files(service)
        router = self._bind(service)
        fresh_namespace = self._look_at_namespace(make=True)
        self._lease = Lease(self.client, service.name, manifests.labels(service), seconds=self._lease_seconds)
        state = self._lease.acquire()
        made: list[tuple[str, str]] = []
        bodies = manifests.objects(service, self.workload, models)
        try:
            refuse(self.client, [*bodies, *router.objects()], adopt=self._adopt)
            resumed = write(self.client, bodies, router, made, adopt=self._adopt)
            self._service, self._models, self._router = service, models, router
            self._pods = Pods(self.client, service.name, self._passing)
            for role in ROLES:
                at_least = 0 if resumed and router.scales else service.replicas
                self._pods.wait_ready(role, at_least, self._ready_within)
            if not resumed:
                router.apply(TrafficSplit(0))
            self._telemetry = self._make_telemetry(service)
        except BaseException:
            self._undo(service, router, made, fresh_namespace)
            raise
        self._guard = Guard.start(self._lease, self.client, service.name, self._binding(service))
        weight = router.observed().canary
        if weight:
            self._tell(f"found a rollout {state.get('phase', 'under way')}: {weight:g} % of the traffic are on the canary")

    def remember(self, **facts: Any) -> None:
        """Write down where the rollout stands, for whoever goes on with it."""
        if self._lease is not None:
            self._lease.remember(**facts)

    def release(self) -> None:
        """Let go: what is deployed stays as it is, and what this process holds open is closed. May be called again."""
        if self._lease is not None:
            self._lease.release()
        self._close()

    def teardown(self) -> None:
        """Remove all that was made, and give back what was adopted, as it was. May be called again."""
        service, router = self._service, self._router
        if service is None:
            return
        router.reset()
        remove(self.client, service, self._tell)
        if self._lease is not None:
            self._lease.remove()
        self._wait_gone(service)
        self._remove_namespace()
        self._close()

    # Traffic -----------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return str(self._bound.url)

    @property
    def router(self) -> Router:
        """Splits the traffic."""
        router: Router = self._bound
        return router

    @property
    def telemetry(self) -> Telemetry:
        """Counts it."""
        assert self._bound
        assert self._telemetry is not None
        return self._telemetry

    def send(self, rate: float | str, *, inside: int = 0, **options: Any) -> Any:
        """Begin to send traffic to the service.

        Parameters
        ----------
        rate : float or str
            Requests per second.
        inside : int
            Pods of the cluster that send; by default a process of this machine does.
        **options
            As in `Load`; and ``url``, the gateway's address as the pods see it, where it is another than from here.
        """
        path = options.pop("path", f"/v2/models/{self._deployed.name}/infer")
        if hostname := self._bound.hostname:
            options["headers"] = {"host": hostname, **options.get("headers", {})}
        if self._bound.scales:  # a connection that stays open would stay on its pod
            options["headers"] = {"connection": "close", **options.get("headers", {})}
        if inside:
            address = options.pop("url", self.url).rstrip("/") + path
            return JobLoad(self.client, self._deployed, self.workload, url=address, pods=inside, rate=rate, **options).start()
        return Load(self.url, rate=rate, path=path, **options).start()

    def urls(self) -> dict[Role, str]:
        """Address of each version's own Service: of its load balancer, or a port of this machine that leads to a pod."""
        return {role: self._service_url(role) for role in ROLES}

    def pods(self, role: Role) -> list[dict[str, Any]]:
        """Pods of a version, oldest first."""
        return self._pods.of(role)

    def warm(self, role: Role) -> None:
        """Check that a version has pods that are ready; stable gets back what it lacks first."""
        service = self._deployed
        if self._bound.scales:
            return  # it brings up the pods that a split needs before it takes others away
        ready, asked, _ = progress(self._pods.deployment(role))
        if role == "stable" and asked < service.replicas:
            self._passing(f"stable has {asked} of {service.replicas} pods: waiting for the others before it gets traffic")
            self._scale(role, service.replicas)
        elif ready:
            return
        self._pods.wait_ready(role, service.replicas if role == "stable" else 1, _CAPACITY_WITHIN)

    def trouble(self, role: Role) -> str | None:
        """What is wrong with a version's pods, with the last log lines; None when nothing is."""
        return self._pods.trouble(role)

    def promote(self) -> None:
        """Let stable take the canary's version by a rolling update; the canary has all traffic meanwhile."""
        service = self._deployed
        after = replace(service, stable=service.canary)
        model = self._models.get("canary")
        self.client.apply(manifests.deployment(after, "stable", self.workload, model), force=self._adopt)
        try:
            self._pods.wait_ready("stable", service.replicas, self._ready_within)
        except ClusterError:
            old = manifests.deployment(service, "stable", self.workload, self._models.get("stable"))
            self.client.apply(old, force=self._adopt)
            raise
        self._service = after
        if model is not None:
            self._models["stable"] = model
        else:
            self._models.pop("stable", None)

    def retire_canary(self) -> None:
        """Scale the canary down; its pods finish what they have."""
        self._scale("canary", 0)

    def log(self, instance: str, lines: int = 20) -> str:
        """Last lines that a pod wrote."""
        return self._pods.log(instance, lines)

    # Inside ------------------------------------------------------------------------------------------------------------

    @property
    def _deployed(self) -> Service:
        if self._service is None:
            raise ClusterError("nothing runs here: deploy a service first")
        return self._service

    @property
    def _bound(self) -> Any:
        assert self._deployed
        return self._router

    def _bind(self, service: Service) -> Any:
        """Router of this service."""
        manifests.check(service)
        return bind(self.client, service.name, **self._binding(service))

    def _binding(self, service: Service) -> dict[str, Any]:
        ports = {"port": self.workload.service_port, "pod_port": self.workload.port}
        return {"asked": self._asked, **ports, "replicas": service.replicas, "ready": service.stable.ready}

    def _model_files(self, service: Service) -> dict[Role, Model]:
        manifests.check(service)
        return {role: _model_file(service, role) for role in ROLES if service.version(role).model is not None}

    def _look_at_namespace(self, *, make: bool) -> bool:
        """Refuse a namespace that is being deleted; make one that is missing. Return whether it was made."""
        self._namespace_is_there = True
        try:
            found = self.client.get("Namespace", self.client.namespace)
        except ClusterError as error:
            if "no permission" in str(error):
                return False  # a role within the namespace: then there is one
            raise
        if found is not None and found.get("status", {}).get("phase") == "Terminating":
            raise ClusterError(
                f"namespace {self.client.namespace} is being deleted: wait until it is gone, or take another one"
            )
        self._namespace_is_there = found is not None
        if found is None and make:
            self.client.create(manifests.namespace(self.client.namespace))
            return True
        return False

    def _scale(self, role: Role, replicas: int) -> None:
        body = manifests.deployment(self._deployed, role, self.workload, self._models.get(role), replicas=replicas)
        self.client.apply(body, force=True)

    def _service_url(self, role: Role) -> str:
        name = f"{self._deployed.name}-{role}"
        found = self.client.get("Service", name)
        if found is None:
            raise ClusterError(f"Service {name} is gone: somebody deleted it")
        port = found["spec"]["ports"][0]
        if found["spec"]["type"] == "NodePort":
            return f"http://{self._ready_pod(role)['status']['hostIP']}:{port['nodePort']}"
        ingress = found.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        if url := balancer_url(ingress, port["port"]):
            return url

        def ready_pod() -> str:
            return str(self._ready_pod(role)["metadata"]["name"])

        forward = Forward(self.client.api, self.client.namespace, ready_pod, self.workload.port)
        self._forwards.append(forward)
        return forward.url

    def _ready_pod(self, role: Role) -> dict[str, Any]:
        ready = self._pods.ready(role)
        if not ready:
            raise ClusterError(f"{role} has no pod that is ready")
        return ready[-1]

    def _make_telemetry(self, service: Service) -> Telemetry:
        if self._prometheus is not None:
            name = self._metrics or "traefik"
            select = {role: labels_of(name, self.client.namespace, service.name, role) for role in ROLES}
            return PrometheusTelemetry(self._prometheus, name, select)
        return ScrapeTelemetry(self._scraped, self._metrics or "canarykit")

    def _scraped(self) -> list[Replica]:
        """Pods that count requests, and the way to their pages through the API server."""
        return [
            Replica(role, pod["metadata"]["name"], partial(self._page, pod["metadata"]["name"]))
            for role in ROLES
            for pod in self.pods(role)
            if serving(pod)
        ]

    def _page(self, pod: str) -> str:
        status, text = self.client.through(pod, self.workload.port, "/metrics")
        if status != 200:
            raise OSError(f"its metrics page answers {status}: {text[:200]}")
        return text

    def _undo(self, service: Service, router: Any, made: list[tuple[str, str]], fresh_namespace: bool) -> None:
        """Remove what a failed deployment made, and nothing else."""
        try:
            for kind, name in reversed(made):
                self.client.delete(kind, name)
            restored(self.client, service)
            if self._lease is not None:
                self._lease.remove()
            if fresh_namespace:
                self._remove_namespace()
        finally:
            self._close()

    def _wait_gone(self, service: Service) -> None:
        """Wait until the pods have finished what they had."""
        end = time.monotonic() + manifests.GRACE + 10
        while time.monotonic() < end and any(self.pods(role) for role in ROLES):
            time.sleep(_POLL)

    def _remove_namespace(self) -> None:
        """Remove the namespace if the kit made it and nobody has put anything into it since."""
        try:
            found = self.client.get("Namespace", self.client.namespace)
            if found is None or not mine(found) or adopted(self.client):
                return
            self.client.delete("Namespace", self.client.namespace)
        except ClusterError as error:
            self._tell(f"namespace {self.client.namespace} stays: {error}")

    def _close(self) -> None:
        for forward in self._forwards:
            forward.close()
        if self._guard is not None:
            self._guard.stop()
        self._forwards = []
        self._service = self._router = self._telemetry = self._lease = self._guard = None


_OPTIONS = ("router", "url", "gateway", "hostname", "route", "prometheus", "metrics", "server_image", "service_type")


def from_address(where: str) -> KubeCluster:
    """Return the cluster of ``"kube:CONTEXT/NAMESPACE?option=value"``.

    Raises
    ------
    PlanError
        An option is not known, or has no value.
    """
    place, _, query = where.removeprefix("kube").removeprefix(":").partition("?")
    context, _, namespace = place.rpartition("/") if "/" in place else (place, "", "")
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(set(options) - set(_OPTIONS)):
        raise PlanError(f"{where!r} has no option {', '.join(strange)}: there are {', '.join(_OPTIONS)}")
    if empty := sorted(name for name, value in options.items() if not value):
        raise PlanError(f"{where!r} says no value of {', '.join(empty)}: write {empty[0]}=…, or leave it out")
    workload = Workload(**{name: options.pop(name) for name in ("server_image", "service_type") if name in options})
    return KubeCluster(context or None, namespace or "ai-services", workload=workload, **options)


def _model_file(service: Service, role: Role) -> Model:
    version = service.version(role)
    if isinstance(version.model, str | Path):
        path = Path(version.model).expanduser()
        storage.load(path, version.trusted)  # a file that does not load fails here, with a clear error
        return Model(path.read_bytes(), tuple(version.trusted))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        storage.save(version.model, path)
        return Model(path.read_bytes(), tuple(storage.types_in(path)))
