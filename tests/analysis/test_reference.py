"""A pass needs a healthy reference and a real level; rare events can pass all the same."""

import math

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.errors import PlanError
from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import Guardrail, Metric, TrafficSplit, Window


def judged(guardrail, tables, windows=100, weight=50):
    """Judgement of one guardrail after the same window many times."""
    judge = Judge([guardrail])
    for at in range(windows):
        judge.update(Window(float(at), at + 1.0, TrafficSplit(weight), {guardrail.metric.table: np.array(tables)}))
    return judge.judgement


@pytest.mark.parametrize(
    ("guardrail", "bad", "said"),
    [
        (ck.metrics.error_rate(), 1.0, "stable fails 100 % of requests, so it is no reference"),
        (ck.metrics.error_rate(), 0.44, "stable fails 44 % of requests, so it is no reference"),
        (ck.metrics.error_rate(limit=0.3), 0.5, "stable fails 50 % of requests, so it is no reference (limit: 30 %)"),
        (ck.metrics.refused(), 1.0, "stable refuses 100 % of requests, so it is no reference"),
        (ck.metrics.denied(), 0.8, "stable denies 80 % of requests, so it is no reference"),
        (ck.metrics.accuracy(), 0.96, "stable is wrong in 96 % of requests, so it is no reference"),
    ],
)
def test_a_broken_stable_is_no_reference(guardrail, bad, said):
    """
    Both versions equally bad are no pass: there is no data, and the sentence says why.
    """
    row = [round(100 * (1 - bad)), round(100 * bad)]
    judgement = judged(guardrail, [row, row])
    assert judgement.status == "no data"
    assert said in judgement.sentence


def test_a_high_level_that_is_allowed_can_pass():
    """
    Whoever knows that a tenth and more of the requests fail says so.
    """
    assert judged(ck.metrics.error_rate(limit=0.5, ceiling=None), [[70, 30], [70, 30]]).status == "pass"
    assert judged(ck.metrics.error_rate(limit=None, ceiling=None), [[70, 30], [70, 30]]).status == "pass"


def test_a_canary_that_is_worse_than_a_broken_stable_still_fails():
    """
    An alarm comes before the lack of a reference.
    """
    assert judged(ck.metrics.error_rate(), [[56, 44], [5, 95]]).status == "fail"


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5])
def test_a_limit_is_a_share(limit):
    """
    A limit that is no share is refused, and so is one of a quantile.
    """
    with pytest.raises(PlanError, match="limit is a share"):
        ck.metrics.error_rate(limit=limit)
    with pytest.raises(PlanError, match="limit is a share"):
        Guardrail(ck.metrics.latency().metric, tolerate=1.2, limit=0.5)


@pytest.mark.parametrize("edges", [LATENCY_EDGES, (0.1, 0.5, 1.0, math.inf)], ids=["own", "fastapi"])
def test_durations_that_are_all_in_the_last_bucket_are_no_data_at_once(edges):
    """
    "p95 inf to inf" is no level: one window is enough to say so, and no number of windows makes it a pass.
    """
    guardrail = Guardrail(Metric("p95 latency", "latency", "quantile", edges, "s", 0.95), tolerate=1.2)
    row = [0] * (len(edges) - 1) + [50]
    for windows in (1, 200):
        judgement = judged(guardrail, [row, row], windows)
        assert judgement.status == "no data"
        assert "are above the largest bucket" in judgement.sentence


def test_a_canary_that_never_ends_is_slower_than_a_stable_that_does():
    """
    Only stable is the reference: a canary all of whose requests time out fails.
    """
    fast, never = latency_cells([0.01] * 50), latency_cells([math.inf] * 50)
    assert judged(ck.metrics.latency(), [fast, never]).status == "fail"


def test_perfect_accuracy_passes():
    """
    No wrong answer in either version: the ceiling clears it after some hundreds of canary requests, not never.
    """
    judge, guardrail = Judge([ck.metrics.accuracy()]), ck.metrics.accuracy()
    at = 0
    while judge.judgement.status != "pass":
        judge.update(Window(float(at), at + 1.0, TrafficSplit(50), {"answers": np.array([[50, 0], [50, 0]])}))
        at += 1
        assert at < 40, judge.judgement
    assert 50 * at < 2000
    assert guardrail.ceiling == 0.005


def test_perfect_accuracy_without_a_ceiling_says_what_would_decide():
    """
    Rare wrong answers under no ceiling: no number of millions, but what would decide sooner.
    """
    judge = Judge([ck.metrics.accuracy(ceiling=None)])
    for at in range(400):
        wrong = int(at == 7)
        judge.update(Window(float(at), at + 1.0, TrafficSplit(1), {"answers": np.array([[990 - wrong, wrong], [10, 0]])}))
    judgement = judge.judgement
    assert judgement.status == "inconclusive"
    assert "more requests" not in judgement.sentence
    assert "a ceiling above the canary's level" in judgement.sentence


def test_what_is_still_needed_counts_the_ceiling():
    """
    Half of what zero errors need to clear the ceiling is there: the other half is what is said, not what a ratio would take.
    """
    judge = Judge([ck.metrics.error_rate()])
    for at in range(7):
        judge.update(Window(float(at), at + 1.0, TrafficSplit(50), {"outcome": np.array([[50, 0], [50, 0]])}))
    ((requests, seconds),) = judge.still_needed
    assert 300 < requests < 1500
    assert seconds == pytest.approx(requests / 100)
