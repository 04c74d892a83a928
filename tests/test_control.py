"""Changes of weight and promotions in which something comes in between, or goes wrong half way."""

import threading
import time
from functools import partial

import pytest
from holdings import MemoryHolding

import canarykit as ck
from canarykit.errors import ClusterError, EditedError, JournalError, PlanError, RoutingError, TelemetryError, UnrestoredError
from canarykit.routers.base import Capabilities

PLAN = ck.RolloutPlan.of(5, 25, 50, hold="10s", budget="10min")


@pytest.fixture
def experiment(simulated):
    """Make an experiment on a simulated cluster, with traffic."""
    return partial(simulated, plan=PLAN)


def failing(error):
    """A function that only raises."""

    def fail(*values, **options):
        raise error

    return fail


def written_and_refused(router, refused):
    """Make a router write every split, and then raise for some: its gateway does not confirm them."""
    confirm = router.confirm

    def unconfirmed(change, **options):
        if change.split.canary in refused:
            raise RoutingError(f"the gateway was not seen to serve {change.split}")
        return confirm(change, **options)

    router.confirm = unconfirmed


def alarm_while_warming(exp):
    """Have the canary fail, and someone look, while it is asked whether it is ready."""
    warm = exp.cluster.ensure_capacity

    def slowly(role, share):
        exp.cluster.inject("failing")
        while exp.judge().alarm is None:
            exp.cluster.clock.sleep(1)
            exp.poll()
        warm(role, share)

    exp.cluster.ensure_capacity = slowly


@pytest.mark.parametrize("rise", [lambda exp: exp.shift(50), lambda exp: exp.promote()], ids=["shift", "promote"])
def test_an_alarm_that_comes_while_the_canary_warms_up_stops_the_rise(experiment, rise):
    """
    Another thread's look found it: nothing is given.
    """
    exp = experiment()
    exp.shift(25)
    alarm_while_warming(exp)
    with pytest.raises(PlanError, match="error rate"):
        rise(exp)
    assert exp.cluster.router.observed() == ck.TrafficSplit(25)
    assert exp.ending is None


def test_a_plan_decides_anew_when_an_alarm_came_meanwhile(experiment):
    """
    It rolls back, from the weight that it had.
    """
    exp = experiment()
    exp.advance()
    alarm_while_warming(exp)
    assert exp.run().outcome == "rolled back"
    assert [change["asked"] for change in exp.journal.weights()] == [5, 0]


def test_each_version_is_ready_for_what_it_gets(experiment, monkeypatch):
    """
    The canary for all that it is to carry, stable for what returns to it: what it serves already needs no more pods.
    """
    exp = experiment()
    asked, warm = [], exp.cluster.ensure_capacity
    monkeypatch.setattr(exp.cluster, "ensure_capacity", lambda role, share: (asked.append((role, share)), warm(role, share)))
    for weight in (25, 100, 60):
        exp.shift(weight)
    exp.abort()
    assert asked == [("canary", 0.25), ("canary", 1.0), ("stable", 0.4), ("stable", 0.6)]


def refused(*values):
    """Nothing may rise."""
    raise ClusterError("elsewhere-1-abc has taken over the rollout")


@pytest.mark.parametrize("rise", ["shift", "promote", "run", "advance"])
def test_nothing_rises_where_somebody_else_conducts(experiment, monkeypatch, rise):
    """
    That is asked before the weight is written, after the canary has warmed up; traffic returns all the same.
    """
    exp = experiment()
    exp.shift(5)
    asked = []
    monkeypatch.setattr(exp.cluster, "ensure_capacity", lambda role, share: asked.append(role))
    monkeypatch.setattr(exp.cluster.holding, "check", lambda: asked.append("held") or refused())
    with pytest.raises(ClusterError, match="has taken over"):
        {
            "shift": lambda: exp.shift(25),
            "promote": exp.promote,
            "run": lambda: exp.run(ck.RolloutPlan.of(10, 50)),
            "advance": lambda: [(exp.observe(1), exp.advance()) for _ in range(300)],
        }[rise]()
    assert asked[:2] == ["canary", "held"]
    assert exp.cluster.router.observed() == ck.TrafficSplit(0 if rise == "run" else 5)
    if rise != "run":
        exp.shift(2)
        exp.abort()
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


@pytest.mark.parametrize("weight", [10, 0])
def test_a_fall_asks_neither_canary_nor_anybody_else(experiment, monkeypatch, weight):
    """
    A canary that does not answer, a lease that is lost, a route that cannot be read: it may get less.
    """
    exp = experiment()
    exp.shift(25)
    monkeypatch.setattr(exp.cluster, "ensure_capacity", refused)
    monkeypatch.setattr(exp.cluster.holding, "check", refused)
    assert exp.shift(weight) == ck.TrafficSplit(weight)
    exp._tracker.gateway.in_place = None
    assert exp.shift(0) == ck.TrafficSplit(0)


def test_stable_is_ready_for_all_that_someone_else_gave_to_the_canary(experiment, monkeypatch):
    """
    What returns is what was read last, when that is more than what was asked for.
    """
    exp = experiment()
    exp.shift(25)
    exp.cluster.router.split = ck.TrafficSplit(77)
    exp.poll()
    asked = []
    monkeypatch.setattr(exp.cluster, "ensure_capacity", lambda role, share: asked.append((role, share)))
    exp.abort()
    assert asked == [("stable", 0.77)]


def test_a_promotion_looks_first(experiment):
    """
    Ten minutes in which nobody looked, and the canary failed.
    """
    exp = experiment("failing")
    exp.shift(50)
    exp.cluster.clock.sleep(600)
    with pytest.raises(PlanError, match="nothing to promote: the canary's error rate"):
        exp.promote()
    assert exp.cluster.router.observed() == ck.TrafficSplit(50)


@pytest.mark.parametrize("ask", [lambda exp: exp.promote(), lambda exp: exp.advance(), lambda exp: exp.run(PLAN)])
def test_what_no_promotion_reaches_is_refused_before_anything_moves(experiment, monkeypatch, ask):
    """
    The weight is still moved by hand, and returned.
    """
    exp = experiment()
    exp.shift(25)
    monkeypatch.setattr(exp.cluster.router, "capabilities", Capabilities(promoted_by="promote it yourself"))
    with pytest.raises(PlanError, match="promote it yourself"):
        ask(exp)
    assert (exp.cluster.router.observed(), exp.ending) == (ck.TrafficSplit(25), None)
    exp.shift(100)
    assert exp.abort("enough").outcome == "rolled back"


@pytest.mark.parametrize(("plan", "steps"), [((10, 25, 50), [50]), ((10, 50), [10, 50])])
def test_another_plan_goes_on_from_a_weight_that_was_found_too(experiment, plan, steps):
    """
    At its own step of that weight; a plan that has none begins.
    """
    exp = experiment()
    exp.cluster.router.split = ck.TrafficSplit(25)
    exp._control.resume(ck.TrafficSplit(25))
    assert exp.run(ck.RolloutPlan.of(*plan, hold="10s", budget="10min")).outcome == "promoted"
    assert [change["asked"] for change in exp.journal.weights()][1:] == [*steps, 100, 0]


def test_a_plan_begins_anew_from_a_weight_that_was_given_by_hand(experiment):
    """
    Nobody was told that it would go on from there.
    """
    exp = experiment()
    exp.cluster.router.split = ck.TrafficSplit(25)
    exp._control.resume(ck.TrafficSplit(25))
    exp.shift(50)
    exp.shift(25)
    exp.run(ck.RolloutPlan.of(10, 25, hold="10s", budget="10min"))
    assert [change["asked"] for change in exp.journal.weights()][3:5] == [10, 25]


class Fair:
    """A lock that the main thread, whenever it lets it go, leaves to the others for a while."""

    def __init__(self):
        self._lock = threading.RLock()
        self.acquire = self._lock.acquire

    def release(self):
        self._lock.release()
        if threading.current_thread() is threading.main_thread():
            time.sleep(0.1)

    def __enter__(self):
        self._lock.acquire()

    def __exit__(self, *error):
        self.release()


def test_nobody_gives_stable_traffic_while_it_is_replaced(experiment):
    """
    A weight that another thread asks for between the canary's 100 % and the replacement comes too late.
    """
    exp = experiment()
    exp.shift(50)
    exp._lifecycle.lock = Fair()
    confirm, replaced = exp.cluster.router.confirm, exp.cluster.promote
    found, refused = [], []

    def meddle():
        try:
            exp.shift(5)
        except PlanError as error:
            refused.append(error)

    meddler = threading.Thread(target=meddle)

    def watched(change, **options):
        if change.split.canary == 100:
            meddler.start()
            time.sleep(0.1)
        return confirm(change, **options)

    exp.cluster.router.confirm = watched
    exp.cluster.promote = lambda cancelled: (time.sleep(0.1), found.append(exp.cluster.router.split.canary), replaced())
    assert exp.promote().outcome == "promoted"
    meddler.join(10)
    assert found == [100]
    assert "the rollout has ended meanwhile" in str(refused[0])


def test_a_weight_that_is_not_confirmed_is_taken_back(experiment):
    """
    What was in force is written again, and said; what was counted meanwhile is left out.
    """
    exp = experiment()
    exp.shift(5)
    exp.poll()
    exp.cluster.clock.sleep(PLAN.interval / 2)
    written_and_refused(exp.cluster.router, {50})
    with pytest.raises(RoutingError, match=r"not seen to serve 50 %; 5 %, which was in force, is written again") as caught:
        exp.shift(50)
    assert isinstance(caught.value.__cause__, RoutingError)
    assert exp.cluster.router.observed() == exp.snapshot().state.split == ck.TrafficSplit(5)
    exp.poll()
    exp.cluster.clock.sleep(5)
    exp.poll()
    assert [window.end - window.start for window in exp.journal.windows() if any(window.requests)] == [pytest.approx(5)]


@pytest.mark.parametrize("less", [5, 0])
def test_a_weight_that_is_less_is_never_taken_back(experiment, less):
    """
    Who takes traffic from the canary does not get it back because the gateway was slow to follow: it is counted as written.
    """
    exp = experiment()
    exp.shift(50)
    written_and_refused(exp.cluster.router, {less})
    with pytest.raises(
        RoutingError, match=rf"not seen to serve {less} %; {less} % is written, and stays: it is less than the 50 %"
    ):
        exp.shift(less)
    assert exp.cluster.router.observed() == exp.snapshot().state.split == ck.TrafficSplit(less)
    assert exp.journal.weights()[-1]["asked"] == less


@pytest.mark.parametrize("lower", [None, 10])
def test_a_weight_that_can_neither_be_confirmed_nor_taken_back_is_named(experiment, lower):
    """
    The message says what is written; the plan finds that it is not what it was told, and by hand it can be replaced.
    """
    exp = experiment()
    exp.shift(5)
    router = exp.cluster.router
    write, confirm, refuse = router.write, router.confirm, failing(RoutingError("the gateway is away"))

    def half(change, **options):
        router.write = refuse
        raise RoutingError("the gateway is gone")

    router.confirm = half
    with pytest.raises(RoutingError, match=r"is gone; 50 % is written now, and 5 %, .* could not be put back: .* away"):
        exp.shift(50)
    router.write, router.confirm = write, confirm
    if lower:
        assert exp.shift(lower) == ck.TrafficSplit(lower)
        return
    decision = exp.advance()
    assert decision.outcome == "inconclusive"
    assert "serves 50 % to the canary, not the 5 %" in decision.reason


def test_an_error_that_nobody_foresaw_takes_the_weight_back_too(experiment):
    """
    It stays the error that it is, with a note.
    """
    exp = experiment()
    exp.shift(5)
    exp.cluster.router.confirm = lambda change, cancelled: 1 / (change.split.canary - 50)
    with pytest.raises(ZeroDivisionError) as caught:
        exp.shift(50)
    assert caught.value.__notes__ == ["5 %, which was in force, is written again"]
    assert exp.cluster.router.observed() == ck.TrafficSplit(5)


def test_a_weight_given_by_hand_counts_for_no_step(experiment):
    """
    After a shift to 0 % at the last step nothing is promoted: the plan stands before its first step again.
    """
    exp = experiment()
    while exp.snapshot().state.step < 2:
        exp.advance()
        exp.cluster.clock.sleep(1)
    while exp.judge().status != "pass":
        exp.observe(1)
    exp.shift(0)
    exp.cluster.clock.sleep(60)
    decision = exp.advance()
    assert (decision.action, decision.weight) == ("advance", 5)
    exp.shift(30)
    exp.observe("30s")
    decision = exp.advance()
    assert (decision.action, decision.weight) == ("advance", 5)


def problems(exp):
    """What the record has of them."""
    return [event["text"] for event in exp.journal.events() if event["kind"] == "problem"]


def test_a_look_tells_once_that_someone_else_changed_the_split(experiment):
    """
    To whoever moves the weight by hand, too; another edit is news again.
    """
    exp = experiment()
    exp.shift(5)
    for edit in (77, 77, 60):
        exp.cluster.router.split = ck.TrafficSplit(edit)
        exp.cluster.clock.sleep(1)
        exp.poll()
        assert f"serves {edit} % to the canary, not the 5 %" in exp.doubt
    assert [text.split(" to ")[0] for text in problems(exp)] == ["the gateway serves 77 %", "the gateway serves 60 %"]
    assert exp.snapshot().said == problems(exp)[-1]
    exp.cluster.router.split = ck.TrafficSplit(5)
    exp.observe("1s")
    assert exp.doubt is None


def test_a_route_that_cannot_be_read_is_told_too(experiment, monkeypatch):
    """
    Someone left it in disorder.
    """
    exp = experiment()
    exp.shift(5)
    monkeypatch.setattr(exp.cluster.router, "observed", failing(RoutingError("its rules disagree")))
    exp.poll()
    assert exp.doubt == "the split cannot be read back: its rules disagree"


@pytest.mark.parametrize("idle", [PLAN.interval / 2, 60])
def test_a_change_of_weight_does_not_hide_that_someone_else_changes_it(experiment, idle):
    """
    Who finds out by it is refused; asked for again, it is done. 0 % is never refused.
    """
    exp = experiment()
    exp.shift(5)
    exp.cluster.clock.sleep(idle)
    exp.cluster.router.split = ck.TrafficSplit(77)
    with pytest.raises(RoutingError, match=r"serves 77 %.*nothing was changed: ask again"):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(77)
    exp.cluster.router.split = ck.TrafficSplit(60)
    with pytest.raises(RoutingError, match=r"serves 60 %.*nothing was changed: ask again"):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(60)
    assert exp.shift(25) == ck.TrafficSplit(25)
    assert exp.doubt is None
    exp.cluster.clock.sleep(idle)
    exp.cluster.router.split = ck.TrafficSplit(77)
    assert exp.shift(0) == ck.TrafficSplit(0)
    assert len(problems(exp)) == (3 if idle > PLAN.interval else 2)  # nothing is read before all traffic returns


def test_a_promotion_does_not_hide_that_someone_else_changes_the_split(experiment):
    """
    Nothing is promoted until that is asked for again.
    """
    exp = experiment()
    exp.shift(25)
    exp.cluster.clock.sleep(60)
    exp.cluster.router.split = ck.TrafficSplit(77)
    with pytest.raises(RoutingError, match=r"serves 77 %.*nothing was changed: ask again to have it all the same"):
        exp.promote()
    assert exp.cluster.router.observed() == ck.TrafficSplit(77)
    assert exp.promote().outcome == "promoted"


def meddle_while_warming(exp, *, look):
    """Have someone else change the split at 5 %, and perhaps someone look, while the canary is asked whether it is ready."""
    warm = exp.cluster.ensure_capacity

    def meddled(role, share):
        warm(role, share)
        if exp.snapshot().state.split.canary == 5 and not exp.doubt and exp.ending is None:
            exp.cluster.router.split = ck.TrafficSplit(77)
            if look:
                exp.poll()

    exp.cluster.ensure_capacity = meddled


@pytest.mark.parametrize("look", [False, True])
def test_a_change_of_weight_is_of_what_was_known_when_it_was_asked_for(experiment, look):
    """
    Somebody else's look between the question and the write tells it to them, not to who asked.
    """
    exp = experiment()
    exp.shift(5)
    meddle_while_warming(exp, look=look)
    with pytest.raises(EditedError, match="serves 77 %"):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(77)
    assert exp.shift(25) == ck.TrafficSplit(25)


def test_an_edit_stays_whatever_can_be_written_down(experiment, monkeypatch):
    """
    The journal is full: the error is another one, and the split still someone else's.
    """
    exp = experiment()
    exp.shift(5)
    exp.cluster.router.split = ck.TrafficSplit(77)
    monkeypatch.setattr(exp.journal, "add_event", failing(JournalError("disk full")))
    with pytest.raises(JournalError):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(77)


def test_an_edit_that_was_told_stays_when_the_change_fails(experiment, monkeypatch):
    """
    Nothing was written, so there is nothing to take back.
    """
    exp = experiment()
    exp.shift(5)
    exp.cluster.router.split = ck.TrafficSplit(77)
    exp.poll()
    real = exp.cluster.router.write
    exp.cluster.router.write = failing(RoutingError("too fine"))
    with pytest.raises(RoutingError, match=r"^too fine$"):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(77)
    exp.cluster.router.write = real
    assert exp.shift(25) == ck.TrafficSplit(25)


def test_what_someone_else_wrote_while_a_change_failed_is_named(experiment):
    """
    The canary gets what it had; whoever wrote the other weight can read where it went.
    """
    exp = experiment()
    exp.shift(5)
    confirm = exp.cluster.router.confirm

    def meddled(change, **options):
        if change.split.canary == 25:
            exp.cluster.router.split = ck.TrafficSplit(77)
            raise RoutingError("not seen")
        return confirm(change, **options)

    exp.cluster.router.confirm = meddled
    with pytest.raises(RoutingError, match="not seen; 5 %, which was in force, is written again, over 77 %"):
        exp.shift(25)
    assert exp.cluster.router.observed() == ck.TrafficSplit(5)
    assert exp.shift(10) == ck.TrafficSplit(10)


def test_rules_in_disorder_are_replaced_by_who_was_told_of_them(experiment, monkeypatch):
    """
    Not when they are in order by now: then that is told first.
    """
    exp = experiment()
    exp.shift(5)
    router = exp.cluster.router
    real_write, real_observed = router.write, router.observed

    def disordered(split, *, expected=None):
        if expected is not None:
            raise EditedError("the gateway was told no split")
        router.observed, router.write = real_observed, real_write
        return real_write(split)

    router.observed, router.write = failing(RoutingError("its rules disagree")), disordered
    with pytest.raises(EditedError, match="cannot be read back: its rules disagree; nothing was changed"):
        exp.shift(25)
    router.observed, router.write, router.split = real_observed, real_write, ck.TrafficSplit(60)
    with pytest.raises(EditedError, match="serves 60 %"):
        exp.shift(25)
    router.observed, router.write = failing(RoutingError("its rules disagree")), disordered
    exp.poll()
    assert exp.shift(25) == ck.TrafficSplit(25)
    assert exp.shift(50) == ck.TrafficSplit(50)


@pytest.mark.parametrize("look", [False, True])
def test_a_plan_stops_when_someone_changes_the_split_between_its_look_and_its_step(experiment, look):
    """
    The canary is asked whether it is ready meanwhile: traffic returns, whether the write finds it or someone's look.
    """
    exp = experiment()
    meddle_while_warming(exp, look=look)
    ending = exp.run()
    assert ending.outcome == "inconclusive"
    assert "serves 77 % to the canary, not the 5 %" in ending.sentence
    assert [change["asked"] for change in exp.journal.weights()] == [5, 0]


@pytest.mark.parametrize("idle", [PLAN.interval / 2, 60])
def test_the_split_is_not_read_before_a_write(experiment, monkeypatch, idle):
    """
    On a cluster that is a round trip, and the change waits for it.
    """
    exp = experiment()
    exp.cluster.clock.sleep(idle)
    router, calls = exp.cluster.router, []
    for name in ("observed", "write", "confirm"):
        real = getattr(router, name)

        def called(*split, name=name, real=real, **options):
            calls.append(name)
            return real(*split, **options)

        monkeypatch.setattr(router, name, called)
    exp.shift(5)
    assert calls == ["write", "confirm", "observed"]


@pytest.mark.parametrize(
    ("what", "name", "error", "outcome", "says"),
    [
        ("router", "write", RoutingError("gone"), "failed", "traffic was not seen to return to it"),
        ("router", "confirm", RoutingError("gone"), "failed", "traffic was not seen to return to it"),
        (
            "cluster",
            "retire_canary",
            ClusterError("gone"),
            "failed",
            "has all traffic, but the canary's replicas were not retired",
        ),
        ("telemetry", "read", TelemetryError("gone"), "promoted", "v2 is stable now: "),
        ("telemetry", "begin", TelemetryError("gone"), "promoted", "v2 is stable now: "),
    ],
)
def test_what_fails_after_stable_was_replaced_is_told_truly(experiment, what, name, error, outcome, says):
    """
    By then stable is the canary's version, and the ending never says that traffic is back on the old one.
    """
    exp = experiment()
    exp.cluster.holding = MemoryHolding()
    exp.shift(50)
    exp.observe("1min")
    part = exp.cluster if what == "cluster" else getattr(exp.cluster, what)
    replaced, real = exp.cluster.promote, getattr(part, name)
    exp.cluster.promote = lambda cancelled: (replaced(), setattr(part, name, failing(error)))
    with pytest.raises(type(error), match="gone"):
        exp.run(ck.RolloutPlan.of(50, hold="1s", budget="10min"))
    setattr(part, name, real)
    assert exp.cluster.holding.left is (what == "router")
    assert exp.ending.outcome == outcome
    assert exp.ending.sentence.startswith("v2 is stable now")
    assert says in exp.ending.sentence
    assert "back on stable" not in exp.ending.sentence
    assert exp.abort() is exp.ending
    assert exp.cluster.router.observed() == exp.snapshot().state.split == ck.TrafficSplit(0)


def test_a_replacement_that_fails_returns_traffic_to_the_old_version(experiment):
    """
    Whatever kind of error it is.
    """
    exp = experiment()
    exp.shift(50)
    exp.cluster.promote = failing(RoutingError("the gateway does not use the new replicas"))
    with pytest.raises(RoutingError):
        exp.promote()
    assert exp.ending.outcome == "failed"
    assert exp.ending.sentence.startswith("promotion failed, stable is v1 as before: the gateway does not use")
    assert "all traffic was back on stable after" in exp.ending.sentence
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_a_stable_that_may_not_be_what_it_was_is_not_said_to_be(experiment):
    """
    The old version could not be put back: traffic returns all the same, and nobody claims that all is as before.
    """
    exp = experiment()
    exp.shift(50)
    exp.cluster.promote = failing(UnrestoredError("digits-stable could not be given back v1"))
    with pytest.raises(UnrestoredError):
        exp.promote()
    assert exp.ending.outcome == "failed"
    assert exp.ending.sentence.startswith("promotion failed: digits-stable could not be given back v1; all traffic")
    assert "as before" not in exp.ending.sentence
