"""Whole rollouts on a real cluster under real traffic, and what befalls them."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import wait_for

import canarykit as ck
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.ownership import adopted
from canarykit.errors import ClusterError, ConflictError, RoutingError
from canarykit.history import replay

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]

QUICK = ck.RolloutPlan.of(5, 25, 50, hold="4s", min_requests=20)
GUARDRAILS = [ck.metrics.error_rate(), ck.metrics.latency(), ck.metrics.accuracy()]


def experiment(service, cluster, **options):
    """An experiment that says nothing."""
    return ck.Experiment(service, cluster, guardrails=GUARDRAILS, tell=lambda line: None, **options)


def left_behind(client):
    """Objects of the kit that are still there."""
    kinds = ("Deployment", "Service", "ConfigMap", "HTTPRoute", "Lease", "Job")
    return [
        (kind, found["metadata"]["name"])
        for kind in kinds
        for found in client.list(kind, "app.kubernetes.io/managed-by=canarykit")
    ]


def test_a_good_canary_is_promoted_with_nothing_lost(connect, service_of, namespace):
    """
    0 → 5 → 25 → 50 → 100 through a real gateway: served as asked at each step, and nothing of it is left behind.
    """
    cluster = connect()
    with experiment(service_of(replicas=2), cluster) as exp:
        exp.deploy()
        exp.send(100)
        ending = exp.run(QUICK)
        history = exp.history()
        lost = sum(load["lost_total"] for load in history.loads)
        assert ending.outcome == "promoted", str(ending)
        assert lost == 0
        weights = [change["asked"] for change in exp.journal.weights()]
        assert weights == [5, 25, 50, 100, 0]
        assert exp._split_check.alarm is None
        stable = cluster.client.get("Deployment", "digits-stable")
        assert stable["metadata"]["labels"]["app.kubernetes.io/version"] == "v2"
        assert cluster.client.get("Deployment", "digits-canary")["spec"]["replicas"] == 0
    assert left_behind(Client(None, namespace)) == []
    assert not adopted(Client(None, namespace))


def test_a_failing_canary_is_rolled_back_with_nothing_lost(connect, service_of):
    """
    Traffic is back on stable within the time that the sentence says.
    """
    with experiment(service_of("failing"), connect()) as exp:
        exp.deploy()
        exp.send(100)
        ending = exp.run(QUICK)
        assert ending.outcome == "rolled back", str(ending)
        assert "error rate" in ending.sentence
        assert "back on stable after" in ending.sentence
        assert sum(load["lost_total"] for load in exp.history().loads) == 0
        assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_plan_and_export_write_nothing(connect, service_of, namespace, tmp_path):
    """
    The difference is shown before anything is there, and none is left after; kubectl would take the YAML.
    """
    cluster, service = connect(), service_of()
    planned = cluster.plan(service)
    assert {change.action for change in planned} == {"create"}
    assert "nothing is written" in str(planned)
    text = cluster.export(service, tmp_path / "objects.yaml")
    assert (tmp_path / "objects.yaml").read_text() == text
    assert left_behind(cluster.client) == []
    import yaml

    for body in yaml.safe_load_all(text):
        cluster.client.apply(body, dry_run=True)
    cluster.deploy(service)
    again = connect()
    assert {change.action for change in again.plan(service)} == {"leave"}
    more = again.plan(service_of(replicas=2))
    assert any("spec.replicas: 1 → 2" in change.fields for change in more)
    cluster.teardown()
    assert left_behind(cluster.client) == []


def test_a_namespace_of_its_own_is_made_and_removed(connect, service_of):
    """
    Where there was none there is none afterwards.
    """
    name = f"canarykit-test-made-{os.getpid()}"
    cluster = connect(name)
    cluster.deploy(service_of())
    assert cluster.urls().keys() == {"stable", "canary"}
    cluster.teardown()
    client = Client(None, name)
    wait_for(lambda: client.get("Namespace", name) is None)


def test_service_urls_answer(connect, service_of):
    """
    ClusterIP Services are reached through a port of this machine that leads to a pod.
    """
    import json
    import urllib.request

    cluster = connect()
    cluster.deploy(service_of())
    for role, version in (("stable", "v1"), ("canary", "v2")):
        with urllib.request.urlopen(f"{cluster.urls()[role]}/v2", timeout=10) as answer:
            assert json.load(answer)["version"] == version
    cluster.teardown()


def test_objects_of_others_are_refused_or_given_back(connect, service_of, namespace):
    """
    A Service of that name that someone else made stops the deployment; adopted, it is afterwards as it was.
    """
    client = Client(None, namespace)
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "digits-stable", "labels": {"team": "search"}},
        "spec": {"selector": {"app": "other"}, "ports": [{"name": "http", "port": 80, "targetPort": 9999}]},
    }
    before = client.create(foreign)
    with pytest.raises(ClusterError, match=r"someone else's.*adopt=True"):
        connect().deploy(service_of())
    assert left_behind(client) == []
    assert client.get("Service", "digits-stable")["spec"] == before["spec"]
    cluster = connect(adopt=True)
    cluster.deploy(service_of())
    assert client.get("Service", "digits-stable")["spec"]["selector"]["version"] == "stable"
    cluster.teardown()
    after = client.get("Service", "digits-stable")
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert after["metadata"]["labels"] == {"team": "search"}
    assert left_behind(client) == []


def broken(kind):
    """A version that does not come up."""
    if kind == "image":
        return ck.Version("v2", image="nobody.invalid/nothing:1")
    if kind == "probe":
        return ck.Version("v2", model=None, image=_image(), ready="/never")
    return ck.Version("v2", image="busybox:1")


def _image():
    from conftest import WORKLOAD

    return WORKLOAD.image


@pytest.mark.parametrize(
    ("kind", "says"), [("image", "the image cannot be pulled"), ("crash", "by itself, last with exit code")]
)
def test_a_canary_that_does_not_come_up_says_why(connect, service_of, kind, says):
    """
    An image that does not exist, and a crash loop: the reason is in the error, and nothing is left behind.
    """
    cluster = connect(ready_within=90.0)
    service = ck.Service("digits", service_of().stable, broken(kind), replicas=1)
    with pytest.raises(ClusterError, match=says):
        cluster.deploy(service)
    assert left_behind(cluster.client) == []


def test_a_probe_that_never_passes_ends_the_wait(connect, service_of, estimators):
    """
    The deadline ends it, with what the probe saw.
    """
    cluster = connect(ready_within=12.0)
    canary = ck.Version("v2", model=estimators["good"], ready="/never")
    with pytest.raises(ClusterError, match=r"0 of 1 pods ready after 12 s(.|\n)*404"):
        cluster.deploy(ck.Service("digits", service_of().stable, canary, replicas=1))
    assert left_behind(cluster.client) == []


def test_a_quota_that_is_exceeded_is_named(connect, service_of, namespace):
    """
    The cluster's own sentence says which quota.
    """
    client = Client(None, namespace)
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    status, _ = client._exchange("POST", path, quota, {"content-type": "application/json"})
    assert status == 201
    wait_for(lambda: '"hard":{"pods"' in client._exchange("GET", f"{path}/few", None, {})[1].split('"status":')[1])
    with pytest.raises(ClusterError, match="exceeded quota: few"):
        connect(ready_within=30.0).deploy(service_of())
    assert left_behind(client) == []


def test_pods_killed_under_load_end_in_a_verdict(connect, service_of):
    """
    Its pods vanish, with counts that nobody read; they come back, and the rollout ends in a verdict.
    """
    cluster = connect()
    with experiment(service_of(replicas=2), cluster) as exp:
        exp.deploy()
        exp.send(60)
        exp.shift(25)
        exp.observe("2s")
        for pod in cluster.pods("canary"):
            cluster.client.delete("Pod", pod["metadata"]["name"], grace=0)
        exp.observe("2s")
        wait_for(lambda: len([1 for pod in cluster._pods.ready("canary")]) == 2)
        table = exp.observe("2s")
        assert len(table)
        assert exp.judge().alarm is None or "error rate" in exp.judge().sentence
        exp.shift(50)
        assert exp.abort().outcome == "rolled back"


def test_a_foreign_edit_of_the_route_stops_the_rollout(connect, service_of):
    """
    Someone else changes the weights: the rollout says so and ends.
    """
    cluster = connect()
    with experiment(service_of(), cluster) as exp:
        exp.deploy()
        exp.send(60)

        def meddle():
            wait_for(lambda: cluster.router.observed().canary == 25)
            found = cluster.client.get("HTTPRoute", "digits")
            refs = found["spec"]["rules"][0]["backendRefs"]
            refs[0]["weight"], refs[1]["weight"] = 40, 60
            cluster.client.replace(found)

        meddler = threading.Thread(target=meddle)
        meddler.start()
        ending = exp.run(ck.RolloutPlan.of(5, 25, 50, hold="6s", min_requests=10))
        meddler.join()
        assert ending.outcome == "inconclusive"
        assert "60 % to the canary, not the 25 %" in ending.sentence


def test_every_other_write_conflicts_and_all_is_well(connect, service_of, monkeypatch):
    """
    409 on every other patch of the route: the rollout takes no harm.
    """
    cluster = connect()
    real, count = Client.patch, iter(range(10_000))

    def patch(self, kind, *args, **options):
        if kind == "HTTPRoute" and next(count) % 2 == 0:
            raise ConflictError("the object has been modified")
        return real(self, kind, *args, **options)

    monkeypatch.setattr(Client, "patch", patch)
    with experiment(service_of(), cluster) as exp:
        exp.deploy()
        for weight in (5, 25, 0):
            assert exp.shift(weight) == ck.TrafficSplit(weight)


def test_an_api_server_that_is_away_is_waited_for(connect, service_of, monkeypatch):
    """
    Twenty seconds without an answer: traffic stays as it is, and then it goes on.
    """
    cluster = connect()
    real, away = Client._exchange, [0.0]

    def exchange(self, *args, **options):
        if time.monotonic() < away[0]:
            raise ConnectionRefusedError("connection refused")
        return real(self, *args, **options)

    monkeypatch.setattr(Client, "_exchange", exchange)
    with experiment(service_of(), cluster) as exp:
        exp.deploy()
        exp.send(60)
        exp.shift(25)
        away[0] = time.monotonic() + 20
        start = time.monotonic()
        exp.shift(50)
        assert time.monotonic() - start >= 19
        assert cluster.router.observed() == ck.TrafficSplit(50)
        exp.stop_sending()
        assert sum(load["lost_total"] for load in exp.history().loads) == 0


KERNEL = """
import sys, time
import canarykit as ck
from conftest import WORKLOAD
from canarykit.serving import digits
cluster = ck.KubeCluster(None, sys.argv[1], hostname=sys.argv[1] + ".test", workload=WORKLOAD, lease=8)
service = ck.Service("digits", ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good")), replicas=1)
exp = ck.Experiment(service, cluster)
exp.deploy()
exp.shift(25)
print("shifted", flush=True)
time.sleep(600)
"""


@pytest.fixture
def killed(namespace):
    """A kernel that has shifted 25 % to the canary and was then killed."""
    folder = os.path.dirname(__file__)
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.path.dirname(folder)}"}
    kernel = subprocess.Popen([sys.executable, "-c", KERNEL, namespace], stdout=subprocess.PIPE, text=True, env=env)
    assert any("shifted" in line for line in kernel.stdout)
    kernel.send_signal(signal.SIGKILL)
    kernel.wait()
    kernel.stdout.close()
    return namespace


def test_a_killed_kernel_is_resumed_and_does_not_advance(killed, connect, service_of):
    """
    The next notebook finds the deployment, the weight and the phase, and goes on from there.
    """
    told = []
    cluster = connect(tell=told.append)
    exp = ck.Experiment(service_of(), cluster, plan=ck.RolloutPlan.of(5, 25, 50), tell=told.append)
    exp.deploy()
    assert exp._split == ck.TrafficSplit(25)
    assert exp._rollout.present.weight == 25
    assert any("goes on from there" in line for line in told)
    exp.teardown()


def test_nobody_comes_and_the_guard_returns_traffic(killed, connect):
    """
    Without a sign of life all traffic is back on stable, and the lease says who did it.
    """
    client = Client(None, killed)

    def returned():
        refs = client.get("HTTPRoute", "digits")["spec"]["rules"][0]["backendRefs"]
        return refs[1]["weight"] == 0

    wait_for(returned, within=40)
    wait_for(lambda: "by the guard" in str(client.get("Lease", "digits-rollout")["metadata"]["annotations"]), within=10)


def test_two_kits_do_not_conduct_one_service(connect, service_of):
    """
    The second one is refused with the name of the holder.
    """
    first = connect()
    first.deploy(service_of())
    with pytest.raises(ClusterError, match=rf"{os.uname().nodename}.* conducts a rollout"):
        connect().deploy(service_of())
    first.teardown()


def test_letting_go_leaves_what_serves(connect, service_of):
    """
    `close` ends the notebook's part; both versions stay with their weight, and the next notebook goes on from it.
    """
    cluster = connect()
    exp = experiment(service_of(), cluster)
    exp.deploy()
    exp.shift(25)
    exp.close()
    again = connect()
    exp = experiment(service_of(), again)
    exp.deploy()
    assert exp._split == ck.TrafficSplit(25)
    exp.teardown()


def test_stable_is_not_replaced_by_deploying(connect, service_of):
    """
    What serves now must be named as stable.
    """
    cluster = connect()
    cluster.deploy(service_of())
    cluster.release()
    with pytest.raises(ClusterError, match="name as stable what serves now"):
        connect().deploy(service_of(stable="good"))


def test_no_gateway_is_a_clear_error(connect, service_of):
    """
    Nothing is written when the route would go nowhere.
    """
    cluster = connect(gateway="nowhere/nothing", url="http://127.0.0.1:9")
    with pytest.raises(RoutingError, match="no gateway has taken it up"):
        cluster.deploy(service_of())
    assert left_behind(cluster.client) == []


def test_what_was_counted_can_be_judged_again(connect, service_of, tmp_path):
    """
    The journal of a rollout on a cluster replays as one of a laptop does, and says where its counts came from.
    """
    with experiment(service_of(), connect(), journal=tmp_path / "journal.sqlite") as exp:
        exp.deploy()
        exp.send(60)
        exp.shift(50)
        exp.observe("3s")
        said = str(exp.judge())
    journal = ck.Journal(tmp_path / "journal.sqlite")
    assert "canarykit_requests_total" in str(journal.facts["sources"])
    assert str(replay(journal).judgement) == said
    journal.close()
