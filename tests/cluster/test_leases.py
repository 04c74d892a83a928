"""A rollout on a real cluster whose Lease is harmed, or whose process ends: users lose nothing, no canary is stranded."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
import zlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cluster_parts as parts
import psutil
import pytest
from cluster_parts import meanwhile, wait_for

import canarykit as ck
from canarykit.clusters.kube.api.lease import LET_GO, STATE
from canarykit.clusters.kube.api.liveness import PROCESSES
from canarykit.errors import ClusterError
from canarykit.routers.base import apply

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]

LEASE = "digits-rollout"

SCRIPT = """
import json, sys, time
import canarykit as ck
from canarykit.serving import digits

from cluster_parts import WORKLOAD
name, gateway, url, lease, weights = sys.argv[1:]
cluster = ck.KubeCluster(None, name, gateway=gateway, url=url, hostname=name + ".test", workload=WORKLOAD, lease=int(lease))
versions = ck.Version("v1", model=digits.model("stable")), ck.Version("v2", model=digits.model("good"))
exp = ck.Experiment(ck.Service("digits", *versions, replicas=1), cluster, guardrails=[ck.metrics.error_rate()])
exp.deploy()
exp.send(60)
print("deployed", flush=True)
exp.run(ck.RolloutPlan.of(*json.loads(weights), hold="10min"))
"""


@pytest.fixture
def script(namespace, admin):
    """Start a script that carries out a plan, and wait until both versions are up; it is ended afterwards, with its guard."""
    started, guards = [], []

    def start(*weights, lease=60):
        words = [SCRIPT, namespace, *parts.gateway(), str(lease), json.dumps(weights)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(parts.__file__).parent), *sys.path])}
        process = subprocess.Popen([sys.executable, "-c", *words], stdout=subprocess.PIPE, text=True, env=env)
        started.append(process)
        assert any("deployed" in line for line in process.stdout)
        children = psutil.Process(process.pid).children()
        guards.extend(child for child in children if "canarykit.clusters.kube.guard" in child.cmdline())
        return process

    yield start
    for process in started:
        process.kill()
        process.stdout.close()
        process.wait()
    if admin.get("Lease", LEASE):
        admin.patch("Lease", LEASE, {"metadata": {"annotations": {LET_GO: "the test"}}, "spec": {"holderIdentity": None}})
    assert psutil.wait_procs(guards, timeout=20)[1] == []


@pytest.fixture
def users(namespace):
    """Steady traffic of users, which counts what they got; it ends with the test."""
    sent = []

    def start(rate=100):
        url = parts.gateway()[1]
        sent.append(ck.Load(url, rate=rate, path="/v2/models/digits/infer", headers={"host": f"{namespace}.test"}).start())
        return sent[-1]

    yield start
    for load in sent:
        load.stop()


def lost(load):
    """Requests of users that were lost, of those sent until now, which are some."""
    summary = load.stop()
    assert summary.answered >= 10
    return load.record()["lost"]


def weight(admin):
    """Canary's share of the weights that the route says."""
    refs = admin.get("HTTPRoute", "digits")["spec"]["rules"][0]["backendRefs"]
    return 100 * refs[1]["weight"] / sum(ref["weight"] for ref in refs)


def holder(admin):
    """Who holds the lease; None when there is none, or nobody does."""
    found = admin.get("Lease", LEASE)
    return found and found["spec"].get("holderIdentity")


def deleted(admin):
    """As `kubectl delete lease` does."""
    assert admin.delete("Lease", LEASE)


def emptied(admin):
    """As `kubectl edit lease` may do."""
    admin.patch("Lease", LEASE, {"spec": {"holderIdentity": ""}})


def replaced(admin):
    """As `kubectl replace --force` does: another object with the same text, but for what others had noted."""
    found = admin.get("Lease", LEASE)
    admin.delete("Lease", LEASE)
    admin.create({key: found[key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": LEASE}})


@pytest.mark.parametrize("harm", [deleted, emptied, replaced], ids=lambda harm: harm.__name__)
def test_a_harmed_lease_strands_nobody(connect, experiment, service_of, admin, users, harm):
    """
    Before each change somebody harms the lease: weights rise and fall as asked, it is ours again, and all goes in the end.
    """
    exp = experiment(service_of(), connect())
    exp.deploy()
    traffic = users()
    mine = holder(admin)
    for asked in (25, 30, 10, 0, 25):
        harm(admin)
        assert exp.shift(asked) == ck.TrafficSplit(asked)
        assert (weight(admin), holder(admin)) == (asked, mine)
    harm(admin)
    assert exp.abort().outcome == "rolled back"
    assert (weight(admin), holder(admin)) == (0, mine)
    assert lost(traffic) == {}
    harm(admin)
    exp.teardown()
    assert parts.left_behind(admin) == []


def test_traffic_returns_although_no_lease_can_be_written(connect, experiment, service_of, admin, namespace, users):
    """
    The role loses its right to Leases in the middle of a rollout: nothing rises any more, and traffic returns all the same.
    """
    exp = experiment(service_of(), connect())
    exp.deploy()
    traffic = users()
    exp.shift(25)
    role = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/canarykit"
    before = json.loads(admin._exchange("GET", role, None, {})[1])
    rules = [rule for rule in before["rules"] if "leases" not in rule["resources"]]
    merge = {"content-type": "application/merge-patch+json"}
    assert admin._exchange("PATCH", role, {"rules": rules}, merge)[0] == 200
    try:
        with pytest.raises(ClusterError, match="no permission"):
            wait_for(lambda: exp.shift(exp.snapshot().state.split.canary + 1) is None)
        exp.abort()
        assert weight(admin) == 0
        assert lost(traffic) == {}
    finally:
        assert admin._exchange("PATCH", role, {"rules": before["rules"]}, merge)[0] == 200


def test_a_guard_whose_lease_is_gone_returns_traffic(script, admin):
    """
    The process is killed and somebody deletes its lease: nobody takes it again, so the guard acts.
    """
    process = script(25, lease=6)
    wait_for(lambda: weight(admin) == 25)
    process.kill()
    process.wait()
    deleted(admin)
    wait_for(lambda: weight(admin) == 0, within=40)
    assert holder(admin) is None


def renewed_elsewhere(admin, ahead):
    """Renew the lease as a kit on another machine does, whose clock is ahead."""
    now = datetime.now(UTC) + timedelta(seconds=ahead)
    spec = {"holderIdentity": "elsewhere-1-abc", "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
    admin.patch("Lease", LEASE, {"metadata": {"annotations": {PROCESSES: "another boot"}}, "spec": spec})


def test_clocks_of_two_machines_are_not_compared(connect, service_of, admin):
    """
    A kit elsewhere, whose clock is two minutes off, renews: whoever comes is refused. It stops: whoever comes takes over.
    """
    first = connect(lease=6)
    first.deploy(service_of())
    first._holding.lease.stop()  # renewed from here on by another machine
    for ahead in (-120, 120):
        renewed_elsewhere(admin, ahead)

        def go_on(ahead=ahead):
            for _ in range(3):
                time.sleep(1.5)
                renewed_elsewhere(admin, ahead)

        with meanwhile(go_on), pytest.raises(ClusterError, match="elsewhere-1-abc conducts a rollout"):
            connect().deploy(service_of())
    begun, last = time.monotonic(), connect()
    last.deploy(service_of())
    assert time.monotonic() - begun > 6
    assert holder(admin) == last._holding.lease.holder
    last.teardown()


def test_sigterm_of_a_script_returns_traffic_at_once(script, admin, users):
    """
    As CI or Kubernetes ends one: not after the time of the lease, and with the exit code that shells give.
    """
    process = script(25)
    traffic = users()
    wait_for(lambda: weight(admin) == 25)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: weight(admin) == 0, within=10)
    assert process.wait(30) == 143
    said = json.loads(admin.get("Lease", LEASE)["metadata"]["annotations"][STATE])
    assert (said["phase"], said["weight"]) == ("inconclusive", 0)
    assert lost(traffic) == {}


def test_a_reconnect_goes_on_with_the_plan_that_was_carried_out(script, connect, experiment, service_of, admin):
    """
    It was passed to `run`, and is none that the next notebook knows: its weight is a step, and stays.
    """
    process = script(30, 60)
    wait_for(lambda: weight(admin) == 30)
    wait_for(lambda: "30" in str(admin.get("Lease", LEASE)["metadata"]["annotations"].get(STATE)))
    process.kill()
    process.wait()
    exp = experiment(service_of(), connect())
    exp.deploy()
    assert weight(admin) == 30
    assert [step.weight for step in exp.snapshot().state.plan.steps] == [30, 60]


def evidence(admin):
    """Evidence that is kept on the cluster; None when there is none."""
    found = admin.get("ConfigMap", LEASE)
    return found and json.loads(zlib.decompress(base64.b64decode(found["binaryData"]["state.json.zlib"])))["evidence"]


def test_a_reconnect_has_the_evidence_of_a_process_that_was_killed(script, connect, experiment, service_of, admin):
    """
    To the last digit, as of its last write; it goes when the rollout has ended.
    """
    process = script(30, 60)
    wait_for(lambda: weight(admin) == 30)
    wait_for(lambda: sum(map(sum, (evidence(admin) or {"monitors": [{"totals": [[0]]}]})["monitors"][0]["totals"])) > 300)
    process.kill()
    process.wait()
    kept = evidence(admin)
    exp = experiment(service_of(), connect(), guardrails=[ck.metrics.error_rate()])
    exp.deploy()
    counted = sum(map(sum, kept["monitors"][0]["totals"]))
    said = next(event["text"] for event in exp.history().events if event["kind"] == "resume")
    assert said.endswith(f"the evidence goes on, with {counted:,} requests so far")
    assert json.loads(json.dumps(exp.snapshot().state.evidence.state())) == kept
    exp.abort()
    exp.close()
    assert evidence(admin) is None


class Broken(Exception):
    """Something that nobody foresaw."""


def broken_off(exp, monkeypatch, error):
    """Deploy, and have it fail as soon as both versions are up."""

    def fail(*values):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr("canarykit.session.tracker.Tracker.begin", fail)
        with pytest.raises(type(error)):
            exp.deploy()


def test_a_deployment_that_fails_with_both_versions_up_leaves_nothing(connect, experiment, service_of, admin, monkeypatch):
    """
    What begins after them fails, or somebody presses Ctrl-C: all is removed, and the next try works.
    """
    exp = experiment(service_of(), connect())
    for error in (Broken("no counts"), KeyboardInterrupt()):
        broken_off(exp, monkeypatch, error)
        assert parts.left_behind(admin) == []
    exp.deploy()
    assert exp.shift(25) == ck.TrafficSplit(25)


def test_a_deployment_that_fails_leaves_what_was_there_before(connect, experiment, service_of, admin, users, monkeypatch):
    """
    A rollout was let go of at 25 %: its versions go on serving; the canary, which nobody conducts, gets nothing any more.
    """
    first = connect()
    first.deploy(service_of())
    apply(first.router, ck.TrafficSplit(25))
    first.holding.save_state(phase="progressing", weight=25)
    first.release()
    before = parts.left_behind(admin)
    traffic = users()
    exp = experiment(service_of(), connect())
    broken_off(exp, monkeypatch, Broken("no counts"))
    assert parts.left_behind(admin) == before
    assert (weight(admin), holder(admin)) == (0, None)
    assert lost(traffic) == {}
    exp.deploy()
