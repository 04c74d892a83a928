"""Several questions at once, and what a question costs."""

import math

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.families import closure, e_bh
from canarykit.analysis.power import bound, needs, plan, still_needed
from canarykit.errors import PlanError


def test_closure_gives_the_published_numbers():
    """
    Section 8: each value is the least mean over the sets that hold it.
    """
    assert closure([120, 0.5, 30, 1, 0.2]) == pytest.approx([30.34, 0.35, 7.925, 0.56666667, 0.2])


def test_closure_is_the_least_mean_of_all_sets(rng):
    """
    The shortcut agrees with looking at every set.
    """
    from itertools import combinations

    e = rng.exponential(8, 6)
    for j, adjusted in enumerate(closure(e)):
        rest = [i for i in range(6) if i != j]
        sets = (subset for size in range(6) for subset in combinations(rest, size))
        assert adjusted == pytest.approx(min(e[[j, *subset]].mean() for subset in sets))


def test_e_bh_gives_the_published_count():
    """
    Section 8: three of five, strongest first; none when none is strong.
    """
    assert e_bh([120, 60, 40, 1, 0.2]) == [0, 1, 2]
    assert e_bh([1, 120, 0.2, 60, 40]) == [1, 3, 4]
    assert e_bh([1, 2, 3]) == []


def test_several_canaries_against_one_stable(window):
    """
    A judge for each canary; closure tells which are worse, with one budget for all.
    """
    judges = [Judge([ck.metrics.error_rate(ceiling=None)]) for _ in range(3)]
    for at in range(60):
        for judge, errors in zip(judges, (0.01, 0.06, 0.01), strict=True):
            judge.update(window(at, errors=(0.01, errors)))
    adjusted = closure(np.exp([judge.log_e for judge in judges]))
    assert list(adjusted >= 20) == [False, True, False]


def test_the_bound_gives_the_published_number():
    """
    Errors 1 → 2 % at weight 20 %.
    """
    assert bound([0.01, 0.99], [0.02, 0.98], 0.2) == pytest.approx(5053.157, abs=1e-3)
    assert bound([0.5, 0.5], [0.5, 0.5], 0.2) == math.inf
    with pytest.raises(PlanError, match="summing to 1"):
        bound([0.5, 0.4], [0.5, 0.5], 0.2)
    with pytest.raises(PlanError, match="share"):
        bound([0.5, 0.5], [0.4, 0.6], 2)


def test_the_evidence_needs_what_the_plan_says(rng):
    """
    The median of real evidence lies within a third of what was announced.
    """
    from canarykit.analysis.evidence import RateEvidence

    (need, _), found = needs(10, [20], 0.01, 2), []
    for _ in range(60):
        evidence, requests = RateEvidence(1.0, 1.5), 0
        while evidence.log_e < math.log(20):
            canary, stable = rng.binomial(20, 0.02), rng.binomial(80, 0.01)
            evidence.update(canary, canary + stable, 0.2)
            requests += 100
        found.append(requests)
    assert 0.67 < np.median(found) / need.requests < 1.33
    assert need.seconds == pytest.approx(need.requests / 10)
    assert need.canary_requests == pytest.approx(0.2 * need.requests)


def test_a_plan_finds_the_soonest_weight_and_says_when_mirroring_is_better():
    """
    Accuracy 96 → 93 % shows far sooner when both versions answer the same requests.
    """
    found = plan(2, [5, 20], 0.04, 1.75)
    assert [need.weight for need in found.asked] == [5, 20]
    assert found.soonest.seconds <= min(need.seconds for need in found.asked)
    assert found.mirrored.requests < 0.2 * found.asked[0].requests
    assert "sooner still mirrored" in str(found) and "<pre>" in found._repr_html_()
    paired = next(need for need in needs(2, [5], 0.04, 1.75, both=0.03) if need.mirrored)
    assert paired.requests < found.mirrored.requests  # the more both fail together, the fewer pairs tell them apart wrongly


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((2, [5], 0, 2), "base"),
        ((2, [5], 0.6, 2), "base"),
        ((2, [5], 0.01, 1), "effect of 1"),
        ((0, [5], 0.01, 2), "traffic"),
        ((2, [0], 0.01, 2), "weight"),
        ((2, [100], 0.01, 2), "weight"),
    ],
)
def test_questions_that_cannot_be_answered_are_refused(arguments, said):
    """
    The error names the number.
    """
    with pytest.raises(PlanError, match=said):
        needs(*arguments)


def test_still_needed_shrinks_with_evidence_and_is_unknown_without_traffic():
    """
    What is known already counts; what cannot be said is NaN, never a number.
    """
    rates, served = (0.01, 0.01), (8000, 2000)
    full, half = still_needed(rates, served, 1.5), still_needed(rates, served, 1.5, log_e_safe=math.log(20) / 2)
    assert half == pytest.approx(full / 2)
    assert still_needed(rates, served, 1.5, log_e_safe=10) == 0
    assert math.isnan(still_needed(rates, (8000, 0), 1.5))
    assert math.isnan(still_needed((0.0, 0.0), served, 1.5))
