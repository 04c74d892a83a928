"""Numbers as people read them."""

import math

import numpy as np
import pytest

import canarykit as ck
from canarykit import formatting
from canarykit.model import Comparison

ERRORS, P95, ACCURACY = (g.metric for g in (ck.metrics.error_rate(), ck.metrics.latency(), ck.metrics.accuracy()))


def comparison(interval, levels=(0.01, 0.02)):
    """A comparison with that interval."""
    return Comparison("x", levels, (10, 20), (1000, 1000), 2.0, interval, math.log(3.2), 0.0, 20.0)


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.0123, ERRORS, "1.23 %"),
        (0.0413, P95, "41.3 ms"),
        (2.5, P95, "2.5 s"),
        (0.0003, P95, "300 µs"),
        (math.nan, P95, "–"),
        (math.inf, P95, "never"),
    ],
)
def test_levels_have_engineering_units(value, metric, text):
    """
    Percent for shares, ms or s or µs for durations, a dash for what is unknown.
    """
    assert formatting.level(value, metric) == text


@pytest.mark.parametrize(
    ("interval", "metric", "text"),
    [
        ((1.3, 3.1), ERRORS, "1.3 to 3.1 times"),
        ((0.0, 3.1), ERRORS, "at most 3.1 times"),
        ((1.3, math.inf), ERRORS, "at least 1.3 times"),
        ((2.0, 240.0), ERRORS, "2 to 240 times"),
        ((0.0, math.inf), ERRORS, "unknown"),
        ((1.03, 1.18), P95, "+3 % to +18 %"),
        ((0.9, 1.18), P95, "−10 % to +18 %"),
        ((1.5, math.inf), P95, "at least +50 %"),
        ((0.0, 1.5), P95, "at most +50 %"),
    ],
)
def test_effects_are_ranges(interval, metric, text):
    """
    An effect is shown as its interval, open where nothing is known.
    """
    assert formatting.effect(comparison(interval), metric) == text


def test_sentences_say_direction_and_numbers():
    """
    A failed guardrail says how much worse, how often one may look, and after how many requests.
    """
    assert formatting.failed(comparison((1.3, 3.1)), ERRORS) == (
        "the canary's error rate is 1.3 to 3.1 times stable's (95 %, however often you look); "
        "error rate 1 % → 2 %, shown after 2,000 requests, 1,000 of them to the canary"
    )
    assert "is 3 % to 18 % slower than stable's" in formatting.failed(comparison((1.03, 1.18)), P95)
    assert "gives 1.3 to 3.1 times as many wrong answers as stable" in formatting.failed(comparison((1.3, 3.1)), ACCURACY)
    assert "not enough data yet: 2,000 requests" in formatting.undecided(comparison((0.0, math.inf)), ERRORS, 1.5)


def test_evidence_is_odds_beside_the_line():
    """
    Evidence never stands without the line that it has to reach.
    """
    assert formatting.odds(math.log(3.2), 20) == "3.2 : 1 (needs 20)"
    assert formatting.odds(1e6, 20) == "over 10,000 : 1 (needs 20)"


@pytest.mark.parametrize(
    ("ended", "failed", "said"),
    [
        ((0, 0), (0, 0), ""),
        ((0, 0), (5, 5), ""),
        ((1, 1), (100, 100), ""),
        ((0, 10), (5, 100), "0 of the 5 failed requests of stable and 10 of the 100 failed requests of the canary"),
        ((1200, 0), (1200, 0), "1,200 of the 1,200 failed requests of stable and 0 of the 0 failed requests of the canary"),
    ],
)
def test_a_common_cause_of_failures_is_told_when_it_is_frequent(ended, failed, said):
    """
    The gateway's limit ended a tenth of the failed requests of a version, or more.
    """
    told = formatting.at_limit(np.array(ended), np.array(failed))
    assert told == (f"the gateway's own time limit ended {said}" if said else "")
