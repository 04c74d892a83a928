"""Checks that guard the numbers."""

import math

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.checks import SplitCheck, dispersion, drift, warm_up
from canarykit.analysis.instances import load_ratio, remarks, spread
from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import TrafficSplit, Window


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


def test_slow_answers_to_requests_of_an_earlier_weight_are_no_lie(window):
    """
    What is counted just after a change, from 5 to 50 %, was drawn ten seconds before: it is left out, or known to be old.
    """
    believing, knowing = SplitCheck(), SplitCheck()
    for at in range(-60, 60):
        each = window(at, weight=50 if at >= 0 else 5, served=0.5 if at >= 10 else 0.05)
        believing.update(each)
        knowing.update(each, 10.0)
    assert knowing.alarm is None
    assert believing.alarm is None


def test_a_lie_is_found_after_requests_that_take_long_too(window):
    """
    Only the first moments at a weight are left out; and not a single window when it is long enough.
    """
    check = SplitCheck()
    for at in range(40):
        check.update(window(at, weight=10, served=0.05, requests=500), 10.0)
        assert at >= 10 or check.log_e == pytest.approx(0)
    assert check.alarm is not None
    check, single = SplitCheck(), window(0, weight=10, served=0.05, requests=50_000)
    check.update(Window(0.0, 3600.0, single.split, single.counts), 10.0)
    assert check.alarm is not None


def burst(rng, *, at_once, weight, capacity, knows):
    """Windows of a second: many requests arrive at once, and each version answers them one after another.

    Parameters
    ----------
    at_once : int
        Requests in the first instant of the sixth second.
    capacity : (stable, canary)
        Requests per second that each version answers.
    knows : bool
        Whether the source knows what is in flight.
    """
    share, background = weight / 100, 40
    queue, waited = [0, 0], [0.0, 0.0]
    for second in range(60):
        arrived = int(rng.binomial(background, share))
        if second == 5:
            drawn = int(rng.binomial(at_once, share))
            queue = [queue[0] + at_once - drawn, queue[1] + drawn]
        queue = [queue[0] + background - arrived, queue[1] + arrived]
        ended = [min(n, most) for n, most in zip(queue, capacity, strict=True)]
        waited = [second - 4.0 if n > most else 0.01 for n, most in zip(queue, capacity, strict=True)]
        queue = [n - done for n, done in zip(queue, ended, strict=True)]
        counts = {"outcome": np.array([[ended[0], 0], [ended[1], 0]])}
        yield Window(second, second + 1.0, TrafficSplit(weight), counts, in_flight=tuple(queue) if knows else None), max(waited)


@pytest.mark.parametrize("knows", [True, False], ids=["in flight is known", "only durations are known"])
@pytest.mark.parametrize("capacity", [(500, 20), (45, 200)], ids=["it queues at the canary", "it queues at stable"])
def test_a_burst_that_queues_at_one_version_is_no_lie(rng, knows, capacity):
    """
    A thousand requests at once at 10 %: whoever answers them later has no other share. At most one run of forty is blamed.
    """
    blamed = 0
    for _ in range(40):
        check = SplitCheck(alpha=0.001)
        for window, slowest in burst(rng, at_once=1000, weight=10, capacity=capacity, knows=knows):
            check.update(window, 0.05, slowest)
        blamed += check.alarm is not None
    assert blamed <= 1


def test_a_version_that_hangs_is_no_lie_where_what_is_in_flight_is_known(rng):
    """
    The canary answers nothing for a minute: its requests are in flight, and the router is not blamed.
    """
    check = SplitCheck(alpha=0.001)
    for window, _ in burst(rng, at_once=100, weight=10, capacity=(500, 0), knows=True):
        check.update(window)
    assert check.alarm is None


def test_a_lie_during_a_queue_is_found(rng):
    """
    What is in flight is counted as assigned: a router that assigns half of the weight is found though requests wait.
    """
    check = SplitCheck(alpha=0.001)
    for window, _ in burst(rng, at_once=4000, weight=5, capacity=(60, 2), knows=True):
        check.update(Window(window.start, window.end, TrafficSplit(10), window.counts, in_flight=window.in_flight))
    assert check.alarm is not None
    assert "the gateway gave the canary" in check.alarm


@pytest.mark.parametrize("weights", [(5, 25, 50), (25, 25, 25)], ids=["rising", "written again"])
def test_a_slow_canary_is_no_lie_when_the_weight_changes(rng, weights):
    """
    What is in flight at a change of weight is counted nowhere later: it counts as assigned under the weight before.
    """
    check, took = SplitCheck(alpha=0.001), (2, 20)
    for step, weight in enumerate(weights):
        check.begin()
        began, sent = 60 * step, []
        for second in range(60):
            drawn = int(rng.binomial(20, weight / 100))
            sent.append((20 - drawn, drawn))
            ended = [sent[second - t][role] if second >= t else 0 for role, t in enumerate(took)]
            under_way = tuple(sum(row[role] for row in sent[max(0, second - t + 1) :]) for role, t in enumerate(took))
            counts = {"outcome": np.array([[ended[0], 0], [ended[1], 0]])}
            check.update(
                Window(began + second, began + second + 1.0, TrafficSplit(weight), counts, in_flight=under_way), 5.0, 20.0
            )
    assert check.alarm is None


def read_apart(rng, rate, *, share, weight, apart=13, every=15, seconds=600):
    """Windows of two versions that are scraped every 15 s, the canary 13 s after stable.

    Parameters
    ----------
    rate : callable of float
        Requests per second at a moment.
    share : float
        Of the canary.
    """
    arrived = rng.poisson([rate(second) for second in range(seconds + apart)])
    canary = rng.binomial(arrived, share)
    stable = arrived - canary
    for start in range(0, seconds, every):
        counts = (stable[start : start + every].sum(), canary[start + apart : start + apart + every].sum())
        yield Window(
            float(start),
            float(start + every),
            TrafficSplit(weight),
            {"outcome": np.array([[n, 0] for n in counts])},
            apart=apart,
        )


PATTERNS = {
    "a pause": lambda second: 0 if 200 <= second < 206 else 80,
    "a pause at the first scrape": lambda second: 0 if 15 <= second < 21 else 80,
    "a burst": lambda second: 800 if 200 <= second < 203 else 80,
    "a steady rise": lambda second: 80 + second / 2,
    "twice as much": lambda second: 160 if second > 200 else 80,
    "no change": lambda second: 80,
}


@pytest.mark.parametrize("weight", [5, 25, 50])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pause_that_one_version_is_read_of_first_is_no_lie(rng, pattern, weight):
    """
    Traffic stops for six seconds: the counts of the version that is scraped later show it first.
    """
    for _ in range(20):
        check = SplitCheck(alpha=0.001)
        for each in read_apart(rng, PATTERNS[pattern], share=weight / 100, weight=weight):
            check.update(each, 0.1)
        assert check.alarm is None


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_lie_is_found_where_versions_are_read_one_after_another(rng, pattern):
    """
    Four fifths of the weight: found in ten minutes of 80 requests a second, whatever traffic does.
    """
    check = SplitCheck(alpha=0.001)
    for each in read_apart(rng, PATTERNS[pattern], share=0.2, weight=25):
        check.update(each, 0.1)
    assert check.alarm is not None


def test_forced_requests_in_flight_are_no_lie(rng):
    """
    Fifty streams that a tester's header sent to the canary stay open: they are in flight, and say nothing about the router.
    """
    check = SplitCheck(alpha=0.001)
    for at in range(120):
        canary = int(rng.binomial(40, 0.05))
        counts = {"outcome": np.array([[40 - canary, 0], [canary, 0]])}
        check.update(Window(at, at + 1.0, TrafficSplit(5), counts, in_flight=(1, 50)))
    assert check.alarm is None


def test_requests_that_the_router_did_not_assign_are_not_its_fault(window):
    """
    Where pods count what is sent to them directly as well, the sentence says so and blames nobody.
    """
    check = SplitCheck(assigned_only=False)
    for at in range(100):
        check.update(window(at, weight=5, served=0.1, requests=200))
    assert check.alarm is not None
    assert "check the router" not in check.alarm
    assert "probes" in check.alarm


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


def outcomes(pairs):
    """Windows with these counts of (ok, error), stable first."""
    return [Window(float(at), at + 1.0, TrafficSplit(50), {"outcome": np.array(counts)}) for at, counts in enumerate(pairs)]


def test_dispersion_is_one_for_independent_requests_and_grows_with_bursts(rng):
    """
    Gamma noise confined to one version shows in φ; what is taken to 1/φ alarms less.
    """

    def split(cv):
        for _ in range(300):
            rates = 0.05 * (rng.gamma(1 / cv**2, cv**2, 2) if cv else np.ones(2))
            errors = rng.binomial(200, np.minimum(rates, 1))
            yield [[200 - e, e] for e in errors]

    assert dispersion(outcomes(split(0))) == pytest.approx(1, abs=0.25)
    noisy = dispersion(outcomes(split(0.6)))
    assert noisy > 2
    windows = outcomes(split(0.6))
    guardrail = ck.metrics.error_rate(ceiling=None)
    plain, careful = Judge([guardrail], dispersion=1), Judge([guardrail], dispersion=noisy)
    for window in windows:
        plain.update(window)
        careful.update(window)
    assert careful.log_e == pytest.approx(plain.log_e / noisy, abs=1e-9)
    (low, high), (wide_low, wide_high) = (judge.comparisons[0].interval for judge in (plain, careful))
    assert wide_low < low and wide_high > high
    assert math.isnan(dispersion([]))


def test_drift_is_seen_in_stable_alone(rng):
    """
    A steady rate has a dispersion near 1, a wave a large one.
    """

    def stable(amplitude):
        rates = 0.05 * (1 + amplitude * np.sin(np.arange(200) / 10))
        return outcomes([[200 - e, e], [0, 0]] for e in rng.binomial(200, rates))

    assert drift(stable(0.0)) == pytest.approx(1, abs=0.4)
    assert drift(stable(0.8)) > 2
    assert math.isnan(drift([]))


def test_a_warm_up_leaves_out_both_versions_in_whole_windows(window):
    """
    The canary's first seconds and the same of stable are marked, from its first weight on.
    """
    windows = [window(at, weight=0 if at < 3 else 10) for at in range(10)]
    length = windows[1].start - windows[0].start
    judged = [w.judged for w in warm_up(windows, 2 * length)]
    assert judged == [True] * 3 + [False] * 2 + [True] * 5
