"""Checks that guard the numbers."""

import math

import numpy as np

from canarykit.analysis.checks import SplitCheck
from canarykit.analysis.instances import load_ratio, remarks, spread
from canarykit.metrics import LATENCY_EDGES, latency_cells


def test_a_split_that_lies_is_found(window):
    """
    Configured 10 %, served 9 %: found after some thousand requests, and blamed on the router.
    """
    check, requests = SplitCheck(), 0
    while check.alarm is None:
        check.update(window(requests, weight=10, served=0.09, requests=500))
        requests += 500
        assert requests < 40_000
    assert "check the router" in check.alarm


def test_a_true_split_is_left_alone(window):
    """
    The right split alarms in at most one run of twenty.
    """
    runs, alarms = 200, 0
    for _ in range(runs):
        check = SplitCheck()
        for at in range(40):
            check.update(window(at, weight=10, requests=100))
        alarms += check.alarm is not None
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_version_without_weight_says_nothing_about_the_split(window):
    """
    At 0 and 100 % there is nothing to check.
    """
    check = SplitCheck()
    for weight in (0, 100):
        check.update(window(0, weight=weight))
    assert abs(check.log_e) < 1e-9


def instances(**durations):
    """Latency cells per replica."""
    return {name.replace("_", "-"): latency_cells(seconds) for name, seconds in durations.items()}


def test_replicas_of_one_version_may_differ_and_it_is_said(rng):
    """
    One replica slower than its twin, and a version with less load per replica, are said in sentences.
    """
    base = np.full(400, 0.01)
    found = instances(stable_0=base, stable_1=1.3 * base, canary_0=base[:200], canary_1=base[:180])
    assert 1.25 < spread("stable", found, LATENCY_EDGES, 0.95) < 1.4
    assert load_ratio(found) == 0.475
    said = remarks(found, LATENCY_EDGES, 0.95)
    assert any("Replicas of stable differ by" in sentence for sentence in said)
    assert any("0.47 times the requests" in sentence and "better than it is" in sentence for sentence in said)


def test_too_few_requests_say_nothing_about_replicas():
    """
    A handful of requests, a single replica, or nothing at all: no sentence.
    """
    assert math.isnan(spread("stable", instances(stable_0=[0.01] * 10, stable_1=[0.02] * 10), LATENCY_EDGES, 0.95))
    assert math.isnan(spread("stable", instances(stable_0=[0.01] * 1000), LATENCY_EDGES, 0.95))
    assert remarks({}, LATENCY_EDGES, 0.95) == []
