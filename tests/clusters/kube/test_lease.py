"""Who conducts a rollout, and what happens when nobody does."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from kube_doubles import Namespace

from canarykit.clusters.kube import guard
from canarykit.clusters.kube.lease import STATE, Lease, holder_of, stale
from canarykit.errors import ClusterError, ConflictError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.gateway_api import GatewayApiRouter
from canarykit.routers.objects import Target

NAME = "digits-rollout"
TARGET = Target("digits", 80, {})


@pytest.fixture
def namespace():
    """An empty namespace."""
    return Namespace()


@pytest.fixture
def take(namespace):
    """Make leases; each is let go afterwards."""
    made = []

    def make(seconds=60, **options):
        made.append(Lease(namespace, "digits", {"app": "digits"}, seconds=seconds))
        made[-1].holder = options.get("holder", made[-1].holder)
        return made[-1]

    yield make
    for lease in made:
        lease.stop()


def age(namespace, seconds):
    """Let a lease not have been renewed for so long."""
    renewed = datetime.now(UTC) - timedelta(seconds=seconds)
    namespace.edit("Lease", NAME, renewTime=renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def test_the_second_is_refused_with_the_name_of_the_first(namespace, take):
    """
    One conducts; the other learns who, and since when.
    """
    first = take()
    assert first.acquire() == {}
    with pytest.raises(ClusterError, match=rf"{first.holder} conducts a rollout of this service \(Lease {NAME}, renewed 20"):
        take().acquire()
    assert holder_of(namespace.get("Lease", NAME)) == first.holder


def test_of_two_that_take_it_at_once_one_is_refused(namespace, take):
    """
    The other one writes between our look and our writing: then it is theirs, and they are named.
    """
    take().acquire()
    age(namespace, 600)
    first, second = take(holder="elsewhere-1-a"), take()

    def once():
        namespace.before_write = lambda: None
        first.acquire()

    namespace.before_write = once
    with pytest.raises(ClusterError, match="elsewhere-1-a conducts a rollout"):
        second.acquire()
    assert second.lost is None


def test_where_it_stands_survives_its_holder(namespace, take):
    """
    The next one learns where the rollout stood, whether the first let go or just stopped.
    """
    first = take()
    first.acquire()
    first.remember(phase="progressing", weight=25.0)
    first.remember(weight=50.0)
    first.release()
    second = take()
    assert second.acquire() == {"phase": "progressing", "weight": 50.0}
    age(namespace, 61)
    assert take().acquire() == {"phase": "progressing", "weight": 50.0}


def test_a_lease_that_was_taken_over_is_lost_for_good(namespace, take):
    """
    Whoever was away too long must not write over what the next one does.
    """
    first, second = take(), take()
    first.acquire()
    age(namespace, 61)
    second.acquire()
    with pytest.raises(ClusterError, match=f"{second.holder} has taken over the rollout"):
        first.remember(weight=100.0)
    assert first.lost
    first.release()
    first.remove()
    found = namespace.get("Lease", NAME)
    assert holder_of(found) == second.holder
    assert json.loads(found["metadata"]["annotations"][STATE]) == {}


def test_a_dead_process_of_this_machine_holds_nothing(namespace, take):
    """
    A kernel that was killed need not be waited for; one of another machine is.
    """
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    take(holder=f"{socket.gethostname()}-{gone.pid}-abc").acquire()
    mine = take(holder=f"elsewhere-{gone.pid}-abc")
    mine.acquire()
    with pytest.raises(ClusterError, match="elsewhere"):
        take().acquire()
    assert os.getpid() != gone.pid


def test_a_number_among_other_processes_says_nothing(namespace, take, monkeypatch):
    """
    A container of the same name counts its processes for itself: that none here has that number does not mean it is gone.
    """
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    other = take(holder=f"{socket.gethostname()}-{gone.pid}-abc")
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("canarykit.clusters.kube.lease._processes", lambda: "another boot pid:[4026532999]")
        other.acquire()
    other.stop()
    with pytest.raises(ClusterError, match="conducts a rollout"):
        take().acquire()


@pytest.mark.parametrize("how", ["let go", "removed"])
def test_a_lease_that_somebody_ended_is_lost(namespace, take, how):
    """
    Its guard has ended with it: it is not taken again by a renewal, and what it was guarded for is not gone on with.
    """
    lease = take()
    lease.acquire()
    assert lease.held
    if how == "removed":
        namespace.delete("Lease", NAME)
    else:
        namespace.edit("Lease", NAME, holderIdentity=None)
    for change in (lease.renew, lambda: lease.remember(weight=5.0), lease.check):
        with pytest.raises(ClusterError, match="nobody renewed the lease, and the guard or somebody else has ended"):
            change()
    assert not lease.held
    assert holder_of(namespace.get("Lease", NAME)) == ""
    lease.release()
    lease.remove()


def test_it_may_be_seen_to_be_free_without_being_taken(namespace, take):
    """
    Who looks first writes nothing.
    """
    take().check_free()
    assert namespace.writes == []
    take().acquire()
    with pytest.raises(ClusterError, match="conducts a rollout"):
        take().check_free()


def test_it_is_renewed_while_somebody_is_there(namespace, take):
    """
    Four times in its life, and only until it is let go.
    """
    lease = take(seconds=0.4)
    lease.acquire()
    end = time.monotonic() + 10
    while len(namespace.writes) < 4:
        assert time.monotonic() < end
        time.sleep(0.02)
    lease.release()
    written = len(namespace.writes)
    time.sleep(0.3)
    assert len(namespace.writes) == written
    assert holder_of(namespace.get("Lease", NAME)) == ""


def test_one_s_own_lease_is_no_obstacle(namespace, take):
    """
    An answer that got lost on the way: the request is sent again, and finds that we are the holder.
    """
    lease = take()
    lease.acquire()
    lease.stop()
    assert lease.acquire() == {}


def test_facts_and_renewals_do_not_meet(namespace, take):
    """
    Many facts while the lease is renewed all the time: nothing is lost, no renewal fails.
    """
    failures, lease = [], take(seconds=0.01)
    before, threading.excepthook = threading.excepthook, lambda args: failures.append(args.exc_value)
    try:
        lease.acquire()
        for number in range(300):
            lease.remember(**{f"fact-{number}": number})
        lease.release()
    finally:
        threading.excepthook = before
    assert failures == []
    assert len(take().acquire()) == 300


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"renewTime": "2026-11-24T10:00:00.000000Z", "leaseDurationSeconds": 60}, False),
        ({"renewTime": "2026-11-24T09:59:29.000000Z", "leaseDurationSeconds": 60}, False),
        ({"renewTime": "2026-11-24T09:59:28.000000Z", "leaseDurationSeconds": 60}, True),
        ({"holderIdentity": "by hand"}, True),
        ({}, True),
    ],
)
def test_what_is_stale(spec, expected):
    """
    Not renewed for longer than it says, or saying nothing of it.
    """
    assert stale({"spec": spec}, datetime(2026, 11, 24, 10, 0, 28, 500_000, tzinfo=UTC)) is expected


# The guard --------------------------------------------------------------------------------------------------------------


class Router:
    """A route with a weight, that somebody may have left in disorder."""

    def __init__(self, weight):
        self.weight, self.applied = weight, []

    def observed(self):
        """What the object says."""
        if self.weight is None:
            raise RoutingError("the rules split the traffic differently")
        return TrafficSplit(self.weight)

    def apply(self, split):
        """Write it."""
        self.applied.append(split.canary)
        self.weight = split.canary


@pytest.fixture
def router(monkeypatch):
    """The route that the guard finds, a quarter on the canary; the guard looks often."""
    made = Router(25.0)
    monkeypatch.setattr(guard, "bind", lambda client, app, **binding: made)
    monkeypatch.setattr(guard, "_LOOK_EVERY", 0.01)
    return made


@pytest.fixture
def facts(take):
    """What the guard of a lease is told."""
    lease = take(holder="elsewhere-1-a")
    lease.acquire()
    lease.remember(phase="progressing", weight=25.0)
    lease.stop()
    return {"lease": NAME, "holder": "elsewhere-1-a", "app": "digits", "binding": {}}


def test_the_guard_returns_traffic_when_nobody_renews(namespace, router, facts):
    """
    All on stable, and word is left for whoever comes next.
    """
    age(namespace, 61)
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    found = namespace.get("Lease", NAME)
    assert holder_of(found) == ""
    assert json.loads(found["metadata"]["annotations"][STATE]) == {
        "phase": "rolled back by the guard: nobody renewed the lease",
        "weight": 0.0,
    }


@pytest.mark.parametrize("how", ["released", "removed", "taken over"])
def test_the_guard_ends_with_its_lease(namespace, router, facts, how):
    """
    Then somebody else knows what to do: the route is left as it is.
    """
    if how == "removed":
        namespace.delete("Lease", NAME)
    else:
        namespace.edit("Lease", NAME, holderIdentity=None if how == "released" else "another")
    assert guard.watch(namespace, facts) == "released"
    assert router.applied == []


@pytest.mark.parametrize(("weight", "applied"), [(0.0, []), (None, [0.0])])
def test_the_guard_writes_what_is_needed(namespace, router, facts, weight, applied):
    """
    Nothing where all is on stable already; rules that disagree are put right.
    """
    age(namespace, 61)
    router.weight = weight
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == applied


def test_the_guard_waits_while_the_lease_is_renewed_and_the_server_away(namespace, router, facts, capsys):
    """
    It looks again after an error, and acts when it can.
    """
    looks = []
    real = namespace.get

    def get(kind, name, **options):
        looks.append(kind)
        if len(looks) == 2:
            raise ClusterError("the API server is away")
        if len(looks) == 4:
            age(namespace, 61)
        return real(kind, name, **options)

    namespace.get = get
    assert guard.watch(namespace, facts) == "returned"
    assert len(looks) == 4
    assert "guard of digits: the API server is away" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RoutingError("no version answers"), UnicodeError("label too long")])
def test_the_guard_looks_again_whatever_went_wrong(namespace, router, facts, capsys, error):
    """
    The weights are written and the gateway does not answer: it does not end before it has left word.
    """
    age(namespace, 61)
    real = router.apply

    def apply(split):
        real(split)
        raise error

    router.apply = apply
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    assert holder_of(namespace.get("Lease", NAME)) == ""
    assert str(error) in capsys.readouterr().err


def test_the_guard_of_what_is_not_there_ends(namespace, facts, monkeypatch):
    """
    A kernel that died while it deployed for the first time has no route yet, and no canary that gets anything.
    """
    monkeypatch.setattr(
        guard, "bind", lambda client, app, **binding: GatewayApiRouter(client, TARGET, url="http://127.0.0.1:1")
    )
    age(namespace, 61)
    assert guard.watch(namespace, facts) == "returned"
    assert holder_of(namespace.get("Lease", NAME)) == ""


def test_the_guard_outlives_its_terminal(namespace, router, facts, monkeypatch):
    """
    Nobody can read what it has to say any more: it goes on all the same.
    """
    age(namespace, 61)
    real, looks = namespace.get, []

    def get(kind, name, **options):
        looks.append(kind)
        if len(looks) == 1:
            raise ClusterError("the API server is away")
        return real(kind, name, **options)

    def gone(*args, **options):
        raise OSError(5, "Input/output error")

    namespace.get = get
    monkeypatch.setattr("builtins.print", gone)
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]


def test_the_guard_leaves_no_word_on_the_lease_of_another(namespace, router, facts):
    """
    Somebody takes over in the moment in which traffic returns: their record stays theirs.
    """
    age(namespace, 61)

    def taken(split):
        namespace.edit("Lease", NAME, holderIdentity="another")
        router.applied.append(split.canary)

    router.apply = taken
    assert guard.watch(namespace, facts) == "released"
    found = namespace.get("Lease", NAME)
    assert holder_of(found) == "another"
    assert json.loads(found["metadata"]["annotations"][STATE])["phase"] == "progressing"


def test_a_double_that_keeps_versions(namespace, take):
    """
    The namespace of these tests refuses a write over what it did not see.
    """
    take().acquire()
    found = namespace.get("Lease", NAME)
    namespace.replace(found)
    with pytest.raises(ConflictError):
        namespace.replace(found)
