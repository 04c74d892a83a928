"""One experiment, several threads: a panel, a rollout in the background, a cell."""

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import canarykit as ck
from canarykit.clusters.base import SystemClock
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.errors import ClusterError, PlanError

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
        while not experiment.snapshot().standing.split.canary and waiting == "run":
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
        while not experiment.snapshot().standing.split.canary:
            time.sleep(0.01)
        experiment.teardown()
        assert doing.result(10).outcome == "inconclusive"


def test_close_leaves_a_plan_where_it_was(experiment):
    """
    Nothing is rolled back by letting go; whoever carried out the plan is told.
    """
    with ThreadPoolExecutor(1) as pool:
        doing = pool.submit(experiment.run)
        while not experiment.snapshot().standing.split.canary:
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
        while not experiment.snapshot().standing.split.canary:
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
        while not experiment.snapshot().standing.split.canary:
            time.sleep(0.01)
        gate.set()
        with pytest.raises(PlanError, match="being carried out"):
            shift.result(10)
        experiment.abort()
        doing.result(10)


def test_a_promotion_that_has_begun_is_finished(experiment, monkeypatch):
    """
    A snapshot and a look never wait for it; an abort does, and finds it promoted.
    """
    gate, promoting = threading.Event(), threading.Event()
    monkeypatch.setattr(experiment.cluster, "promote", lambda: (promoting.set(), gate.wait(20)))
    with ThreadPoolExecutor(2) as pool:
        promotion = pool.submit(experiment.promote)
        assert promoting.wait(10)
        assert experiment.poll().doing == "promoting v2"
        late = pool.submit(experiment.abort)
        time.sleep(0.1)
        assert not late.done()
        gate.set()
        assert promotion.result(10) == late.result(10)
    assert experiment.ending.outcome == "promoted"


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
