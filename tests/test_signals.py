"""A process that is told to end: traffic is back on stable first, and whoever handles signals keeps that."""

import os
import signal
import subprocess
import sys
import threading

import pytest

import canarykit as ck
from canarykit.interrupts import Terminated, terminable, uninterrupted

PLAN = ck.RolloutPlan.of(5, 25, 50, hold="10s", budget="10min")
STABLE = ck.TrafficSplit(0)
ENDS = pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"])


@pytest.fixture(autouse=True)
def handlers():
    """Python's own answers to signals, also where the tests were started with others."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def experiment(simulated):
    """An experiment on a simulated cluster, with traffic."""
    return simulated(plan=PLAN)


def told(number, method, at=3):
    """A method that works, and during one of whose calls the process is told to end."""
    calls = iter(range(at))

    def call(*values, **options):
        if next(calls, None) is None:
            return method(*values, **options)
        if calls.__length_hint__() == 0:
            os.kill(os.getpid(), number)
        return method(*values, **options)

    return call


@ENDS
def test_who_is_told_to_end_leaves_by_an_error(number, code):
    """
    With the exit code that shells give; afterwards it is as before.
    """
    with pytest.raises(SystemExit) as ended, terminable():
        os.kill(os.getpid(), number)
    assert (ended.value.code, ended.value.signal) == (code, number)
    assert signal.getsignal(number) is signal.SIG_DFL


@ENDS
def test_a_handler_of_the_user_stays(number, code):
    """
    Whoever handles it decides what becomes of the process; nested, and when it was set meanwhile, too.
    """
    came = []
    signal.signal(number, lambda *args: came.append(number))
    with terminable():
        os.kill(os.getpid(), number)
    assert came == [number]
    signal.signal(number, signal.SIG_IGN)
    with terminable():
        os.kill(os.getpid(), number)
    signal.signal(number, signal.SIG_DFL)
    with terminable(), terminable():
        signal.signal(number, signal.SIG_IGN)
    assert signal.getsignal(number) is signal.SIG_IGN


@ENDS
def test_a_step_that_must_be_whole_is_finished_first(number, code):
    """
    As with Ctrl-C.
    """
    seen = []
    with pytest.raises(Terminated), terminable():
        with uninterrupted():
            os.kill(os.getpid(), number)
            seen.append("whole")
        seen.append("after")
    assert seen == ["whole"]


def test_other_threads_handle_no_signals():
    """
    Only the main thread may say who does: in others nothing changes.
    """
    seen = []

    def work():
        with terminable(), uninterrupted():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


FORKED = """
import os, signal, time
from canarykit.interrupts import terminable
with terminable():
    child = os.fork()
    if not child:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os._exit(3)
    print(os.waitpid(child, 0)[1])
"""


def test_a_child_that_is_forked_meanwhile_ends_as_any():
    """
    It conducts no rollout, and runs nothing of its parent's on its way out.
    """
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == str(int(signal.SIGTERM))


@ENDS
def test_a_rollout_ends_with_its_process(experiment, monkeypatch, number, code):
    """
    Traffic is back on stable, the record says why, and the process ends: the rest of the script is not gone on with.
    """
    exp = experiment
    monkeypatch.setattr(exp.cluster.telemetry, "read", told(number, exp.cluster.telemetry.read, at=20))
    with pytest.raises(SystemExit) as ended:
        exp.run()
    assert ended.value.code == code
    assert exp.cluster.router.observed() == STABLE
    assert exp.ending.outcome == "inconclusive"
    assert exp.ending.sentence.startswith(f"ended by {signal.Signals(number).name} after ")
    assert exp.load is None
    assert exp.journal.ending == exp.ending


@pytest.mark.parametrize("doing", ["observe", "warm up", "shift"])
def test_weights_by_hand_end_with_their_process(experiment, monkeypatch, doing):
    """
    Nobody is left who would take the canary's share back.
    """
    exp = experiment
    exp.shift(25)
    exp.observe(2)
    owner, name = {
        "observe": (exp.cluster.telemetry, "read"),
        "warm up": (exp.cluster, "ensure_capacity"),
        "shift": (exp.cluster.router, "write"),
    }[doing]
    monkeypatch.setattr(owner, name, told(signal.SIGTERM, getattr(owner, name), at=1))
    with pytest.raises(Terminated):
        exp.observe(60) if doing == "observe" else exp.shift(50)
    assert exp.cluster.router.observed() == STABLE
    assert exp.ending.outcome == "inconclusive"


def test_a_rollout_that_has_ended_keeps_its_ending(experiment, monkeypatch):
    """
    What is watched afterwards changes nothing of it.
    """
    exp = experiment
    exp.shift(25)
    exp.abort("enough")
    monkeypatch.setattr(exp.cluster.telemetry, "read", told(signal.SIGTERM, exp.cluster.telemetry.read, at=1))
    with pytest.raises(Terminated):
        exp.observe(60)
    assert exp.ending.outcome == "rolled back"


def test_a_deployment_ends_with_its_process(simulated, monkeypatch):
    """
    Nothing of it is left.
    """
    exp = simulated(deploy=False)
    monkeypatch.setattr(exp.cluster.telemetry, "begin", told(signal.SIGTERM, exp.cluster.telemetry.begin, at=1))
    with pytest.raises(Terminated):
        exp.deploy()
    assert exp.ending is None
    exp.deploy()
