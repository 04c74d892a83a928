"""One experiment, several threads: a panel, a rollout in the background, a cell."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

import canarykit as ck
from canarykit.clusters.base import SystemClock
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import CancelledError, ClusterError, PlanError
from canarykit.health import Health

SLOW_LOOKS = ck.RolloutPlan.of(5, 50, hold="1h", interval="1h")


@pytest.fixture
def experiment(service):
    """An experiment on a simulated cluster in real time, with traffic."""
    cluster = SimulatedCluster("good")
    cluster.clock = SystemClock()
    with ck.Experiment(service, cluster, plan=SLOW_LOOKS, notify=lambda line: None) as exp:
        exp.deploy()
        exp.send(1000)
        yield exp


@pytest.mark.parametrize("waiting", ["run", "observe"])
def test_abort_ends_what_waits_in_another_thread(experiment, waiting):
    """
    A rollout or an observation that would wait for an hour is over at once.
    """
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(experiment.run if waiting == "run" else lambda: experiment.observe("1h"))
        while not experiment.snapshot().state.split.canary and waiting == "run":
            time.sleep(0.01)
        start = time.monotonic()
        ending = experiment.abort()
        result = doing.result(10)
        assert time.monotonic() - start < 5  # what remains is the last look after the end
    assert waiting == "observe" or result == ending
    assert experiment.cluster.router.observed() == ck.TrafficSplit(0)


def test_teardown_ends_what_waits_in_another_thread(experiment):
    """
    A plan that is carried out ends undecided.
    """
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(experiment.run)
        while not experiment.snapshot().state.split.canary:
            time.sleep(0.01)
        experiment.teardown()
        assert doing.result(10).outcome == "inconclusive"


def test_close_leaves_a_plan_where_it_was(experiment):
    """
    Nothing is rolled back by letting go; whoever carried out the plan is told.
    """
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(experiment.run)
        while not experiment.snapshot().state.split.canary:
            time.sleep(0.01)
        experiment.close()
        with pytest.raises(ClusterError, match="closed while the plan was carried out"):
            doing.result(10)
    assert experiment.cluster.router.observed() == ck.TrafficSplit(5)


def test_one_plan_at_a_time(experiment):
    """
    A second one is refused, and the first goes on.
    """
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(experiment.run)
        while not experiment.snapshot().running:
            time.sleep(0.01)
        with pytest.raises(PlanError, match="being carried out already"):
            experiment.run()
        assert not doing.done()
        experiment.abort()
        doing.result(10)
    assert not experiment.snapshot().running


def test_nobody_moves_the_weight_by_hand_while_a_plan_is_carried_out(experiment):
    """
    Requests at another weight would count for its step: a shift and a step by hand are refused, abort is not.
    """
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(experiment.run)
        while not experiment.snapshot().state.split.canary:
            time.sleep(0.01)
        for move in (lambda: experiment.shift(10), lambda: experiment.shift(0), experiment.advance):
            with pytest.raises(PlanError, match=r"being carried out.*: wait for it, or abort\(\)"):
                move()
        assert experiment.cluster.router.observed() == ck.TrafficSplit(5)
        experiment.abort()
        assert doing.result(10).outcome == "rolled back"


def test_a_shift_that_warms_up_while_a_plan_begins_is_refused(experiment, monkeypatch):
    """
    It was asked for before, and would come after the plan's first step.
    """
    gate, warming, warm = threading.Event(), threading.Event(), experiment.cluster.ensure_capacity
    monkeypatch.setattr(experiment.cluster, "ensure_capacity", lambda *asked: (warming.set(), gate.wait(20), warm(*asked)))
    with ThreadPoolExecutor(2) as pool:
        shift = pool.submit(experiment.shift, 10)
        assert warming.wait(10)
        monkeypatch.setattr(experiment.cluster, "ensure_capacity", warm)
        doing = pool.submit(experiment.run)
        while not experiment.snapshot().state.split.canary:
            time.sleep(0.01)
        gate.set()
        with pytest.raises(PlanError, match="being carried out"):
            shift.result(10)
        experiment.abort()
        doing.result(10)


@pytest.mark.parametrize("undone", [True, False], ids=["undone", "done by then"])
def test_an_abort_ends_a_promotion(experiment, monkeypatch, undone):
    """
    A snapshot and a look never wait for it, and traffic returns before it is undone; the ending says what became of it.
    """
    gate, promoting = threading.Event(), threading.Event()

    def promote(cancelled):
        promoting.set()
        while not cancelled():
            time.sleep(0.005)
        gate.wait(20)
        if undone:
            raise CancelledError("nobody waits any more")
        return True

    monkeypatch.setattr(experiment.cluster, "promote", promote)
    with ThreadPoolExecutor(2) as pool:
        promotion = pool.submit(experiment.promote)
        assert promoting.wait(10)
        assert experiment.poll().doing == "promoting v2"
        ending = pool.submit(experiment.abort)
        until = time.monotonic() + 10
        while experiment.cluster.router.observed() != ck.TrafficSplit(0):
            assert time.monotonic() < until
        gate.set()
        assert ending.result(10) == experiment.ending
        with pytest.raises(PlanError, match="the promotion was"):
            promotion.result(10)
    said = "stable is v1 as before" if undone else "stable is v2 by now: its replicas had been replaced"
    assert experiment.ending.outcome == ("rolled back" if undone else "failed")
    assert experiment.ending.sentence.startswith("aborted by hand; all traffic was back on stable after")
    assert experiment.ending.sentence.endswith(said)
    assert experiment.snapshot().state.split == ck.TrafficSplit(0)


@pytest.mark.parametrize("harm", ["its pods crash", "it fails"])
def test_the_canary_is_watched_while_stable_is_replaced(simulated, monkeypatch, harm):
    """
    It has all traffic, and nothing to be compared with: its health and the guardrails' own limits end the promotion.
    """
    exp = simulated(plan=ck.RolloutPlan.of(50, hold="1s", budget="10min", interval="50ms"))
    exp.shift(50)

    def promote(cancelled):
        if harm == "it fails":
            exp.cluster._behaviour["canary"] = replace(exp.cluster._behaviour["canary"], errors=0.4)
        else:
            real = exp.cluster.health
            crashes = Health(False, "digits-canary has 0 of 2 pods ready: CrashLoopBackOff", True)
            monkeypatch.setattr(exp.cluster, "health", lambda role: crashes if role == "canary" else real(role))
        until = time.monotonic() + 20
        while not cancelled():
            exp.cluster.clock.sleep(0.5)
            time.sleep(0.01)
            assert time.monotonic() < until
        raise CancelledError("nobody waits any more")

    monkeypatch.setattr(exp.cluster, "promote", promote)
    with pytest.raises(PlanError, match="the promotion was ended: rolled back"):
        exp.promote()
    assert exp.ending.outcome == "rolled back"
    said = "canary: digits-canary has 0 of 2 pods ready" if harm == "its pods crash" else "error rate: "
    assert exp.ending.sentence.startswith(said)
    assert "; stable is v1 as before" in exp.ending.sentence
    assert exp.cluster.router.observed() == exp.snapshot().state.split == ck.TrafficSplit(0)


def test_no_request_is_counted_twice_or_left_out(experiment):
    """
    Looks from eight threads while the weight moves: the journal and the judge have seen the same requests, each once.
    """
    stop = threading.Event()

    def look():
        while not stop.is_set():
            experiment.poll()

    with ThreadPoolExecutor(8) as pool:
        looking = [pool.submit(look) for _ in range(8)]
        for weight in (5, 25, 50, 10, 80):
            experiment.shift(weight)
            time.sleep(0.2)
        stop.set()
        for each in looking:
            each.result(10)
    windows = list(experiment.journal.windows())
    counted = [sum(window.requests[role] for window in windows) for role in (0, 1)]
    assert sum(counted) == experiment.load.sent
    assert all(earlier.end <= later.start for earlier, later in itertools.pairwise(windows))
    replayed = experiment.history().judgement
    assert [v.comparison.requests for v in replayed.verdicts] == [v.comparison.requests for v in experiment.judge().verdicts]
    assert [change["asked"] for change in experiment.journal.weights()] == [5, 25, 50, 10, 80]


def test_quiet_is_for_one_thread(service):
    """
    What a panel does is not printed; what a cell does meanwhile still is.
    """
    told = []
    exp = ck.Experiment(service, SimulatedCluster(), notify=told.append)
    exp.deploy()
    with exp.quietly():
        exp.shift(5)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(exp.shift, 10).result(10)
    assert "10 % to the canary" in told[-1]
    assert not any(line.endswith("s  5 % to the canary, in force after 2 ms") for line in told)
    assert exp.snapshot().said.startswith("10 % to the canary")
    exp.teardown()
