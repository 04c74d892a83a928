"""The pure state machine: every row of the table of events that it decides."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.harm import Harm
from canarykit.errors import PlanError
from canarykit.model import Alarm, Comparison, Guardrail, Judgement, Metric, TrafficSplit, Verdict, Window
from canarykit.rollout import Decision, RolloutState, Signals, advance, begin, decide, enter, moved, observe, resume

PLAN = ck.RolloutPlan.of(5, 25, 50, hold=10, min_requests=100, budget=60, no_data_after=30)
NOTHING = Comparison("error rate", (0.0, 0.0), (0, 0), (0, 0), 1.0, (0.5, 2.0), 0.0, 0.0, 20.0)


def judged(word, alarm=False):
    """A judgement of one guardrail."""
    verdict = Verdict("error rate", word, f"it is {word}", NOTHING)
    return Judgement(word, f"it is {word}", (verdict,), 0.0, Alarm("error rate", 1.0, (10, 1)) if alarm else None)


class Said:
    """Evidence that says what it was told, whatever is counted."""

    guardrails = (Guardrail(Metric("error rate", "labels", "rate", ("right", "wrong"))),)

    def __init__(self, judgement):
        self.judgement = judgement

    def after(self, window):
        """Learn nothing."""
        return self


def state(judgement, **facts):
    """A state with such evidence."""
    return RolloutState(PLAN, Said(judgement), Harm(()), **facts)


def at(step, *, requests=100, since=0.0, data_since=None):
    """A rollout at a step."""
    data_since = since + 10 if data_since is None else data_since
    return state(judged("no data"), phase="progressing", step=step, since=since, data_since=data_since, requests=requests)


def decided(rollout, judgement, *, now, **signals):
    """What is decided when the evidence says that."""
    return decide(dataclasses.replace(rollout, evidence=Said(judgement)), Signals(**signals), now=now)


def window(canary, end, tables=("outcome", "labels")):
    """A window with so many requests of the canary, and stable's."""
    return Window(end - 1.0, end, TrafficSplit(50), {table: np.array([[100, 0], [canary, 0]]) for table in tables})


def test_the_first_decision_is_the_first_step():
    """
    A rollout begins with its first weight, before anything was counted.
    """
    decision = decide(begin(PLAN, Judge([ck.metrics.error_rate()])), now=0)
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
    decision = decided(rollout, judged(word), now=now)
    assert (decision.action, decision.outcome) == (action, outcome)


def test_an_alarm_rolls_back_at_once():
    """
    Whatever the step, an alarm ends it.
    """
    for rollout in (state(judged("no data")), at(0), at(2)):
        assert decided(rollout, judged("fail", alarm=True), now=0).outcome == "rolled back"


def test_a_crashing_canary_rolls_back():
    """
    A canary that does not stay up needs no statistics.
    """
    decision = decided(at(0), judged("inconclusive"), now=10, canary_problem="canary crashed 3 times")
    assert (decision.outcome, decision.reason) == ("rolled back", "canary crashed 3 times")


def test_doubt_about_the_split_stops_without_a_verdict():
    """
    When the gateway lies, nothing is said about the canary.
    """
    assert decided(at(2), judged("pass"), now=10, doubt="someone else changed it").outcome == "inconclusive"


def test_a_finished_rollout_does_nothing():
    """
    After the end every decision is to hold.
    """
    for phase in ("promoted", "rolled back", "inconclusive", "no data", "failed"):
        rollout = dataclasses.replace(at(2), phase=phase)
        assert decided(rollout, judged("pass"), now=1e9).action == "hold"


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
    rollout = at(step, requests=requests, data_since=held)
    decision = decided(rollout, judged(word, alarm=True), now=held)
    assert decision.action == "roll back"


@given(step=st.integers(0, 2), requests=st.integers(0, 10_000), held=st.floats(0, 1e6))
def test_nothing_is_promoted_without_a_pass(step, requests, held):
    """
    Neither time nor requests replace evidence.
    """
    rollout = at(step, requests=requests, data_since=held)
    for word in ("inconclusive", "no data"):
        assert decided(rollout, judged(word), now=held).action != "promote"


def test_evidence_of_an_earlier_weight_does_not_advance():
    """
    Requests and time are counted anew at each weight.
    """
    rollout = enter(advance(at(0, requests=5000), Decision("advance", "", weight=25)), TrafficSplit(25), now=100)
    assert (rollout.step, rollout.requests, rollout.since) == (1, 0, 100)
    assert decided(rollout, judged("inconclusive"), now=1000).action != "advance"


@pytest.mark.parametrize(("weight", "step"), [(5, 0), (25, 1), (50, -1), (30, -1), (0, -1)])
def test_a_weight_given_by_hand_is_no_progress(weight, step):
    """
    At the step of that weight when it has come so far, before the first otherwise; requests and time begin anew.
    """
    found = enter(moved(at(1, requests=5000), weight), TrafficSplit(weight), now=100)
    assert (found.step, found.requests, found.since, found.data_since) == (step, 0, 100, 100)
    assert found.phase == ("pending" if step < 0 else "progressing")
    assert moved(dataclasses.replace(at(1), phase="promoted"), weight).phase == "promoted"


def test_a_guardrail_that_was_heard_at_an_earlier_weight_only_has_no_data():
    """
    Labels at the first step alone: the next one waits for them, then ends with "no data", and a pass does not promote.
    """
    rollout = enter(advance(at(1), Decision("advance", "", weight=50)), TrafficSplit(50), now=100)
    rollout = dataclasses.replace(rollout, evidence=Said(judged("pass")))
    for now in (101, 111, 129):
        rollout = observe(rollout, window(1000, now, ["outcome"]))
        decision = decided(rollout, judged("pass"), now=now)
        assert decision.action == "hold"
        assert "error rate: nothing of the canary was counted at this weight" in decision.reason
    assert decided(rollout, judged("pass"), now=130).outcome == "no data"
    rollout = observe(rollout, window(1, 130))
    assert decided(rollout, judged("pass"), now=130).action == "promote"


@pytest.mark.parametrize("given", [moved, resume])
def test_a_weight_that_was_found_or_given_needs_data_of_its_own(given):
    """
    As one that the plan gave.
    """
    assert enter(given(at(2), 50), TrafficSplit(50), now=0).without_data == {"error rate"}


def test_only_data_resets_the_wait_for_data():
    """
    A window without canary requests, or with a silent guardrail, is no data.
    """
    for word, canary, data_since in (("inconclusive", 0, 0), ("no data", 9, 0), ("inconclusive", 9, 5)):
        rollout = dataclasses.replace(at(0, data_since=0.0), evidence=Said(judged(word)))
        assert observe(rollout, window(canary, 5)).data_since == data_since


def test_a_window_that_waits_or_is_not_judged_teaches_nothing():
    """
    The requests of one after the end are still told; the evidence stays as it was.
    """
    rollout = begin(PLAN, Judge([ck.metrics.error_rate()]))
    for each in (dataclasses.replace(window(9, 5), judged=False), dataclasses.replace(window(0, 5), waiting=True)):
        after = observe(rollout, each)
        assert after.evidence.state() == rollout.evidence.state()
        assert after.served == each.requests
    assert observe(rollout, window(9, 5)).evidence.state() != rollout.evidence.state()


# The state is a value ---------------------------------------------------------------------------------------------------

GUARDRAILS = (
    ck.metrics.error_rate(),
    ck.metrics.latency(),
    ck.metrics.accuracy(),
    ck.metrics.score("score", values=(0.0, 0.5, 1.0)),
)


def tables(rng, worse):
    """Counts of all guardrails in one window."""
    bad = rng.binomial(100, 0.02, 2) * np.array([1, worse])
    latency = rng.multinomial(100, rng.dirichlet(np.ones(len(GUARDRAILS[1].metric.cells))), 2)
    rate = np.stack([100 - np.minimum(bad, 100), np.minimum(bad, 100)], axis=1)
    return {"outcome": rate, "latency": latency, "answers": rate, "score": rng.multinomial(100, [0.2, 0.3, 0.5], 2)}


@given(
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.sampled_from([0, 5, 25, 50, 100]), max_size=12),
    worse=st.sampled_from([1, 3, 40]),
    phase=st.sampled_from(["pending", "progressing", "rolled back", "no data"]),
    carried_out=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_a_state_goes_through_json_without_loss(seed, weights, worse, phase, carried_out):
    """
    What is read back says the same, and goes on as the original does, to the last digit; the original has not changed.
    """
    rng = np.random.default_rng(seed)
    state = dataclasses.replace(begin(PLAN, Judge(GUARDRAILS)), phase=phase, carried_out=carried_out)
    for number, weight in enumerate(weights):
        if number % 3 == 0:
            state = enter(moved(state, weight), TrafficSplit(weight), now=float(number), took=0.1)
        state = observe(state, Window(float(number), number + 1.0, state.split, tables(rng, worse)))
    written = json.dumps(state.dump(), allow_nan=False)
    back = RolloutState.of(json.loads(written))
    assert json.dumps(back.dump(), allow_nan=False) == written
    same = [field.name for field in dataclasses.fields(state) if field.name not in ("evidence", "harm")]
    assert [getattr(back, name) for name in same] == [getattr(state, name) for name in same]
    assert repr(back.judgement) == repr(state.judgement)  # NaN equals nothing
    assert decide(back, now=100.0) == decide(state, now=100.0)
    more = Window(99.0, 100.0, TrafficSplit(50), tables(rng, worse))
    assert observe(back, more).dump() == observe(state, more).dump()
    assert json.dumps(state.dump(), allow_nan=False) == written


@pytest.mark.parametrize(
    "spoil",
    [
        lambda written: written.pop("phase"),
        lambda written: written.update(phase="happy"),
        lambda written: written.update(served=[1]),
        lambda written: written.update(weight=101),
        lambda written: written.update(plan={"steps": []}),
        lambda written: written["evidence"].pop("asked"),
        lambda written: written["evidence"]["asked"].update(alpha=2),
        lambda written: written["evidence"]["asked"].update(newer=True),
        lambda written: written["evidence"].update(monitors=[]),
        lambda written: written["evidence"]["asked"]["guardrails"][0].pop("metric"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused(spoil):
    """
    Somebody has edited it, or another release has written it.
    """
    written = json.loads(json.dumps(begin(PLAN, Judge(GUARDRAILS)).dump()))
    spoil(written)
    with pytest.raises(PlanError):
        RolloutState.of(written)


def test_traffic_that_nobody_serves_ends_a_rollout_without_data():
    """
    What the kit sends is refused by both versions: nothing can be learned, whatever the counts say; an alarm comes first.
    """
    decision = decided(at(2), judged("pass"), now=10, unusable="stable does not serve what the kit sends")
    assert (decision.action, decision.outcome) == ("stop", "no data")
    assert decision.reason == "stable does not serve what the kit sends"
    assert decide(begin(PLAN, Judge([ck.metrics.error_rate()])), Signals(unusable="refused"), now=0).outcome == "no data"
    assert decided(at(2), judged("fail", alarm=True), now=10, unusable="refused").outcome == "rolled back"


@pytest.mark.parametrize("delay", [0.15, 16.0, 31.0, 61.0])
def test_holds_and_silence_begin_when_the_source_can_have_counts(delay):
    """
    With a source that is read every minute a step is held that much longer, and two readings of silence are forgiven.
    """
    assert decided(at(0), judged("inconclusive"), now=10 + delay - 0.01, delay=delay).action == "hold"
    assert decided(at(0), judged("inconclusive"), now=10 + delay, delay=delay).action == "advance"
    silent = at(0, data_since=0.0)
    assert decided(silent, judged("no data"), now=29.9 + 2 * delay, delay=delay).action == "hold"
    late = decided(silent, judged("no data"), now=30 + 2 * delay, delay=delay, waiting="Prometheus has yet to scrape")
    assert late.outcome == "no data"
    assert "Prometheus has yet to scrape" in late.reason
