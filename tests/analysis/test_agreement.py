"""Rows, judgement and decisions agree: several guardrails at once, whatever is counted."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.families import closure
from canarykit.model import Guardrail, Metric, TrafficSplit, Window
from canarykit.rollout import Signals, begin, decide

PLAN = ck.RolloutPlan.of(5, 25, 50, hold=0, min_requests=1, budget=3600, no_data_after=3600)
EDGES = tuple(0.01 * 2 ** (i / 4) for i in range(24)) + (math.inf,)


def guardrails(count):
    """So many rates, the last two of them accuracy and latency."""
    rates = [Guardrail(Metric(f"rate {n}", f"rate {n}", "rate", ("ok", "bad")), limit=0.5) for n in range(count)]
    latency = Guardrail(Metric("latency", "latency", "quantile", EDGES, "s", 0.9), tolerate=1.2)
    return [*rates, ck.metrics.accuracy(), latency]


def rate_table(rng, requests, shares):
    """Good and bad requests of both versions."""
    return np.array([[n - bad, bad] for n, bad in zip(requests, rng.binomial(requests, shares), strict=True)])


def drawn(rng, at, count, worse, base):
    """A window in which each guardrail has an effect of its own."""
    requests = np.array([150, 50])
    counts = {f"rate {n}": rate_table(rng, requests, [base, min(base * worse[n], 1)]) for n in range(count)}
    counts["answers"] = rate_table(rng, requests, [0.1, min(0.1 * worse[-2], 1)])
    seconds = [0.05 * np.exp(rng.normal(0, 0.5, n)) * slower for n, slower in zip(requests, (1, worse[-1]), strict=True)]
    counts["latency"] = np.array([np.bincount(np.searchsorted(EDGES, s), minlength=len(EDGES)) for s in seconds])
    return Window(float(at), at + 1.0, TrafficSplit(25), counts)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 6),
    st.sampled_from([0.002, 0.02, 0.2, 0.6]),
    st.lists(st.sampled_from([0.7, 1.0, 1.0, 1.3, 1.6, 2.5]), min_size=8, max_size=8),
)
@settings(max_examples=40)
def test_rows_judgement_and_decisions_agree_at_every_step(seed, count, base, worse):
    """
    A row fails exactly when the judgement does; no sentence is empty; the weight never rises beside a row that fails or is
    past its own line; a row that fails shows no interval that holds "no difference".
    """
    rng, chosen = np.random.default_rng(seed), guardrails(count)
    judge = Judge(chosen)
    failed = set()
    for at in range(40):
        judge.update(drawn(rng, at, count, worse, base))
        judgement = judge.judgement
        rows = {verdict.guardrail: verdict for verdict in judgement.verdicts}
        failing = {name for name, verdict in rows.items() if verdict.status == "fail"}
        assert failed <= failing  # a row that fails stays so
        failed = failing
        assert (judgement.status == "fail") == bool(failing) == (judgement.alarm is not None)
        assert (judgement.status == "pass") == all(verdict.status == "pass" for verdict in rows.values())
        assert judgement.sentence.strip()
        assert all(verdict.sentence.strip() for verdict in rows.values())
        decision = decide(replace(begin(PLAN, judge), phase="progressing", step=0, requests=100), now=1.0)
        assert decision.reason.strip()
        if failing:
            assert (decision.action, decision.outcome) == ("roll back", "rolled back")
            assert judgement.alarm.guardrail in failing
        elif judgement.suspects:
            assert decision.action == "hold"
        for guardrail in chosen:
            if guardrail.name in failing:
                low, high = rows[guardrail.name].comparison.interval
                assert guardrail.tolerate < low <= high


def test_one_guardrail_past_its_own_line_holds_and_says_so():
    """
    With eight guardrails, one at 30 of 20 is no alarm, and no reason to go on: the weight stays, with the reason.
    """
    chosen = [Guardrail(Metric(f"rate {n}", f"rate {n}", "rate", ("ok", "bad"))) for n in range(8)]
    judge, at = Judge(chosen, dispersion=1), 0
    while not judge.judgement.suspects:
        assert judge.calm
        counts = {f"rate {n}": np.array([[150, 0], [50 - (n == 3), n == 3]]) for n in range(8)}
        judge.update(Window(float(at), at + 1.0, TrafficSplit(25), counts))
        at += 1
    judgement = judge.judgement
    (suspect,) = judgement.suspects
    assert suspect.guardrail == "rate 3"
    assert suspect.status == judgement.status == "inconclusive"
    assert "enough for one guardrail but not yet for 8 together" in suspect.sentence
    rollout = replace(begin(PLAN, judge), phase="progressing", step=0, requests=100)
    decision = decide(rollout, now=1.0)
    assert decision.action == "hold"
    assert decision.reason == f"the weight does not rise from 5 %: {suspect.sentence}"
    assert decide(rollout, Signals(delay=1000.0), now=4000.0).action == "hold"
    late = decide(replace(rollout, data_since=4000.0), now=4000.0)
    assert (late.action, late.outcome) == ("stop", "inconclusive")


def test_closure_with_weights_is_the_least_weighted_mean_of_all_sets(rng):
    """
    Brute force over all sets agrees, with weights that differ.
    """
    from itertools import combinations

    e, weights = rng.gamma(0.3, 40, 6), rng.uniform(0.05, 1, 6)
    for j, adjusted in enumerate(closure(e, weights)):
        others = [k for k in range(6) if k != j]
        sets = [[j, *more] for size in range(6) for more in combinations(others, size)]
        assert adjusted == pytest.approx(min((weights[s] * e[s]).sum() / weights[s].sum() for s in sets))


def test_a_slow_tail_that_leaves_the_quantile_alone_claims_nothing_about_it():
    """
    With tolerate=1 the whole distribution is judged: where the quantile is not shown to differ, no interval is shown.
    """
    guardrail = Guardrail(Metric("p50 latency", "latency", "quantile", EDGES, "s", 0.5), tolerate=1.0)
    judge, rng, at = Judge([guardrail]), np.random.default_rng(3), 0
    while judge.calm:
        seconds = [0.05 * np.exp(rng.normal(0, 0.5, n)) for n in (150, 50)]
        seconds[1] = np.where(seconds[1] > 0.09, 6 * seconds[1], seconds[1])
        counts = {"latency": np.array([np.bincount(np.searchsorted(EDGES, s), minlength=len(EDGES)) for s in seconds])}
        judge.update(Window(float(at), at + 1.0, TrafficSplit(25), counts))
        at += 1
        assert at < 300
    (verdict,) = judge.judgement.verdicts
    low, high = verdict.comparison.interval
    assert low > 1 or (low, high) == (0.0, math.inf)
    assert "distributed worse" in verdict.sentence or "slower" in verdict.sentence
