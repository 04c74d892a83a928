"""Who conducts a rollout: one holder, who is seen to be there or not, and what happens to a lease that is lost."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kube_doubles import Hands, Namespace

from canarykit.clusters.kube.api.lease import LET_GO, RETURNED, STATE, Lease, state_of
from canarykit.clusters.kube.api.liveness import PROCESSES, Watched, holder_of, looked_up
from canarykit.errors import ClusterError, ConflictError, ForbiddenError

NAME = "digits-rollout"


@pytest.fixture
def namespace():
    """An empty namespace."""
    return Namespace()


@pytest.fixture
def hands():
    """The monotonic clock of this machine."""
    return Hands()


@pytest.fixture
def take(namespace, hands):
    """Make leases; each is let go afterwards."""
    made = []

    def make(seconds=60, **options):
        told = []
        made.append(Lease(namespace, "digits", {"app": "digits"}, seconds=seconds, notify=told.append, clock=hands))
        made[-1].holder, made[-1].told = options.get("holder", made[-1].holder), told
        return made[-1]

    yield make
    for lease in made:
        lease.stop()


@pytest.fixture
def elsewhere(take):
    """Make a lease that a process of another machine has taken, and which is not renewed."""

    def make(holder="elsewhere-1-a", seconds=60):
        lease = take(seconds, holder=holder)
        lease.acquire()
        lease.stop()
        return lease

    return make


def age(lease, seconds):
    """Let a lease not have been renewed for so long, by both clocks of its holder."""
    lease.stop()
    lease._written = tuple(moment - seconds for moment in lease._written)


def renew_as(namespace, holder, clock_ahead=0.0):
    """Renew it as a machine does whose clock is ahead."""
    renewed = datetime.now(UTC) + timedelta(seconds=clock_ahead)
    namespace.edit("Lease", NAME, holderIdentity=holder, renewTime=renewed.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def annotate(namespace, **notes):
    """Change annotations as somebody else; None removes one."""
    namespace.patch("Lease", NAME, {"metadata": {"annotations": {key.replace("_", "/"): note for key, note in notes.items()}}})


# Who may take it --------------------------------------------------------------------------------------------------------


def test_the_second_is_refused_at_once_with_the_name_of_the_first(namespace, take, hands):
    """
    Two processes of one machine have one clock: that the first is there need not be waited for.
    """
    first = take()
    assert first.acquire() == {}
    with pytest.raises(ClusterError, match=rf"{first.holder} conducts a rollout of this service \(it renews Lease {NAME}\)"):
        take().acquire()
    assert holder_of(namespace.get("Lease", NAME)) == first.holder
    assert hands.seconds == 1000


@pytest.mark.parametrize("ahead", [-120.0, 120.0], ids=["behind", "ahead"])
def test_whoever_renews_keeps_it_whatever_their_clock_says(namespace, take, elsewhere, hands, ahead):
    """
    A clock that is two minutes off takes nothing away: the second kit waits, sees a renewal, and is refused.
    """
    elsewhere()
    renew_as(namespace, "elsewhere-1-a", ahead)
    hands.waits = lambda: hands.seconds > 1015 and renew_as(namespace, "elsewhere-1-a", ahead)
    second = take()
    with pytest.raises(ClusterError, match="elsewhere-1-a conducts a rollout"):
        second.acquire()
    assert 1015 < hands.seconds < 1018
    assert "elsewhere-1-a holds Lease digits-rollout: waiting up to 60 s" in second.told[0]


@pytest.mark.parametrize("ahead", [-120.0, 120.0], ids=["behind", "ahead"])
def test_whoever_is_gone_is_watched_for_as_long_as_their_lease_lasts(namespace, take, elsewhere, hands, ahead):
    """
    Not a moment less, and not more, whatever the time is there.
    """
    elsewhere().save_state(phase="progressing", weight=25.0)
    renew_as(namespace, "elsewhere-1-a", ahead)
    second = take()
    assert second.acquire() == {"phase": "progressing", "weight": 25.0}
    assert 1060 < hands.seconds < 1063
    assert holder_of(namespace.get("Lease", NAME)) == second.holder
    assert namespace.get("Lease", NAME)["spec"]["leaseTransitions"] == 1


def test_one_that_was_let_go_is_free_at_once(namespace, take, elsewhere, hands):
    """
    Also while it is watched.
    """
    first = elsewhere()
    hands.waits = lambda: hands.seconds > 1004 and first.release()
    take().acquire()
    assert hands.seconds < 1007


@pytest.mark.parametrize("spec", [{"leaseDurationSeconds": None}, {"leaseDurationSeconds": 0}], ids=["none", "zero"])
def test_a_holder_that_says_nothing_of_a_duration_holds_nothing(namespace, take, elsewhere, hands, spec):
    """
    A name that somebody wrote by hand.
    """
    elsewhere()
    namespace.edit("Lease", NAME, holderIdentity="by hand", **spec)
    take().acquire()
    assert hands.seconds == 1000


def test_of_two_that_take_it_at_once_one_is_refused(namespace, take, elsewhere, hands):
    """
    The other one writes between our look and our writing: then it is theirs, and they are named.
    """
    elsewhere("gone-1-a").release()
    first, second = take(holder="elsewhere-1-a"), take()

    def once():
        namespace.before_write = lambda: None
        first.acquire()

    namespace.before_write = once
    with pytest.raises(ClusterError, match="elsewhere-1-a conducts a rollout"):
        second.acquire()
    assert second.lost is None


def test_where_it_stands_survives_its_holder(namespace, take, elsewhere):
    """
    The next one learns where the rollout stood, whether the first let go or just stopped.
    """
    first = take()
    first.acquire()
    first.save_state(phase="progressing", weight=25.0)
    first.save_state(weight=50.0)
    first.release()
    second = elsewhere()
    assert second.state == {"phase": "progressing", "weight": 50.0}
    assert take().acquire() == {"phase": "progressing", "weight": 50.0}


@pytest.mark.parametrize("note", ["{", "[]", '"text"'], ids=["broken", "list", "text"])
def test_a_state_that_cannot_be_read_is_none(namespace, take, elsewhere, note):
    """
    Somebody has edited it.
    """
    elsewhere().release()
    annotate(namespace, **{STATE.replace("/", "_"): note})
    assert take().acquire() == {}


def test_a_dead_process_of_this_machine_holds_nothing(namespace, take, elsewhere, hands):
    """
    A kernel that was killed need not be waited for; one of another machine is.
    """
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    elsewhere(f"{socket.gethostname()}-{gone.pid}-abc")
    take(holder=f"elsewhere-{gone.pid}-abc").acquire()
    assert hands.seconds == 1000


def test_a_process_that_has_ended_unnoticed_holds_nothing(namespace, elsewhere):
    """
    Nobody has collected it, as in a container without an init process.
    """
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        end = time.monotonic() + 20
        while ") Z " not in Path(f"/proc/{gone.pid}/stat").read_text():
            assert time.monotonic() < end
            time.sleep(0.01)
        elsewhere(f"{socket.gethostname()}-{gone.pid}-abc")
        assert looked_up(namespace.get("Lease", NAME)) == "dead"


def test_a_number_that_was_given_again_is_another_process(namespace, elsewhere):
    """
    The holder's start is noted, too.
    """
    elsewhere(f"{socket.gethostname()}-{os.getpid()}-abc")
    assert looked_up(namespace.get("Lease", NAME)) == "alive"
    noted = namespace.get("Lease", NAME)["metadata"]["annotations"][PROCESSES]
    annotate(namespace, **{PROCESSES.replace("/", "_"): f"{noted.rpartition(' ')[0]} 1"})
    assert looked_up(namespace.get("Lease", NAME)) == "dead"


@pytest.mark.parametrize("noted", ["another boot pid:[4026532999] 1", "", None], ids=["container", "empty", "removed"])
def test_a_number_among_other_processes_says_nothing(namespace, elsewhere, noted):
    """
    A container of the same name counts its processes for itself: that none here has that number does not mean it is gone.
    """
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    elsewhere(f"{socket.gethostname()}-{gone.pid}-abc")
    annotate(namespace, **{PROCESSES.replace("/", "_"): noted})
    assert looked_up(namespace.get("Lease", NAME)) == "unknown"


def test_it_may_be_seen_to_be_free_without_being_taken(namespace, take):
    """
    Who looks first writes nothing.
    """
    take().wait_free()
    assert namespace.writes == []
    take().acquire()
    with pytest.raises(ClusterError, match="conducts a rollout"):
        take().wait_free()


def test_one_s_own_lease_is_no_obstacle(namespace, take):
    """
    An answer that got lost on the way: the request is sent again, and finds that we are the holder.
    """
    lease = take()
    lease.acquire()
    lease.stop()
    assert lease.acquire() == {}


@pytest.mark.parametrize(("gap", "looks"), [(1.0, 62), (600.0, 4)], ids=["often", "after an outage"])
def test_an_outage_alone_says_nothing_of_the_holder(namespace, elsewhere, hands, gap, looks):
    """
    A gap counts for half of the lease at most: whoever could not renew it meanwhile is given the time to.
    """
    elsewhere()
    watched, found = Watched(hands.monotonic), namespace.get("Lease", NAME)
    seen = 0
    while watched.unchanged <= 60:
        hands.seconds += gap if seen else 0
        watched.look(found)
        seen += 1
    assert seen == looks


# While it is held -------------------------------------------------------------------------------------------------------


def test_it_is_renewed_while_somebody_is_there(namespace, take):
    """
    Several times in its life, and only until it is let go.
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


@pytest.mark.parametrize("harm", ["deleted", "emptied"])
@pytest.mark.parametrize("how", ["renew", "save_state"])
def test_who_is_told_keeps_no_lease_from_being_taken_again(namespace, take, harm, how):
    """
    A notebook whose output has gone: the lease is written first.
    """
    lease = take()
    lease.acquire()
    lease.stop()
    lease._tell = gone
    deleted(namespace) if harm == "deleted" else emptied(namespace)
    lease.renew() if how == "renew" else lease.save_state(weight=25.0)
    assert holder_of(namespace.get("Lease", NAME)) == lease.holder


@pytest.mark.parametrize(
    "error",
    [ClusterError("away"), OSError("no socket"), KeyError("metadata"), RecursionError()],
    ids=lambda e: type(e).__name__,
)
def test_a_renewal_that_fails_is_tried_again(namespace, take, error):
    """
    Whatever goes wrong: without a renewal, the guard would return the traffic of a rollout that goes on.
    """
    lease, failed, real = take(seconds=0.3), threading.Event(), namespace.patch

    def patch(*args, **options):
        if not failed.is_set():
            failed.set()
            raise error
        return real(*args, **options)

    lease.acquire()
    namespace.patch = patch
    assert failed.wait(10)
    written = len(namespace.writes)
    end = time.monotonic() + 10
    while len(namespace.writes) < written + 2:
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(line):
    """Fail to tell a line."""
    raise BrokenPipeError("the output has gone")


def test_a_renewal_asks_the_server_once(namespace, take):
    """
    It writes over what it wrote last, and reads only after somebody else has written.
    """
    lease, asked, real = take(), [], namespace.get
    lease.acquire()
    namespace.get = lambda kind, name, **options: asked.append(name) or real(kind, name, **options)
    lease.renew()
    assert asked == []
    annotate(namespace, team="ours")
    lease.renew()
    assert asked == [NAME]


def test_what_others_note_on_it_stays(namespace, take):
    """
    Annotations and labels of others survive a renewal, new facts, and the end; our own come back when somebody removes them.
    """
    lease = take()
    lease.acquire()
    lease.save_state(weight=25.0)
    namespace.patch("Lease", NAME, {"metadata": {"labels": {"team": "ours", "app": None}, "annotations": {"why": "theirs"}}})
    annotate(namespace, **{STATE.replace("/", "_"): None, PROCESSES.replace("/", "_"): None})
    lease.renew()
    meta = namespace.get("Lease", NAME)["metadata"]
    assert (meta["labels"], meta["annotations"]["why"]) == ({"team": "ours", "app": "digits"}, "theirs")
    assert (state_of({"metadata": meta}), PROCESSES in meta["annotations"]) == ({"weight": 25.0}, True)
    lease.save_state(weight=50.0)
    lease.release()
    assert namespace.get("Lease", NAME)["metadata"]["annotations"]["why"] == "theirs"


def test_facts_and_renewals_do_not_meet(namespace, take):
    """
    Many facts while the lease is renewed all the time: nothing is lost, no renewal fails.
    """
    failures, lease = [], take(seconds=0.01)
    before, threading.excepthook = threading.excepthook, lambda args: failures.append(args.exc_value)
    try:
        lease.acquire()
        for number in range(300):
            lease.save_state(**{f"fact-{number}": number})
        lease.release()
    finally:
        threading.excepthook = before
    assert failures == []
    assert len(take().acquire()) == 300


# A lease that is lost ---------------------------------------------------------------------------------------------------


def deleted(namespace):
    """`kubectl delete lease`."""
    namespace.delete("Lease", NAME)


def emptied(namespace):
    """`kubectl edit lease`: no holder."""
    namespace.edit("Lease", NAME, holderIdentity="")


def made_anew(namespace):
    """`kubectl replace --force`: the same text in another object."""
    found = namespace.get("Lease", NAME)
    namespace.delete("Lease", NAME)
    del found["metadata"]["resourceVersion"]
    namespace.create(found)


@pytest.mark.parametrize("harm", [deleted, emptied, made_anew], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("how", ["renew", "save_state"])
def test_a_lease_that_somebody_harmed_is_taken_again(namespace, take, harm, how):
    """
    It was renewed a moment ago, so that nobody else can have conducted the rollout: it goes on, and says so.
    """
    lease = take()
    lease.acquire()
    lease.save_state(weight=25.0)
    harm(namespace)
    lease.renew() if how == "renew" else lease.save_state(phase="progressing")
    found = namespace.get("Lease", NAME)
    assert (holder_of(found), state_of(found)["weight"]) == (lease.holder, 25.0)
    assert (lease.lost, lease.held) == (None, True)
    assert ["taken again" in line for line in lease.told] == [True] * (harm is not made_anew)


def test_its_thread_takes_it_again(namespace, take):
    """
    Nobody need do anything.
    """
    lease = take(seconds=0.3)
    lease.acquire()
    deleted(namespace)
    end = time.monotonic() + 10
    while holder_of(namespace.get("Lease", NAME)) != lease.holder:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("harm", [deleted, emptied], ids=lambda harm: harm.__name__)
def test_what_nobody_renewed_in_time_is_lost(namespace, take, harm):
    """
    Somebody may have conducted the rollout meanwhile: no weight rises from here any more, but traffic may return.
    """
    lease = take()
    lease.acquire()
    age(lease, 61)
    harm(namespace)
    for change in (lease.renew, lease.check):
        with pytest.raises(ClusterError, match="nobody renewed the lease in time"):
            change()
    lease.check_nobody_else()
    lease.save_state(weight=0.0)
    assert holder_of(namespace.get("Lease", NAME)) == lease.holder
    with pytest.raises(ClusterError, match=r"nobody renewed.*deploy\(\) again to go on"):
        lease.renew()


def test_what_the_guard_has_ended_is_lost_and_may_be_cleared_away(namespace, take):
    """
    It has returned traffic: a teardown may still remove all, because nobody else has come.
    """
    lease = take()
    lease.acquire()
    namespace.edit("Lease", NAME, holderIdentity=None)
    annotate(namespace, **{STATE.replace("/", "_"): json.dumps({"phase": RETURNED})})
    with pytest.raises(ClusterError, match="its guard or somebody else has ended"):
        lease.renew()
    lease.reclaim()
    lease.remove()
    assert namespace.get("Lease", NAME) is None
    assert lease.lost is None


def test_a_lease_that_was_taken_over_is_lost_for_good(namespace, take, hands):
    """
    Whoever was away too long must not write over what the next one does.
    """
    first, second = take(holder="asleep-1-a"), take()
    first.acquire()
    age(first, 61)
    second.acquire()
    for change in (lambda: first.save_state(weight=100.0), first.renew, first.check, first.check_nobody_else, first.reclaim):
        with pytest.raises(ClusterError, match=f"{second.holder} has taken over the rollout"):
            change()
    assert not first.held
    first.release()
    first.remove()
    found = namespace.get("Lease", NAME)
    assert (holder_of(found), state_of(found)) == (second.holder, {})


def test_traffic_may_return_once_whoever_took_over_is_gone_too(namespace, elsewhere, hands):
    """
    They are watched as anybody is; what they have done stays theirs, and no weight rises.
    """
    first = elsewhere("asleep-1-a")
    age(first, 61)
    elsewhere("gone-1-a")
    for _ in range(60):
        with pytest.raises(ClusterError, match="gone-1-a has taken over"):
            first.check_nobody_else()
        hands.seconds += 1
    hands.seconds += 2
    first.check_nobody_else()
    for change in (first.renew, first.reclaim):
        with pytest.raises(ClusterError, match="gone-1-a has taken over"):
            change()


def test_a_rollout_that_somebody_else_has_conducted_since_is_theirs(namespace, elsewhere):
    """
    They have let go by now: nothing of it is removed from here.
    """
    first = elsewhere("asleep-1-a")
    age(first, 61)
    elsewhere("other-1-a").release()
    first.check_nobody_else()
    with pytest.raises(ClusterError, match="somebody else has taken over"):
        first.reclaim()
    assert LET_GO in namespace.get("Lease", NAME)["metadata"]["annotations"]


@pytest.mark.parametrize(
    "error", [ClusterError("the API server is away"), ForbiddenError("no leases")], ids=["away", "no role"]
)
def test_a_fall_does_not_wait_for_a_lease_that_cannot_be_read(namespace, take, error):
    """
    A rise does: it is refused.
    """
    lease = take()
    lease.acquire()
    age(lease, 31)

    def get(*args, **options):
        raise error

    namespace.get = namespace.patch = get
    lease.check_nobody_else()
    with pytest.raises(ClusterError, match=str(error)):
        lease.renew()
    assert lease.lost is None


def test_a_lease_that_was_there_is_given_back_as_it_was(namespace, take, elsewhere):
    """
    After a deployment that failed: held by nobody, with what was known; one that was not there is gone.
    """
    lease = take()
    lease.acquire()
    lease.give_back()
    assert namespace.get("Lease", NAME) is None
    first = elsewhere()
    first.save_state(phase="progressing", weight=25.0)
    first.release()
    second = take()
    second.acquire()
    second.save_state(phase="pending", weight=5.0)
    second.give_back(weight=0.0)
    found = namespace.get("Lease", NAME)
    assert (holder_of(found), state_of(found)) == ("", {"phase": "progressing", "weight": 0.0})


def test_a_double_that_keeps_versions(namespace, take):
    """
    The namespace of these tests refuses a write over what it did not see.
    """
    take().acquire()
    found = namespace.get("Lease", NAME)
    namespace.replace(found)
    with pytest.raises(ConflictError):
        namespace.replace(found)
