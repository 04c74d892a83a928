"""Gateways that are slow to take up a weight: they are not said to lie, and those that lie are found all the same."""

import numpy as np
import pytest

from canarykit.analysis.checks import SplitCheck
from canarykit.analysis.settling import PATIENCE
from canarykit.model import TrafficSplit, Window


def served(check, weight, shares, rng, *, rate=40, begins=0):
    """Count a second of each share; return the second at which the check alarmed, or None."""
    for second, share in enumerate(shares):
        canary = int(rng.binomial(rate, share))
        counts = {"outcome": np.array([[rate - canary, 0], [canary, 0]])}
        start = float(begins + second)
        check.update(Window(start, start + 1.0, TrafficSplit(weight), counts), 0.2)
        if check.alarm:
            return second
    return None


@pytest.mark.parametrize("after", [1, 10, 40, 100])
@pytest.mark.parametrize(("before", "weight"), [(0, 5), (5, 25), (25, 50), (50, 5)])
def test_a_gateway_that_follows_late_is_believed(rng, after, before, weight):
    """
    For as long as two minutes it may serve the share before; what was counted then is forgotten once it follows.
    """
    check = SplitCheck(alpha=0.001)
    check.begin(TrafficSplit(before))
    shares = [before / 100] * after + [weight / 100] * 300
    assert served(check, weight, shares, rng) is None


def test_a_gateway_that_follows_by_and_by_is_believed(rng):
    """
    A balancer with many nodes takes up the weight one after the other.
    """
    check = SplitCheck(alpha=0.001)
    check.begin(TrafficSplit(5))
    assert served(check, 25, [0.05 + 0.2 * min(second / 40, 1) for second in range(120)], rng) is None


def test_the_next_change_has_its_own_time(rng):
    """
    Each of a plan's weights may be followed late.
    """
    check = SplitCheck(alpha=0.001)
    check.begin(TrafficSplit(0))
    for number, (before, weight) in enumerate([(0, 5), (5, 25), (25, 50)]):
        shares = [before / 100] * 30 + [weight / 100] * 60
        assert served(check, weight, shares, rng, begins=90 * number) is None
        check.begin(TrafficSplit(weight))


def test_a_gateway_that_never_follows_is_found_when_its_time_is_over(rng):
    """
    And the sentence says what is seen: the weight was changed, and the counts did not follow.
    """
    check = SplitCheck(alpha=0.001)
    check.begin(TrafficSplit(5))
    found = served(check, 25, [0.05] * 200, rng)
    assert PATIENCE - 2 <= found <= PATIENCE + 2
    assert "after the weight was changed from 5 % to 25 % it is not seen to follow" in check.alarm
    assert "check the router" not in check.alarm


@pytest.mark.parametrize(("before", "share"), [(0, 0.1), (5, 0.12), (5, 0.18), (25, 0.5)])
def test_a_gateway_that_serves_another_share_is_found_at_once(rng, before, share):
    """
    Neither the old one nor the new one: it does not settle, it lies.
    """
    check = SplitCheck(alpha=0.001)
    check.begin(TrafficSplit(before))
    assert served(check, 25, [share] * 200, rng, rate=100) < 60


def test_one_that_lies_later_is_found(rng):
    """
    After it has followed.
    """
    check = SplitCheck(alpha=0.001)
    check.begin(TrafficSplit(5))
    assert served(check, 25, [0.05] * 20 + [0.25] * 60 + [0.15] * 200, rng, rate=100) is not None
    assert "check the router" in check.alarm


def test_causes_explain_an_alarm_in_place_of_the_router(rng):
    """
    A version that had no pods got no requests: that is named, and the router is not.
    """
    check = SplitCheck(alpha=0.001)
    assert check.because(["ai-canary has 0 of 2 pods ready"]) is None
    served(check, 25, [0.0] * 60, rng)
    assert "check the router" in check.because([])
    said = check.because(["ai-canary has 0 of 2 pods ready: its Deployment was deleted"])
    assert said.startswith(
        "ai-canary has 0 of 2 pods ready: its Deployment was deleted. Meanwhile the gateway gave the canary "
    )
    assert "check the router" not in said
