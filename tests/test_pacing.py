"""A plan that is paced by a budget of harm: the weight by hand, every decision, plans as written, and whole rollouts."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from holdings import MemoryHolding

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.harm import Harm
from canarykit.cli import main
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import PlanError
from canarykit.forecast import forecast
from canarykit.model import TrafficSplit, Window
from canarykit.pacing import budget, paced_weight
from canarykit.plan import Pace
from canarykit.report.verdict import verdict
from canarykit.rollout import Signals, advance, begin, decide, enter, observe, planned, resume
from canarykit.routers.base import Capabilities, apply

PLAN = ck.RolloutPlan.paced(harm=4, max_weight=50, bake="10s", budget="5min", no_data_after="30s")
ERRORS = (ck.metrics.error_rate(),)


def counted(state, end, canary, *, failed=0, total=200, stable_failed=0):
    """The state after a second with so many requests, of which the canary got and failed some."""
    table = np.array([[total - canary - stable_failed, stable_failed], [canary - failed, failed]])
    return observe(state, Window(end - 1.0, end, state.split, {"outcome": table}))


@pytest.fixture
def fresh():
    """A rollout with a second of traffic on stable."""
    return counted(enter(begin(PLAN, Judge(ERRORS)), TrafficSplit(0), now=0.0), 1.0, 0)


def at(state, weight, now):
    """The state with this weight in force since then."""
    decision = dataclasses.replace(decide(begin(PLAN, Judge(ERRORS)), now=0.0), weight=weight)
    return enter(advance(state, decision), TrafficSplit(weight), now=now)


# The weight ---------------------------------------------------------------------------------------------------------------


def harm_of(*windows):
    """The bound after windows of (requests, the canary's, failed ones)."""
    harm = Harm(ERRORS)
    for second, (total, canary, failed) in enumerate(windows):
        table = np.array([[total - canary, 0], [canary - failed, failed]])
        harm = harm.after(Window(float(second), second + 1.0, TrafficSplit(10), {"outcome": table}))
    return harm


@pytest.mark.parametrize(
    ("windows", "options", "weight"),
    [
        ([(200, 0, 0)], {}, 1.0),  # 4 of 200 requests/s in two seconds, when all may go badly
        ([(200, 0, 0)], {"delay": 2.0}, 0.5),  # four seconds' requests are out of reach
        ([(200, 0, 0)], {"now": 5.0}, 0.33),  # nothing was counted for four seconds: those requests were sent
        ([(2000, 0, 0)], {}, 0.1),
        ([(10_000_000, 0, 0)], {}, 0.01),
        ([(200, 100, 0)], {}, 30.0),  # 3.3 of 100 at most: 4 / 0.033 / 400
        ([(200, 100, 0), (200, 100, 0)], {}, 50.0),
        ([(200, 100, 50)], {}, 1.3),
        ([], {}, 1.0),  # no traffic is known
    ],
)
def test_the_weight_by_hand(windows, options, weight):
    """
    Budget over excess, rate and time, with two digits and within its limits.
    """
    now = options.pop("now", float(len(windows)))
    assert paced_weight(Pace(harm=4), harm_of(*windows), interval=1.0, now=now, **options) == weight


def test_the_first_weight_may_be_given():
    """
    Until something of the canary was counted.
    """
    pace = Pace(harm=4, start=7)
    assert paced_weight(pace, harm_of((200, 0, 0)), interval=1.0, now=1.0) == 7
    assert paced_weight(pace, harm_of((200, 14, 14)), interval=1.0, now=1.0) == 1.0


def test_the_budget_in_words():
    """
    What may go badly, and how much of that is allowed.
    """
    assert (
        budget(Pace(harm=4), Harm(ERRORS)) == "any of its requests may go badly, and 4 may until something can be done about it"
    )
    assert budget(Pace(), harm_of((200, 100, 0))).startswith("at most 3.3 % more go badly than with stable")


# Decisions ----------------------------------------------------------------------------------------------------------------


def test_it_begins_with_what_the_budget_allows(fresh):
    """
    Of 200 requests a second, 2 for each of two seconds.
    """
    decision = decide(fresh, now=1.0)
    assert (decision.action, decision.weight) == ("pace", 1.0)
    state = advance(fresh, decision)
    assert (state.phase, state.step) == ("progressing", 0)


def test_the_weight_rises_as_the_bound_falls(fresh):
    """
    Not for less than a tenth.
    """
    state = counted(at(fresh, 1.0, 1.0), 2.0, 8)
    decision = decide(state, now=2.0)
    assert (decision.action, decision.weight) == ("pace", 2.4)
    assert decision.reason.startswith("up from 1 % to 2.4 %: at most 41 % more go badly")
    same = dataclasses.replace(state, split=TrafficSplit(2.3))
    assert decide(same, now=2.0).action == "hold"


def test_the_weight_falls_when_the_bound_rises(fresh):
    """
    Without a rollback: the evidence is no alarm yet.
    """
    state = counted(at(fresh, 20.0, 1.0), 2.0, 40, failed=1)
    decision = decide(state, now=2.0)
    assert decision.action == "pace"
    assert decision.weight < 15
    assert "down from 20 %" in decision.reason
    assert advance(state, decision).phase == "progressing"


def test_it_does_not_rise_while_something_looks_worse(fresh):
    """
    At one guardrail's evidence of ten, before it is allowed for bursts.
    """
    state = counted(at(fresh, 2.0, 1.0), 2.0, 30, failed=3)
    assert state.judgement.alarm is None
    assert decide(dataclasses.replace(state, split=TrafficSplit(0.5)), now=2.0).reason == (
        "the weight does not rise from 0.5 %: error rate looks worse so far"
    )


def test_it_does_not_rise_without_data_at_its_weight(fresh):
    """
    And ends when that lasts.
    """
    state = counted(at(fresh, 1.0, 1.0), 2.0, 0)
    assert decide(state, now=2.0).reason.startswith("waiting for data: error rate")
    assert decide(state, now=31.0).outcome == "no data"
    assert decide(state, Signals(delay=20.0), now=31.0).outcome is None


def passed(fresh, weight):
    """A canary that is shown to be no worse, at a weight since second 101."""
    state = at(fresh, 50.0, 1.0)
    for second in range(2, 102):
        state = counted(state, float(second), 100)
    assert state.judgement.status == "pass"
    state = counted(at(state, weight, 101.0), 102.0, 100)
    return counted(state, 103.0, 100)


def test_it_promotes_at_the_highest_weight_after_its_time(fresh):
    """
    Not below that weight, and not before it has baked.
    """
    state = passed(fresh, 50.0)
    assert decide(state, now=110.9).action == "hold"
    assert decide(state, now=111.0).action == "promote"
    below = decide(passed(fresh, 30.0), now=103.0)
    assert (below.action, below.weight) == ("pace", 50.0)


def test_its_time_is_bounded(fresh):
    """
    Below the highest weight, and at it.
    """
    state = counted(at(fresh, 1.0, 299.0), 300.0, 2)
    decision = decide(state, now=300.0)
    assert (decision.action, decision.outcome) == ("stop", "inconclusive")
    assert decision.reason.startswith("only 1 % after 300 s")
    state = counted(at(fresh, 50.0, 299.0), 300.0, 100)
    assert decide(state, now=300.0).outcome == "inconclusive"


@pytest.mark.parametrize("plan", [PLAN, ck.RolloutPlan.of(5, 50)], ids=["paced", "steps"])
@pytest.mark.parametrize(
    ("canary", "failed", "stable_failed", "rolled_back"),
    [(5, 5, 0, True), (4, 4, 0, False), (6, 5, 0, False), (5, 5, 30, False)],
    ids=["all of five", "all of four", "one answered", "stable fails, too"],
)
def test_a_canary_that_fails_all_is_broken(plan, canary, failed, stable_failed, rolled_back):
    """
    Nobody waits until it is known whether failures come in bursts; where stable fails as well, it says nothing.
    """
    state = counted(at(begin(plan, Judge(ERRORS)), 5.0, 0.0), 1.0, canary, failed=failed, stable_failed=stable_failed)
    decision = decide(state, now=1.0)
    assert (decision.action == "roll back") == rolled_back
    if rolled_back:
        assert decision.reason == "the canary failed all of its first 5 requests, and stable 0 of 195"
        gap = Signals(gap="canary: 0 of 2 pods ready")  # that may pass, and explains it
        assert decide(state, gap, now=1.0).action == "hold"


def test_a_weight_that_is_found_goes_on(fresh):
    """
    Any up to the highest: the next decision says whether it may stay.
    """
    assert resume(fresh, 9.6).step == 0
    assert resume(fresh, 60.0) is None
    assert resume(fresh, 0.0) is None


def test_another_plan_keeps_the_bound_unless_its_harm_is_another(fresh):
    """
    What was counted as harm is counted so on.
    """
    same = planned(fresh, ck.RolloutPlan.of(5, 50))
    assert same.harm is fresh.harm
    slow = planned(dataclasses.replace(fresh, evidence=Judge([ck.metrics.latency()])), paced_by(**{"p95 latency": 0.1}))
    assert not slow.harm.outcomes.any()
    with pytest.raises(PlanError, match="no guardrail is called so"):
        planned(fresh, paced_by(p99=0.1))


def paced_by(**harm_of):
    """A plan in which these have harm, too."""
    return ck.RolloutPlan.paced(harm_of=harm_of)


# Plans as they are written ------------------------------------------------------------------------------------------------


def test_a_paced_plan_is_read_from_yaml_and_back():
    """
    It has one step, its highest weight.
    """
    plan = ck.RolloutPlan.from_yaml("pace: {harm: 8, max_weight: 25, bake: 2min, harm_of: {p95 latency: 0.1}}\nbudget: 1h\n")
    assert plan == ck.RolloutPlan.paced(8, 25, "2min", harm_of={"p95 latency": 0.1}, budget="1h")
    assert [(step.weight, step.hold) for step in plan.steps] == [(25, 120)]
    assert ck.RolloutPlan.from_dump(plan.model_dump(mode="json")) == plan


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"harm": 0.5}, r"pace\.harm: .*greater than or equal to 1"),
        ({"harm": float("nan")}, r"pace\.harm"),
        ({"max_weight": 0}, r"pace\.max_weight"),
        ({"max_weight": 101}, r"pace\.max_weight"),
        ({"start": 60}, r"start \(60 %\) must not be above max_weight \(50 %\)"),
        ({"bake": "soon"}, "a duration is a number of seconds"),
        ({"harm_of": {"p95 latency": 2}}, r"pace\.harm_of"),
        ({"steps": [{"weight": 5}]}, "a plan has steps, or a pace, not both"),
    ],
)
def test_a_pace_that_is_none_is_refused(options, says):
    """
    What is wrong, and where.
    """
    with pytest.raises(PlanError, match=says):
        ck.RolloutPlan.paced(**options)


# Whole rollouts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["good", "failing", "slow", "wrong"])
def test_whole_rollouts(simulated, scenario):
    """
    A good version gets through in a fraction of the time of fixed steps, by weights that rise; a bad one does not.
    """
    guardrails = [ck.metrics.error_rate(), ck.metrics.latency(), ck.metrics.accuracy()]
    exp = simulated(scenario, rate=200, guardrails=guardrails, plan=ck.RolloutPlan.paced(budget="30min"))
    exp.observe("2s")
    start = exp.cluster.clock.now()
    ending = exp.run()
    assert ending.outcome == ("promoted" if scenario == "good" else "rolled back"), ending.sentence
    weights = [change["asked"] for change in exp.journal.weights()]
    assert weights[0] <= 1.1
    harm = exp.journal.facts["harm"]
    assert harm["budget"] == 4
    assert harm["seen"] <= harm["most"]
    assert f"the canary hurt about {harm['seen']:,.0f} requests, and no more than {harm['most']:,.0f} (95 %)" in ending.sentence
    assert verdict(exp.history(), ending)["harm"] == harm
    if scenario == "good":
        assert exp.cluster.clock.now() - start < 120
        assert weights[-3:] == [50, 100, 0]
        assert weights[:-2] == sorted(weights[:-2])


def test_a_router_of_whole_pods_is_refused(simulated):
    """
    Its first step would be a quarter of the traffic: no budget holds that.
    """
    exp = simulated(plan=ck.RolloutPlan.paced())
    exp.cluster.router.capabilities = Capabilities(scales=True)
    for ask in (exp.run, exp.advance, lambda: exp.run(ck.RolloutPlan.paced(8))):
        with pytest.raises(PlanError, match=r"this router cannot serve: give the plan steps, or choose another router"):
            ask()
    assert exp.ending is None
    assert exp.run(ck.RolloutPlan.of(50, hold="5s", budget="5min")).outcome == "promoted"


def test_another_process_goes_on_at_its_pace(simulated):
    """
    At the weight that it finds, with the bound of harm that was written down.
    """
    holding = MemoryHolding()

    class Shared(SimulatedCluster):
        """A cluster that outlives its processes."""

        weight = 0.0

        def deploy(self, service):
            """Find the canary with its share."""
            super().deploy(service)
            apply(self.router, TrafficSplit(self.weight))

    one, two = Shared(seed=3), Shared(seed=4)
    one.holding = two.holding = holding
    exp = simulated(cluster=one, rate=200, plan=ck.RolloutPlan.paced(budget="30min"))
    exp.observe("2s")
    while exp.snapshot().state.split.canary < 10:
        exp.advance()
        exp.observe("1s")
    exp.close()
    two.weight = exp.snapshot().state.split.canary
    other = simulated(cluster=two, rate=200)
    state = other.snapshot().state
    assert (state.plan, state.split, state.step) == (exp.snapshot().state.plan, TrafficSplit(two.weight), 0)
    assert state.harm.most == exp.snapshot().state.harm.most > 0
    assert other.run().outcome == "promoted"
    assert min(change["asked"] for change in other.journal.weights()[:-2]) == two.weight


# Forecasts ----------------------------------------------------------------------------------------------------------------


def test_a_forecast_says_what_a_plan_takes():
    """
    A good version gets through; a bad one hurts a handful.
    """
    good, *bad = forecast(ck.RolloutPlan.paced(), 200, 0.001, runs=7)
    assert (good.canary, good.promoted) == ("as good as stable", 1.0)
    assert good.seconds < 60
    assert [each.rolled_back for each in bad] == [1.0] * 3
    assert max(each.hurt for each in bad) <= 10
    assert "rolled back 100%" in str(bad[0])


def test_a_plan_that_cannot_end_in_its_time_is_refused():
    """
    With the time that it would take.
    """
    with pytest.raises(PlanError, match=r"at 2 requests/s an equal canary takes about [\d,]+ s, longer than this plan lasts"):
        forecast(ck.RolloutPlan.paced(budget="1min"), 2, 0.001, runs=3)
    for rate, base in ((0, 0.1), (10, 1.0), (float("nan"), 0.1)):
        with pytest.raises(PlanError):
            forecast(ck.RolloutPlan.paced(), rate, base)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "give --effect"),
        (["--effect", "2", "--harm", "4"], "give --effect"),
        (["--harm", "0.5"], "greater than or equal to 1"),
        (["--plan", "none.yaml"], "cannot read a plan from none.yaml"),
    ],
)
def test_power_says_what_it_needs(options, says):
    """
    One question at a time.
    """
    done = CliRunner().invoke(main, ["power", "--rate", "200", "--base", "0.001", *options])
    assert done.exit_code != 0
    assert says in done.output


def test_power_prints_a_forecast(tmp_path):
    """
    In words, and as JSON.
    """
    (tmp_path / "plan.yaml").write_text("steps: [{weight: 50, hold: 2s}]\n")
    words = ["power", "--rate", "200", "--base", "0.01", "--plan", str(tmp_path / "plan.yaml")]
    assert "as good as stable        promoted  95%" in CliRunner().invoke(main, words).output
    found = json.loads(CliRunner().invoke(main, [*words, "--harm", "4", "--json"]).output)
    assert [each["canary"] for each in found] == ["as good as stable", "fails 1 % more", "fails 5 % more", "fails 100 % more"]
