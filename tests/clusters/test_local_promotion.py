"""A promotion of the local cluster: there is a way back until stable is the new version, and none afterwards."""

import threading

import pytest

from canarykit.clusters.local import cluster as module
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.clusters.local.gateway import Endpoint
from canarykit.clusters.local.starting import Replica
from canarykit.errors import ClusterError, RoutingError, UnrestoredError
from canarykit.model import Service, Version

pytestmark = pytest.mark.real("envoy")
OLD, NEW = (Version(name, command=["serve", "{port}"]) for name in ("old", "new"))


class Servers:
    """Stands for `Processes`: starts nothing, and fails at what it is told to."""

    def __init__(self):
        self.started, self.stopped, self.broken = 0, [], set()
        self.together = threading.Barrier(3)

    def start(self, name, argv, **how):
        if f"start {name}" in self.broken:
            raise ClusterError(f"cannot start {name}")
        self.started += 1
        return {"port": 4000 + self.started}

    def stop(self, name, grace=10.0):
        if "alone" not in self.broken:
            self.together.wait(10)  # raises unless all three are stopped at the same time
        if f"stop {name}" in self.broken:
            raise ClusterError("the supervisor did not answer 'stop' within 45 s")
        self.stopped.append(name)

    def status(self):
        facts = {"restarts": 2, "last_code": 1, "failure": None, "running": True}
        return {f"{role}-{number}": facts for role in ("stable", "canary") for number in range(9)}

    def own_words(self, *asked):
        return ["its own words"]


class Gateway:
    """Stands for the gateway: notes where stable's traffic goes, and refuses replicas on purpose."""

    def __init__(self):
        self.stable, self.refused = [], set()

    def set_endpoints(self, role, endpoints):
        names = [each.instance for each in endpoints if not each.draining]
        if self.refused & {f"{name} of {len(endpoints)}" for name in names}:
            raise RoutingError("the gateway does not use it")
        self.stable = names

    def wait_drained(self, *asked):
        pass


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with three replicas of stable, whose parts are doubles."""
    monkeypatch.setattr(
        module, "wait_ready", lambda processes, replicas, *rest: {each.endpoint.instance: 0 for each in replicas}
    )
    made = LocalCluster()
    made._processes, made._envoy = Servers(), Gateway()
    made._service = Service("mine", OLD, NEW, replicas=3)
    for number in range(3):
        next(made._numbers["stable"])
        made._replicas["stable"].append(Replica(Endpoint(f"stable-{number}", "old", 3000 + number), OLD))
    made._envoy.stable = ["stable-0", "stable-1", "stable-2"]
    yield made
    made._processes = None


def test_old_replicas_are_stopped_at_the_same_time(cluster):
    """
    Servers that ignore SIGTERM take the whole grace, each.
    """
    cluster.promote()
    assert sorted(cluster._processes.stopped) == ["stable-0", "stable-1", "stable-2"]
    assert cluster._envoy.stable == ["stable-3", "stable-4", "stable-5"]


def test_a_replica_that_does_not_stop_leads_to_no_way_back(cluster):
    """
    The others are stopped by then: traffic would go nowhere. The promotion is done.
    """
    cluster._processes.broken = {"stop stable-1"}
    cluster.promote()
    assert cluster._envoy.stable == ["stable-3", "stable-4", "stable-5"]
    assert cluster._service.stable == NEW
    assert [each.instance for each in cluster.replicas("stable")] == cluster._envoy.stable
    assert sorted(cluster._processes.stopped) == ["stable-0", "stable-2"]


def test_a_promotion_that_the_gateway_refuses_goes_back(cluster):
    """
    To the old replicas; the new ones are ended.
    """
    cluster._envoy.refused = {"stable-4 of 6"}
    with pytest.raises(ClusterError, match=r"stable-3 \(version 'new'\) answered 200"):
        cluster.promote()
    assert cluster._envoy.stable == ["stable-0", "stable-1", "stable-2"]
    assert cluster._service.stable == OLD
    assert sorted(cluster._processes.stopped) == ["stable-3", "stable-4", "stable-5"]


def test_new_replicas_are_ended_even_if_the_way_back_fails(cluster):
    """
    Both errors are told, and nobody says that stable is what it was.
    """
    cluster._envoy.refused = {"stable-4 of 6", "stable-1 of 3"}
    said = r"(?s)stable-3 \(version 'new'\) answered 200.*; nor could stable's traffic be returned.*stable-0 \(version 'old'\)"
    with pytest.raises(UnrestoredError, match=said):
        cluster.promote()
    assert sorted(cluster._processes.stopped) == ["stable-3", "stable-4", "stable-5"]


def test_a_replica_that_does_not_start_takes_the_others_along(cluster):
    """
    Those of the new version that were started before it.
    """
    cluster._processes.broken = {"start stable-4", "alone"}
    with pytest.raises(ClusterError, match="cannot start stable-4"):
        cluster.promote()
    assert cluster._processes.stopped == ["stable-3"]


def test_an_interrupted_promotion_goes_back(cluster, monkeypatch):
    """
    As one that failed.
    """

    def interrupt(*asked):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "wait_ready", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cluster.promote()
    assert sorted(cluster._processes.stopped) == ["stable-3", "stable-4", "stable-5"]
    assert cluster._service.stable == OLD
