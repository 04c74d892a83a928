"""The session object, on the simulated cluster: whole rollouts in seconds, and every way in which they end."""

import itertools
import os
import signal
from functools import partial

import numpy as np
import pytest

import canarykit as ck
from canarykit.clusters.simulated import SCENARIOS, Behaviour, Scenario, SimulatedCluster
from canarykit.errors import ClusterError, JournalError, PlanError, RoutingError
from canarykit.load.tally import Answer

GUARDRAILS = [ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy()]
PLAN = ck.RolloutPlan.of(5, 25, 50, hold="1min", budget="10min")


@pytest.fixture
def experiment(simulated):
    """Make an experiment on a simulated cluster, with traffic."""
    return partial(simulated, guardrails=GUARDRAILS, plan=PLAN)


@pytest.mark.parametrize(
    ("scenario", "outcome", "why"),
    [
        ("same", "promoted", "v2 is stable now"),
        ("good", "promoted", "v2 is stable now"),
        ("slow", "rolled back", "p95 latency"),
        ("failing", "rolled back", "error rate"),
        ("wrong", "rolled back", "wrong answers"),
        ("drifting", "promoted", "v2 is stable now"),
        ("no-traffic", "no data", "no request reached the canary"),
        ("lying-split", "inconclusive", "check the router"),
    ],
)
def test_each_scenario_ends_as_it_should(experiment, scenario, outcome, why):
    """
    The better and the same version are promoted, each bad one is rolled back for its own reason, silence never promotes.
    """
    exp = experiment(scenario)
    ending = exp.run()
    assert ending.outcome == outcome
    assert why in ending.sentence
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)
    assert exp.journal.ending == ending
    codes = {"promoted": 0, "rolled back": 10, "inconclusive": 20, "no data": 30}
    assert ending.exit_code == codes[outcome]


def test_a_bursty_canary_never_hangs(experiment):
    """
    Errors that come in bursts end in some outcome, and traffic is back on stable.
    """
    assert experiment("bursty").run().outcome in ("promoted", "rolled back", "inconclusive")


def test_equal_versions_are_rarely_rolled_back(service):
    """
    Forty whole rehearsals from different seeds: no more false rollbacks than promised.
    """
    rolled_back = 0
    for seed in range(40):
        exp = ck.Experiment(
            service, SimulatedCluster("same", seed=seed), guardrails=GUARDRAILS, plan=PLAN, notify=lambda line: None
        )
        exp.deploy()
        exp.send(100)
        rolled_back += exp.run().outcome == "rolled back"
    assert rolled_back <= 6  # 5 % of 40 and three standard errors


def test_steps_are_climbed_in_order_with_their_holds(experiment):
    """
    The weights are those of the plan, each held as long as it says, then 100 and back to stable's address.
    """
    exp = experiment("good")
    exp.run()
    weights = exp.history().weights
    assert [change["asked"] for change in weights] == [5, 25, 50, 100, 0]
    holds = [later["time"] - earlier["time"] for earlier, later in itertools.pairwise(weights[:4])]
    assert min(holds) >= 60


def test_served_and_asked_shares_agree_at_every_step(experiment):
    """
    The served split is verified: asked and served stand side by side.
    """
    exp = experiment("good")
    exp.run()
    for change in exp.history().weights:
        assert change["served"] == pytest.approx(change["asked"], abs=2.5)


def test_no_window_holds_two_weights(experiment):
    """
    What was counted since the last look is taken in before the weight changes; less than an interval of it is left out.
    """
    exp = experiment("good")
    exp.shift(50)
    exp.cluster.clock.sleep(5)
    exp.shift(20)
    first = list(exp.journal.windows())
    assert [(w.split.canary, w.end - w.start) for w in first if sum(w.requests)] == [(50, pytest.approx(5, abs=0.5))]
    exp.cluster.clock.sleep(PLAN.interval / 2)
    exp.shift(10)
    exp.cluster.clock.sleep(5)
    exp.poll()
    *_, window = list(exp.journal.windows())[len(first) :]
    assert len(list(exp.journal.windows())) == len(first) + 1
    assert (window.split.canary, window.end - window.start) == (10, pytest.approx(5, abs=0.5))


def test_labels_at_the_first_step_alone_promote_nothing(experiment):
    """
    A guardrail without one count of the canary at the present weight is missing data there, whatever was counted before.
    """
    exp = experiment("good", plan=ck.RolloutPlan.of(5, 25, 50, hold="30s", no_data_after="40s"))
    draw = exp.cluster.draw

    def unlabelled(start, end, split):
        counts = draw(start, end, split)
        return counts if split.canary <= 5 else {**counts, "answers": 0 * counts["answers"]}

    exp.cluster.draw = unlabelled
    ending = exp.run()
    assert ending.outcome == "no data"
    assert "accuracy: nothing of the canary was counted at this weight" in ending.sentence
    assert [change["asked"] for change in exp.journal.weights()] == [5, 25, 0]


def test_a_budget_that_is_used_up_is_inconclusive(experiment):
    """
    Cut short, a rollout was not shown to be safe: it ends inconclusive, with traffic on stable.
    """
    exp = experiment("same", rate=3, plan=ck.RolloutPlan.of(5, 50, hold="10s", min_requests=1, budget="30s"))
    ending = exp.run()
    assert ending.outcome == "inconclusive"
    assert "not shown to be safe" in ending.sentence
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_an_inconclusive_rollout_may_hold(experiment):
    """
    With on_inconclusive="hold" the canary keeps its share.
    """
    plan = ck.RolloutPlan.of(5, 50, hold="10s", min_requests=1, budget="30s", on_inconclusive="hold")
    exp = experiment("same", rate=3, plan=plan)
    assert exp.run().outcome == "inconclusive"
    assert exp.cluster.router.observed() == ck.TrafficSplit(50)


def test_a_crashing_canary_is_rolled_back(experiment):
    """
    What is wrong with its replicas is the reason.
    """
    cluster = SimulatedCluster(
        "good", problem=lambda role, now: "canary crashed 3 times" if role == "canary" and now > 1_750_000_100 else None
    )
    ending = experiment(cluster=cluster).run()
    assert ending.outcome == "rolled back"
    assert "crashed 3 times" in ending.sentence


def test_a_foreign_weight_edit_stops_the_rollout(experiment):
    """
    Someone else changes the split: reported, nothing promoted, traffic to stable.
    """
    exp = experiment("good")
    exp.advance()
    exp.cluster.router.split = ck.TrafficSplit(77)
    decision = exp.advance()
    assert decision.outcome == "inconclusive"
    assert "serves 77 %" in decision.reason
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_slow_answers_do_not_look_like_a_split_that_lies(experiment):
    """
    Where requests are counted when they end, those of the earlier weight are still to come for as long as they take.
    """
    slow = Behaviour(latency=5.0)
    exp = experiment(Scenario("slow, both of them", stable=slow, canary=slow), plan=ck.RolloutPlan.of(5, 50, hold="1min"))
    draw, splits = exp.cluster.draw, [(0.0, ck.TrafficSplit(0))]

    def ended(start, end, split):
        if split != splits[-1][1]:
            splits.append((start, split))
        drawn = next(drawn for since, drawn in reversed(splits) if since <= start - 5)
        return draw(start, end, drawn)

    exp.cluster.draw = ended
    exp.run()
    assert "check the router" not in exp.ending.sentence
    assert exp.doubt is None


def test_weight_never_rises_after_an_alarm(experiment):
    """
    By hand, too: a higher weight and a promotion are refused, a lower weight is not.
    """
    exp = experiment("failing")
    exp.shift(25)
    while exp.judge().alarm is None:
        exp.observe(1)
    for rise in (lambda: exp.shift(50), exp.promote):
        with pytest.raises(PlanError, match="error rate"):
            rise()
    assert exp.shift(10) == ck.TrafficSplit(10)


@pytest.mark.parametrize("weight", [-1, 101, float("nan"), "half"])
def test_a_weight_that_is_none_changes_nothing(experiment, weight):
    """
    The split stays as it was.
    """
    exp = experiment()
    exp.shift(5)
    with pytest.raises(PlanError, match="canary weight"):
        exp.shift(weight)
    assert exp.cluster.router.observed() == ck.TrafficSplit(5)


def test_rollback_is_one_idempotent_call(experiment):
    """
    From any state, any number of times: the first ending stays.
    """
    exp = experiment()
    exp.shift(50)
    ending = exp.abort("I changed my mind")
    assert ending.outcome == "rolled back"
    assert "I changed my mind; all traffic was back on stable after" in ending.sentence
    assert exp.abort("again") == ending
    assert len(exp.journal.weights()) == 2
    with pytest.raises(PlanError, match="nothing to promote"):
        exp.promote()


def test_promotion_twice_is_one_promotion(experiment):
    """
    The second call says what the first did.
    """
    exp = experiment()
    exp.shift(50)
    exp.observe("3min")
    assert exp.promote() is exp.promote()
    assert exp.abort("too late").outcome == "promoted"


@pytest.fixture
def interruptible():
    """Python's own answer to SIGINT, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_returns_traffic_to_stable_and_says_so(experiment):
    """
    Ctrl-C in the middle of a rollout.
    """
    exp = experiment("good")
    sleep, naps = exp.cluster.clock.sleep, []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 90:
            os.kill(os.getpid(), signal.SIGINT)
        sleep(seconds)

    exp.cluster.clock.sleep = nap
    ending = exp.run()
    assert ending.outcome == "inconclusive"
    assert "interrupted after" in ending.sentence
    assert "all traffic was back on stable" in ending.sentence
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)
    assert exp.journal.ending == ending


def test_a_full_disk_returns_traffic_to_stable(experiment, tmp_path):
    """
    A journal that cannot be written ends the rollout as failed; what was written can be judged.
    """
    exp = experiment("good", journal=tmp_path / "journal.sqlite")
    for _ in range(30):
        exp.advance()
        exp.cluster.clock.sleep(1)
    pages = exp.journal._db.execute("PRAGMA page_count").fetchone()[0]
    exp.journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="disk full"):
        exp.run()
    assert exp.ending.outcome == "failed"
    assert "all traffic was back on stable" in exp.ending.sentence
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)
    assert ck.Journal.read(tmp_path / "journal.sqlite").weights()[0]["asked"] == 5


def test_a_gateway_that_breaks_is_a_failure(experiment):
    """
    When traffic cannot be returned either, the ending says so.
    """
    exp = experiment("good")
    exp.advance()
    exp.cluster.router.broken = True
    with pytest.raises(RoutingError):
        exp.run()
    assert exp.ending.outcome == "failed"
    assert "could not be returned to stable" in exp.ending.sentence


def test_nothing_works_before_deploy(service):
    """
    Each call says what to do first.
    """
    exp = ck.Experiment(service, SimulatedCluster(), notify=lambda line: None)
    for call in (exp.run, exp.send, exp.advance, exp.observe, exp.abort, exp.promote, lambda: exp.shift(5)):
        with pytest.raises(ClusterError, match=r"call deploy\(\) first"):
            call()
    exp.teardown()


def test_guardrails_have_names_of_their_own(service):
    """
    Two of one name, or none, are refused.
    """
    for guardrails in ([], [ck.metrics.accuracy(), ck.metrics.accuracy(margin=2)]):
        with pytest.raises(PlanError, match="guardrails of different names"):
            ck.Experiment(service, SimulatedCluster(), guardrails=guardrails)


def test_progress_is_told_in_lines(experiment, capsys):
    """
    Steps, weights and the end are told as they happen.
    """
    lines = []
    experiment("good", notify=lines.append).run()
    text = "\n".join(lines)
    for expected in ("both versions ready", "5 % to the canary, in force after 2 ms", "promoted: v2 is stable now"):
        assert expected in text


def test_a_seed_repeats_a_rollout(service):
    """
    The same seed gives the same ending, to the request.
    """
    endings = []
    for _ in range(2):
        exp = ck.Experiment(
            service, SimulatedCluster("wrong", seed=4), guardrails=GUARDRAILS, plan=PLAN, notify=lambda line: None
        )
        exp.deploy()
        exp.send(100)
        endings.append(exp.run())
    assert endings[0] == endings[1]


def test_what_became_of_the_traffic_is_said_as_often_as_one_asks(experiment):
    """
    Also when it has been stopped before, ended by itself, or with the rollout; of several senders, of the last one.
    """
    exp = experiment("good", rate=None)
    assert exp.stop_sending() is None
    exp.send(100)
    exp.observe("5s")
    first = exp.stop_sending()
    assert first.sent > 300
    assert exp.stop_sending() == exp.stop_sending() == first
    exp.send(200, duration=1.0)
    exp.observe("5s")
    second = exp.stop_sending()
    assert 100 < second.sent < 300
    assert exp.stop_sending() == second
    exp.send(100)
    exp.run()
    assert exp.load is None
    ended = exp.stop_sending()
    assert ended.sent > 1000
    assert exp.stop_sending() == ended


def test_scenarios_have_names_and_stories():
    """
    An unknown name says which there are; one's own scenario is as good.
    """
    with pytest.raises(PlanError, match="choose one of good, slow, failing, wrong, stable, same"):
        SimulatedCluster("splendid")
    assert all(scenario.story for scenario in SCENARIOS.values())
    assert SimulatedCluster(Scenario("mine")).scenario.story == "mine"
    assert ck.connect("simulated:slow").scenario == SCENARIOS["slow"]
    with pytest.raises(PlanError, match="no cluster is known"):
        ck.connect("cloud")


def test_the_context_manager_tears_down(service):
    """
    However the block ends.
    """
    with pytest.raises(ZeroDivisionError), ck.Experiment(service, SimulatedCluster(), notify=lambda line: None) as exp:
        exp.deploy()
        _ = 1 / 0
    with pytest.raises(ClusterError, match="deploy"):
        exp.run()


def test_answers_are_counted_by_what_was_said_under_this_weight_only(experiment):
    """
    An answer to a request of an earlier weight is left out; other classes than those of the first traffic are not counted.
    """
    exp = experiment("good")
    exp.shift(50)
    now = exp.cluster.clock.now()
    early = Answer("a", now - 60, 0.01, 0.0, 200, "canary", True, None, 3, 3)
    late = Answer("b", now + 1, 0.01, 0.0, 200, "canary", False, None, 3, 8)
    exp.load.answers = lambda: [early, late]
    exp.poll()
    *_, window = exp.journal.windows()
    assert np.argwhere(window.counts["confusion"]).tolist() == [[1, 3 * 11 + 8]]
    assert exp.history().facts["classes"] == list(range(10))
    exp.send(100, payloads=[{"body": 1, "label": "cat"}, {"body": 2, "label": "dog"}])
    exp.load.answers = lambda: [Answer("c", now + 99, 0.01, 0.0, 200, "canary", True, None, "cat", "cat")]
    exp.poll()
    *_, window = exp.journal.windows()
    assert "confusion" not in window.counts
