"""The one formula, and the numbers that must come out of it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canarykit.analysis.bets import EFFECTS, log_prior, log_wealth, mixture
from canarykit.analysis.evidence import (
    CeilingEvidence,
    QuantileEvidence,
    RateEvidence,
)
from canarykit.metrics import LATENCY_EDGES, latency_cells


@pytest.mark.parametrize(
    ("canary", "total", "share", "expected"),
    [(7, 27, 0.1, 2.0191092399), (40, 100, 0.2, 9.0741746476), (0, 50, 0.05, -1.4000592627)],
)
def test_label_mixture_gives_the_published_numbers(canary, total, share, expected):
    """
    Section 8 of docs/statistics.md, to ten digits.
    """
    assert mixture(log_wealth(canary, total, share, EFFECTS), log_prior(EFFECTS)) == pytest.approx(expected, abs=1e-9)


def test_single_bet_gives_its_closed_form():
    """
    λ = 3, 7 canary and 20 stable errors at 10 %: E = 3^7 / 1.2^27.
    """
    wealth = log_wealth(7, 27, 0.1, np.log([3.0]))
    assert math.exp(wealth[0]) == pytest.approx(3**7 / 1.2**27)


@given(share=st.floats(0.001, 0.999), ratio=st.floats(0.01, 100))
def test_a_bet_is_fair_under_a_known_split(share, ratio):
    """
    The expected factor of one event is 1 when its label is Bernoulli(share).
    """
    canary, stable = (np.exp(log_wealth(label, 1, share, np.log([ratio])))[0] for label in (1, 0))
    assert share * canary + (1 - share) * stable == pytest.approx(1.0)


@given(requests=st.tuples(st.integers(1, 30), st.integers(1, 30)), events=st.integers(0, 30), ratio=st.floats(1.0, 50))
def test_a_block_is_no_better_than_fair_under_the_realised_split(requests, events, ratio):
    """
    With exchangeable outcomes the labels of the events are drawn without replacement; a one-sided bet still has E ≤ 1.
    """
    from scipy.stats import hypergeom

    stable, canary = requests
    total = stable + canary
    events = min(events, total)
    law = hypergeom(total, canary, events)
    expected = sum(law.pmf(k) * np.exp(log_wealth(k, events, canary / total, np.log([ratio])))[0] for k in range(events + 1))
    assert expected <= 1 + 1e-9


@given(windows=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.floats(0.05, 0.95)), max_size=8))
@settings(max_examples=50)
def test_order_of_windows_does_not_matter(windows):
    """
    Evidence adds: any order of windows gives the same.
    """
    there, back = RateEvidence(1.0, 1.5), RateEvidence(1.0, 1.5)
    for canary, stable, share in windows:
        there.update(canary, canary + stable, share)
    for canary, stable, share in reversed(windows):
        back.update(canary, canary + stable, share)
    assert there.log_e == pytest.approx(back.log_e)
    assert there.interval(0.05) == pytest.approx(back.interval(0.05))


def test_interval_has_the_typical_width(rng):
    """
    Section 3: p = 1 %, ρ = 20 %, λ = 1 gives about [0.55, 1.67] after 20,000 requests.
    """
    evidence = RateEvidence(1.0, 1.5)
    evidence.update(40, 200, 0.2)
    low, high = evidence.interval(0.05)
    assert low == pytest.approx(0.55, abs=0.05)
    assert high == pytest.approx(1.67, abs=0.1)


def test_interval_holds_the_truth_over_whole_trajectories(rng):
    """
    A confidence sequence misses at most α over *all* its looks together.
    """
    runs, missed = 300, 0
    for _ in range(runs):
        evidence = RateEvidence(1.0, 1.5)
        for _ in range(40):
            canary = rng.binomial(50, 0.04)
            evidence.update(canary, canary + rng.binomial(150, 0.02), 0.25)
            low, high = evidence.interval(0.05)
            if not low <= 2.0 <= high:
                missed += 1
                break
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_swapping_the_versions_mirrors_the_interval():
    """
    The ratio of stable to canary is one over that of canary to stable.
    """
    one, other = RateEvidence(1.0, 1.5), RateEvidence(1.0, 1.5)
    one.update(30, 90, 0.25)
    other.update(60, 90, 0.75)
    low, high = one.interval(0.05)
    assert other.interval(0.05) == pytest.approx((1 / high, 1 / low), rel=0.06)
    assert one.effect == pytest.approx(1 / other.effect, rel=0.03)


def test_a_stated_effect_needs_fewer_requests():
    """
    With mde= the same errors are stronger evidence.
    """
    without, stated = RateEvidence(1.0, 1.5), RateEvidence(1.0, 1.5, mde=3.0)
    for evidence in (without, stated):
        evidence.update(30, 60, 0.25)
    assert stated.log_e > without.log_e


def test_zero_errors_clear_a_ceiling():
    """
    Section 4: no error in some hundred canary requests clears 0.5 %; in half as many it does not.
    """
    evidence = CeilingEvidence(0.005)
    evidence.update(0, 400)
    assert evidence.log_e < math.log(20)
    evidence.update(0, 350)
    assert evidence.log_e > math.log(20)


def test_a_rate_at_the_ceiling_does_not_clear_it(rng):
    """
    At a true rate of the ceiling it is passed in at most one run of twenty.
    """
    runs, passed = 400, 0
    for _ in range(runs):
        evidence = CeilingEvidence(0.01)
        for _ in range(50):
            evidence.update(rng.binomial(100, 0.01), 100)
            if evidence.log_e >= math.log(20):
                passed += 1
                break
    assert passed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def histograms(rng, slower, windows=60, share=0.3, n=200):
    """Windows of lognormal latencies, the canary's stretched by a factor."""
    for _ in range(windows):
        canary = rng.binomial(n, share)
        yield tuple(
            latency_cells(0.01 * factor * np.exp(rng.normal(0, 0.5, size))).astype(float)
            for factor, size in ((1.0, n - canary), (slower, canary))
        )


@pytest.mark.parametrize("slower", [0.8, 1.0, 1.3, 2.0])
def test_quantile_interval_holds_the_true_ratio(rng, slower):
    """
    The interval of the p90 ratio holds the truth, and the effect lies in it.
    """
    evidence = QuantileEvidence(LATENCY_EDGES, 0.9, 1.2, 1.5)
    for stable, canary in histograms(rng, slower):
        evidence.update(stable, canary)
    low, high = evidence.interval(0.05)
    assert low <= slower <= high
    assert high / low < 1.4
    assert evidence.effect == pytest.approx(slower, rel=0.1)


def test_quantile_evidence_alarms_above_what_is_tolerated_only(rng):
    """
    Twice as slow alarms; as slow as tolerated does not, and is not cleared either when it is near the margin.
    """
    for slower, alarms in ((2.0, True), (1.2, False), (1.0, False)):
        evidence = QuantileEvidence(LATENCY_EDGES, 0.95, 1.2, 1.5)
        for stable, canary in histograms(rng, slower):
            evidence.update(stable, canary)
        assert (evidence.log_e >= math.log(20)) is alarms
    assert evidence.log_e_safe >= math.log(20)


def test_quantile_of_a_window_never_comes_from_that_window():
    """
    Until stable has a past, no bet is made.
    """
    evidence = QuantileEvidence(LATENCY_EDGES, 0.95, 1.2, 1.5)
    first = latency_cells([0.01] * 100).astype(float)
    assert evidence.update(first, first) is None
    assert (evidence.log_e, evidence.interval(0.05)) == (0.0, (0.0, math.inf))
    assert math.isnan(evidence.effect)
    assert evidence.update(first, first) is not None
