"""A cluster that is shared: who conducts, what a lost lease still lets one do, and what a failed deployment leaves."""

import copy
import json
import os
import signal
from dataclasses import replace

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube import cluster as kube
from canarykit.clusters.kube.api.lease import STATE, Lease, state_of
from canarykit.clusters.kube.api.liveness import holder_of
from canarykit.clusters.kube.binding import bind
from canarykit.errors import ClusterError, ForbiddenError, RoutingError
from canarykit.interrupts import Terminated, terminable
from canarykit.model import ROLES, TrafficSplit
from canarykit.routers.base import apply
from canarykit.routers.objects import BEFORE, to_stable
from canarykit.routers.rules import NOTE

LEASE = "digits-rollout"
SERVICE = ck.Service("digits", ck.Version("v1", image="a:1"), ck.Version("v2", image="a:2"))


class Server(Namespace):
    """An API server in memory: Deployments are up at once, unless a test breaks them, and a Gateway takes up every route."""

    def __init__(self):
        super().__init__()
        self.allowed, self.broken = (lambda: None), set()
        self.create({"kind": "Namespace", "metadata": {"name": "ns"}})

    def fenced(self, allowed):
        """The same objects, written only while something holds."""
        made = copy.copy(self)
        made.allowed = allowed
        return made

    def get(self, kind, name, *, namespace=None):
        """Read an object; the status of a Deployment is that of one which is up."""
        found = super().get(kind, name)
        if found is not None and kind == "Deployment" and name not in self.broken:
            pods = found["spec"]["replicas"]
            counted = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), pods)
            found["status"] = {"observedGeneration": found["metadata"]["generation"], **counted}
        return found

    def list(self, kind, selector="", *, everywhere=False, fields=""):
        """No pods: those of a Deployment are not looked at here."""
        return [] if kind == "Pod" else super().list(kind, selector)

    def apply(self, body, *, dry_run=False, force=False):
        """Merge our fields into the object."""
        found = self.get(body["kind"], body["metadata"]["name"]) or {"metadata": {}}
        meta = {**found["metadata"], **body["metadata"]}
        for field in ("labels", "annotations"):
            meta[field] = {**found["metadata"].get(field, {}), **body["metadata"].get(field, {})}
        made = {**found, **body, "metadata": meta}
        return made if dry_run else self._store(made)

    def delete(self, kind, name, *, grace=None):
        """Delete an object, when it may be."""
        self.allowed()
        return super().delete(kind, name)

    def log(self, pod, *, lines=10, previous=False):
        """Nothing was written."""
        return ""

    def _store(self, body):
        if hasattr(self, "allowed"):
            self.allowed()
        return super()._store(body)


class Watch:
    """A guard that only says whether it watches."""

    def __init__(self, lease, binding):
        self.holder, self.binding, self.watches = lease.holder, binding, True

    def watch_again(self):
        """Watch, after all."""
        self.watches = True

    def stop(self):
        """Watch no more."""
        self.watches = False


@pytest.fixture
def server():
    """An API server."""
    return Server()


@pytest.fixture
def guards(monkeypatch):
    """Guards that were started, in order."""
    made = []

    def start(lease, client, app, binding, notify):
        assert holder_of(client.get("Lease", LEASE)) == lease.holder
        made.append(Watch(lease, binding))
        return made[-1]

    monkeypatch.setattr(kube.Guard, "start", start)
    return made


@pytest.fixture
def connect(server, guards, monkeypatch):
    """Make clusters of the server; each is let go afterwards."""
    monkeypatch.setattr(kube, "Client", lambda context, namespace, notify: server)
    monkeypatch.setattr("canarykit.routers.route.until_served", lambda *args, **options: None)
    monkeypatch.setattr("canarykit.routers.gateway_api.accepted", lambda *args: None)
    made = []

    def make(**options):
        told = []
        options = {"gateway": "infra/web", "url": "http://127.0.0.1:1", "notify": told.append, "ready_within": 0.3, **options}
        made.append(kube.KubeCluster(None, "ns", **options))
        made[-1].told = told
        return made[-1]

    yield make
    for cluster in made:
        if cluster._holding is not None:
            cluster._holding.lease.stop()


def fail(why):
    """Raise an error where only an expression may stand."""
    raise ClusterError(why)


def weight_of(server):
    """Share that the route gives the canary."""
    refs = {ref["name"]: ref["weight"] for ref in server.get("HTTPRoute", "digits")["spec"]["rules"][0]["backendRefs"]}
    return 100 * refs["digits-canary"] / sum(refs.values())


def sleep(cluster, seconds=61):
    """Let a cluster's kernel have slept for so long, with all its threads."""
    cluster._holding.lease.stop()
    cluster._holding.lease._written = tuple(moment - seconds for moment in cluster._holding.lease._written)


def taken_over(server, holder="elsewhere-1-abc"):
    """Let somebody else conduct the rollout from now on, or nobody."""
    server.edit("Lease", LEASE, holderIdentity=holder)


@pytest.mark.parametrize("router", ["gateway-api", "kserve"])
def test_an_inference_service_is_not_said_to_be_promoted(connect, server, monkeypatch, router):
    """
    A promotion replaces the kit's own Deployments, between which KServe does not split.
    """
    server.create({"kind": "InferenceService", "metadata": {"name": "mine"}, "spec": {"predictor": {}}})
    monkeypatch.setattr("canarykit.routers.kserve.KServeRouter.refusal", lambda *args: None)
    cluster = connect(router=router, route="mine" if router == "kserve" else None)
    cluster.deploy(SERVICE)
    advice = cluster.router.capabilities.promoted_by
    if router == "gateway-api":
        assert advice is None
    else:
        assert "the router kserve splits an InferenceService of yours" in advice


# Who counts ---------------------------------------------------------------------------------------------------------------


def served_by_envoy_gateway(server, *, filters=()):
    """Let Envoy Gateway serve every route; the canary's backend has these filters."""
    get = server.get

    def seen(kind, name, *, namespace=None):
        found = get(kind, name)
        if kind == "HTTPRoute" and found is not None:
            found["status"] = {"parents": [{"controllerName": "gateway.envoyproxy.io/gatewayclass-controller"}]}
            found["metadata"]["namespace"] = "ns"
            if filters:
                found["spec"]["rules"][0]["backendRefs"][1]["filters"] = list(filters)
        return found

    server.get = seen


def test_a_gateway_that_cannot_tell_the_versions_apart_is_refused_before_any_traffic_moves(connect, server):
    """
    Envoy Gateway has both in one cluster: `deploy` says so, and leaves nothing of what it made; `plan` of a route that is there
    says so, too. With a filter on one backend each has a cluster of its own.
    """
    served_by_envoy_gateway(server)
    asked = {"prometheus": "http://me:s%40cret@prometheus:9090", "metrics": "envoy"}
    with pytest.raises(ClusterError, match="Envoy Gateway has one cluster for rule 0 of HTTPRoute digits"):
        connect(**asked).deploy(SERVICE)
    assert server.get("HTTPRoute", "digits") is None
    assert server.get("Deployment", "digits-canary") is None
    connect().deploy(SERVICE)
    with pytest.raises(ClusterError, match="Envoy Gateway has one cluster for rule 0 of HTTPRoute digits"):
        connect(**asked).plan(SERVICE)
    connect().plan(SERVICE)
    served_by_envoy_gateway(server, filters=[{"type": "ResponseHeaderModifier"}])
    connect(**asked).plan(SERVICE)


# A team's own route --------------------------------------------------------------------------------------------------------


def own_route(server, *backends):
    """Put a route of the team's into the namespace, of pairs of Service and weight."""
    refs = [{"name": f"digits-{role}", "port": 80, "weight": weight} for role, weight in backends]
    matches = [{"path": {"type": "PathPrefix", "value": "/"}}]
    spec = {"hostnames": ["ai.test"], "rules": [{"matches": matches, "backendRefs": refs}]}
    server.create({"kind": "HTTPRoute", "metadata": {"name": "own"}, "spec": spec})
    return copy.deepcopy(spec)


def test_a_teams_own_route_is_split_and_given_back(connect, server):
    """
    The canary joins it and leaves it; stable, which it names, stays with the reason. The guard knows the route's host, too.
    """
    before = own_route(server, ("stable", 7))
    cluster = connect(route="own")
    cluster.deploy(SERVICE)
    assert cluster.router.hostname == "ai.test"
    assert cluster._holding._guard.binding["asked"]["hostname"] == "ai.test"
    refs = server.get("HTTPRoute", "own")["spec"]["rules"][0]["backendRefs"]
    assert [(ref["name"], ref["weight"]) for ref in refs] == [("digits-stable", 100), ("digits-canary", 0)]
    cluster.teardown()
    assert server.get("HTTPRoute", "own")["spec"] == before
    left = {(kind, name) for kind, name in server._objects if kind in ("Deployment", "Service", "Lease")}
    assert left == {("Deployment", "digits-stable"), ("Service", "digits-stable")}
    assert cluster.told[-1].startswith(
        "Service digits-stable and Deployment digits-stable stay, because HTTPRoute own still leads"
    )


@pytest.mark.parametrize("router", ["gateway-api", "ingress-nginx"])
def test_a_route_that_was_named_stays_whoever_made_it(connect, server, router):
    """
    A program of Pulumi, or an exported file, gives it the kit's label; the kit was told to split it, not to take it away.
    """
    labels = {"app.kubernetes.io/managed-by": "canarykit", "app.kubernetes.io/part-of": "digits"}
    own_route(server, ("stable", 1), ("canary", 0))
    stable = {"service": {"name": "digits-stable", "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": stable}]
    server.create({"kind": "Ingress", "metadata": {"name": "own"}, "spec": {"rules": [{"http": {"paths": paths}}]}})
    for kind in ("HTTPRoute", "Ingress"):
        server.patch(kind, "own", {"metadata": {"labels": labels}})
    kind, other = ("HTTPRoute", "Ingress") if router == "gateway-api" else ("Ingress", "HTTPRoute")
    server.delete(other, "own")
    cluster = connect(router=router, route="own")
    cluster.deploy(SERVICE)
    cluster.teardown()
    assert server.get(kind, "own") is not None
    assert server.get("Service", "digits-stable") is not None
    assert server.get("Deployment", "digits-stable") is not None


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("names", [("stable",), ("stable", "canary")], ids=["stable", "both"])
def test_a_deployment_that_fails_takes_nothing_from_a_live_route(connect, server, role, names):
    """
    What the route names stays, the rest goes, and its weights are those of before.
    """
    before = own_route(server, *((name, 1 if name == "stable" else 0) for name in names))
    server.broken = {f"digits-{role}"}
    with pytest.raises(ClusterError, match="pods ready"):
        connect(route="own").deploy(SERVICE)
    assert server.get("HTTPRoute", "own")["spec"] == before
    assert {name for kind, name in server._objects if kind == "Service"} == {f"digits-{name}" for name in names}
    assert {name for kind, name in server._objects if kind == "Deployment"} == {f"digits-{name}" for name in names}


def weights_in(server):
    """Backends of the team's route, with their weights; None where it says none."""
    refs = server.get("HTTPRoute", "own")["spec"]["rules"][0]["backendRefs"]
    return [(ref["name"].removeprefix("digits-"), ref.get("weight")) for ref in refs]


def without_weights(server):
    """Have the team's route say no weights, which means the same one for both."""
    found = server.get("HTTPRoute", "own")
    for ref in found["spec"]["rules"][0]["backendRefs"]:
        ref.pop("weight", None)
    server._store(found)


def fails_late(cluster, monkeypatch):
    """Have a deployment fail when both versions are up."""

    def fail(router):
        raise RoutingError("no address")

    monkeypatch.setattr(cluster, "_wait_for_address", fail)
    return cluster


@pytest.mark.parametrize("says", ["1:1", "90:10", "nothing"])
def test_a_deployment_that_fails_gives_a_rejected_canary_no_share(connect, server, monkeypatch, says):
    """
    The route notes the weights from before the first rollout, which rejected the canary: they are none to go back to. The note
    stays for whoever ends the last rollout.
    """
    own_route(server, ("stable", 90 if says == "90:10" else 1), ("canary", 10 if says == "90:10" else 1))
    if says == "nothing":
        without_weights(server)
    first = connect(route="own")
    first.deploy(SERVICE)
    apply(first.router, TrafficSplit(5))
    apply(first.router, TrafficSplit(0))
    first.holding.save_state(phase="rolled back", weight=0)
    first.release()
    note = server.get("HTTPRoute", "own")["metadata"]["annotations"][NOTE]
    for _ in range(2):
        with pytest.raises(RoutingError, match="no address"):
            fails_late(connect(route="own"), monkeypatch).deploy(SERVICE)
        assert weights_in(server) == [("stable", 100), ("canary", 0)]
        assert server.get("HTTPRoute", "own")["metadata"]["annotations"][NOTE] == note
        assert released_at(server, 0)


@pytest.mark.parametrize("other", [False, True], ids=["same", "another"])
def test_a_resume_that_fails_leaves_a_teams_route_at_stable(connect, server, other):
    """
    The canary at 5 % does not come up any more, nor does another one in its place: half of the traffic is not for it.
    """
    own_route(server, ("stable", 1), ("canary", 1))
    first = connect(route="own")
    first.deploy(SERVICE)
    apply(first.router, TrafficSplit(5))
    first._holding.lease.stop()
    taken_over(server, None)
    server.broken.add("digits-canary")
    with pytest.raises(ClusterError, match="0 of 2 pods ready"):
        connect(route="own").deploy(replace(SERVICE, canary=ck.Version("v3", image="a:3")) if other else SERVICE)
    assert weights_in(server) == [("stable", 100), ("canary", 0)]


@pytest.mark.parametrize("early", [False, True], ids=["late", "no guard"])
def test_a_deployment_that_fails_takes_the_canary_out_again(connect, server, monkeypatch, early):
    """
    Both versions were brought up without the route, which names stable alone: it is as it was, whenever the deployment fails.
    """
    (first := connect()).deploy(SERVICE)
    first.release()
    before = own_route(server, ("stable", 1))
    cluster = fails_late(connect(route="own"), monkeypatch)
    if early:
        monkeypatch.setattr(kube.Guard, "start", lambda *args: cluster._wait_for_address(None))
    with pytest.raises(RoutingError, match="no address"):
        cluster.deploy(SERVICE)
    assert server.get("HTTPRoute", "own")["spec"] == before


def test_a_teams_own_weights_are_given_back_with_the_canary_that_had_them(connect, server):
    """
    No rollout has changed them yet, and the canary of before is put back, too.
    """
    (first := connect()).deploy(SERVICE)
    first.release()
    before = own_route(server, ("stable", 9), ("canary", 1))
    server.broken.add("digits-canary")
    with pytest.raises(ClusterError, match="0 of 2 pods ready"):
        connect(route="own").deploy(replace(SERVICE, canary=ck.Version("v3", image="a:3")))
    assert server.get("HTTPRoute", "own")["spec"] == before


@pytest.fixture
def pods(server, monkeypatch):
    """Versions that have a pod which is ready; they may be changed."""
    having = {"stable", "canary"}

    real = Server.list

    def seen(self, kind, selector="", *, everywhere=False, fields=""):
        if kind != "Pod":
            return real(self, kind, selector)
        conditions = [{"type": "Ready", "status": "True"}]
        return [
            {"metadata": {"name": f"digits-{role}-1"}, "status": {"conditions": conditions}}
            for role in sorted(having)
            if f"version={role}" in selector
        ]

    monkeypatch.setattr(Server, "list", seen)
    monkeypatch.setattr("canarykit.clusters.kube.workloads.pods.Pods.wait_gone", lambda self, within: None)
    return having


@pytest.mark.parametrize("weight", [25, 100])
@pytest.mark.parametrize("names", [("stable",), ("stable", "canary")], ids=["stable", "both"])
def test_a_teardown_leaves_a_canary_that_alone_serves_a_teams_route(connect, server, guards, pods, monkeypatch, weight, names):
    """
    Stable was lost and does not come up: the route and the canary's pods stay, which is said, and nobody conducts any more.
    """
    own_route(server, *((name, 1) for name in names))
    cluster = connect(route="own")
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(weight))
    pods.remove("stable")
    monkeypatch.setattr(cluster._versions, "ensure_capacity", lambda role, share: fail("it has 0 of 2 pods ready: no memory"))
    cluster.teardown()
    assert weights_in(server) == [("stable", 100 - weight), ("canary", weight)]
    for kind in ("Deployment", "Service"):
        assert server.get(kind, "digits-canary") is not None
    assert server.get("Deployment", "digits-canary")["spec"]["replicas"] == SERVICE.replicas
    assert any("the canary alone serves" in line and "no memory" in line for line in cluster.told)
    assert (server.get("Lease", LEASE), guards[0].watches) == (None, False)


def test_a_teardown_brings_stable_up_for_a_teams_route(connect, server, pods, monkeypatch):
    """
    It was scaled to none: it comes up again before it takes over, so that the canary can go.
    """
    own_route(server, ("stable", 1), ("canary", 0))
    cluster = connect(route="own")
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(100))
    pods.remove("stable")
    server.edit("Deployment", "digits-stable", replicas=0)
    monkeypatch.setattr(cluster._pods, "wait_ready", lambda role, *args, **options: pods.add(role))
    cluster.teardown()
    assert weights_in(server) == [("stable", 1), ("canary", 0)]
    assert server.get("Deployment", "digits-stable")["spec"]["replicas"] == SERVICE.replicas


def test_a_teardown_of_the_kits_own_route_waits_for_no_stable(connect, server, pods, monkeypatch):
    """
    Nobody comes in by it afterwards.
    """
    cluster = connect()
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(100))
    pods.remove("stable")
    monkeypatch.setattr(cluster._versions, "ensure_capacity", lambda role, share: pytest.fail("nobody needs it"))
    cluster.teardown()
    assert list(server._objects) == [("Namespace", "ns")]


def test_a_plan_refuses_the_route_that_a_deployment_would(connect, server):
    """
    The same words, and neither writes anything.
    """
    own_route(server, ("other", 1))
    written = len(server.writes)
    said = []
    for call in (connect(route="own").plan, connect(route="own").deploy):
        with pytest.raises(RoutingError, match="has no rule with both backends digits-stable and digits-canary") as refused:
            call(SERVICE)
        said.append(str(refused.value))
    assert said[0] == said[1]
    assert len(server.writes) == written


def test_testers_of_a_team_keep_the_canary_that_was_promoted(connect, server):
    """
    A rule of theirs leads to it still; without one its pods end. The kit's own header leads nowhere any more.
    """
    refs = [{"name": "digits-canary", "port": 80, "weight": 1}]
    server.create({"kind": "HTTPRoute", "metadata": {"name": "beta"}, "spec": {"rules": [{"backendRefs": refs}]}})
    cluster = connect()
    cluster.deploy(SERVICE)
    assert len(server.get("HTTPRoute", "digits")["spec"]["rules"]) == 3
    cluster.retire_canary()
    assert len(server.get("HTTPRoute", "digits")["spec"]["rules"]) == 1
    assert server.get("Deployment", "digits-canary")["spec"]["replicas"] == SERVICE.replicas
    assert cluster.told[-1] == "the canary's pods stay, because HTTPRoute beta still sends requests to Service digits-canary"
    server.delete("HTTPRoute", "beta")
    cluster.retire_canary()
    assert server.get("Deployment", "digits-canary")["spec"]["replicas"] == 0


def test_stable_is_asked_where_the_canary_was_once_it_is_promoted(connect, server):
    """
    Each version answers at a path of its own, and stable is of the other one then.
    """
    cluster = connect()
    cluster.deploy(replace(SERVICE, canary=replace(SERVICE.canary, ready="/v2/ready")))
    assert cluster.router._probe.ready == {"stable": "/v2/health/ready", "canary": "/v2/ready"}
    cluster.promote()
    assert cluster.router._probe.ready["stable"] == "/v2/ready"


def test_nothing_shows_the_password_of_prometheus(connect, server, guards):
    """
    Neither the plan nor progress, nor what the guard is told, nor the cluster itself.
    """
    cluster = connect(prometheus="http://me:s%40cret@prometheus:9090")
    plan = cluster.plan(SERVICE)
    cluster.deploy(SERVICE)
    shown = [plan, plan._repr_html_(), cluster, cluster.told, guards[-1].binding, cluster.telemetry.sources, server._objects]
    assert not any(secret in str(shown) for secret in ("cret", "me:"))
    assert "http://prometheus:9090: traefik_service_requests_total" in str(cluster.telemetry.sources)


# A lease that is lost ---------------------------------------------------------------------------------------------------


def at_25(cluster):
    """Give the canary a quarter, and write it down."""
    cluster.deploy(SERVICE)
    cluster.holding.check()
    apply(cluster.router, TrafficSplit(25))
    cluster.holding.save_state(phase="progressing", weight=25)


def test_whose_lease_was_taken_over_changes_nothing(connect, server):
    """
    A kernel that slept for too long: no weight, no version and no object is written by it.
    """
    cluster = connect()
    at_25(cluster)
    sleep(cluster)
    taken_over(server)
    objects, written = copy.deepcopy(server._objects), len(server.writes)
    for change in (
        cluster.holding.check,
        lambda: apply(cluster.router, TrafficSplit(50)),
        lambda: apply(cluster.router, TrafficSplit(0)),
        lambda: cluster.router.reset(),
        cluster.promote,
        cluster.retire_canary,
        lambda: cluster.holding.save_state(weight=50),
    ):
        with pytest.raises(ClusterError, match="elsewhere-1-abc has taken over"):
            change()
    cluster.teardown()
    assert any("has taken over" in line and "nothing is changed from here" in line for line in cluster.told)
    assert (server._objects, len(server.writes)) == (objects, written)
    with pytest.raises(ClusterError, match="nothing runs here"):
        _ = cluster.router


def test_whose_lease_has_run_out_may_return_traffic_and_no_more(connect, server, guards):
    """
    A kernel that slept for too long, and nobody holds the lease: no weight rises and no version is changed, but traffic
    returns, guarded again; all may be removed.
    """
    cluster = connect()
    at_25(cluster)
    sleep(cluster)
    taken_over(server, None)
    guards[0].watches = False
    for change in (cluster.holding.check, cluster.promote, cluster.retire_canary):
        with pytest.raises(ClusterError, match="nobody renewed the lease"):
            change()
    apply(cluster.router, TrafficSplit(10))
    cluster.holding.save_state(phase="progressing", weight=10)
    assert (weight_of(server), holder_of(server.get("Lease", LEASE))) == (10, guards[0].holder)
    assert guards[0].watches
    with pytest.raises(ClusterError, match="nobody renewed the lease"):
        cluster.holding.check()
    apply(cluster.router, TrafficSplit(0))
    cluster.teardown()
    assert list(server._objects) == [("Namespace", "ns")]


def deleted(server):
    """`kubectl delete lease`."""
    server.delete("Lease", LEASE)


def emptied(server):
    """`kubectl edit lease`."""
    taken_over(server, "")


@pytest.mark.parametrize("harm", [deleted, emptied], ids=lambda harm: harm.__name__)
def test_a_harmed_lease_keeps_nobody_from_anything(connect, server, guards, harm):
    """
    It is made anew before a weight rises, after one fell, and to remove all.
    """
    cluster = connect()
    at_25(cluster)
    harm(server)
    cluster.holding.check()
    assert holder_of(server.get("Lease", LEASE)) == guards[0].holder
    harm(server)
    apply(cluster.router, TrafficSplit(0))
    cluster.holding.save_state(phase="rolled back", weight=0)
    assert holder_of(server.get("Lease", LEASE)) == guards[0].holder
    assert cluster._holding.lease._thread.is_alive()
    harm(server)
    cluster.teardown()
    assert list(server._objects) == [("Namespace", "ns")]


def test_where_no_lease_can_be_made_traffic_returns(connect, server, monkeypatch):
    """
    The namespace is being deleted, say: nothing rises any more; that all is on stable is no error, that it is not is one.
    """
    cluster = connect()
    at_25(cluster)

    def refuse(body):
        raise ForbiddenError("cannot create Lease: the namespace is being terminated")

    server.delete("Lease", LEASE)
    monkeypatch.setattr(server, "create", refuse)
    cluster._holding.lease._objects = server
    with pytest.raises(ForbiddenError, match="being terminated"):
        cluster.holding.check()
    apply(cluster.router, TrafficSplit(10))
    with pytest.raises(ForbiddenError, match="being terminated"):
        cluster.holding.save_state(weight=10)
    apply(cluster.router, TrafficSplit(0))
    cluster.holding.save_state(phase="rolled back", weight=0)
    assert weight_of(server) == 0
    assert "all traffic is on stable, and where the rollout stands could not be written down" in cluster.told[-1]
    cluster.teardown()
    assert list(server._objects) == [("Namespace", "ns")]


def test_who_lost_the_lease_lets_go_of_nothing(connect, server, guards):
    """
    `close` and `teardown` at the first moment: it is the server that is asked, not the clock.
    """
    for end in ("release", "teardown"):
        cluster = connect()
        cluster.deploy(SERVICE)
        taken_over(server)
        getattr(cluster, end)()
        assert holder_of(server.get("Lease", LEASE)) == "elsewhere-1-abc"
        assert server.get("HTTPRoute", "digits") is not None
        assert not guards[-1].watches
        server.edit("Lease", LEASE, holderIdentity=None)


def test_a_lease_that_is_renewed_costs_no_look(connect, server):
    """
    A change of weight asks for the lease only when it was not renewed for half of its life.
    """
    cluster, asked = connect(), []
    cluster.deploy(SERVICE)
    real = server.get
    server.get = lambda kind, name, **options: asked.append(kind) or real(kind, name, **options)
    cluster._holding.lease._objects = server
    apply(cluster.router, TrafficSplit(25))
    assert "Lease" not in asked
    sleep(cluster, 31)
    apply(cluster.router, TrafficSplit(50))
    apply(cluster.router, TrafficSplit(25))
    assert asked.count("Lease") == 2
    assert weight_of(server) == 25


def test_a_teardown_leaves_nothing(connect, server, guards):
    """
    Who holds the lease removes all, the lease last; a second time there is nothing to do.
    """
    cluster = connect()
    cluster.deploy(SERVICE)
    assert guards[0].watches
    for _ in range(2):
        cluster.teardown()
        assert list(server._objects) == [("Namespace", "ns")]
    assert not guards[0].watches


def forbid(monkeypatch, *verbs):
    """Let nobody do this with a Lease any more: patch, delete."""

    def refusing(verb, real):
        def refuse(self, kind, name, *args, **options):
            if kind == "Lease":
                raise ForbiddenError(f"cannot {verb} Lease")
            return real(self, kind, name, *args, **options)

        return refuse

    for verb in verbs:
        monkeypatch.setattr(Server, verb, refusing(verb, getattr(Server, verb)))


@pytest.mark.parametrize("verbs", [("patch",), ("delete",), ("patch", "delete")], ids="-".join)
@pytest.mark.parametrize("age", [0, 31, 90])
def test_a_teardown_needs_no_lease(connect, server, guards, monkeypatch, verbs, age):
    """
    A role that lost its rights, and a lease of any age: all else is removed, nothing goes on, and a Lease that stays is told.
    """
    cluster = connect()
    cluster.deploy(SERVICE)
    lease = cluster._holding.lease
    sleep(cluster, age)
    forbid(monkeypatch, *verbs)
    cluster.teardown()
    stays = "delete" in verbs
    assert list(server._objects) == [("Namespace", "ns"), *([("Lease", LEASE)] if stays else [])]
    assert any("all is removed, without Lease digits-rollout" in line for line in cluster.told) == ("patch" in verbs)
    assert any("Lease digits-rollout stays" in line for line in cluster.told) == stays
    assert (lease._thread, guards[0].watches, cluster._holding) == (None, False, None)


def test_a_teardown_without_the_lease_changes_nothing_of_somebody_elses_rollout(connect, server, monkeypatch):
    """
    They come while the route is given back: what they conduct by now is not removed.
    """
    cluster = connect()
    cluster.deploy(SERVICE)
    sleep(cluster, 31)
    forbid(monkeypatch, "patch")
    monkeypatch.setattr(cluster._router, "reset", lambda: taken_over(server))
    with pytest.raises(ClusterError, match="elsewhere-1-abc has taken over"):
        cluster.teardown()
    assert server.get("Deployment", "digits-canary") is not None
    cluster.teardown()
    assert server.get("Deployment", "digits-canary") is not None
    assert cluster._holding is None


def test_a_teardown_that_failed_may_be_called_again(connect, server, guards, monkeypatch):
    """
    Its rollout is guarded until then.
    """
    cluster = connect()
    cluster.deploy(SERVICE)
    with monkeypatch.context() as away:
        away.setattr(kube, "remove", lambda *args, **options: fail("the API server is away"))
        with pytest.raises(ClusterError, match="is away"):
            cluster.teardown()
    assert guards[0].watches
    cluster.teardown()
    assert list(server._objects) == [("Namespace", "ns")]
    assert not guards[0].watches


# Traffic that could not be returned -------------------------------------------------------------------------------------


@pytest.fixture
def left(connect):
    """A cluster whose canary has 25 %, and which was told that this could not be returned."""
    cluster = connect()
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(25))
    cluster.holding.save_state(phase="progressing", weight=25)
    for _ in range(2):
        cluster.holding.leave_to_guard()
    cluster.holding.save_state(phase="failed")
    return cluster


def test_what_could_not_be_returned_is_left_to_the_guard(server, guards, left):
    """
    The lease is renewed no more; whoever closes the notebook leaves it, and its guard, as they are.
    """
    assert left._holding.lease._thread is None
    assert [line for line in left.told if "could not be returned" in line] == [left.told[-1]]
    assert "the guard returns it as soon as" in left.told[-1]
    left.release()
    assert holder_of(server.get("Lease", LEASE)) == guards[0].holder
    assert json.loads(server.get("Lease", LEASE)["metadata"]["annotations"][STATE])["phase"] == "failed"
    assert guards[0].watches


def test_who_returns_it_after_all_conducts_again(server, guards, left):
    """
    A second try succeeds, and is written down: the lease is renewed as before, and let go as before.
    """
    apply(left.router, TrafficSplit(0))
    left.holding.save_state(phase="failed", weight=0)
    assert left._holding.lease._thread.is_alive()
    left.release()
    assert holder_of(server.get("Lease", LEASE)) == ""
    assert not guards[0].watches


def test_the_lease_is_renewed_while_all_is_removed(server, guards, left, monkeypatch):
    """
    Pods may take longer to end than the lease lives: the guard must not come in between.
    """
    seen = []
    monkeypatch.setattr(left._pods, "wait_gone", lambda within: seen.append(left._holding.lease._thread.is_alive()))
    left.teardown()
    assert seen == [True]
    assert list(server._objects) == [("Namespace", "ns")]
    assert not guards[0].watches


def test_a_teardown_may_follow_the_guard(server, left):
    """
    It has returned the traffic meanwhile, and nobody has come: this is still the kit that made all of it.
    """
    taken_over(server, None)
    left.teardown()
    assert list(server._objects) == [("Namespace", "ns")]


def test_a_teardown_leaves_what_somebody_else_has_taken_up(server, guards, left):
    """
    As at any other time.
    """
    taken_over(server)
    written = len(server.writes)
    left.teardown()
    assert holder_of(server.get("Lease", LEASE)) == "elsewhere-1-abc"
    assert len(server.writes) == written
    assert "elsewhere-1-abc has taken over" in left.told[-1]


def test_a_weight_after_the_guard_has_acted_is_refused(server, left):
    """
    The rollout stands elsewhere by now.
    """
    taken_over(server, None)
    sleep(left)
    with pytest.raises(ClusterError, match="nobody renewed the lease"):
        left.holding.check()


# Deployments that fail --------------------------------------------------------------------------------------------------


@pytest.fixture
def under_way(connect):
    """A rollout at 25 %, whose kernel has gone without a word."""
    cluster = connect()
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(25))
    cluster._holding.lease.stop()
    cluster.client.edit("Lease", LEASE, holderIdentity=None)
    return cluster


def released_at(server, weight):
    """Whether nobody holds the lease, which was there before, and it says this weight."""
    found = server.get("Lease", LEASE)
    return (holder_of(found), state_of(found)["weight"]) == ("", weight)


def test_a_resume_is_guarded_from_the_beginning(connect, server, guards, under_way):
    """
    The guard of whoever was here before ends when the lease changes hands; the next one watches before anything is written.
    """
    real = server._store

    def store(body):
        if body["kind"] != "Lease":
            assert len(guards) == 2
        return real(body)

    server._store = store
    cluster = connect()
    cluster.deploy(SERVICE)
    assert guards[1].watches
    assert weight_of(server) == 25


def test_the_guard_is_told_what_was_found(connect, server, guards, monkeypatch):
    """
    A second Gateway made meanwhile, one without an address, and those that it may not see: it moves the weights all the same.
    """
    found = {
        "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "infra"},
        "spec": {"listeners": [{"protocol": "HTTP", "port": 8080}]},
        "status": {"addresses": [{"value": "127.0.0.1"}]},
    }
    server.create(found)
    cluster = connect(gateway=None, url=None, hostname="ai.example.com")
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(25))
    server.create({**found, "metadata": {"name": "web-2", "namespace": "infra"}})
    server.edit("Gateway", "web", listeners=[])
    monkeypatch.setattr(server, "list", lambda *args, **options: pytest.fail("there is nothing to look for"))
    router = bind(server, "digits", **json.loads(json.dumps(guards[0].binding)))
    assert (router.url, router.gateway, router.hostname) == ("http://127.0.0.1:8080", "infra/web", "ai.example.com")
    to_stable(router)
    assert weight_of(server) == 0


def test_a_resume_that_fails_returns_traffic(connect, server, guards, under_way):
    """
    The canary there does not come up any more: it keeps no share without a lease and a guard.
    """
    server.broken.add("digits-canary")
    with pytest.raises(ClusterError, match="0 of 2 pods ready"):
        connect().deploy(SERVICE)
    assert weight_of(server) == 0
    assert server.get("Deployment", "digits-canary") is not None
    assert released_at(server, 0)
    assert not guards[1].watches


@pytest.mark.parametrize("own", [False, True], ids=["kit's", "own"])
@pytest.mark.parametrize("noted", [False, True])
def test_a_resume_that_fails_takes_nothing_from_a_canary_that_alone_serves(connect, server, guards, pods, own, noted):
    """
    Stable was lost, and does not come up: the weights stay, the lease is renewed no more, and the guard waits for stable.
    """
    if own:
        own_route(server, ("stable", 3), ("canary", 1))
    first = connect(route="own" if own and noted else None)
    first.deploy(SERVICE)
    apply(first.router, TrafficSplit(25))
    first.release()
    pods.remove("stable")
    server.broken.add("digits-stable")
    cluster = connect(route="own" if own else None)
    with pytest.raises(ClusterError, match="pods ready"):
        cluster.deploy(SERVICE)
    if own:
        (_, stable), (_, canary) = weights_in(server)
        assert canary / (stable + canary) == 0.25
    else:
        assert weight_of(server) == 25
    assert holder_of(server.get("Lease", LEASE)) == guards[-1].holder
    assert guards[-1].watches
    assert any("the guard returns it" in line for line in cluster.told)


def test_a_canary_that_alone_serves_is_replaced_by_no_other(connect, server, guards, pods, under_way):
    """
    Traffic would have to return to a stable that has nothing: that is said, and nothing is changed.
    """
    pods.remove("stable")
    before = server.get("Deployment", "digits-canary")["spec"]
    with pytest.raises(ClusterError, match=r"alone serves.*Bring up stable first"):
        connect().deploy(replace(SERVICE, canary=ck.Version("v3", image="a:3")))
    assert weight_of(server) == 25
    assert server.get("Deployment", "digits-canary")["spec"] == before
    assert guards[-1].watches
    pods.add("stable")
    server.edit("Lease", LEASE, holderIdentity=None)
    connect().deploy(replace(SERVICE, canary=ck.Version("v3", image="a:3")))
    assert weight_of(server) == 0


def test_a_route_in_disorder_is_put_right(connect, server, guards, under_way):
    """
    Its rules disagree, so that there is no weight to go on from: that is said, all is on stable, and nobody holds the lease.
    """
    rules = server.get("HTTPRoute", "digits")["spec"]["rules"]
    server.edit(
        "HTTPRoute", "digits", rules=[*rules, {"backendRefs": [{**ref, "weight": 1} for ref in rules[0]["backendRefs"]]}]
    )
    with pytest.raises(RoutingError, match="split the traffic differently"):
        connect().deploy(SERVICE)
    assert weight_of(server) == 0
    assert released_at(server, 0)
    assert not guards[1].watches
    cluster = connect()
    cluster.deploy(SERVICE)
    assert cluster.router.observed() == TrafficSplit(0)


def test_traffic_that_cannot_be_returned_stays_guarded(connect, server, guards, under_way, monkeypatch):
    """
    Then the lease stays, is renewed no more, and its guard goes on.
    """
    server.broken.add("digits-canary")
    stopped = []
    monkeypatch.setattr(Lease, "stop", lambda lease, real=Lease.stop: (stopped.append(lease.holder), real(lease)))

    def refuse(self, split, **options):
        raise RoutingError("the gateway does not serve it")

    monkeypatch.setattr("canarykit.routers.gateway_api.GatewayApiRouter.write", refuse)
    with pytest.raises(RoutingError, match="the gateway does not serve it"):
        connect().deploy(SERVICE)
    assert holder_of(server.get("Lease", LEASE)) == guards[1].holder
    assert guards[1].watches
    assert guards[1].holder in stopped


def test_what_is_refused_takes_no_lease(connect, server, guards, under_way):
    """
    Stable is to be another version: nothing is begun, so that the guard of before, if there is one, stays.
    """
    other = ck.Service("digits", ck.Version("v0", image="a:0"), SERVICE.canary)
    with pytest.raises(ClusterError, match="name as stable what serves now"):
        connect().deploy(other)
    assert weight_of(server) == 25
    assert len(guards) == 1


@pytest.mark.parametrize("gone", [False, True], ids=["canary there", "canary deleted"])
@pytest.mark.parametrize("router", ["gateway-api", "istio"])
def test_a_failed_deployment_leaves_no_header_for_testers(connect, server, monkeypatch, router, gone):
    """
    The rollout before has ended and taken it away: it must not lead to a rejected canary, or to none, from now on.
    """
    kind, field = ("HTTPRoute", "rules") if router == "gateway-api" else ("VirtualService", "http")
    first = connect(router=router)
    first.deploy(SERVICE)
    first.holding.save_state(phase="rolled back", weight=0)
    first.release()
    ended = server.get(kind, "digits")["spec"]
    assert len(ended[field]) == 1
    if gone:
        server.delete("Deployment", "digits-canary")
    with pytest.raises(RoutingError, match="no address"):
        fails_late(connect(router=router), monkeypatch).deploy(SERVICE)
    assert server.get(kind, "digits")["spec"] == ended


def test_testers_that_cannot_be_ended_keep_nothing_from_being_taken_back(connect, server, guards, monkeypatch, under_way):
    """
    It is told.
    """
    cluster = fails_late(connect(), monkeypatch)
    monkeypatch.setattr(
        "canarykit.routers.route.RouteRouter.admit_testers", lambda router, admitted: admitted or fail("cannot patch HTTPRoute")
    )
    with pytest.raises(RoutingError, match="no address"):
        cluster.deploy(SERVICE)
    assert "header for testers may lead to the canary still: cannot patch" in cluster.told[-1]
    assert released_at(server, 0)
    assert not guards[1].watches


def test_a_failed_deployment_gives_back_only_what_it_took(connect, server):
    """
    An object that an earlier session adopted is in use still; one that this call took is as it was.
    """
    theirs = {"kind": "Service", "metadata": {"name": "digits-stable", "labels": {}, "annotations": {}}, "spec": {"a": 1}}
    server.create(theirs)
    first = connect(adopt=True)
    first.deploy(SERVICE)
    first.release()
    canary = server.get("Service", "digits-canary")
    server._store({**canary, "metadata": {"name": "digits-canary", "labels": {}, "annotations": {}}, "spec": {"b": 2}})
    server.broken.add("digits-canary")
    with pytest.raises(ClusterError, match="0 of 2 pods ready"):
        connect(adopt=True).deploy(SERVICE)
    assert server.get("Service", "digits-canary")["spec"] == {"b": 2}
    stable = server.get("Service", "digits-stable")
    assert stable["spec"]["selector"]["version"] == "stable"
    assert json.loads(stable["metadata"]["annotations"][BEFORE])["spec"] == {"a": 1}


@pytest.mark.parametrize("kind", ["HTTPRoute", "Service"])
def test_what_was_adopted_of_a_router_is_given_back(connect, server, kind, monkeypatch):
    """
    Somebody's route, or the Service in front of all pods, is no more the kit's to remove than a Service of a version.
    """
    monkeypatch.setattr("canarykit.routers.replicas.ReplicasRouter._wait", lambda self, *args, **options: True)
    monkeypatch.setattr("canarykit.routers.replicas.until_served", lambda *args, **options: None)
    theirs = {"kind": kind, "metadata": {"name": "digits", "labels": {"team": "search"}, "annotations": {}}, "spec": {"a": 1}}
    server.create(theirs)
    cluster = connect(adopt=True, router="gateway-api" if kind == "HTTPRoute" else "replicas")
    cluster.deploy(SERVICE)
    assert server.get(kind, "digits")["spec"] != {"a": 1}
    cluster.teardown()
    left = server.get(kind, "digits")
    assert left["spec"] == {"a": 1}
    assert left["metadata"]["labels"] == {"team": "search"}
    assert [name for name in server._objects if name[0] != "Namespace"] == [(kind, "digits")]


def test_a_failed_deployment_puts_back_what_it_changed(connect, server):
    """
    Stable with another environment does not come up: it serves on as it was.
    """
    first = connect()
    first.deploy(SERVICE)
    first.release()
    before = server.get("Deployment", "digits-stable")
    server.broken.add("digits-stable")
    other = ck.Service("digits", SERVICE.stable, SERVICE.canary, env={"MODE": "new"})
    with pytest.raises(ClusterError, match="0 of 2 pods ready"):
        connect().deploy(other)
    after = server.get("Deployment", "digits-stable")
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]


def test_an_address_that_comes_late_is_waited_for(connect, server, monkeypatch):
    """
    A load balancer of a cloud takes its time; where none comes, nothing is left of the deployment.
    """
    monkeypatch.setattr("canarykit.routers.replicas.ReplicasRouter._wait", lambda self, *args, **options: True)
    monkeypatch.setattr("canarykit.routers.replicas.until_served", lambda *args, **options: None)
    with pytest.raises(RoutingError, match="no address of a load balancer"):
        connect(router="replicas", url=None).deploy(SERVICE)
    assert list(server._objects) == [("Namespace", "ns")]
    cluster, looks = connect(router="replicas", url=None, ready_within=5), []

    def get(kind, name, *, namespace=None, real=server.get):
        found = real(kind, name)
        if (kind, name) == ("Service", "digits") and found is not None:
            looks.append(name)
            if len(looks) > 3:
                found["status"] = {"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}}
        return found

    monkeypatch.setattr(Server, "get", lambda self, kind, name, *, namespace=None: get(kind, name))
    cluster.deploy(SERVICE)
    assert cluster.url == "http://10.0.0.9"
    assert any("waiting for an address" in line for line in cluster.told)


@pytest.fixture
def terminated():
    """SIGTERM and SIGHUP raise an error, as while an experiment deploys."""
    with terminable():
        yield


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated), (signal.SIGHUP, Terminated)],
    ids=["Ctrl-C", "SIGTERM", "SIGHUP"],
)
@pytest.mark.parametrize("first", ["an error", "an interrupt"])
@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_a_deployment_is_taken_back_whole(
    connect, server, guards, request, monkeypatch, terminated, number, error, first, resumed
):
    """
    Somebody interrupts again while it is taken back, because that takes its time: it is finished before.
    """
    if resumed:
        request.getfixturevalue("under_way")
    cluster, called = connect(), []

    def fail(router):
        raise RoutingError("no address") if first == "an error" else KeyboardInterrupt

    def interrupted(lease, *, real=Lease.give_back, **facts):
        called.append(facts)
        os.kill(os.getpid(), number)
        real(lease, **facts)

    monkeypatch.setattr(cluster, "_wait_for_address", fail)
    monkeypatch.setattr(Lease, "give_back", interrupted)
    with pytest.raises(error):
        cluster.deploy(SERVICE)
    assert called == [{"weight": 0.0} if resumed else {}]
    if resumed:
        assert released_at(server, 0)
        assert weight_of(server) == 0
    else:
        assert list(server._objects) == [("Namespace", "ns")]
    assert (guards[-1].watches, cluster._holding) == (False, None)


@pytest.mark.parametrize("router", ["gateway-api", "replicas"])
def test_a_failed_first_deployment_leaves_nothing(connect, server, guards, router):
    """
    And waits for no split of what it has made itself.
    """
    server.broken.add("digits-stable")
    with pytest.raises(ClusterError, match="0 of 2 pods ready"):
        connect(router=router).deploy(SERVICE)
    assert list(server._objects) == [("Namespace", "ns")]
    assert not guards[0].watches


def test_a_lease_of_what_cannot_be_removed_is_renewed_by_nobody(connect, server, guards, monkeypatch):
    """
    Nothing may be deleted any more: the lease stays until it is stale, and its guard with it.
    """
    leases, real = [], Lease.acquire

    def acquire(lease):
        leases.append(lease)
        return real(lease)

    def delete(self, kind, name, *, grace=None):
        raise ClusterError("no permission")

    server.broken.add("digits-stable")
    monkeypatch.setattr(Lease, "acquire", acquire)
    monkeypatch.setattr(Server, "delete", delete)
    with pytest.raises(ClusterError, match="no permission"):
        connect().deploy(SERVICE)
    assert leases[0]._thread is None
    assert guards[0].watches


# Pods as a router -------------------------------------------------------------------------------------------------------


@pytest.fixture
def by_pods(connect, monkeypatch):
    """Make clusters whose split is the numbers of pods."""
    monkeypatch.setattr("canarykit.routers.replicas.ReplicasRouter._wait", lambda self, *args, **options: True)
    monkeypatch.setattr("canarykit.routers.replicas.until_served", lambda *args, **options: None)
    return lambda: connect(router="replicas")


def numbers(server):
    """Pods of stable and of the canary that are asked for."""
    return tuple(server.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES)


@pytest.mark.parametrize("ended", ["rolled back", "under way", "canary deleted"])
def test_a_new_canary_gets_nobody_while_it_is_deployed(by_pods, server, monkeypatch, ended):
    """
    The Service in front leads to every pod: the canary has none until it has a weight, and stable keeps all of its own.
    """
    first = by_pods()
    first.deploy(SERVICE)
    if ended == "under way":
        apply(first.router, TrafficSplit(25))
    first.release()
    if ended == "canary deleted":
        server.delete("Deployment", "digits-canary")
    seen, real = [], Server._store

    def store(self, body):
        made = real(self, body)
        if made["kind"] == "Deployment" and made["metadata"]["annotations"]["canarykit.dev/build"].startswith("v3"):
            seen.append(made["spec"]["replicas"])
        elif made["kind"] == "Deployment" and made["metadata"]["name"] == "digits-stable":
            assert made["spec"]["replicas"] >= 3
        return made

    monkeypatch.setattr(Server, "_store", store)
    cluster, other = by_pods(), replace(SERVICE, canary=ck.Version("v3", image="a:3"))
    assert not any("replicas" in field for change in cluster.plan(other) for field in change.fields if "stable" in change.name)
    cluster.deploy(other)
    assert seen
    assert set(seen) == {0}
    assert numbers(server) == (4, 0)
    apply(cluster.router, TrafficSplit(25))
    assert numbers(server) == (3, 1)


def test_a_first_canary_is_seen_to_come_up(by_pods, server):
    """
    Nobody comes in yet, so that it may have pods: one that does not come up is said at once.
    """
    server.broken.add("digits-canary")
    with pytest.raises(ClusterError, match=r"digits-canary.*0 of 2 pods ready"):
        by_pods().deploy(SERVICE)
    assert list(server._objects) == [("Namespace", "ns")]


# What is there already --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["gateway-api", "istio", "ingress-nginx", "replicas"])
def test_a_plan_says_what_a_deployment_would_do(connect, server, router, monkeypatch):
    """
    The weights of a rollout that is under way stay, whichever object they are in.
    """
    monkeypatch.setattr("canarykit.routers.replicas.ReplicasRouter._wait", lambda self, *args, **options: True)
    cluster = connect(router=router, url="http://127.0.0.1:1")
    monkeypatch.setattr("canarykit.routers.replicas.until_served", lambda *args, **options: None)
    assert {change.action for change in cluster.plan(SERVICE)} == {"create"}
    cluster.deploy(SERVICE)
    apply(cluster.router, TrafficSplit(25))
    before = {name: body["spec"] for name, body in server._objects.items() if "spec" in body and name[0] != "Lease"}
    assert {change.action for change in cluster.plan(SERVICE)} == {"leave"}
    cluster.release()
    again = connect(router=router, url="http://127.0.0.1:1")
    again.deploy(SERVICE)
    assert again.router.observed() == TrafficSplit(25)
    assert {name: body["spec"] for name, body in server._objects.items() if name in before} == before


@pytest.mark.parametrize(
    ("service", "options"),
    [
        (ck.Service("digits", SERVICE.stable, ck.Version("v2", image="a:2", env={"BEAMS": "4"})), {}),
        (SERVICE, {"workload": ck.Workload(resources={"limits": {"memory": "2Gi"}})}),
    ],
)
def test_other_settings_begin_at_nothing(connect, server, under_way, service, options):
    """
    The same image with another environment, or on less memory, is another canary: the old weight says nothing about it.
    """
    cluster = connect(**options)
    cluster.deploy(service)
    assert cluster.router.observed() == TrafficSplit(0)


def test_settings_that_an_older_kit_did_not_write_are_taken_as_the_same(connect, server, under_way):
    """
    A rollout that is under way survives an update of the kit.
    """
    for role in ROLES:
        found = server.get("Deployment", f"digits-{role}")
        found["metadata"]["annotations"].pop("canarykit.dev/settings")
        server._store(found)
    cluster = connect()
    cluster.deploy(SERVICE)
    assert cluster.router.observed() == TrafficSplit(25)
