"""What a panel shows, as a pure function."""

from dataclasses import replace

import pytest

import canarykit as ck
from canarykit.model import Ending
from canarykit.panel.state import Note, panel_state
from canarykit.rollout import enter

CHANGES = {"apply", "promote", "run"}


@pytest.fixture
def snapshot(experiment):
    """A snapshot under way: 25 % of the traffic, 100 requests."""
    taken = experiment().snapshot()
    state = enter(taken.state, ck.TrafficSplit(25), now=928.0, took=0.012)
    return replace(taken, now=1000.0, state=replace(state, served=(75, 25)))


def test_served_stands_beside_asked(snapshot):
    """
    Intention is not reality: the weight in force, the share that was counted, and where the slider was left, are three things.
    """
    state = panel_state(snapshot, wish=50.0)
    assert (state.wish, state.asked, state.served) == (50.0, "25 %", "25.0 % of 100 requests")
    assert panel_state(snapshot).wish == 25.0


def test_without_a_request_nothing_is_served(snapshot):
    """
    Silence is not zero percent.
    """
    silent = replace(snapshot, state=replace(snapshot.state, served=(0, 0)))
    assert panel_state(silent).served == "no request yet"


def test_the_phase_is_said_in_words(snapshot):
    """
    By hand, on stable, at a step of the plan with its time, and how it ended.
    """
    plan = ck.RolloutPlan.of(5, 25, 50, 80)
    assert panel_state(snapshot).phase == "25 % by hand, 1 min 12 s"
    assert (
        panel_state(replace(snapshot, state=enter(snapshot.state, ck.TrafficSplit(0), now=1000.0))).phase
        == "all traffic on stable, 0 s"
    )
    state = replace(snapshot.state, plan=plan, phase="progressing", step=1, since=928.0)
    stepping = replace(snapshot, state=state)
    assert panel_state(stepping).phase == "progressing, step 2 of 4, 1 min 12 s"
    ended = replace(stepping, ending=Ending("rolled back", "too many errors"))
    assert (panel_state(ended).phase, panel_state(ended).verdict) == ("✗ rolled back", "too many errors")
    assert "deploy()" in panel_state(replace(snapshot, stage="new")).phase
    assert panel_state(replace(snapshot, stage="closed")).phase == "closed"


def test_guardrails_are_rows_with_word_and_symbol(snapshot):
    """
    Stable, canary, effect with interval, evidence with the alarm line, and a verdict that does not need its colour.
    """
    state = panel_state(snapshot)
    assert state.columns[:4] == ("guardrail", "stable", "canary", "effect, 95 %")
    assert [row[0] for row in state.rows] == ["error rate", "p95 latency", "refused requests", "denied requests"]
    assert all(row[-1] == "– no data" and " : 1" in row[-2] for row in state.rows)


def test_a_guardrail_that_is_not_decided_says_how_long_it_takes(experiment):
    """
    At the traffic so far; not once the rollout has ended.
    """
    exp = experiment("same")
    exp.shift(25)
    exp.observe("60s")
    error_rate, latency, *_ = panel_state(exp.snapshot()).rows
    assert error_rate[-1].startswith("? inconclusive, about ") and error_rate[-1].endswith(" more")
    assert latency[-1] == "✓ pass"
    exp.abort()
    assert panel_state(exp.snapshot()).rows[0][-1] == "? inconclusive"


def test_a_click_is_answered_and_losses_are_said(snapshot):
    """
    What was done, with the lost requests; what went wrong, in its own words; and what the experiment said since.
    """
    done = Note("applied 25 % in 12 ms", False, snapshot.said)
    assert panel_state(snapshot, note=done).message == "applied 25 % in 12 ms; 0 requests lost"
    wrong = Note("the canary does not answer", True, "")
    state = panel_state(snapshot, note=wrong)
    assert (state.message, state.problem) == ("the canary does not answer", True)
    later = replace(snapshot, said="5 % to the canary, in force after 2 ms", lost=3)
    assert panel_state(later, note=done).message == "5 % to the canary, in force after 2 ms; 3 requests lost"


def test_no_traffic_yet_is_said(experiment):
    """
    With what to do about it.
    """
    message = panel_state(experiment(rate=None).snapshot()).message
    assert message.startswith("no traffic yet")


def test_only_what_can_be_done_is_enabled(snapshot):
    """
    Abort always while the rollout goes on; changes of weight one at a time; nothing before deploy() or after the end.
    """
    assert panel_state(snapshot).enabled >= CHANGES | {"abort", "slide", "stop", "inject"}
    for busy in (panel_state(snapshot, working="applying"), panel_state(replace(snapshot, doing="carrying out the plan"))):
        assert not busy.enabled & CHANGES
        assert "abort" in busy.enabled
    ended = replace(snapshot, ending=Ending("promoted", "fine"), state=enter(snapshot.state, ck.TrafficSplit(0), now=0.0))
    assert panel_state(ended).enabled == {"stop"}
    undecided = replace(ended, state=enter(snapshot.state, ck.TrafficSplit(50), now=0.0))
    assert "abort" in panel_state(undecided).enabled
    for life in ("new", "closed"):
        assert not panel_state(replace(snapshot, stage=life)).enabled


def test_a_question_names_what_it_does(snapshot):
    """
    A promotion against the evidence says so.
    """
    assert panel_state(snapshot, asking="promote").question == (
        "Promote v2? It replaces v1 for all traffic. The evidence says “no data” so far."
    )
    assert panel_state(snapshot, asking="abort").question == "Abort? All traffic returns to v1, and the rollout ends."
    assert panel_state(snapshot).question == ""


def test_a_fault_that_no_one_can_switch_on_has_no_control(snapshot):
    """
    Where the cluster cannot do it, it is not there.
    """
    assert panel_state(snapshot).faults == ("slow", "failing", "wrong")
    assert panel_state(replace(snapshot, faults=())).faults == ()
