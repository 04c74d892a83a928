"""Rollouts on the real cluster that are paced by a budget of harm."""

import time

import pytest

import canarykit as ck

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]


def test_a_good_canary_gets_through_as_fast_as_the_evidence_allows(connect, experiment, service_of):
    """
    By weights that rise from a handful of requests, with nothing lost.
    """
    exp = experiment(service_of(), connect(), guardrails=[ck.metrics.error_rate()])
    exp.deploy()
    load = exp.send(100)
    exp.observe("3s")
    start = time.monotonic()
    ending = exp.run(ck.RolloutPlan.paced(harm=4, budget="3min"))
    assert ending.outcome == "promoted", ending.sentence
    assert time.monotonic() - start < 120
    weights = [change["asked"] for change in exp.journal.weights()]
    assert weights[0] < 10
    assert weights[-3:] == [50, 100, 0]
    assert load.record()["lost_total"] == 0
