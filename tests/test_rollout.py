"""The pure state machine: every row of the table of events that it decides."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

import canarykit as ck
from canarykit.model import Alarm, Comparison, Judgement, Verdict
from canarykit.rollout import Decision, Rollout, advance, decide, moved, observe, resume

PLAN = ck.RolloutPlan.of(5, 25, 50, hold=10, min_requests=100, budget=60, no_data_after=30)
NOTHING = Comparison("error rate", (0.0, 0.0), (0, 0), (0, 0), 1.0, (0.5, 2.0), 0.0, 0.0, 20.0)


def judged(word, alarm=False):
    """A judgement of one guardrail."""
    verdict = Verdict("error rate", word, f"it is {word}", NOTHING)
    return Judgement(word, f"it is {word}", (verdict,), 0.0, Alarm("error rate", 1.0, (10, 1)) if alarm else None)


def at(step, *, requests=100, since=0.0, data_since=None):
    """A rollout at a step."""
    return Rollout(PLAN, "progressing", step, since, since + 10 if data_since is None else data_since, requests)


def test_the_first_decision_is_the_first_step():
    """
    A rollout begins with its first weight, before anything was counted.
    """
    decision = decide(Rollout(PLAN), None, now=0)
    assert (decision.action, decision.weight) == ("advance", 5)


@pytest.mark.parametrize(
    ("rollout", "word", "now", "action", "outcome"),
    [
        (at(0), "inconclusive", 10, "advance", None),
        (at(0, requests=99), "inconclusive", 10, "hold", None),
        (at(0), "inconclusive", 9, "hold", None),
        (at(0), "no data", 10, "hold", None),
        (at(0, data_since=0.0), "no data", 30, "stop", "no data"),
        (at(0, requests=99, data_since=60.0), "inconclusive", 60, "stop", "inconclusive"),
        (at(2), "pass", 10, "promote", "promoted"),
        (at(2), "pass", 9, "hold", None),
        (at(2, requests=99), "pass", 10, "hold", None),
        (at(2), "inconclusive", 10, "hold", None),
        (at(2, data_since=60.0), "inconclusive", 60, "stop", "inconclusive"),
        (at(2), "no data", 10, "hold", None),
    ],
)
def test_decisions(rollout, word, now, action, outcome):
    """
    Advance needs time and requests at the present weight; promotion needs a pass at the last; silence never promotes.
    """
    decision = decide(rollout, judged(word), now=now)
    assert (decision.action, decision.outcome) == (action, outcome)


def test_an_alarm_rolls_back_at_once():
    """
    Whatever the step, an alarm ends it.
    """
    for rollout in (Rollout(PLAN), at(0), at(2)):
        assert decide(rollout, judged("fail", alarm=True), now=0).outcome == "rolled back"


def test_a_crashing_canary_rolls_back():
    """
    A canary that does not stay up needs no statistics.
    """
    decision = decide(at(0), judged("inconclusive"), now=10, canary_problem="canary crashed 3 times")
    assert (decision.outcome, decision.reason) == ("rolled back", "canary crashed 3 times")


def test_doubt_about_the_split_stops_without_a_verdict():
    """
    When the gateway lies, nothing is said about the canary.
    """
    assert decide(at(2), judged("pass"), now=10, doubt="someone else changed it").outcome == "inconclusive"


def test_a_finished_rollout_does_nothing():
    """
    After the end every decision is to hold.
    """
    for phase in ("promoted", "rolled back", "inconclusive", "no data", "failed"):
        rollout = dataclasses.replace(at(2), phase=phase)
        assert decide(rollout, judged("pass"), now=1e9).action == "hold"


@given(
    step=st.integers(-1, 2),
    requests=st.integers(0, 10_000),
    held=st.floats(0, 1e6),
    word=st.sampled_from(["pass", "fail", "inconclusive", "no data"]),
)
def test_weight_never_rises_after_an_alarm(step, requests, held, word):
    """
    Once a guardrail has alarmed, no decision raises the canary's weight, whatever else is known.
    """
    rollout = Rollout(PLAN, "progressing", step, 0.0, held, requests)
    decision = decide(rollout, judged(word, alarm=True), now=held)
    assert decision.action == "roll back"


@given(step=st.integers(0, 2), requests=st.integers(0, 10_000), held=st.floats(0, 1e6))
def test_nothing_is_promoted_without_a_pass(step, requests, held):
    """
    Neither time nor requests replace evidence.
    """
    rollout = Rollout(PLAN, "progressing", step, 0.0, held, requests)
    for word in ("inconclusive", "no data"):
        assert decide(rollout, judged(word), now=held).action != "promote"


def test_evidence_of_an_earlier_weight_does_not_advance():
    """
    Requests and time are counted anew at each weight.
    """
    rollout = advance(at(0, requests=5000), Decision("advance", "", weight=25), now=100)
    assert (rollout.step, rollout.requests, rollout.since) == (1, 0, 100)
    assert decide(rollout, judged("inconclusive"), now=1000).action != "advance"


@pytest.mark.parametrize(("weight", "step"), [(5, 0), (25, 1), (50, -1), (30, -1), (0, -1)])
def test_a_weight_given_by_hand_is_no_progress(weight, step):
    """
    At the step of that weight when it has come so far, before the first otherwise; requests and time begin anew.
    """
    found = moved(at(1, requests=5000), weight, now=100)
    assert (found.step, found.requests) == (step, 0)
    assert step < 0 or (found.since, found.data_since) == (100, 100)
    assert moved(dataclasses.replace(at(1), phase="promoted"), weight, now=100).phase == "promoted"


def test_a_guardrail_that_was_heard_at_an_earlier_weight_only_has_no_data():
    """
    Labels at the first step alone: the next one waits for them, then ends with "no data", and a pass does not promote.
    """
    rollout = advance(at(1), Decision("advance", "", weight=50), now=100, guardrails=["error rate"])
    for now in (101, 111, 129):
        rollout = observe(rollout, judged("pass"), canary_requests=1000, now=now)
        decision = decide(rollout, judged("pass"), now=now)
        assert decision.action == "hold"
        assert "error rate: nothing of the canary was counted at this weight" in decision.reason
    assert decide(rollout, judged("pass"), now=130).outcome == "no data"
    rollout = observe(rollout, judged("pass"), canary_requests=1, now=130, with_data=["error rate", "another"])
    assert decide(rollout, judged("pass"), now=130).action == "promote"


@pytest.mark.parametrize("begin", [moved, resume])
def test_a_weight_that_was_found_or_given_needs_data_of_its_own(begin):
    """
    As one that the plan gave.
    """
    assert begin(at(2), 50, now=0, guardrails=["error rate"]).without_data == {"error rate"}


def test_only_data_resets_the_wait_for_data():
    """
    A window without canary requests, or with a silent guardrail, is no data.
    """
    rollout = at(0, data_since=0.0)
    assert observe(rollout, judged("inconclusive"), canary_requests=0, now=5).data_since == 0
    assert observe(rollout, judged("no data"), canary_requests=9, now=5).data_since == 0
    assert observe(rollout, judged("inconclusive"), canary_requests=9, now=5).data_since == 5


def test_traffic_that_nobody_serves_ends_a_rollout_without_data():
    """
    What the kit sends is refused by both versions: nothing can be learned, whatever the counts say; an alarm comes first.
    """
    decision = decide(at(2), judged("pass"), now=10, unusable="stable does not serve what the kit sends")
    assert (decision.action, decision.outcome) == ("stop", "no data")
    assert decision.reason == "stable does not serve what the kit sends"
    assert decide(Rollout(PLAN), None, now=0, unusable="refused").outcome == "no data"
    assert decide(at(2), judged("fail", alarm=True), now=10, unusable="refused").outcome == "rolled back"


@pytest.mark.parametrize("delay", [0.15, 16.0, 31.0, 61.0])
def test_holds_and_silence_begin_when_the_source_can_have_counts(delay):
    """
    With a source that is read every minute a step is held that much longer, and two readings of silence are forgiven.
    """
    assert decide(at(0), judged("inconclusive"), now=10 + delay - 0.01, delay=delay).action == "hold"
    assert decide(at(0), judged("inconclusive"), now=10 + delay, delay=delay).action == "advance"
    silent = at(0, data_since=0.0)
    assert decide(silent, judged("no data"), now=29.9 + 2 * delay, delay=delay).action == "hold"
    late = decide(silent, judged("no data"), now=30 + 2 * delay, delay=delay, waiting="Prometheus has yet to scrape")
    assert late.outcome == "no data"
    assert "Prometheus has yet to scrape" in late.reason
