"""Bets of every kind: fair, one-sided, mergeable, and kept as plain data."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.bets import class_bets, drawn_without_replacement, latency_bets, log_wealth_of_cells, score_bets, slowed
from canarykit.analysis.evidence import CeilingEvidence, LabelEvidence, QuantileEvidence, RateEvidence, threshold
from canarykit.analysis.slowdown import SlowdownEvidence
from canarykit.errors import PlanError
from canarykit.model import Guardrail, Metric, TrafficSplit, Window

EDGES = tuple(0.01 * 2 ** (i / 2) for i in range(16))
SCORES = tuple(np.linspace(0, 1, 11))


def all_bets(rng):
    """One table of log ratios per kind of metric, from a random past."""
    past = rng.multinomial(300, rng.dirichlet(np.ones(16))).astype(float)
    few = rng.multinomial(300, rng.dirichlet(np.ones(11))).astype(float)
    return {
        "latency": latency_bets(past, EDGES),
        "latency, stated": latency_bets(past, EDGES, 1.5),
        "score": score_bets(few, SCORES),
        "score, both sides": score_bets(few, SCORES, worse_only=False),
        "classes": class_bets(few, rng.multinomial(80, np.full(11, 1 / 11)).astype(float)),
    }


@given(seed=st.integers(0, 1000), share=st.floats(0.02, 0.98))
def test_every_bet_is_fair_under_a_known_split(seed, share):
    """
    Whatever the outcome, the factor of its label is 1 in expectation; priors sum to one.
    """
    for ratios, prior in all_bets(np.random.default_rng(seed)).values():
        assert np.exp(prior).sum() == pytest.approx(1)
        cells = ratios.shape[1]
        for cell in range(0, cells, 5):
            one = np.zeros((2, 2, cells))
            one[0, 0, cell] = one[1, 1, cell] = 1
            stable, canary = (np.exp(log_wealth_of_cells(counts, share, ratios)) for counts in one)
            assert share * canary + (1 - share) * stable == pytest.approx(np.ones(len(ratios)))


@given(seed=st.integers(0, 10_000))
def test_every_block_is_at_most_fair_under_the_realised_split(seed):
    """
    Labels drawn without replacement, random laws and bets: the exact expectation of a window's factor is 1 at most, within
    the error of a normal approximation (uncorrected, these bets reach 1.13).
    """
    rng = np.random.default_rng(seed)
    n, cells = int(rng.integers(20, 120)), int(rng.integers(2, 6))
    totals, canary = rng.multinomial(n, rng.dirichlet(np.ones(cells))), int(rng.integers(3, n - 2))
    share, ratios = canary / n, np.sort(rng.normal(0, rng.choice([0.2, 0.7]), cells))
    ratios -= math.log((totals / n) @ np.exp(ratios))
    law = np.zeros(canary + 1)  # of the canary's labels among requests whose labels are tilted by the bet
    law[0] = 1
    for ratio in np.repeat(np.exp(ratios), totals):
        label = share * ratio / (1 + share * (ratio - 1))
        law[1:] = law[1:] * (1 - label) + law[:-1] * label
        law[0] *= 1 - label
    back = drawn_without_replacement(totals.astype(float), share, ratios[None, :])[0]
    assert law[canary] / binom.pmf(canary, n, share) * math.exp(-back) <= 1.01


def test_bets_on_latency_do_not_decrease_and_slow_downs_are_what_they_say(rng):
    """
    One-sided: no ratio falls as requests get slower. A slow-down moves the distribution by its factor.
    """
    for name, (ratios, _) in all_bets(rng).items():
        if name.startswith("latency"):
            assert (np.diff(ratios, axis=1) >= -1e-9).all()
    fine = tuple(1e-3 * 2 ** (i / 16) for i in range(200))
    past = np.bincount(np.searchsorted(fine, 0.1 * np.exp(0.5 * rng.standard_normal(200_000))), minlength=200).astype(float)
    shares = past / past.sum()
    moved = shares * np.exp(slowed(past, fine, [1.5])[0])
    middle = np.log(fine) - np.log(2) / 32
    assert (moved @ middle) / moved.sum() - shares @ middle == pytest.approx(math.log(1.5), abs=0.02)


def kinds():
    """Evidence of every kind, freshly made, with a way to feed it."""
    edges = np.asarray(EDGES)

    def rate(evidence, rng):
        canary = rng.binomial(40, 0.1)
        evidence.update(canary, canary + rng.binomial(160, 0.1), 0.2, (160, 40))

    def cells(evidence, rng):
        width = 16 if not isinstance(evidence, LabelEvidence) else len(evidence._past[0])
        evidence.update(rng.multinomial([160, 40], np.full(width, 1 / width)).astype(float), 0.2)

    def quantile(evidence, rng):
        evidence.update(*rng.multinomial([160, 40], np.full(16, 1 / 16)).astype(float))

    return {
        "rate": (lambda: RateEvidence(1.0, 1.5), rate),
        "rate, both cells": (lambda: RateEvidence(1.0, 1.5, both_cells=True), rate),
        "rate, stated": (lambda: RateEvidence(1.0, 1.5, 2.0), rate),
        "ceiling": (lambda: CeilingEvidence(0.2), lambda evidence, rng: evidence.update(rng.binomial(40, 0.1), 40)),
        "quantile": (lambda: QuantileEvidence(edges, 0.9, 1.2, 1.5), quantile),
        "slowdown": (lambda: SlowdownEvidence(EDGES, 1.2, 1.5), cells),
        "latency": (lambda: LabelEvidence(16, lambda s, c: latency_bets(s, EDGES)), cells),
        "score": (lambda: LabelEvidence(11, lambda s, c: score_bets(s, SCORES)), cells),
        "classes": (lambda: LabelEvidence(11, class_bets), cells),
    }


@pytest.mark.parametrize("kind", kinds())
def test_state_goes_through_json_and_goes_on(kind, rng):
    """
    What was kept as text continues as if nothing had happened, to the last digit.
    """
    make, feed = kinds()[kind]
    one = make()
    for _ in range(10):
        feed(one, rng)
    kept = json.loads(json.dumps(one.state(), allow_nan=False))
    other = make().restore(kept)
    assert other.log_e == one.log_e
    again = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(30):
        feed(one, again[0])
        feed(other, again[1])
    assert other.log_e == one.log_e
    with pytest.raises(ValueError, match="no wealth"):
        make().restore({})
    with pytest.raises(ValueError, match="shape"):
        make().restore({name: [1.0] for name in kept})
    with pytest.raises(ValueError, match="NaN"):
        make().restore({**kept, "wealth": np.full(np.shape(kept["wealth"]), np.nan).tolist()})


def test_the_state_is_small_and_does_not_grow(rng):
    """
    As many numbers after a thousand windows as after one.
    """
    for make, feed in kinds().values():
        evidence = make()
        feed(evidence, rng)
        before = np.concatenate([np.ravel(value) for value in evidence.state().values()]).size
        for _ in range(50):
            feed(evidence, rng)
        assert np.concatenate([np.ravel(value) for value in evidence.state().values()]).size == before < 20_000


def test_zero_errors_clear_a_ceiling_after_some_hundred_requests():
    """
    Section 4: no error at all clears 0.5 % after about 600 canary requests.
    """
    evidence, requests = CeilingEvidence(0.005), 0
    while evidence.log_e < math.log(20):
        evidence.update(0, 10)
        requests += 10
    assert 550 <= requests <= 750


def test_a_declared_horizon_lowers_the_threshold_and_keeps_the_rate(rng):
    """
    Within the horizon the calibrated threshold is reached in at most α of equal rollouts; it is below 1/α.
    """
    line = threshold(200, 0.2)
    assert 5 < line < 16
    alarms, runs = 0, 400
    for _ in range(runs):
        evidence = RateEvidence(1.0, 1.5)
        labels = rng.random(200) < 0.2
        for at in range(200):
            evidence.update(float(labels[at]), 1.0, 0.2)
            if evidence.log_e >= math.log(line):
                alarms += 1
                break
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert threshold(200, 0.2, mde=2.0) <= 20


def test_a_judge_with_a_declared_horizon_says_so(rng):
    """
    It alarms at the calibrated value, and its words say where the guarantee ends; of several guardrails it is refused.
    """
    guardrail = ck.metrics.error_rate(ceiling=None)
    found = list(windows(guardrail.metric, (0.98, 0.02), (0.94, 0.06), 60, rng))
    word, judge = judged(guardrail, found, alarm_at=threshold(400, 0.2))
    plain = judged(guardrail, found)[1]
    assert word == "fail" and judge.judgement.alarm.time <= plain.judgement.alarm.time
    assert "95 %, however often you look, up to the declared horizon" in judge.judgement.sentence
    assert "horizon" not in plain.judgement.sentence
    for guardrails, alarm_at in (([guardrail, ck.metrics.accuracy()], 10.0), ([guardrail], 30.0), ([guardrail], 1.0)):
        with pytest.raises(PlanError, match="alarm_at"):
            Judge(guardrails, alarm_at=alarm_at)


def windows(metric, stable, canary, count, rng, *, n=(160, 40), weight=20.0):
    """Windows of a metric with these laws."""
    for at in range(count):
        counts = np.array([rng.multinomial(size, law) for size, law in zip(n, (stable, canary), strict=True)])
        yield Window(float(at), at + 1.0, TrafficSplit(weight), {metric.table: counts})


def judged(guardrail, found, **options):
    """Status and judge after these windows."""
    judge = Judge([guardrail], **options)
    for window in found:
        judge.update(window)
    return judge.judgement.status, judge


def test_scores_fail_when_they_fall_and_pass_when_they_do_not(rng):
    """
    A lower mean fails, an equal or a better one passes within its margin.
    """
    guardrail = ck.metrics.score("confidence", (0.0, 0.25, 0.5, 0.75, 1.0))
    even, low, high = (0.1, 0.1, 0.2, 0.3, 0.3), (0.2, 0.2, 0.2, 0.2, 0.2), (0.05, 0.05, 0.2, 0.3, 0.4)
    assert judged(guardrail, windows(guardrail.metric, even, low, 60, rng))[0] == "fail"
    assert judged(guardrail, windows(guardrail.metric, even, even, 150, rng))[0] == "pass"
    assert judged(guardrail, windows(guardrail.metric, even, high, 150, rng))[0] == "pass"


def test_classes_fail_when_predictions_drift_either_way(rng):
    """
    A class that grows and one that shrinks are both found; equal shares pass.
    """
    guardrail = ck.metrics.classes("digit", ("0", "1", "2", "3"))
    even = (0.25, 0.25, 0.25, 0.25)
    for other in ((0.4, 0.2, 0.2, 0.2), (0.1, 0.3, 0.3, 0.3)):
        word, judge = judged(guardrail, windows(guardrail.metric, even, other, 60, rng))
        assert word == "fail"
        assert abs(judge.comparisons[0].effect - (other[0] - 0.25)) < 0.06
    assert judged(guardrail, windows(guardrail.metric, even, even, 150, rng))[0] == "pass"


@pytest.mark.parametrize("served", [20, 24])
def test_a_known_split_is_for_routers_that_serve_it(rng, served):
    """
    With the true weight both modes agree; with another one, "known" blames the canary, and the default does not.
    """
    metric = Metric("errors", "outcome", "rate", ("ok", "error"))
    found = list(windows(metric, (0.9, 0.1), (0.9, 0.1), 400, rng, n=(200 - 2 * served, 2 * served)))
    realised, known = (judged(Guardrail(metric), found, split=split)[1].log_e for split in ("realised", "known"))
    assert realised < math.log(20)
    assert (known >= math.log(20)) is (served != 20)


def test_mirrored_requests_need_far_fewer(rng):
    """
    Section 1: accuracy 96 → 93 % shows after some hundred mirrored requests.
    """
    metric = Metric("accuracy", "answers", "rate", ("right", "wrong"), shown="good")
    found = []
    for _ in range(20):
        judge, requests = Judge([Guardrail(metric)], split="mirrored"), 0
        while judge.calm:
            # Of pairs on which only one version is right, the canary errs more often.
            canary, stable = rng.binomial(20, 0.045), rng.binomial(20, 0.015)
            counts = {"answers": np.array([[20 - stable, stable], [20 - canary, canary]])}
            judge.update(Window(requests, requests + 20.0, TrafficSplit(0), counts))
            requests += 20
        found.append(requests)
    assert np.median(found) < 700


def test_a_better_canary_never_worsens_a_verdict(rng):
    """
    Taking errors off the canary can only lower the evidence against it, and raise that for it.
    """
    for _ in range(30):
        worse, better = RateEvidence(1.0, 1.5), RateEvidence(1.0, 1.5)
        for _ in range(20):
            canary, stable = int(rng.binomial(40, 0.1)), int(rng.binomial(160, 0.1))
            fewer = int(rng.integers(0, canary + 1))
            worse.update(canary, canary + stable, 0.2)
            better.update(fewer, fewer + stable, 0.2)
        assert better.log_e <= worse.log_e + 1e-9
        assert better.log_e_safe >= worse.log_e_safe - 1e-9


def test_a_stated_slowdown_shows_sooner(rng):
    """
    mde= of a latency guardrail that tolerates nothing: more evidence from the same requests; refused where it means nothing.
    """
    edges = (*(0.01 * 2 ** (i / 8) for i in range(60)), math.inf)
    metric = Metric("latency", "latency", "quantile", edges, quantile=0.95)
    judges = [Judge([Guardrail(metric, tolerate=1.0, mde=mde)]) for mde in (None, 1.2)]
    for at in range(40):
        rows = [factor * 0.1 * np.exp(0.5 * rng.standard_normal(n)) for factor, n in ((1, 80), (1.2, 20))]
        counts = np.array([np.bincount(np.searchsorted(edges, x), minlength=len(edges)) for x in rows])
        for judge in judges:
            judge.update(Window(at, at + 1.0, TrafficSplit(20), {"latency": counts}))
    plain, stated = (judge.log_e for judge in judges)
    assert stated > plain + 0.5
    with pytest.raises(PlanError, match="tolerate=1"):
        Guardrail(metric, tolerate=1.2, mde=1.5)
