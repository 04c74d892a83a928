"""What the guard does: it returns traffic when nobody renews the lease, by a clock of its own."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from kube_doubles import Hands, Namespace

from canarykit.clusters.kube import guard
from canarykit.clusters.kube.api.lease import RETURNED, STATE, Lease
from canarykit.clusters.kube.api.liveness import Watched, holder_of
from canarykit.errors import ClusterError, ForbiddenError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.places import managed_places
from canarykit.routers.base import Capabilities, Change
from canarykit.routers.gateway_api import GatewayApiRouter
from canarykit.routers.objects import Target

NAME = "digits-rollout"
TARGET = Target("digits", 80, {})
BINDING = {"places": {role: asdict(place) for role, place in managed_places("digits").items()}}


@pytest.fixture
def namespace():
    """An empty namespace."""
    return Namespace()


@pytest.fixture(autouse=True)
def hands(monkeypatch):
    """The clock by which the guard waits."""
    made = Hands()
    monkeypatch.setattr(guard, "Watched", lambda: Watched(made.monotonic))
    monkeypatch.setattr(guard, "time", SimpleNamespace(sleep=made.sleep, monotonic=made.monotonic))
    return made


class Router:
    """A route with a weight, that somebody may have left in disorder."""

    capabilities = Capabilities()

    def __init__(self, weight):
        self.weight, self.applied, self.testers = weight, [], True

    def observed(self):
        """What the object says."""
        if self.weight is None:
            raise RoutingError("the rules split the traffic differently")
        return TrafficSplit(self.weight)

    def write(self, split, *, expected=None):
        """Write it."""
        self.applied.append(split.canary)
        self.weight = split.canary
        return Change(split)

    def confirm(self, change):
        """It is served at once."""

    def admit_testers(self, admitted):
        """Have no header lead to a version."""
        self.testers = admitted


@pytest.fixture
def router(monkeypatch):
    """The route that the guard finds, a quarter on the canary; the guard looks often."""
    made = Router(25.0)
    monkeypatch.setattr(guard, "bind", lambda client, app, **binding: made)
    return made


@pytest.fixture
def lease(namespace):
    """A lease that a process has taken, a quarter on the canary; nobody renews it."""
    made = Lease(namespace, "digits", {"app": "digits"})
    made.holder = "elsewhere-1-a"
    made.acquire()
    made.save_state(phase="progressing", weight=25.0)
    made.stop()
    return made


@pytest.fixture
def facts(lease):
    """What the guard of that lease is told."""
    return {"lease": NAME, "holder": lease.holder, "seconds": 60, "app": "digits", "binding": BINDING}


def test_the_guard_returns_traffic_when_nobody_renews(namespace, router, facts):
    """
    All on stable, and word is left for whoever comes next.
    """
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    found = namespace.get("Lease", NAME)
    assert holder_of(found) == ""
    assert json.loads(found["metadata"]["annotations"][STATE]) == {
        "phase": RETURNED,
        "weight": 0.0,
    }


@pytest.mark.parametrize("renewed", ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"], ids=["behind", "ahead"])
def test_the_guard_compares_no_clocks(namespace, router, facts, hands, renewed):
    """
    It waits for as long as the lease lasts, by its own clock, whatever time its holder wrote.
    """
    namespace.edit("Lease", NAME, renewTime=renewed)
    assert guard.watch(namespace, facts) == "returned"
    assert 1060 < hands.seconds < 1070


@pytest.mark.parametrize("how", ["let go", "taken over", "taken over and let go"])
def test_the_guard_ends_with_its_lease(namespace, router, lease, facts, how):
    """
    Then somebody else knows what to do: the route is left as it is.
    """
    if how == "let go":
        lease.release()
    else:
        other = Lease(namespace, "digits", {}, clock=Hands())
        other.acquire()
        other.release() if "let go" in how else other.stop()
    assert guard.watch(namespace, facts) == "released"
    assert router.applied == []


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_the_guard_acts_where_nobody_takes_a_harmed_lease_again(namespace, router, facts, hands, how):
    """
    Its holder is gone as well: traffic returns, and no lease is made for that.
    """
    if how == "deleted":
        namespace.delete("Lease", NAME)
    else:
        namespace.edit("Lease", NAME, holderIdentity="")
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    assert hands.seconds > 1060
    assert (namespace.get("Lease", NAME) is None) == (how == "deleted")


def test_the_guard_goes_on_with_a_lease_that_was_taken_again(namespace, router, lease, facts, hands):
    """
    Somebody deletes it again and again, and its holder makes it anew: no traffic is moved.
    """

    def wait():
        if hands.seconds > 2000:
            lease.release()
        elif namespace.get("Lease", NAME) is None:
            lease.renew()
        else:
            namespace.delete("Lease", NAME)

    hands.waits = wait
    assert guard.watch(namespace, facts) == "released"
    assert router.applied == []


@pytest.mark.parametrize(("weight", "applied"), [(0.0, []), (None, [0.0])])
def test_the_guard_writes_what_is_needed(namespace, router, facts, weight, applied):
    """
    Nothing where all is on stable already; rules that disagree are put right.
    """
    router.weight = weight
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == applied


def test_the_guard_waits_while_the_lease_is_renewed_and_the_server_away(namespace, router, lease, facts, hands, capsys):
    """
    It looks again after an error, and acts when it can.
    """
    away, real = [], namespace.get

    def get(kind, name, **options):
        if 1020 < hands.seconds < 1200:
            away.append(hands.seconds)
            raise ClusterError("the API server is away")
        if hands.seconds < 1300:
            lease.renew()
        return real(kind, name, **options)

    namespace.get = get
    assert guard.watch(namespace, facts) == "returned"
    assert away
    assert 1360 <= hands.seconds < 1375
    assert "guard of digits: the API server is away" in capsys.readouterr().err


def test_the_guard_of_a_cluster_that_is_gone_ends(namespace, router, facts, hands):
    """
    Nobody has answered for a day, or lets it look any more: no process stays for ever.
    """

    def get(*args, **options):
        raise ClusterError("the API server does not know these credentials")

    namespace.get = get
    assert guard.watch(namespace, facts) == "gone"
    assert hands.seconds > 86_400
    assert router.applied == []


@pytest.mark.parametrize("error", [RoutingError("no version answers"), UnicodeError("label too long")])
def test_the_guard_looks_again_whatever_went_wrong(namespace, router, facts, capsys, error):
    """
    The weights are written and the gateway does not answer: it does not end before it has left word.
    """

    def unseen(change):
        raise error

    router.confirm = unseen
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    assert holder_of(namespace.get("Lease", NAME)) == ""
    assert str(error) in capsys.readouterr().err


@pytest.mark.parametrize("weight", [25.0, 0.0])
def test_the_guard_ends_the_testers_header(namespace, router, facts, weight):
    """
    The rollout is over for them, too, also where all is on stable already.
    """
    router.weight = weight
    assert guard.watch(namespace, facts) == "returned"
    assert not router.testers


@pytest.mark.parametrize("error", [ForbiddenError("cannot patch HTTPRoute"), KeyError("rules")], ids=["forbidden", "strange"])
def test_testers_that_cannot_be_ended_keep_the_guard_from_nothing(namespace, router, facts, hands, monkeypatch, capsys, error):
    """
    Traffic has returned, and word is left; it is told.
    """

    def fail(admitted):
        raise error

    monkeypatch.setattr(router, "admit_testers", fail)
    assert guard.watch(namespace, facts) == "returned"
    assert holder_of(namespace.get("Lease", NAME)) == ""
    assert hands.seconds < 1070
    assert "header for testers may lead to the canary still" in capsys.readouterr().err


def pod(role, *, ready=True, leaves=False):
    """A pod of a version."""
    meta = {"name": f"digits-{role}-1", "labels": {"app": "digits", "version": role}}
    if leaves:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"kind": "Pod", "metadata": meta, "status": {"conditions": conditions}}


@pytest.mark.parametrize("stable", ["none", "not ready", "leaving"])
@pytest.mark.parametrize("weight", [25.0, 100.0, None])
def test_the_guard_takes_nothing_from_a_canary_that_alone_serves(namespace, router, facts, hands, capsys, stable, weight):
    """
    Stable has nothing to serve with: the guard waits until it has, and says so once. Rules that disagree are left, too.
    """
    router.weight = weight
    namespace.create(pod("canary"))
    if stable != "none":
        namespace.create(pod("stable", ready=stable == "leaving", leaves=stable == "leaving"))

    def wait():
        if hands.seconds > 1500:
            namespace._store(pod("stable"))
        else:
            assert router.applied == []

    hands.waits = wait
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    assert hands.seconds > 1500
    assert capsys.readouterr().err.count("the canary alone serves") == 1


@pytest.mark.parametrize(
    "pods", [[], [("canary", False)], [("canary", True), ("stable", True)]], ids=["none", "broken", "both"]
)
def test_the_guard_returns_traffic_that_gets_no_worse(namespace, router, facts, hands, pods):
    """
    No version serves, or both do.
    """
    for role, ready in pods:
        namespace.create(pod(role, ready=ready))
    assert guard.watch(namespace, facts) == "returned"
    assert router.applied == [0.0]
    assert hands.seconds < 1070


@pytest.mark.parametrize("why", ["nothing to return", "not seen", "other pods", "brings up pods"])
def test_the_guard_waits_for_no_stable_that_it_need_not(namespace, router, facts, hands, monkeypatch, why):
    """
    All is on stable already; a role may not see pods; or the router splits between pods that are not the kit's, or brings up
    stable's itself: with pods as a router, stable has none at 100 %.
    """
    namespace.create(pod("canary"))
    if why == "nothing to return":
        router.weight = 0.0
    elif why == "not seen":
        monkeypatch.setattr(namespace, "list", lambda *args, **options: forbidden())
    elif why == "other pods":
        router.capabilities = Capabilities(promoted_by="do it in KServe")
    else:
        router.capabilities = Capabilities(scales=True)
    assert guard.watch(namespace, facts) == "returned"
    assert router.weight == 0.0
    assert hands.seconds < 1070


def forbidden():
    """Refuse a request."""
    raise ForbiddenError("cannot list Pod")


def test_the_guard_of_what_is_not_there_ends(namespace, facts, monkeypatch):
    """
    A kernel that died while it deployed for the first time has no route yet, and no canary that gets anything.
    """
    monkeypatch.setattr(
        guard, "bind", lambda client, app, **binding: GatewayApiRouter(client, TARGET, url="http://127.0.0.1:1")
    )
    assert guard.watch(namespace, facts) == "returned"
    assert holder_of(namespace.get("Lease", NAME)) == ""


def test_the_guard_outlives_its_terminal(namespace, router, facts, monkeypatch):
    """
    Nobody can read what it has to say any more: it goes on all the same.
    """
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

    def taken(split, **how):
        namespace.edit("Lease", NAME, holderIdentity="another")
        router.applied.append(split.canary)
        return Change(split)

    router.write = taken
    assert guard.watch(namespace, facts) == "released"
    found = namespace.get("Lease", NAME)
    assert holder_of(found) == "another"
    assert json.loads(found["metadata"]["annotations"][STATE])["phase"] == "progressing"
