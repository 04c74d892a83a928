"""Replicas as a router, when somebody takes a version's Deployment away."""

import pytest
from test_kube_routers import TARGET, Pods

from canarykit.errors import RoutingError
from canarykit.model import ROLES, TrafficSplit
from canarykit.routers.objects import NothingThere, to_stable
from canarykit.routers.replicas import ReplicasRouter


class Missing(Pods):
    """The same, where a Deployment that is not there has no pods."""

    def list(self, kind, selector="", **options):
        """Pods of the Deployments that are there."""
        gone = [role for role in ROLES if self.get("Deployment", f"digits-{role}") is None]
        for role in gone:
            self.create({"kind": "Deployment", "metadata": {"name": f"digits-{role}"}, "spec": {"replicas": 0}})
        try:
            return super().list(kind, selector, **options)
        finally:
            for role in gone:
                self.delete("Deployment", f"digits-{role}")


@pytest.fixture
def api():
    """Pods of both versions."""
    return Missing()


@pytest.fixture
def router(api):
    """A router of four pods, one of them the canary's."""
    made = ReplicasRouter(api, TARGET, pods=4, within=0.5)
    made.apply(TrafficSplit(25))
    return made


def test_it_knows_how_many_pods_each_version_was_given(router):
    """
    What somebody takes away is compared with that.
    """
    assert router.wanted == {"stable": 3, "canary": 1}
    router.apply(TrafficSplit(50))
    assert router.wanted == {"stable": 2, "canary": 2}


def test_traffic_returns_from_a_canary_that_was_deleted(api, router):
    """
    It has no pods, so stable gets all of them.
    """
    api.delete("Deployment", "digits-canary")
    assert router.observed() == TrafficSplit(0)
    router.apply(TrafficSplit(0))
    assert api.get("Deployment", "digits-stable")["spec"]["replicas"] == 4
    to_stable(router)


def test_a_stable_that_was_deleted_is_told(api, router):
    """
    There is nothing to return traffic to.
    """
    api.delete("Deployment", "digits-stable")
    with pytest.raises(NothingThere, match="there is no Deployment digits-stable"):
        router.observed()
    with pytest.raises(RoutingError, match="there is no Deployment digits-stable"):
        router.apply(TrafficSplit(0))
    assert [api.get("Deployment", f"digits-{role}") is None for role in ROLES] == [True, False]
