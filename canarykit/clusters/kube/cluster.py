"""KubeCluster: the same two versions as Deployments, behind a gateway of the cluster."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from canarykit.clusters.base import Holding, NotShared, SystemClock
from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.lease import Lease, check_times
from canarykit.clusters.kube.api.reads import Reading
from canarykit.clusters.kube.api.writes import Written, refuse, write
from canarykit.clusters.kube.binding import as_bound, checked, end_testers_at
from canarykit.clusters.kube.endpoints import Endpoints
from canarykit.clusters.kube.fallback import can_take_over, only_canary_serves
from canarykit.clusters.kube.guard import Guard
from canarykit.clusters.kube.holding import LeaseHolding
from canarykit.clusters.kube.jobs import JobLoad
from canarykit.clusters.kube.preview import Preview
from canarykit.clusters.kube.saved_rollout import SavedRollout
from canarykit.clusters.kube.telemetry import Counting
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.base import Workloads
from canarykit.clusters.kube.workloads.managed import ManagedVersions
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.clusters.kube.workloads.neighbours import check_neighbours
from canarykit.clusters.kube.workloads.own import OwnVersions
from canarykit.clusters.kube.workloads.ownership import remove
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.clusters.kube.workloads.prepared import Prepared
from canarykit.clusters.kube.workloads.removal import carried_by
from canarykit.errors import ClusterError, PlanError, RoutingError
from canarykit.health import Health
from canarykit.interrupts import never, uninterrupted
from canarykit.load import Load
from canarykit.model import ROLES, Role, Service, TrafficSplit
from canarykit.protocol import check_address, request_path
from canarykit.routers import router_class
from canarykit.routers.base import KubeRouter, Router, apply
from canarykit.routers.objects import to_stable
from canarykit.telemetry.base import Telemetry
from canarykit.telemetry.catalogue import Exposition

__all__ = ["KubeCluster"]

_Part = TypeVar("_Part")


class KubeCluster(Preview):
    """Versions as Deployments of a Kubernetes cluster.

    Parameters
    ----------
    context : str, optional
        Context of the kubeconfig; its current one by default.
    namespace : str
        Where everything is written; made when it is not there.
    router : str
        Who splits the traffic; `canarykit.routers.ROUTERS` has the names.
    url : str, optional
        Where the gateway is reached, without a password; read from the Gateway's status when it may be.
    gateway : str, optional
        ``"namespace/name"`` of the Gateway; the only one there is by default.
    hostname : str, optional
        Name that the route answers to.
    route : str, optional
        Name of your own route, of which only the weights are touched; the kit makes one by default. Where a rule names stable's
        Service alone, the canary's is added for the time of the rollout.
    testers : bool or str
        Who reaches the canary by the header ``x-canarykit-role`` while a rollout lasts, in the route that the kit makes:
        anybody who sends ``canary``; nobody (False); or who sends this value, which nobody guesses. The route shows it.
    settle : float
        Seconds that the gateway has to follow a weight where no answer says which version gave it, as that of a cloud.
    workload : Workload, optional
        Ports, resources, nodes of the pods.
    prometheus : str, optional
        Address of a Prometheus that scrapes the gateway; the pods' own metrics are read by default.
    prometheus_token_file : str, optional
        File with the bearer token that Prometheus asks for; it is read anew each time.
    metrics : str or Exposition, optional
        Who counts, as `canarykit.telemetry.catalogue` has it: the gateway that Prometheus scrapes, ``"traefik"`` by default,
        or else the servers in the pods, ``"canarykit"``.
    select : str or mapping of role to str, optional
        Matchers of each version's series in Prometheus, where the catalogue's do not fit:
        ``'service="{namespace}-{app}-{role}-80@kubernetes"'``, or ``{"stable": …, "canary": …}``.
    port, path : int and str, optional
        Where the pods show their metrics; by default where the catalogue says, or else at the workload's port, /metrics.
    ignore : sequence of str, optional
        Paths whose requests are left out, in place of the catalogue's, where labels say what was asked for; those at which
        versions are asked whether they are ready always are.
    adopt : bool
        Take over objects of these names that someone else made; `teardown` gives them back as they were.
    ready_within : float
        Seconds that a version may take until it is ready; where its pods are replaced one by one, each of them.
    hand_over : float, optional
        Seconds in which a promotion waits for a GitOps controller, or for you, to give your own Deployment what the canary
        has. The change is written to a file of the working folder, as a patch for Kustomize. By default the kit writes it.
    lease : int
        Seconds without a sign of life after which traffic returns to stable by itself, 5 or more.
    notify : callable, optional
        Takes one line of progress; by default an experiment tells it, or else it is printed.

    Raises
    ------
    ClusterError
        No such context, or the kubernetes package is missing.
    PlanError
        A name that nothing is known by, a time that is none, or an address that is none or holds a password.
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
        testers: bool | str = True,
        settle: float = 1.0,
        workload: Workload | None = None,
        prometheus: str | None = None,
        prometheus_token_file: str | None = None,
        metrics: str | Exposition | None = None,
        select: str | Mapping[str, str] | None = None,
        port: int | None = None,
        path: str | None = None,
        ignore: str | Sequence[str] | None = None,
        adopt: bool = False,
        ready_within: float = 120.0,
        hand_over: float | None = None,
        lease: int = 60,
        notify: Callable[[str], object] | None = None,
    ) -> None:
        router_class(router)
        check_times(lease, ready_within)
        counting = Counting(prometheus, prometheus_token_file, metrics, select, port, path, ignore)
        if url is not None:
            check_address("url=", url)
        asked: dict[str, Any] = {"router": router, "url": url, "gateway": gateway, "hostname": hostname, "route": route}
        asked |= checked(testers, settle)
        client = Client(context, namespace, notify=lambda line: self._passing(line))
        super().__init__(client, (workload or Workload()).fronted(), asked, counting, adopt=adopt)
        if hand_over is not None and not 0 < hand_over < math.inf:
            raise PlanError(f"hand_over= takes seconds above 0, not {hand_over!r}")
        self._ready_within, self._hand_over = ready_within, hand_over
        self._lease_seconds, self._given = lease, notify
        self._notify: Callable[[str], object] = notify or print
        self._passing = self._notify
        self._prepared: Prepared | None = None
        self._versions: Workloads | None = None
        self._endpoints: Endpoints | None = None
        self._seen: Pods | None = None
        self._reading: Reading | None = None
        self._router: KubeRouter | None = None
        self._telemetry: Telemetry | None = None
        self._holding: LeaseHolding | None = None
        self._take_back: Callable[[], None] | None = None

    def report_progress(self, notify: Callable[[str], object], passing: Callable[[str], object]) -> None:
        """Tell what happens, and what is being waited for, through these, unless `notify` was given at the beginning."""
        if self._given is None:
            self._notify, self._passing = notify, passing

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
        if self._versions is not None:
            raise ClusterError("this cluster runs a service already: tear it down first, or connect to another one")
        prepared = self._prepare(service)
        labels, notify = manifests.labels(service), lambda line: self._passing(line)
        lease = Lease(self.client, service.name, labels, seconds=self._lease_seconds, notify=notify)
        held = self.client.fenced(lease.check)
        # Traffic may return to stable also when the lease is away; before it rises, `check_held` is asked.
        self._reading = Reading(self.client.fenced(lease.check_nobody_else))
        router = self._bind(prepared, self._reading)
        fresh_namespace = self._namespace.ensure()
        done = Written()
        try:
            lease.wait_free()
            router.check()
            wanted = [*prepared.bodies, *router.objects()]
            for line in check_neighbours(self.client, wanted):
                self._notify(line)
            refuse(self.client, wanted, adopt=self._adopt)
            saved = SavedRollout(held, service.name, labels, about=prepared.about)
            self._holding = LeaseHolding(lease, saved, lambda line: self._notify(line), self._end_testers)
            # The guard of whoever was here before has ended with their lease, and the canary may have a share.
            # It is told what was found here: another Gateway, or none, must not keep it from acting.
            binding = {**self._binding(prepared), "asked": as_bound(self._asked, router)}
            self._holding.begin(lambda: Guard.start(lease, self.client, service.name, binding, lambda line: self._notify(line)))
            resumed = write(held, prepared, router, done=done, adopt=self._adopt)
            self._hold(prepared, router, held)
            for role in ROLES:
                at_least = 0 if router.capabilities.scales else prepared.replicas  # as many as were written
                self._pods.wait_ready(role, at_least, self._ready_within)
            router.join()
            router.admit_testers(True)
            if not resumed:
                apply(router, TrafficSplit(0))
            self._wait_for_address(router)
            target, route = self._target(prepared), self._route(router)
            self._telemetry = self._counting.telemetry(self.client, prepared, target, self._pods, route=route)
            weight = router.observed().canary
        except BaseException:
            with uninterrupted():  # a second Ctrl-C must not leave half of it, with a lease that nobody renews
                self._undo(held, router, prepared, done, fresh_namespace)
            raise
        self._take_back = lambda: self._undo(held, router, prepared, done, fresh_namespace)
        if weight:
            phase = self.holding.saved_state().get("phase", "under way")
            self._notify(f"found a rollout {phase}: {weight:g} % of the traffic are on the canary")

    def undeploy(self) -> None:
        """Take back what the last `deploy` did, as when it fails. May be called again."""
        if self._take_back is not None:
            take_back, self._take_back = self._take_back, None
            take_back()

    def release(self) -> None:
        """Let go: what is deployed stays as it is, and what this process holds open is closed. May be called again."""
        try:
            if self._holding is not None and not self._holding.is_left():
                self._holding.end(self._holding.lease.release)
        finally:
            self._close()

    def teardown(self) -> None:
        """Remove all that was made, and give back what was adopted, as it was. May be called again.

        When somebody else conducts the rollout by now, nothing is changed. Where a team's own route is served by the canary
        alone, and stable does not come up, the route and the canary stay as they are, which is said.
        """
        if self._versions is None or self._holding is None:
            return
        lease = self._holding.lease
        held = self._holding.reclaim()
        if lease.lost is not None:
            self.release()
            return
        ensure = partial(self.ensure_capacity, "stable")
        router = self._bound
        prepared = _running(self._prepared)
        if prepared.leaves_canary and lease.state.get("phase") == "promoted":
            router.reset(keep=True)
        elif can_take_over(self.client, prepared.places, router, ensure_capacity=ensure, notify=self._notify):
            router.reset()
        if held:
            lease.keep()
        client = self._held if held else self.client.fenced(lease.check_nobody_else)
        if remove(client, self._deployed, self._notify, own=router.own):
            self._pods.wait_gone(self.workload.grace + 10)
        try:
            self._holding.end_removed()
            self._namespace.remove()
        finally:
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
    def holding(self) -> Holding:
        """Who conducts the rollout, and what is written down about it; nobody before `deploy`."""
        return self._holding or NotShared()

    @property
    def telemetry(self) -> Telemetry:
        """Counts it."""
        return _running(self._telemetry)

    def send(self, rate: float | str, *, inside: int = 0, **options: Any) -> Any:
        """Begin to send traffic to the service.

        Parameters
        ----------
        rate : float or str
            Requests per second.
        inside : int
            Pods of the cluster that send; by default a process of this machine does.
        **options
            See `Load`; also ``url``, the gateway's address as the pods see it, where it is another than from here.
        """
        if _running(self._prepared).own and "path" not in options:
            raise PlanError('path= is missing: say which path of your service is asked, such as "/predict"')
        path = request_path(options.pop("path", f"/v2/models/{self._deployed.name}/infer"))
        if hostname := self._bound.hostname:
            options["headers"] = {"host": hostname, **options.get("headers", {})}
        if self._bound.capabilities.scales:  # a connection that stays open would stay on its pod
            options["headers"] = {"connection": "close", **options.get("headers", {})}
        if inside:
            check_address("url=", address := options.pop("url", self.url))  # it is to be read in a ConfigMap
            address = address.rstrip("/") + path
            return JobLoad(self.client, self._deployed, self.workload, url=address, pods=inside, rate=rate, **options).start()
        return Load(self.url, rate=rate, path=path, **options).start()

    def urls(self) -> dict[Role, str]:
        """Address of each version's own Service: of its load balancer, or a port of this machine that leads to a pod."""
        endpoints = _running(self._endpoints)
        return {role: endpoints.url(role) for role in ROLES}

    def ensure_capacity(self, role: Role, share: float = 1.0) -> None:
        """Check that a version has as many pods ready as a share of the traffic needs; what it lacks is asked for first.

        What somebody has deleted or scaled down is brought back, and that is said: stable, and the Services of both.
        """
        versions = _running(self._versions)
        for service in self._pods.unreached:
            versions.mend(service)
        if not self._bound.capabilities.scales:
            versions.ensure_capacity(role, share)
        elif role == "stable":  # such a router brings up the pods that a split needs before it takes others away
            versions.stable(self._bound.wanted.get(role) or versions.service.replicas)

    def health(self, role: Role) -> Health:
        """How many pods of a version are ready of how many, and why."""
        return self._pods.health(role)

    def promote(self, cancelled: Callable[[], bool] = never) -> bool:
        """Let stable take the canary's version by a rolling update; the canary has all traffic meanwhile.

        Where both versions are Deployments of your own, nothing is replaced, and the canary keeps the traffic.
        """
        if _running(self._prepared).leaves_canary:
            return False
        _running(self._versions).promote(self._ready_within, cancelled)
        self._bound.promoted()
        return True

    def retire_canary(self) -> None:
        """Scale the canary down; its pods finish what they have. They stay where a rule of the team's still leads to them."""
        end_testers_at("promoted", self._bound, self._notify)
        name, canary = self._deployed.name, _running(self._prepared).places["canary"].service
        if (by := carried_by(self.client, name, canary, self._notify)) is not None:
            self._notify(f"the canary's pods stay, because {by} still sends requests to Service {canary}")
            return
        _running(self._versions).scale("canary", 0)

    # Inside ------------------------------------------------------------------------------------------------------------

    @property
    def _deployed(self) -> Service:
        return _running(self._versions).service

    @property
    def _bound(self) -> KubeRouter:
        return _running(self._router)

    def _end_testers(self, phase: object) -> None:
        end_testers_at(phase, self._router, self._notify)

    def _wait_for_address(self, router: KubeRouter) -> None:
        """Wait until the router is reached somewhere: a load balancer of a cloud takes minutes."""
        end, told = self.clock.now() + self._ready_within, False
        while True:
            try:
                _ = router.url
                return
            except RoutingError as error:
                if self.clock.now() > end:
                    raise
                if not told:
                    self._passing(f"waiting for an address: {error}")
                    told = True
            self.clock.sleep(0.5)

    def _hold(self, prepared: Prepared, router: KubeRouter, held: Client) -> None:
        """Keep what belongs to the service that runs now."""
        client, self._router, self._held, self._prepared = self.client, router, held, prepared
        self._pods = self._seen = pods = Pods(client, prepared.places, self._passing, self._expected)
        self._endpoints = Endpoints(client, prepared.places, pods, prepared.port)
        told: dict[str, Any] = {"notify": self._passing, "say": self._notify}
        if prepared.own:
            self._versions = OwnVersions(held, prepared, pods, hand_over=self._hand_over, **told)
        else:
            self._versions = ManagedVersions(held, prepared, self.workload, pods, adopt=self._adopt, **told)

    def _expected(self, role: Role) -> int | None:
        """How many pods the kit gave a version."""
        wanted: Mapping[Role, int] = self._bound.wanted if self._bound.capabilities.scales else _running(self._versions).wanted
        return wanted.get(role)

    def _undo(self, held: Client, router: KubeRouter, prepared: Prepared, done: Written, fresh_namespace: bool) -> None:
        """Leave what was there before a failed deployment as it was, and nothing that it made.

        A canary that was there before may have a share, and nobody conducts it now: traffic returns to stable. Where that
        fails, or the canary alone serves, the lease stays, and with it the guard, which goes on trying.
        """
        try:
            if self._holding is not None and (lease := self._holding.lease).held:
                place, facts = ("Deployment", prepared.places["canary"].deployment), {}
                there = place not in done.made and held.get(*place) is not None
                alone = there and only_canary_serves(self.client, prepared.places, router)
                if alone:
                    done.noted = True  # no weight is given back
                elif there:
                    to_stable(router)
                    facts = {"weight": 0.0}
                done.take_back(held, router, self._notify)
                if alone:
                    self._holding.leave_to_guard()
                else:
                    self._holding.end(lambda: lease.give_back(**facts))
            if fresh_namespace:
                self._namespace.remove()
        finally:
            self._close()

    def _close(self) -> None:
        for part in (self._endpoints, self._seen, self._reading):
            if part is not None:
                part.close()
        if self._holding is not None:
            self._holding.lease.stop()
        self._versions = self._endpoints = self._router = self._telemetry = self._holding = self._take_back = None
        self._seen = self._reading = None


def _running(part: _Part | None) -> _Part:
    if part is None:
        raise ClusterError("nothing runs here: deploy a service first")
    return part
