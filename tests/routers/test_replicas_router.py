"""Replicas as a router: when somebody takes a version's Deployment away, and what a reset leaves behind a route."""

import pytest
from kube_doubles import Namespace
from test_kube_routers import TARGET, Pods

from canarykit.errors import RoutingError
from canarykit.model import ROLES, TrafficSplit
from canarykit.routers.base import apply
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
    apply(made, TrafficSplit(25))
    return made


def test_it_knows_how_many_pods_each_version_was_given(router):
    """
    What somebody takes away is compared with that.
    """
    assert router.wanted == {"stable": 3, "canary": 1}
    apply(router, TrafficSplit(50))
    assert router.wanted == {"stable": 2, "canary": 2}


def test_traffic_returns_from_a_canary_that_was_deleted(api, router):
    """
    It has no pods, so stable gets all of them.
    """
    api.delete("Deployment", "digits-canary")
    assert router.observed() == TrafficSplit(0)
    apply(router, TrafficSplit(0))
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
        apply(router, TrafficSplit(0))
    assert [api.get("Deployment", f"digits-{role}") is None for role in ROLES] == [True, False]


def led_to(api):
    """Have a team's Ingress lead to the Service in front of both versions."""
    backend = {"service": {"name": "digits", "port": {"number": 80}}}
    api.create({"kind": "Ingress", "metadata": {"name": "own"}, "spec": {"defaultBackend": backend}})


class Led(Missing):
    """Pods behind a route; those of a version may be broken, and those of stable slow: they are ready after some looks."""

    def __init__(self, *broken, slow=0):
        super().__init__()
        self.broken, self.slow, self.scaled = broken, slow, []

    def list(self, kind, selector="", **options):
        """Routes are objects; pods follow the Deployments."""
        if kind not in ("Pod", "EndpointSlice"):
            return Namespace.list(self, kind, selector)
        found = super().list(kind, selector, **options)
        if kind == "EndpointSlice":
            late, self.slow = self.slow > 0, self.slow - 1
            unready = [*self.broken, *(["stable"] if late else [])]
            for endpoint in found[0]["endpoints"]:
                if endpoint["targetRef"]["name"].partition("-")[0] in unready:
                    endpoint["conditions"] = {"ready": False}
            self.scaled.append((late, self.get("Deployment", "digits-canary")["spec"]["replicas"]))
        return found


def at_100(api, **options):
    """A router whose canary has all pods, with a route that leads to the Service in front."""
    made = ReplicasRouter(api, TARGET, pods=4, **options)
    api.edit("Deployment", "digits-stable", replicas=0)
    api.edit("Deployment", "digits-canary", replicas=4)
    api.create({"kind": "Service", "metadata": {"name": "digits"}, "spec": {}})
    led_to(api)
    return made


def test_a_reset_behind_a_route_brings_stable_up_before_the_canary_goes():
    """
    Users come in by the route until the end.
    """
    at_100(api := Led(slow=2), within=10).reset()
    assert [api.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES] == [4, 0]
    assert [canary for late, canary in api.scaled if late] == [4, 4]


@pytest.mark.parametrize("gone", [False, True], ids=["broken", "deleted"])
def test_a_reset_behind_a_route_leaves_a_canary_that_alone_serves(gone):
    """
    Stable does not come up, or was deleted.
    """
    router = at_100(api := Led("stable"), within=0.1)
    if gone:
        api.delete("Deployment", "digits-stable")
    router.reset()
    assert api.get("Deployment", "digits-canary")["spec"]["replicas"] == 4


def test_a_reset_behind_a_route_keeps_no_canary_that_serves_nobody():
    """
    Neither version comes up: nothing is gained by it.
    """
    at_100(api := Led("stable", "canary"), within=0.1).reset()
    assert [api.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES] == [4, 0]


def test_a_reset_without_a_route_waits_for_nobody():
    """
    The Service in front goes, and with it everybody who came in by it.
    """
    router = at_100(api := Led("stable"), within=600)
    api.delete("Ingress", "own")
    router.reset()
    assert [api.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES] == [4, 0]
