"""The split of an Envoy: its pure part, and what happens when the gateway does not follow."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canarykit.errors import EditedError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.base import apply
from canarykit.routers.envoy import RUNTIME_PREFIX, TOTAL_WEIGHT, EnvoyRouter, split_of, weights


class Gateway:
    """An Envoy's runtime, that may refuse to change."""

    def __init__(self, stubborn=False):
        self.values, self.stubborn, self.pings = {}, stubborn, 0

    def admin(self, method, path):
        if method == "POST":
            if not self.stubborn:
                self.values |= dict(pair.split("=") for pair in path.partition("?")[2].split("&"))
            return "OK"
        return json.dumps({"entries": {name: {"final_value": value} for name, value in self.values.items()}})

    def ping(self):
        self.pings += 1


@given(parts=st.integers(0, TOTAL_WEIGHT))
def test_what_is_applied_is_what_is_observed(parts):
    """
    Any split in steps of 0.0001 % survives the round trip.
    """
    router = EnvoyRouter(Gateway())
    split = TrafficSplit(100 * parts / TOTAL_WEIGHT)
    assert apply(router, split) >= 0
    assert router.observed().canary == pytest.approx(split.canary, abs=1e-9)


def test_weights_add_up():
    """
    0, 100 and fractions: both weights together are always the whole.
    """
    for canary in (0, 0.0001, 0.1, 33.3333, 100):
        assert sum(weights(TrafficSplit(canary)).values()) == TOTAL_WEIGHT


def test_a_split_that_is_too_fine_is_refused():
    """
    What cannot be served is refused, not rounded in silence.
    """
    with pytest.raises(RoutingError, match="finer"):
        weights(TrafficSplit(0.00005))


def test_a_gateway_that_does_not_follow_is_an_error():
    """
    `apply` says what it asked for and what it saw.
    """
    with pytest.raises(RoutingError, match=r"asked the gateway for 5 % .* says 0 %"):
        apply(EnvoyRouter(Gateway(stubborn=True)), TrafficSplit(5))


def test_only_the_split_that_was_to_be_replaced_is_replaced():
    """
    What someone else wrote stays; weights that were rounded are the same split.
    """
    router = EnvoyRouter(Gateway())
    third = TrafficSplit(33.3333)
    apply(router, third, expected=TrafficSplit(0))
    with pytest.raises(EditedError, match=r"told 33\.3333 %, not 5 %"):
        apply(router, TrafficSplit(25), expected=TrafficSplit(5))
    assert router.observed().is_near(third)
    apply(router, TrafficSplit(25), expected=third)
    assert router.observed() == TrafficSplit(25)


def test_apply_waits_for_the_worker_and_reset_returns_to_stable():
    """
    A weight is in force only after a round trip through the worker; reset sends everything to stable.
    """
    gateway = Gateway()
    router = EnvoyRouter(gateway)
    apply(router, TrafficSplit(5))
    assert gateway.pings == 1
    router.reset()
    assert router.observed() == TrafficSplit(0)


def test_an_empty_runtime_means_all_to_stable():
    """
    Before any weight is set, stable has everything.
    """
    assert split_of('{"entries": {}}') == TrafficSplit(0)
    zeros = {f"{RUNTIME_PREFIX}.{role}": {"final_value": "0"} for role in ("stable", "canary")}
    assert split_of(json.dumps({"entries": zeros})) == TrafficSplit(0)
