"""Confidence sequences: the published numbers, and that they hold at all looks together."""

import math

import numpy as np
import pytest

from canarykit.analysis.evidence import QuantileEvidence, RateEvidence
from canarykit.analysis.intervals import (
    MeanDifference,
    band_radius,
    betting_mean,
    iterated_logarithm_radius,
    rate_interval,
)
from canarykit.analysis.slowdown import SlowdownEvidence
from canarykit.metrics import LATENCY_EDGES, latency_cells

CLASSIC = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, math.inf)
MOST = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)
"""Share of 200 trajectories that may miss at α = 5 %, with three standard errors."""


@pytest.mark.parametrize(
    ("successes", "trials", "tightest", "expected"),
    [(700, 1000, 100, (0.651629, 0.745949)), (15, 50, 50, (0.129556, 0.511896))],
)
def test_rate_interval_gives_the_published_numbers(successes, trials, tightest, expected):
    """
    Howard et al. (2021), Bernoulli confidence sequence.
    """
    assert rate_interval(successes, trials, tightest_at=tightest) == pytest.approx(expected, abs=2e-6)


def test_iterated_logarithm_gives_the_published_radius():
    """
    Howard and Ramdas (2022), t = 1000, m = 100.
    """
    assert iterated_logarithm_radius(1000, start=100) == pytest.approx(0.08204769, abs=1e-6)
    assert band_radius(np.full(10, 100)) == pytest.approx(iterated_logarithm_radius(1000))
    assert math.isnan(band_radius(np.zeros(4)))


def test_betting_gives_the_published_wealth():
    """
    Waudby-Smith and Ramdas (2024), hedged betting against m = .5.
    """
    wealth = betting_mean(np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1] * 10), 0.5)
    assert wealth[9] == pytest.approx(1.06787109, abs=1e-7)
    assert wealth[49] == pytest.approx(15.2622079, abs=1e-6)


@pytest.mark.parametrize("bad", [[0.5, float("nan")], [0.5, 1.2], [-0.1]])
def test_values_outside_the_unit_interval_are_refused(bad):
    """
    A bound that does not hold would make the guarantee a lie.
    """
    with pytest.raises(ValueError, match="between 0 and 1"):
        betting_mean(np.array(bad), 0.5)
    with pytest.raises(ValueError, match="successes"):
        rate_interval(5, 3, tightest_at=10)


@pytest.mark.parametrize("ramp", [False, True])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_the_risk_ratio_is_covered_under_drift_and_ramps(rng, ratio, ramp):
    """
    All looks together miss at most α, also when the weight rises and the baseline moves.
    """
    missed = 0
    for _ in range(200):
        evidence = RateEvidence(1.0, 1.5)
        for at in range(60):
            n = rng.binomial(200, (0.05, 0.2, 0.5)[min(at // 15, 2)] if ramp else 0.2)
            base = 0.03 * (1 + 0.6 * math.sin(at / 6))
            canary, stable = rng.binomial(n, base * ratio), rng.binomial(200 - n, base)
            evidence.update(canary, canary + stable, n / 200)
            low, high = evidence.interval(0.05)
            if not low <= ratio <= high:
                missed += 1
                break
    assert missed / 200 <= MOST


@pytest.mark.parametrize(
    ("edges", "tool"), [(LATENCY_EDGES, QuantileEvidence), (CLASSIC, SlowdownEvidence)], ids=["fine buckets", "classic buckets"]
)
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_the_quantile_ratio_is_covered(rng, edges, tool, ratio):
    """
    The ratio of two quantiles stays inside at all looks together, α at most.
    """
    missed, runs = 0, 60
    for _ in range(runs):
        evidence = tool(edges, 0.95, 1.2, 1.5) if tool is QuantileEvidence else tool(edges, 1.2, 1.5)
        for _ in range(40):
            rows = [factor * 0.1 * np.exp(0.6 * rng.standard_normal(n)) for factor, n in ((1.0, 160), (ratio, 40))]
            counts = np.array([np.bincount(np.searchsorted(edges, x), minlength=len(edges)) for x in rows], dtype=float)
            evidence.update(counts[0], counts[1]) if tool is QuantileEvidence else evidence.update(counts, 0.2)
            low, high = evidence.interval(0.05)
            if not low <= ratio <= high:
                missed += 1
                break
    assert missed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_the_difference_of_means_is_covered_and_waits_for_windows(rng):
    """
    Sums per window: nothing is said before 20 windows, and at most α is missed from then on.
    """
    missed = 0
    for _ in range(200):
        difference = MeanDifference()
        for at in range(80):
            level = 0.5 + 0.2 * math.sin(at / 9)
            stable, canary = rng.beta(8 * level, 8 * (1 - level), 80), rng.beta(8 * level, 8 * (1 - level), 20) - 0.05
            difference.update((80, stable.mean(), stable.var()), (20, canary.mean(), canary.var()))
            low, high = difference.interval(0.05)
            assert at >= 19 or (low, high) == (-math.inf, math.inf)
            if not low <= -0.05 <= high:
                missed += 1
                break
    assert missed / 200 <= MOST
    assert low < -0.05 < high < 0


def test_coarse_buckets_answer_both_questions(rng):
    """
    With classic buckets, ×2 is shown worse than ×1.2, equal is shown no worse than ×1.5; the interval brackets the truth.
    """
    for ratio, worse in ((2.0, True), (1.0, False)):
        evidence = SlowdownEvidence(CLASSIC, 1.2, 1.5)
        assert math.isnan(evidence.effect)
        for _ in range(100):
            rows = [latency_cells(factor * 0.1 * np.exp(0.6 * rng.standard_normal(n))) for factor, n in ((1, 160), (ratio, 40))]
            where = np.minimum(np.searchsorted(CLASSIC, LATENCY_EDGES), len(CLASSIC) - 1)
            counts = np.array([np.bincount(where, weights=row, minlength=len(CLASSIC)) for row in rows])
            evidence.update(counts, 0.2)
        assert (evidence.log_e > math.log(20)) is worse
        assert (evidence.log_e_safe > math.log(20)) is not worse
        low, high = evidence.interval(0.05)
        assert low < ratio < high and evidence.effect == pytest.approx(ratio, rel=0.1)
