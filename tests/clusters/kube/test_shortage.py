"""How many pods a version lacks, and why: one sentence, and whether it passes by itself."""

import pytest
from test_diagnose import DRAINED, LOOP, PULL, QUOTA, UNHEALTHY, Cluster, pod

from canarykit.clusters.kube.workloads import pods as pods_module
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.clusters.kube.workloads.shortage import health_of, wanted
from canarykit.places import managed_places

UP = pod("d-canary-7c9-a", ready=True)
LEAVING = pod(ready=True)
LEAVING["metadata"] = {**LEAVING["metadata"], "deletionTimestamp": "2026-11-24T10:01:00Z"}


def deployment(replicas=2, *, scaled_by=None, leaving=False, refused=""):
    """A Deployment, of which somebody may have written the number of pods."""
    owners = [
        {"manager": "helm", "time": "2026-11-24T10:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}, "f:replicas": {}}}},
        {"manager": scaled_by, "time": "2026-11-24T10:05:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
    ]
    meta = {"name": "d-canary", "generation": 1, "managedFields": owners[: 2 if scaled_by else 0]}
    if leaving:
        meta["deletionTimestamp"] = "2026-11-24T10:01:00Z"
    conditions = [{"type": "ReplicaFailure", "status": "True", "message": refused}] if refused else []
    return {"metadata": meta, "spec": {"replicas": replicas}, "status": {"conditions": conditions}}


@pytest.mark.parametrize(
    ("found", "pods", "more", "serves", "says", "final"),
    [
        (deployment(), [UP, UP], {}, True, "", False),
        (None, [], {}, False, "0 of 2 pods ready: its Deployment was deleted", True),
        (None, [UP], {}, True, "1 of 2 pods ready: its Deployment was deleted", True),
        (deployment(leaving=True), [], {}, False, "0 of 2 pods ready: its Deployment is being deleted", True),
        (deployment(0), [LEAVING], {}, False, "0 of 2 pods ready: it was scaled to 0 by somebody", True),
        (deployment(1, scaled_by="kubectl"), [UP], {}, True, "1 of 2 pods ready: it was scaled to 1 by kubectl", False),
        (deployment(1, scaled_by="kube-controller-manager"), [UP], {}, True, "", False),
        (deployment(0, scaled_by="keda-operator"), [], {}, False, "0 of 2 pods ready: it was scaled to 0 by keda", True),
        (deployment(0, scaled_by="canarykit"), [], {}, False, "0 of 2 pods ready: it was scaled to 0 by canarykit", False),
        (deployment(), [UP, UP], {"unreached": "its Service was deleted"}, False, "2 of 2 pods ready: its Service was", False),
        (deployment(), [UP, PULL], {}, True, "1 of 2 pods ready: pod d-canary-7c9-x: the image cannot be pulled", False),
        (deployment(), [PULL], {}, False, "0 of 2 pods ready: pod d-canary-7c9-x: the image cannot be pulled", True),
        (deployment(), [UP, LOOP], {}, True, "1 of 2 pods ready: pod d-canary-7c9-x ended 5 times by itself", True),
        (deployment(), [pod()], {"events": [UNHEALTHY]}, False, "0 of 2 pods ready: Pod d-canary-7c9-x: Readiness", False),
        (deployment(), [LEAVING], {}, False, "pod d-canary-7c9-x was deleted, and what replaces it is not ready yet", False),
        (deployment(), [DRAINED, UP], {}, True, "1 of 2 pods ready: pod d-canary-7c9-x was evicted", False),
        (deployment(refused=QUOTA), [UP], {}, True, "1 of 2 pods ready: its pods are refused: pods ", False),
        (deployment(refused=QUOTA), [], {}, False, "0 of 2 pods ready: its pods are refused: pods ", True),
        (deployment(), [], {}, False, "0 of 2 pods ready: the cluster does not say why", False),
    ],
)  # fmt: skip
def test_what_is_lacking_is_told_with_its_cause(found, pods, more, serves, says, final):
    """
    How many pods of how many, what took them away, and whether waiting may help; nothing of a version that is well.
    """
    health = health_of("d-canary", 2, found, pods, **more)
    assert (health.serves, health.final) == (serves, final)
    assert health.problem.startswith("d-canary has ") if says else health.problem == ""
    assert says in health.problem


@pytest.mark.parametrize(
    ("found", "expected", "pods"),
    [
        (deployment(3), None, 3),
        (deployment(0), None, 0),
        (deployment(1, scaled_by="kubectl"), 2, 2),
        (deployment(5, scaled_by="kube-controller-manager"), 2, 5),
        (deployment(0, scaled_by="kube-controller-manager"), 2, 2),
        (None, 2, 2),
    ],
)
def test_an_autoscaler_may_choose_how_many_but_not_none(found, expected, pods):
    """
    Anybody else's number is compared with what the kit gave the version.
    """
    assert wanted(found, expected) == pods


def test_a_retired_version_lacks_nothing():
    """
    It was given no pods.
    """
    assert health_of("d-canary", 0, deployment(0), [LEAVING]).problem == ""


@pytest.fixture
def clock(monkeypatch):
    """Let a test say how late it is."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(pods_module, "time", made)
    return made


@pytest.mark.parametrize(
    ("service", "says"),
    [
        (None, "its Service was deleted"),
        ({"spec": {"selector": {"app": "other"}}}, "the selector of its Service was changed, and selects none of them"),
        ({"spec": {"selector": {"app": "d", "version": "canary"}}}, "its Service leads to none of them"),
    ],
    ids=["deleted", "edited", "unknown"],
)
def test_pods_that_no_service_leads_to_serve_nobody(clock, service, says):
    """
    They are ready, and the gateway sends nothing to them: that is told when it lasts, and ends with the first endpoint.
    """
    cluster = Cluster([UP], [], ready=1)
    cluster._objects["Service"] = [service]
    slices = {"metadata": {"name": "s", "labels": {"kubernetes.io/service-name": "d-canary"}}, "endpoints": None}
    cluster._objects["EndpointSlice"] = [slices]
    pods = Pods(cluster, managed_places("d"), print)
    assert pods.health("canary").serves
    clock.now += 3
    health = pods.health("canary")
    assert not health.serves
    assert health.problem == f"d-canary has 1 of 1 pods ready: {says}"
    slices["endpoints"] = [{"conditions": {"ready": False}}]
    assert not pods.health("canary").serves
    slices["endpoints"] = [{"conditions": {"ready": True}}]
    assert pods.health("canary").problem == ""
