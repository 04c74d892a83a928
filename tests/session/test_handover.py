"""Another process goes on with a rollout: it has the same evidence, or says why not, and nobody waits for the writing."""

import json
import threading
from dataclasses import replace

import pytest
from holdings import MemoryHolding

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import ClusterError
from canarykit.history import replay
from canarykit.journal import Journal
from canarykit.routers.base import apply
from canarykit.session.handover import SAVED_EVERY

PLAN = ck.RolloutPlan.of(25, 50, hold="2min", budget="20min")


class Shared(SimulatedCluster):
    """A cluster that outlives its processes: the next one finds the weight, and what was written down."""

    def __init__(self, holding, weight=0.0, **options):
        super().__init__(**options)
        self.holding, self.weight = holding, weight

    def deploy(self, service):
        """Find the canary with its share."""
        super().deploy(service)
        apply(self.router, ck.TrafficSplit(self.weight))


@pytest.fixture
def begun(simulated):
    """An experiment that has had 25 % for a minute and was let go, and what it wrote down."""
    holding = MemoryHolding()
    exp = simulated(cluster=Shared(holding, seed=3), plan=PLAN)
    exp.advance()
    exp.observe("1min")
    exp.close()
    return exp, holding


def gone_on(simulated, holding, **options):
    """An experiment of another process that finds the canary with 25 %, and what it says of that."""
    cluster = Shared(holding, 25.0, seed=4)
    exp = simulated(cluster=cluster, **{"plan": PLAN, **options})
    return exp, next(event["text"] for event in exp.history().events if event["kind"] == "resume")


def evidence(exp):
    """All evidence of an experiment, as text."""
    return json.dumps(exp.snapshot().state.evidence.state())


def test_another_process_has_the_same_evidence(simulated, begun):
    """
    To the last digit; it goes on at the same step, and what it judges is what one process would have judged.
    """
    before, holding = begun
    exp, said = gone_on(simulated, holding)
    counted = sum(before.snapshot().state.judgement.requests)
    assert counted > 1000
    assert said == f"found 25 % on the canary: goes on from there; the evidence goes on, with {counted:,} requests so far"
    assert evidence(exp) == evidence(before)
    assert repr(exp.judge()) == repr(before.judge())  # NaN equals nothing
    assert (exp.snapshot().state.step, exp.snapshot().state.requests) == (0, 0)  # a hold begins anew
    one = before.snapshot().state.evidence
    exp.observe("10s")
    for window in exp.journal.windows():
        one = one.after(window)
    assert json.dumps(one.state()) == evidence(exp)
    assert exp.run().outcome == "promoted"
    assert holding.rollout is None  # nobody goes on with what has ended


def test_the_journal_of_another_process_begins_with_the_evidence(simulated, begun, tmp_path):
    """
    A report of the second half says what the second process knew.
    """
    exp, _ = gone_on(simulated, begun[1], journal=tmp_path / "second.sqlite")
    exp.observe("2min")
    told = exp.history()
    exp.close()
    read = replay(Journal.read(tmp_path / "second.sqlite"))
    assert repr(read.judgement) == repr(told.judgement)
    assert read.requests == told.requests
    assert sum(read.requests) > sum(begun[0].snapshot().state.judgement.requests)


def test_a_process_that_is_killed_loses_some_seconds_at_most(simulated):
    """
    What was written down is the evidence at one moment of the last ten seconds.
    """
    holding = MemoryHolding()
    exp = simulated(cluster=Shared(holding, seed=3), plan=PLAN)
    exp.advance()
    known = {evidence(exp): exp.cluster.clock.now()}
    for _ in range(60):
        exp.observe(1)
        known[evidence(exp)] = exp.cluster.clock.now()
    exp._tracker.handover.finish()
    kept = json.dumps(json.loads(holding.rollout)["evidence"])
    assert exp.cluster.clock.now() - known[kept] <= SAVED_EVERY


def test_an_alarm_is_handed_over(simulated):
    """
    A process that ends between the alarm and the return of the traffic: the next one rolls back at once.
    """
    holding = MemoryHolding()
    exp = simulated("failing", cluster=Shared(holding, scenario="failing", seed=3), plan=PLAN)
    exp.advance()
    while exp.judge().alarm is None:
        exp.observe(1)
    exp.close()
    other, _ = gone_on(simulated, holding)
    with pytest.raises(ck.errors.PlanError, match="has alarmed"):
        other.shift(50)
    assert other.advance().action == "roll back"
    assert other.ending.sentence.startswith(exp.judge().sentence)


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (lambda holding: holding.save_rollout(None), {}, "none was written down about these versions"),
        (
            lambda holding: None,
            {"guardrails": [ck.metrics.error_rate(margin=3)]},
            "what was written down is of other guardrails",
        ),
        (lambda holding: None, {"alpha": 0.01}, "what was written down was judged in another way"),
        (
            lambda holding: setattr(holding, "rollout", "{}"),
            {},
            "the state of the rollout that was written down cannot be",
        ),
    ],
    ids=["nothing", "guardrails", "alpha", "unreadable"],
)
def test_evidence_that_does_not_fit_begins_anew(simulated, begun, change, options, why):
    """
    With the reason; the weight goes on all the same.
    """
    holding = begun[1]
    change(holding)
    exp, said = gone_on(simulated, holding, **options)
    assert said.startswith(f"found 25 % on the canary: goes on from there; the evidence begins anew, because {why}")
    assert sum(exp.snapshot().state.judgement.requests) == 0
    assert exp.snapshot().state.split == ck.TrafficSplit(25)


def test_a_holding_that_cannot_be_read_or_written_stops_nothing(simulated, begun):
    """
    It is said once, and the rollout goes on without.
    """

    class Away(MemoryHolding):
        """An API server that knows the Lease alone."""

        def save_rollout(self, state):
            """Refuse it."""
            raise ClusterError("configmaps is forbidden")

        saved_rollout = lambda self: self.save_rollout(None)  # noqa: E731

    told = []
    exp, said = gone_on(simulated, Away(), notify=told.append)
    assert "the evidence begins anew, because configmaps is forbidden" in said
    exp.observe("1min")
    exp._tracker.handover.finish()
    assert sum("cannot be written down for another process: configmaps is forbidden" in line for line in told) == 1
    assert exp.run().outcome == "promoted"


def test_nobody_waits_for_an_api_server_that_writes_slowly(simulated):
    """
    The weight changes meanwhile, and the newest state alone is written when the server answers.
    """
    going, written = threading.Event(), []

    class Slow(MemoryHolding):
        """An API server that takes as long as it is told to."""

        def save_rollout(self, state):
            """Wait."""
            assert going.wait(10)
            written.append(None if state is None else state["weight"])

    exp = simulated(cluster=Shared(Slow(), seed=3), plan=PLAN)
    for weight in (5, 10, 25):
        exp.shift(weight)
    assert exp.snapshot().state.split == ck.TrafficSplit(25)
    going.set()
    exp._tracker.handover.finish()
    assert written == [5, 25]


def test_what_ends_with_the_process_is_not_written(simulated):
    """
    A local cluster has nobody who could go on.
    """
    exp = simulated(plan=PLAN)
    exp.advance()
    assert exp._tracker.handover._thread is None
    assert replace(exp.snapshot().state, took=0.0).split == ck.TrafficSplit(25)
