"""The bound of harm: by hand, in simulation, over several kinds of harm, and through JSON."""

import json
import math

import numpy as np
import pytest
from scipy.optimize import brentq

import canarykit as ck
from canarykit.analysis.harm import Harm
from canarykit.errors import PlanError
from canarykit.model import TrafficSplit, Window

KINDS = (ck.metrics.error_rate(), ck.metrics.latency(), ck.metrics.refused(), ck.metrics.denied())


def window(stable, canary, at=0.0, **bad):
    """A window of a second: requests of both, and the bad ones (stable's, the canary's) of each table."""
    counts = {
        name: np.array([[stable - b, b], [canary - c, c]])
        for name, (b, c) in {"outcome": (0, 0), "refused": (0, 0), "denied": (0, 0), **bad}.items()
    }
    return Window(at, at + 1.0, TrafficSplit(10), counts)


def after(*windows, harm=None):
    """The bound after some windows."""
    harm = harm or Harm(KINDS)
    for each in windows:
        harm = harm.after(each)
    return harm


def test_without_a_request_anything_is_possible():
    """
    Each request may be one that goes badly.
    """
    assert (Harm(KINDS).share, Harm(KINDS).most, Harm(KINDS).seen) == (1.0, 0.0, 0.0)
    assert math.isnan(Harm(KINDS).rate)
    assert after(window(100, 0)).share == 1.0


def test_without_a_bad_request_the_bound_is_a_number_of_requests():
    """
    By hand: the excess at which the mixture of bets reaches 20; the same after 50 good requests as after 5,000.
    """
    strengths = np.geomspace(0.8, 0.04, 8)
    most = brentq(lambda d: 0.7 * math.exp(d) + 0.3 * np.exp(strengths * d).mean() - 20, 0, 10)
    for canary in (50, 5000):
        harm = after(window(900, canary))
        assert harm.most == pytest.approx(most, rel=1e-5)
        assert harm.share == pytest.approx(most / canary, rel=1e-5)
    assert after(window(900, 2)).most == 2  # no more can have been hurt than were served


def test_stables_own_bad_requests_are_not_the_canarys_fault():
    """
    Both fail one in ten: the excess is small; with a stable that never fails it is large.
    """
    alike = after(window(900, 100, outcome=(90, 10)))
    worse = after(window(900, 100, outcome=(0, 10)))
    assert alike.most < 16 < 20 < worse.most
    assert (alike.seen, worse.seen) == (0.0, 10.0)


def test_what_is_better_in_one_kind_hides_nothing_in_another():
    """
    A canary that refuses less and fails more: its failures are bounded as if that were all.
    """
    fails = after(window(900, 100, outcome=(0, 10)))
    both = after(window(900, 100, outcome=(0, 10), refused=(90, 0)))
    assert both.most >= fails.most - 1e-9 > 10


def test_kinds_add_up():
    """
    Five failures and five refusals hurt as much as ten failures.
    """
    apart = after(window(900, 100, outcome=(0, 5), refused=(0, 5)))
    together = after(window(900, 100, outcome=(0, 10)))
    assert apart.most == pytest.approx(together.most)
    assert apart.seen == together.seen == 10


@pytest.mark.parametrize("base", [0.001, 0.02])
@pytest.mark.parametrize("excess", [0.01, 0.2])
def test_the_bound_is_passed_rarely_whenever_one_looks(base, excess):
    """
    In 400 rollouts with a weight that rises and a base rate that drifts, the true excess is ever beyond it in 5 % at most.
    """
    rng, passed = np.random.default_rng(int(1000 * base + 100 * excess)), 0
    for _ in range(400):
        harm, done, beyond = Harm([ck.metrics.error_rate()]), 0.0, False
        for second in range(30):
            tide = math.exp(math.sin(second / 5))
            canary = rng.binomial(200, min(0.01 * 1.2**second, 0.5))
            rates = base * tide, base * tide + excess
            bad = rng.binomial(200 - canary, rates[0]), rng.binomial(canary, rates[1])
            harm, done = harm.after(window(200 - canary, canary, outcome=bad)), done + canary * excess
            beyond = beyond or done > harm.most + 1e-9
        passed += beyond
    assert passed / 400 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)


def test_answers_are_bounded_apart():
    """
    Not all requests have labels: the shares add up, and each bound is surer.
    """
    kinds = (ck.metrics.error_rate(), ck.metrics.accuracy())
    plain, labelled = window(900, 100), window(900, 100, answers=(9, 1))
    alone, beside = after(plain, harm=Harm(kinds)), after(labelled, harm=Harm(kinds))
    assert beside.share > 2 * alone.share
    assert after(window(900, 100), harm=Harm(kinds)).share < 0.05  # no label has arrived: the state machine waits for that


def test_slow_requests_count_when_somebody_says_so():
    """
    Those beyond the bucket of stable's p95 so far, at the weight that they have; by default none.
    """
    cells = len(ck.metrics.LATENCY_EDGES)

    def timed(slow):
        table = np.zeros((2, cells), dtype=np.int64)
        table[:, 10] = 90, 100 - slow
        table[:, 20], table[1, 40] = 10, slow
        return Window(0.0, 1.0, TrafficSplit(50), {"latency": table, "outcome": np.array([[100, 0], [110, 0]])})

    by_default = after(timed(0), timed(50), harm=Harm([ck.metrics.latency(), ck.metrics.error_rate()]))
    weighted = after(timed(0), timed(50), harm=Harm([ck.metrics.latency()], {"p95 latency": 0.2}))
    assert by_default.seen == 0
    assert weighted.seen == pytest.approx(0.2 * 50, abs=2)
    assert weighted.most > by_default.most


def test_a_second_guardrail_of_a_table_is_bounded_apart():
    """
    A request beyond two quantiles is slow twice, and the bets on one request hold for one that is bad once.
    """
    weights = {"p50 latency": 1.0, "p95 latency": 1.0}
    both = Harm([ck.metrics.latency(0.5), ck.metrics.latency(0.95)], weights)
    one = Harm([ck.metrics.latency(0.5)], {"p50 latency": 1.0})
    table = np.zeros((2, len(ck.metrics.LATENCY_EDGES)), dtype=np.int64)
    table[:, 10] = 100
    counted = Window(0.0, 1.0, TrafficSplit(50), {"latency": table, "outcome": np.array([[100, 0], [100, 0]])})
    assert after(counted, harm=both).most > 2 * after(counted, harm=one).most


def test_lower_scores_count_when_somebody_says_so():
    """
    A mean that is lower by 0.3 in 100 answers is thirty failed requests.
    """
    score = ck.metrics.score("helpful", values=(0.0, 0.5, 1.0))
    table = np.array([[0, 0, 100], [0, 60, 40]])
    harm = after(Window(0.0, 1.0, TrafficSplit(50), {"helpful": table}), harm=Harm([score], {"helpful": 1.0}))
    assert harm.seen == pytest.approx(30)
    assert harm.most > 30


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"p99": 0.1}, "no guardrail is called so, only error rate"),
        ({"error rate": 1.5}, "a number from 0 to 1, not 1.5"),
        ({"error rate": True}, "a number from 0 to 1, not True"),
        ({"kinds": 0.5}, "shares of classes are neither good nor bad"),
    ],
)
def test_harm_that_is_none_is_refused(weights, says):
    """
    With the name of the guardrail.
    """
    with pytest.raises(PlanError, match=says):
        Harm([*KINDS, ck.metrics.classes("kinds", names=("a", "b"))], weights)


def test_it_goes_through_json_and_goes_on():
    """
    To the last digit; the one it was copied from stays as it is.
    """
    harm = after(window(900, 50, outcome=(1, 3)), window(800, 90, at=1.0, refused=(2, 1)))
    written = json.dumps(harm.state(), allow_nan=False)
    back = Harm(KINDS).restore(json.loads(written))
    more = window(700, 80, at=2.0, denied=(1, 4))
    assert (back.after(more).most, back.after(more).rate) == (harm.after(more).most, harm.after(more).rate)
    assert json.dumps(harm.state(), allow_nan=False) == written
    for _ in range(20):
        back = back.after(more)
    assert back.rate == 780  # of the last ten windows
