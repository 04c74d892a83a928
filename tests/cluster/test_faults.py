"""What befalls a rollout on a real cluster: each ends as it should, with its reason, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import accounts
import cluster_parts as parts
import pytest
from cluster_parts import edit, meanwhile, wait_for

import canarykit as ck
from canarykit.clusters.kube.api.client import Client
from canarykit.errors import ClusterError, ConflictError, PlanError, RoutingError

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]


@pytest.mark.parametrize(
    ("canary", "says"),
    [
        (ck.Version("v2", image="nobody.invalid/nothing:1"), "the image cannot be pulled"),
        (ck.Version("v2", image=parts.WORKLOAD.image), "by itself, last with exit code"),  # no model is mounted
    ],
    ids=["image", "crash loop"],
)
def test_a_canary_that_does_not_come_up_says_why(connect, service_of, admin, canary, says):
    """
    An image that does not exist, and a crash loop: the reason is in the error, and nothing is left behind.
    """
    cluster = connect(ready_within=90.0)
    with pytest.raises(ClusterError, match=says):
        cluster.deploy(ck.Service("digits", service_of().stable, canary, replicas=1))
    assert parts.left_behind(admin) == []


def test_a_probe_that_never_passes_ends_the_wait(connect, service_of, admin, estimators):
    """
    The deadline ends it, with what the probe saw.
    """
    cluster = connect(ready_within=40.0)
    canary = ck.Version("v2", model=estimators["good"], ready="/never")
    with pytest.raises(ClusterError, match=r"0 of 1 pods ready after 40 s(.|\n)*404"):
        cluster.deploy(ck.Service("digits", service_of().stable, canary, replicas=1))
    assert parts.left_behind(admin) == []


def test_a_pod_that_fits_no_node_says_so(connect, service_of, admin):
    """
    The scheduler's own sentence is in the error.
    """
    workload = ck.Workload(server_image=parts.WORKLOAD.server_image, gpus=64)
    with pytest.raises(ClusterError, match=r"finds no node(.|\n)*nvidia.com/gpu"):
        connect(workload=workload, ready_within=20.0).deploy(service_of())
    assert parts.left_behind(admin) == []


def test_a_quota_that_is_exceeded_is_named(connect, service_of, admin):
    """
    The cluster's own sentence says which quota.
    """
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    accounts.create(admin, quota)
    path = f"/api/v1/namespaces/{admin.namespace}/resourcequotas/few"
    wait_for(lambda: '"hard":{"pods"' in admin._exchange("GET", path, None, {})[1].split('"status":')[1])
    with pytest.raises(ClusterError, match="exceeded quota: few"):
        connect(ready_within=30.0).deploy(service_of())
    assert parts.left_behind(admin) == []


def test_a_namespace_that_is_being_deleted_is_refused(connect, service_of, admin):
    """
    Nothing is written into it.
    """
    held = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "held", "finalizers": ["canarykit.dev/test"]}}
    admin.create(held)
    cluster = connect()
    admin.delete("Namespace", admin.namespace)
    try:
        with pytest.raises(ClusterError, match="is being deleted"):
            cluster.deploy(service_of())
    finally:
        admin.patch("ConfigMap", "held", {"metadata": {"finalizers": None}})


def test_an_image_name_that_is_none_is_refused_at_once(connect, service_of, admin):
    """
    Before anything is asked of the server.
    """
    service = ck.Service("digits", service_of().stable, ck.Version("v2", image="Not An Image"))
    with pytest.raises(PlanError, match="is no name of an image"):
        connect().plan(service)
    assert parts.left_behind(admin) == []


def test_a_context_that_is_not_there_is_named():
    """
    With those that are.
    """
    with pytest.raises(ClusterError, match="has no context 'nowhere', only "):
        ck.connect("kube:nowhere/ai-services")


def test_no_gateway_is_a_clear_error(connect, service_of, admin):
    """
    Nothing stays when the route would go nowhere.
    """
    cluster = connect(gateway="nowhere/nothing", url="http://127.0.0.1:9")
    with pytest.raises(RoutingError, match="no gateway has taken it up"):
        cluster.deploy(service_of())
    assert parts.left_behind(admin) == []


def test_pods_killed_under_load_end_in_a_verdict(connect, experiment, service_of):
    """
    They vanish with counts that nobody read; they come back, and the rollout ends in a verdict.
    """
    cluster = connect()
    exp = experiment(service_of(replicas=2), cluster)
    exp.deploy()
    exp.send(60)
    exp.shift(25)
    exp.observe("2s")
    for pod in cluster._pods.of("canary"):
        cluster.client.delete("Pod", pod["metadata"]["name"], grace=0)
    exp.observe("2s")
    wait_for(lambda: len(cluster._pods.ready("canary")) == 2)
    before = exp.history().requests
    exp.observe("3s")
    assert exp.history().requests[1] > before[1]
    assert exp.judge().alarm is None or "error rate" in exp.judge().sentence
    assert exp.abort().outcome == "rolled back"


def test_a_canary_that_crashes_on_its_way_is_rolled_back(connect, experiment, service_of, admin):
    """
    Its Deployment is changed to something that cannot run: the rollout ends, with the reason.
    """
    exp = experiment(service_of(), connect())
    exp.deploy()
    exp.send(60)
    exp.shift(25)
    admin.patch("Deployment", "digits-canary", {"spec": {"strategy": {"type": "Recreate", "rollingUpdate": None}}})
    image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "nobody.invalid/nothing:1"}]
    admin.patch("Deployment", "digits-canary", image, how="json")
    wait_for(lambda: exp.cluster.health("canary").lasting)
    ending = exp.run(ck.RolloutPlan.of(25, 50, hold="4s"))
    assert ending.outcome == "rolled back"
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def canarys_weight(admin):
    """What the route says, asked beside the experiment."""
    return admin.get("HTTPRoute", "digits")["spec"]["rules"][0]["backendRefs"][1]["weight"]


def meddle(admin):
    """Give the canary 60 %, as someone else."""
    refs = "/spec/rules/0/backendRefs"
    edit(admin, "HTTPRoute", "digits", {f"{refs}/0/weight": 40, f"{refs}/1/weight": 60})


def test_a_foreign_edit_of_the_route_stops_the_rollout(connect, experiment, service_of, admin):
    """
    Someone else changes the weights: the rollout says so and ends.
    """
    exp = experiment(service_of(), connect())
    exp.deploy()
    exp.send(60)

    def wait_and_meddle():
        wait_for(lambda: canarys_weight(admin) == 25)
        meddle(admin)

    with meanwhile(wait_and_meddle):
        ending = exp.run(ck.RolloutPlan.of(5, 25, 50, hold="6s", min_requests=10, budget="4min"))
    assert ending.outcome == "inconclusive"
    assert "60 % to the canary, not the 25 %" in ending.sentence


def test_a_foreign_edit_just_before_a_shift_is_not_overwritten_unseen(connect, experiment, service_of, admin):
    """
    Nobody has looked since: the write itself finds it, says so, and leaves it. Asked for again, the weight is changed.
    """
    exp = experiment(service_of(), connect())
    exp.deploy()
    exp.shift(5)
    meddle(admin)
    with pytest.raises(RoutingError, match=r"serves 60 % to the canary, not the 5 %.*nothing was changed: ask again"):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(60)
    assert exp.shift(25) == ck.TrafficSplit(25)


def test_every_other_write_conflicts_and_all_is_well(connect, experiment, service_of, monkeypatch):
    """
    409 on every other patch of the route: the rollout takes no harm.
    """
    real, count = Client.patch, iter(range(10_000))

    def patch(self, kind, *args, **options):
        if kind == "HTTPRoute" and next(count) % 2 == 0:
            raise ConflictError("the object has been modified")
        return real(self, kind, *args, **options)

    monkeypatch.setattr(Client, "patch", patch)
    exp = experiment(service_of(), connect())
    exp.deploy()
    for weight in (5, 25, 0):
        assert exp.shift(weight) == ck.TrafficSplit(weight)
    assert next(count) >= 6


def test_an_api_server_that_is_away_is_waited_for(connect, experiment, service_of, admin, namespace, tmp_path, monkeypatch):
    """
    Twenty seconds without an API server in the middle of a rollout: traffic stays as it is, then it goes on, nothing is lost.
    """
    connection = accounts.Connection(admin.host)
    try:
        config = accounts.kubeconfig(admin, tmp_path / "through-the-connection", server=connection.url)
        monkeypatch.setenv("KUBECONFIG", str(config))
        told, away = [], []
        exp = experiment(service_of(), connect(notify=told.append), guardrails=[ck.metrics.error_rate()])
        exp.deploy()
        exp.send(150)

        def outage():
            wait_for(lambda: canarys_weight(admin) == 25)
            connection.shut()
            time.sleep(20)
            away.append(canarys_weight(admin))
            connection.open()

        with meanwhile(outage):
            ending = exp.run(ck.RolloutPlan.of(25, 50, hold="3s", min_requests=20, budget="4min"))
        assert away == [25]
        assert any("waiting for the API server" in line for line in told)
        assert ending.outcome == "promoted", str(ending)
        assert sum(load["lost_total"] for load in exp.history().loads) == 0
        exp.teardown()
    finally:
        connection.close()


KERNEL = """
import sys, time
import canarykit as ck
from canarykit.serving import digits
from cluster_parts import WORKLOAD
name, gateway, url, lease = sys.argv[1:]
cluster = ck.KubeCluster(None, name, gateway=gateway, url=url, hostname=name + ".test", workload=WORKLOAD, lease=int(lease))
versions = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
exp = ck.Experiment(ck.Service("digits", *versions, replicas=1), cluster)
exp.deploy()
exp.shift(25)
print("shifted", flush=True)
time.sleep(600)
"""


@pytest.fixture
def killed(namespace, request):
    """A kernel that has shifted 25 % to the canary and was then killed; its lease lasts 8 s, or as long as a test says."""
    lease = str(getattr(request, "param", 8))
    tests = str(Path(parts.__file__).parent)
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, namespace, *parts.gateway(), lease],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert any("shifted" in line for line in kernel.stdout)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    kernel.stdout.close()
    return namespace


@pytest.mark.parametrize("killed", [60], indirect=True)
def test_a_killed_kernel_is_resumed_and_does_not_advance(killed, connect, experiment, service_of):
    """
    The next notebook finds the deployment, the weight and the phase, and goes on from there.
    """
    told = []
    exp = ck.Experiment(service_of(), connect(), plan=ck.RolloutPlan.of(5, 25, 50), notify=told.append)
    exp.deploy()
    assert exp.snapshot().state.split == ck.TrafficSplit(25)
    assert exp.snapshot().state.step == 1
    assert any("goes on from there" in line for line in told)
    exp.teardown()


def test_nobody_comes_and_the_guard_returns_traffic(killed, admin):
    """
    Without a sign of life all traffic is back on stable, and the lease says who did it.
    """
    wait_for(lambda: admin.get("HTTPRoute", "digits")["spec"]["rules"][0]["backendRefs"][1]["weight"] == 0, within=40)
    wait_for(lambda: "by the guard" in str(admin.get("Lease", "digits-rollout")["metadata"]["annotations"]), within=40)


def test_two_kits_do_not_conduct_one_service(connect, service_of):
    """
    The second one is refused with the name of the holder.
    """
    first = connect()
    first.deploy(service_of())
    with pytest.raises(ClusterError, match=rf"{os.uname().nodename}.* conducts a rollout"):
        connect().deploy(service_of())
    first.teardown()
