"""What goes wrong while a rollout is conducted: traffic returns first, and what is said of it is true."""

import os
import signal
from functools import partial
from types import SimpleNamespace

import pytest
from holdings import MemoryHolding

import canarykit as ck
from canarykit.errors import JournalError, RoutingError, TelemetryError
from canarykit.interrupts import uninterrupted

PLAN = ck.RolloutPlan.of(5, 25, 50, hold="10s", budget="10min")
STABLE = ck.TrafficSplit(0)


@pytest.fixture
def experiment(simulated):
    """Make an experiment on a simulated cluster, with traffic."""
    return partial(simulated, plan=PLAN)


@pytest.fixture
def full_disk(monkeypatch):
    """Have a journal refuse everything from now on."""

    def fill(exp):
        def refuse(*values):
            raise JournalError("cannot write the journal: disk full")

        for name in ("add_window", "add_weight", "add_event", "set_load", "end"):
            monkeypatch.setattr(exp.journal, name, refuse)

    return fill


def failing(error):
    """A function that only raises."""

    def fail(*values, **options):
        raise error

    return fail


def later(method, times, error):
    """A method that works so many times, and raises from then on."""
    calls = iter(range(times))

    def call(*values):
        if next(calls, None) is None:
            raise error
        return method(*values)

    return call


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("nobody foresaw it"), SystemExit(3)], ids=lambda error: type(error).__name__
)
def test_an_error_of_any_kind_returns_traffic_and_is_raised(experiment, monkeypatch, error):
    """
    Also one that is none of the kit's own.
    """
    exp = experiment()
    monkeypatch.setattr(exp.cluster.telemetry, "read", later(exp.cluster.telemetry.read, 8, error))
    with pytest.raises(type(error)):
        exp.run()
    assert exp.cluster.router.observed() == STABLE
    assert exp.ending.outcome == "failed"
    assert "all traffic was back on stable" in exp.ending.sentence
    assert exp.load is None
    assert not exp.snapshot().running


def test_who_watches_cannot_stop_a_rollout(experiment, caplog):
    """
    A function for lines of progress that raises is told of once, in the log and in the record, and not called again.
    """
    calls = []

    def notify(line):
        calls.append(line)
        raise BrokenPipeError("nobody reads this any more")

    exp = experiment(notify=notify)
    assert exp.run().outcome == "promoted"
    assert len(calls) == 1
    assert caplog.text.count("lines of progress are shown no more") == 1
    (event,) = (event for event in exp.journal.events() if event["kind"] == "problem")
    assert "BrokenPipeError: nobody reads this" in event["text"]
    assert exp.snapshot().said.startswith("promoted")


@pytest.mark.parametrize("end", ["abort", "advance"])
def test_a_rollback_needs_no_disk(experiment, full_disk, end):
    """
    The weight comes first: traffic is back and the rollout has ended, and then it is said that this could not be written.
    """
    exp = experiment("failing")
    exp.advance()
    while end == "advance" and exp.judge().alarm is None:
        exp.observe(1)
    full_disk(exp)
    exp.journal.add_window = exp.journal.set_load = lambda *values: None  # the look before it still had room
    with pytest.raises(JournalError, match="disk full"):
        exp.abort() if end == "abort" else exp.advance()
    assert exp.cluster.router.observed() == exp.snapshot().state.split == STABLE
    assert exp.ending.outcome == "rolled back"
    assert "all traffic was back on stable" in exp.ending.sentence


def test_a_rollback_needs_no_counts(experiment, monkeypatch):
    """
    When counting cannot begin anew, traffic is back all the same, and that is what is said and recorded.
    """
    exp = experiment()
    exp.shift(25)
    monkeypatch.setattr(exp.cluster.telemetry, "begin", failing(TelemetryError("the log is gone")))
    with pytest.raises(TelemetryError, match="the log is gone"):
        exp.abort()
    assert exp.cluster.router.observed() == exp.snapshot().state.split == STABLE
    assert "all traffic was back on stable" in exp.ending.sentence
    assert exp.journal.ending == exp.ending
    assert [change["asked"] for change in exp.journal.weights()] == [25, 0]


def test_a_failing_rollout_that_loses_its_counts_too_says_where_traffic_is(experiment, monkeypatch):
    """
    "Could not be returned" is said of traffic only.
    """
    exp = experiment()
    exp.advance()
    monkeypatch.setattr(exp.cluster.telemetry, "read", failing(TelemetryError("the log is gone")))
    monkeypatch.setattr(exp.cluster.telemetry, "begin", failing(TelemetryError("the log is gone")))
    with pytest.raises(TelemetryError):
        exp.run()
    assert exp.cluster.router.observed() == STABLE
    assert exp.ending.sentence.startswith("TelemetryError: the log is gone; all traffic was back on stable after")


def test_counting_begins_with_the_next_look_when_it_could_not_with_the_weight(experiment, monkeypatch):
    """
    The weight is what is in force, and no window is taken for one of the earlier weight.
    """
    exp = experiment()
    begin = exp.cluster.telemetry.begin
    monkeypatch.setattr(exp.cluster.telemetry, "begin", failing(TelemetryError("not now")))
    with pytest.raises(TelemetryError):
        exp.shift(25)
    assert exp.snapshot().state.split == ck.TrafficSplit(25)
    exp.cluster.clock.sleep(5)
    monkeypatch.setattr(exp.cluster.telemetry, "begin", begin)
    exp.poll()
    exp.cluster.clock.sleep(5)
    exp.poll()
    windows = [window for window in exp.journal.windows() if any(window.requests)]
    assert [(window.split.canary, window.end - window.start) for window in windows] == [(25, pytest.approx(5))]


def test_traffic_returns_to_a_stable_in_trouble_before_that_is_told(experiment, full_disk):
    """
    Whatever is wrong with stable, and with the record.
    """
    exp = experiment()
    exp.shift(25)
    exp.cluster.ensure_capacity = failing(OSError("no such pod"))
    full_disk(exp)
    with pytest.raises(JournalError):
        exp.abort()
    assert exp.cluster.router.observed() == STABLE
    assert "no such pod" in exp.snapshot().said


def test_an_abort_returns_traffic_when_the_route_cannot_be_read(experiment, monkeypatch):
    """
    Also after the end, when the canary kept its share: someone left the route in disorder.
    """
    plan = ck.RolloutPlan.of(5, hold="10s", min_requests=1, budget="10s", on_inconclusive="hold")
    exp = experiment("same")
    assert exp.run(plan).outcome == "inconclusive"
    assert exp.cluster.router.split == ck.TrafficSplit(5)
    monkeypatch.setattr(exp.cluster.router, "observed", failing(RoutingError("its rules disagree")))
    assert exp.abort().outcome == "inconclusive"
    assert exp.cluster.router.split == STABLE


def test_the_traffic_of_the_kit_ends_when_the_rollout_ended_before_the_error(experiment, monkeypatch):
    """
    Someone else ended it; what then goes wrong leaves no sender behind.
    """
    exp = experiment()
    load = exp.load
    sleep = exp.cluster.clock.sleep

    def nap(seconds):
        sleep(seconds)
        if seconds < 1:  # until a weight is served
            return
        exp.cluster.clock.sleep = sleep
        exp.abort("by someone else")
        raise KeyError("just then")

    exp.cluster.clock.sleep = nap
    with pytest.raises(KeyError):
        exp.run()
    assert exp.ending.outcome == "rolled back"
    assert load.stopped
    assert exp.load is None


@pytest.fixture
def interruptible():
    """Python's own answer to SIGINT, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_is_not_lost_in_an_error():
    """
    A step that fails while a Ctrl-C waits for it: the interruption takes effect, the error is its context.
    """
    seen = SimpleNamespace(after=False)

    def step():
        with uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            seen.after = True
            raise RoutingError("refused")

    with pytest.raises(KeyboardInterrupt) as caught:
        step()
    assert seen.after
    assert isinstance(caught.value.__context__, RoutingError)


@pytest.mark.usefixtures("interruptible")
def test_a_second_interruption_waits_until_traffic_is_back(experiment, monkeypatch):
    """
    The rollout has its ending, and the kit's traffic its end.
    """
    exp = experiment()
    exp.advance()
    write = exp.cluster.router.write

    def impatient(split, **options):
        os.kill(os.getpid(), signal.SIGINT)
        return write(split)

    monkeypatch.setattr(exp.cluster.telemetry, "read", later(exp.cluster.telemetry.read, 3, KeyboardInterrupt()))
    monkeypatch.setattr(exp.cluster.router, "write", impatient)
    with pytest.raises(KeyboardInterrupt):
        exp.run()
    assert exp.cluster.router.observed() == STABLE
    assert "interrupted after" in exp.ending.sentence
    assert exp.load is None


@pytest.mark.parametrize("end", ["run", "advance", "abort"])
def test_what_cannot_be_returned_is_left_to_the_guard(experiment, end):
    """
    Whoever wanted to return it: the canary must not keep its share for as long as this process lives.
    """
    exp = experiment("failing")
    exp.cluster.holding = MemoryHolding()
    exp.advance()
    while exp.judge().alarm is None:
        exp.observe(1)
    exp.cluster.router.broken = True
    assert not exp.cluster.holding.left
    with pytest.raises(RoutingError, match="does not take 0 %"):
        getattr(exp, end)()
    assert exp.cluster.holding.left
    if end == "run":
        assert "traffic could not be returned to stable: the simulated gateway does not take 0 %" in exp.ending.sentence
    exp.cluster.router.broken = False
    assert exp.abort().outcome == ("failed" if end == "run" else "rolled back")
    assert exp.cluster.router.observed() == STABLE
