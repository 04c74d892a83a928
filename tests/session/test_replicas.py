"""How the replicas of both versions are: told once, acted on when it lasts, and named before anything else is blamed."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import canarykit as ck
from canarykit.errors import ClusterError
from canarykit.health import Health

PLAN = ck.RolloutPlan.of(5, 25, 50, hold="60s", budget="10min")
GONE = Health(False, "ai-canary has 0 of 2 pods ready: its Deployment was deleted", True)
SHORT = Health(True, "ai-canary has 1 of 2 pods ready: pod x finds no node")
NOT_NOW = Health(False, "ai-canary has 0 of 2 pods ready: pod x was deleted, and what replaces it is not ready yet")
STABLE_GONE = Health(False, "ai-stable has 0 of 3 pods ready: it was scaled to 0 by kubectl", True)


@pytest.fixture
def experiment(simulated):
    """An experiment on a simulated cluster, with traffic, at its first weight; its replicas are as a test says."""
    exp = simulated(plan=PLAN)
    exp.advance()
    exp.ill = {}
    exp.cluster.health = lambda role: exp.ill.get(role, Health())
    return exp


def problems(exp):
    """What was told as a problem."""
    return [event["text"] for event in exp.history().events if event["kind"] == "problem"]


def test_a_canary_that_is_gone_ends_the_plan_at_the_next_look(experiment):
    """
    With the cause, and traffic back on stable.
    """
    experiment.ill["canary"] = GONE
    decision = experiment.advance()
    assert (decision.action, decision.reason) == ("roll back", f"canary: {GONE.problem}")
    assert experiment.cluster.router.observed() == ck.TrafficSplit(0)
    assert GONE.problem in experiment.ending.sentence


def test_a_gap_that_is_short_ends_nothing(experiment):
    """
    A pod that is replaced is not there for a moment: one look later it is, or traffic returns.
    """
    experiment.ill["canary"] = NOT_NOW
    assert experiment.advance().action == "hold"
    experiment.ill.clear()
    experiment.cluster.clock.sleep(5)
    assert experiment.advance().action == "hold"
    experiment.ill["canary"] = NOT_NOW
    assert experiment.advance().action == "hold"
    experiment.cluster.clock.sleep(1)
    assert experiment.advance().action == "roll back"


def test_a_weight_does_not_rise_in_a_gap(experiment):
    """
    Whatever the counts say: what is not there at this moment gets no more.
    """
    for _ in range(100):
        experiment.cluster.clock.sleep(1)
        experiment.poll()
    experiment.ill["canary"] = NOT_NOW
    decision = experiment.advance()
    assert (decision.action, decision.reason) == ("hold", f"canary: {NOT_NOW.problem}")
    experiment.ill.clear()
    assert experiment.advance().action == "advance"


def test_what_lacks_a_replica_is_told_once_and_goes_on(experiment):
    """
    One of two serves: that is said when it lasts, and that it is over.
    """
    experiment.ill["canary"] = SHORT
    for _ in range(4):
        experiment.cluster.clock.sleep(1)
        assert experiment.advance().action == "hold"
    assert problems(experiment) == [f"canary: {SHORT.problem}"]
    experiment.ill.clear()
    experiment.poll()
    assert experiment.snapshot().said == "canary has all its replicas ready again"


def test_what_was_wrong_explains_a_split_that_is_not_served(experiment):
    """
    The router is not blamed for requests that a version could not get, also when it is well again.
    """
    experiment.ill["canary"] = SHORT
    for _ in range(2):
        experiment.cluster.clock.sleep(1)
        experiment.poll()
    experiment.ill.clear()
    check = experiment._tracker.assessment.split_check
    check.alarm, check._fact = "check the router", "the gateway gave the canary 1 request"
    assert experiment.doubt.startswith(f"canary: {SHORT.problem}. Meanwhile the gateway gave the canary 1 request")
    experiment.poll()
    experiment.shift(0)
    assert experiment.doubt == "check the router"


def test_windows_in_which_a_version_had_nothing_are_no_evidence_about_the_router(experiment, monkeypatch):
    """
    Nor the one in which it came back.
    """
    seen = []
    check = experiment._tracker.assessment.split_check
    monkeypatch.setattr(check, "update", lambda window, *times: seen.append(window.end))
    experiment.cluster.clock.sleep(1)
    experiment.poll()
    assert len(seen) == 1
    experiment.ill["stable"] = NOT_NOW
    experiment.cluster.clock.sleep(0.5)
    experiment.poll()
    experiment.ill.clear()
    experiment.cluster.clock.sleep(0.5)
    experiment.poll()
    assert len(seen) == 1
    experiment.cluster.clock.sleep(1)
    experiment.poll()
    assert len(seen) == 2


# Stable -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(experiment, monkeypatch):
    """Splits and versions that were warmed up, in order; stable is well again when it was."""
    done = []
    warm, write = experiment.cluster.ensure_capacity, experiment.cluster.router.write

    def warmed(role, share):
        done.append((role, share))
        if role == "stable":
            experiment.ill.pop("stable", None)
        warm(role, share)

    monkeypatch.setattr(experiment.cluster, "ensure_capacity", warmed)

    def written(split, **how):
        done.append(split.canary)
        return write(split, **how)

    monkeypatch.setattr(experiment.cluster.router, "write", written)
    return done


def test_a_stable_that_is_gone_is_brought_back_behind_the_canary(experiment, weights):
    """
    The canary has everything meanwhile; then all returns, and the rollout ends without a verdict, with the cause.
    """
    experiment.ill["stable"] = STABLE_GONE
    assert experiment.advance().action == "restore"
    assert weights[:3] == [("canary", 0.05), 100, ("stable", 1.0)]
    assert weights[-1] == 0
    assert experiment.ending.outcome == "inconclusive"
    said = experiment.ending.sentence
    assert said.startswith(f"stable: {STABLE_GONE.problem}; stable serves again, and the canary had all traffic meanwhile")


def test_a_stable_that_does_not_come_back_leaves_traffic_where_it_is_answered(experiment, monkeypatch):
    """
    On the canary, until somebody aborts: the ending says so.
    """
    experiment.ill["stable"] = STABLE_GONE
    real = experiment.cluster.ensure_capacity

    def ensure_capacity(role, share):
        if role == "stable":
            raise ClusterError("ai-stable has 0 of 3 pods ready after 60 s")
        real(role, share)

    monkeypatch.setattr(experiment.cluster, "ensure_capacity", ensure_capacity)
    experiment.advance()
    assert experiment.cluster.router.observed() == ck.TrafficSplit(100)
    assert experiment.ending.outcome == "failed"
    assert "the canary has all traffic until abort() returns it" in experiment.ending.sentence
    experiment.abort()
    assert experiment.cluster.router.observed() == ck.TrafficSplit(0)


@pytest.mark.parametrize("reason", ["ill", "suspected", "no traffic yet"])
def test_a_canary_that_something_speaks_against_does_not_stand_in(experiment, weights, monkeypatch, reason):
    """
    Nor one that has had no traffic.
    """
    if reason == "ill":
        experiment.ill["canary"] = Health(False, "ai-canary has 0 of 2 pods ready")
    elif reason == "suspected":
        judged = experiment.judge()
        monkeypatch.setattr(type(judged), "suspects", property(lambda self: [object()]))
    else:
        experiment._control.apply(ck.TrafficSplit(0), None)
        weights.clear()
    experiment.ill["stable"] = STABLE_GONE
    experiment.advance()
    assert 100 not in weights
    assert experiment.ending.outcome == "inconclusive"
    assert "stable serves again" in experiment.ending.sentence


def test_a_canary_that_cannot_stand_in_is_told(experiment, weights, monkeypatch):
    """
    The gateway refuses it: stable is brought back all the same.
    """
    write = experiment.cluster.router.write

    def refuse(split, **how):
        if split.canary == 100:
            raise ck.errors.RoutingError("the gateway does not serve it")
        return write(split, **how)

    monkeypatch.setattr(experiment.cluster.router, "write", refuse)
    experiment.ill["stable"] = STABLE_GONE
    experiment.advance()
    assert any("could not stand in for stable: the gateway does not serve it" in text for text in problems(experiment))
    assert experiment.ending.outcome == "inconclusive"


def test_a_canary_that_somebody_else_conducts_does_not_stand_in(experiment, weights, monkeypatch):
    """
    Its weight rises no more than by a plan: that is asked after it has warmed up, and stable is brought back all the same.
    """

    def taken_over():
        weights.append("held")
        raise ClusterError("elsewhere-1-abc has taken over the rollout")

    monkeypatch.setattr(experiment.cluster.holding, "check", taken_over)
    experiment.ill["stable"] = STABLE_GONE
    experiment.advance()
    assert weights[:3] == [("canary", 0.05), "held", ("stable", 1.0)]
    assert 100 not in weights
    assert any("could not stand in for stable: elsewhere-1-abc has taken over" in text for text in problems(experiment))
    assert experiment.ending.outcome == "inconclusive"


# Waiting for stable, and what comes in between -------------------------------------------------------------------------


class Held:
    """Has the warming up of one version last until it is let go on."""

    def __init__(self, cluster, monkeypatch, held):
        self.begun, self.go_on, self.asked = threading.Event(), threading.Event(), []
        warm = cluster.ensure_capacity

        def slowly(role, share):
            self.asked.append((role, share))
            if role == held and not self.begun.is_set():
                self.begun.set()
                assert self.go_on.wait(60)
            warm(role, share)

        monkeypatch.setattr(cluster, "ensure_capacity", slowly)


def test_stable_is_waited_for_once(experiment, weights):
    """
    What has just come back is not asked for again before traffic returns to it.
    """
    experiment.ill["stable"] = STABLE_GONE
    experiment.advance()
    assert weights == [("canary", 0.05), 100, ("stable", 1.0), 0]


@pytest.mark.parametrize("held", ["canary", "stable"])
def test_an_abort_does_not_wait_for_what_warms_up(experiment, monkeypatch, held):
    """
    Neither for the canary that is to stand in, nor for all of stable's replicas when one of them can answer.
    """
    experiment.ill["stable"] = STABLE_GONE
    warming = Held(experiment.cluster, monkeypatch, held)
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(experiment.advance)
        try:
            assert warming.begun.wait(10)
            experiment.ill["stable"] = Health(True, "ai-stable has 1 of 3 pods ready")
            ending = pool.submit(experiment.abort).result(10)
            assert not step.done()
            assert experiment.cluster.router.observed() == ck.TrafficSplit(0)
        finally:
            warming.go_on.set()
        assert step.result(10).action == "hold"
    assert (ending.outcome, experiment.ending) == ("rolled back", ending)
    assert experiment.cluster.router.observed() == ck.TrafficSplit(0)
    assert [event["kind"] for event in experiment.history().events].count("restore") == (held == "stable")


def test_an_abort_does_not_keep_traffic_on_a_canary_that_does_not_stand_in(experiment, monkeypatch):
    """
    Stable, which serves nothing yet, is being brought back: the canary's share returns to it at once, and that is told.
    """
    experiment.ill |= {"stable": STABLE_GONE, "canary": Health(False, "ai-canary has 0 of 2 pods ready")}
    warming = Held(experiment.cluster, monkeypatch, "stable")
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(experiment.advance)
        try:
            assert warming.begun.wait(10)
            assert pool.submit(experiment.abort).result(10).outcome == "rolled back"
        finally:
            warming.go_on.set()
        step.result(10)
    assert warming.asked == [("stable", 1.0)]
    assert any(f"although it is in trouble: {STABLE_GONE.problem}" in text for text in problems(experiment))


def test_an_abort_waits_for_one_replica_of_stable_when_the_canary_serves_everything(experiment, monkeypatch):
    """
    Until then the requests would be lost; all replicas are not waited for.
    """
    experiment.ill["stable"] = STABLE_GONE
    warming = Held(experiment.cluster, monkeypatch, "stable")
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(experiment.advance)
        try:
            assert warming.begun.wait(10)
            pool.submit(experiment.abort).result(10)
        finally:
            warming.go_on.set()
        step.result(10)
    assert warming.asked == [("canary", 0.05), ("stable", 1.0), ("stable", 0.0)]


@pytest.mark.parametrize("held", ["canary", "stable"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_wait_for_what_warms_up(experiment, monkeypatch, held, name):
    """
    Traffic returns to stable, and the rollout ends by the signal and not by what it waited for.
    """
    experiment.ill["stable"] = STABLE_GONE
    waited, warm = [], experiment.cluster.ensure_capacity

    def told(role, share):
        if role == held and not waited:
            waited.append("begun")
            signal.raise_signal(getattr(signal, name))
            waited.append("to the end")
        warm(role, share)

    monkeypatch.setattr(experiment.cluster, "ensure_capacity", told)
    if name == "SIGINT":
        experiment.run()
    else:
        with pytest.raises(SystemExit):
            experiment.run()
    assert waited == ["begun"]
    assert experiment.cluster.router.observed() == ck.TrafficSplit(0)
    assert experiment.ending.sentence.startswith("interrupted after" if name == "SIGINT" else "ended by SIGTERM after")


def test_a_weight_that_someone_gives_while_stable_comes_back_is_decided_on_anew(experiment, monkeypatch):
    """
    The restoration goes no further over it.
    """
    experiment.ill["stable"] = STABLE_GONE
    warming = Held(experiment.cluster, monkeypatch, "stable")
    with ThreadPoolExecutor(2) as pool:
        step = pool.submit(experiment.advance)
        try:
            assert warming.begun.wait(10)
            experiment.ill.clear()
            assert pool.submit(experiment.shift, 0).result(10) == ck.TrafficSplit(0)
        finally:
            warming.go_on.set()
        assert step.result(10).action != "restore"
    assert experiment.ending is None
