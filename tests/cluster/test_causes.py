"""What somebody does to a version in the middle of a rollout: it is named within two looks, and users keep what they can."""

import threading
import time

import cluster_parts as parts
import pytest
from cluster_parts import wait_for

import canarykit as ck

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]

PLAN = ck.RolloutPlan.of(25, 50, hold="60s", interval="1s")


class Done(threading.Thread):
    """Does something once the canary has had traffic for a few seconds, and knows when it began to.

    The kit may see what was done before the API server's answer arrives here.
    """

    def __init__(self, admin, act):
        super().__init__(daemon=True)
        self._admin, self._act, self.at = admin, act, None
        self.start()

    def run(self):
        """Wait for the weight, and do it."""
        wait_for(lambda: self._admin.get("HTTPRoute", "digits")["spec"]["rules"][0]["backendRefs"][1]["weight"] == 25)
        time.sleep(3)
        self.at = time.time()
        self._act(self._admin)


def scale(deployment, replicas):
    """Scale a Deployment as `kubectl scale` does."""
    return lambda admin: admin.patch("Deployment", deployment, {"spec": {"replicas": replicas}}, sub="scale")


def rolled_out(exp, admin, act):
    """Carry out the plan while something is done; return the ending, what was told of it, and how many requests users lost.

    It is told at the first look after it, or at the second: a window or two are counted in between, and on a busy machine
    another two, until the API server's controllers have done their part.
    """
    exp.deploy()
    load = exp.send(60)
    done = Done(admin, act)
    ending = exp.run(PLAN)
    events = exp.history().events
    told = next((event for event in events if event["kind"] == "problem" and event["time"] > done.at), None)
    assert told, f"no problem was told: {ending.sentence}\n{events}"
    assert sum(done.at < window.end < told["time"] for window in exp.journal.windows()) <= 4
    return ending, told["text"], load.record()["lost_total"]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda admin: admin.delete("Deployment", "digits-canary"), "its Deployment was deleted"),
        (scale("digits-canary", 0), "it was scaled to 0 by "),
    ],
    ids=["deleted", "scaled to 0"],
)
def test_a_canary_that_somebody_takes_away_is_named(connect, experiment, service_of, admin, act, says):
    """
    Not the router: traffic is back on stable at once, while the pods that go still answer.
    """
    exp = experiment(service_of(), connect(), guardrails=[ck.metrics.error_rate()])
    ending, text, lost = rolled_out(exp, admin, act)
    assert ending.outcome == "rolled back"
    assert f"of 1 pods ready: {says}" in text
    assert says in ending.sentence
    assert "check the router" not in ending.sentence
    assert lost <= 150  # ten seconds of the canary's share; some are lost in two looks
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


@pytest.mark.parametrize(
    ("act", "says", "did"),
    [
        (scale("digits-stable", 0), "it was scaled to 0 by ", "it was scaled up to 1 again"),
        (lambda admin: admin.delete("Deployment", "digits-stable"), "its Deployment was deleted", "it was made again"),
    ],
    ids=["scaled to 0", "deleted"],
)
def test_a_stable_that_somebody_takes_away_is_brought_back(connect, experiment, service_of, admin, act, says, did):
    """
    The canary answers everybody meanwhile; the kit says what it did, and the ending what was wrong.
    """
    told = []
    exp = experiment(service_of(), connect(notify=told.append), guardrails=[ck.metrics.error_rate()])
    ending, _, lost = rolled_out(exp, admin, act)
    assert ending.outcome == "inconclusive"
    assert says in ending.sentence
    assert "stable serves again, and the canary had all traffic meanwhile" in ending.sentence
    assert "check the router" not in ending.sentence
    assert any(did in line for line in told)
    assert lost <= 450  # ten seconds of stable's share; some are lost in two looks
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)
    assert [pod for pod in exp.cluster._pods.of("stable") if "deletionTimestamp" not in pod["metadata"]]


def test_a_service_that_somebody_deletes_is_named(connect, experiment, service_of, admin):
    """
    The canary's pods are ready, and nothing leads to them.
    """
    exp = experiment(service_of(), connect(), guardrails=[ck.metrics.error_rate()])
    ending, *_ = rolled_out(exp, admin, lambda admin: admin.delete("Service", "digits-canary"))
    assert "digits-canary has 1 of 1 pods ready: its Service was deleted" in ending.sentence
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


@pytest.mark.parametrize(
    ("level", "says"),
    [("restricted", r"its pods are refused: .*violates PodSecurity(.|\n)*Pod Security level")],
    ids=["pod security"],
)
def test_a_refused_pod_ends_the_wait_at_once(connect, admin, level, says):
    """
    In the words of whoever refused it, not the quota's.
    """
    admin.patch("Namespace", admin.namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}})
    service = ck.Service("digits", ck.Version("v1", image=parts.WORKLOAD.image), ck.Version("v2", image="a:2"), replicas=1)
    start = time.monotonic()
    with pytest.raises(ck.errors.ClusterError, match=says):
        connect(ready_within=60.0).deploy(service)
    assert time.monotonic() - start < 30
    assert parts.left_behind(admin) == []
