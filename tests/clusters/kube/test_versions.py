"""What each version runs: promotions that take long or fail, and how many pods there must be before traffic moves."""

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube.workloads import pods as pods_module
from canarykit.clusters.kube.workloads.managed import ManagedVersions
from canarykit.clusters.kube.workloads.manifests import Workload, deployment
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.clusters.kube.workloads.prepared import managed
from canarykit.errors import CancelledError, ClusterError, ConflictError, UnrestoredError
from canarykit.interrupts import never
from canarykit.model import ROLES
from canarykit.places import managed_places

SERVICE = ck.Service("d", ck.Version("v1", image="ai:1"), ck.Version("v2", image="ai:2"), replicas=6)


class Clock:
    """Time that passes when someone waits."""

    def __init__(self):
        self.now, self.slept = 0.0, 0.0

    def monotonic(self):
        """Seconds since some moment."""
        return self.now

    def sleep(self, seconds):
        """Let time pass, at once."""
        self.now += seconds
        self.slept += seconds


class Server(Namespace):
    """Deployments whose pods are replaced one after the other, each in so many seconds, when their template changes."""

    def __init__(self, clock, *, takes=0.0):
        self.takes, self.ready, self.answers, self.reads = takes, {}, iter(()), []
        self._clock, self._changed = clock, {}
        super().__init__(*(deployment(SERVICE, role, Workload()) for role in ROLES))

    def get(self, kind, name, *, namespace=None):
        """Read an object; of a Deployment with its status at this moment."""
        self.reads.append((kind, name))
        found = super().get(kind, name)
        if found is not None and kind == "Deployment":
            found["status"] = {"observedGeneration": found["metadata"]["generation"], **self._counts(name, found)}
        return found

    def list(self, kind, selector="", *, everywhere=False, fields=""):
        """No pods and no events: they only explain."""
        self.reads.append((kind, selector))
        return []

    def apply(self, body, *, dry_run=False, force=False):
        """Write our fields; the answer may be an error, before the write or after it."""
        early, late = next(self.answers, (None, None))
        if early is not None:
            raise early
        name = body["metadata"]["name"]
        found = super().get("Deployment", name)
        if found is None or found["spec"]["template"] != body["spec"].get("template"):
            self._changed[name] = self._clock.now
        self._store(body)
        if late is not None:
            raise late
        return self.get(body["kind"], name)

    def _counts(self, name, found):
        asked = found["spec"]["replicas"]
        if name in self.ready:
            ready = self.ready[name]
            return {"replicas": asked, "updatedReplicas": asked, "availableReplicas": ready() if callable(ready) else ready}
        age = self._clock.now - self._changed.get(name, -1e9)
        new = min(asked, int(age / self.takes) if self.takes else asked)
        going = new < asked
        return {"replicas": asked + going, "updatedReplicas": new + going, "availableReplicas": asked}


@pytest.fixture
def clock(monkeypatch):
    """Let what waits for pods wait in no time."""
    made = Clock()
    monkeypatch.setattr(pods_module, "time", made)
    return made


@pytest.fixture
def server(clock):
    """A namespace with both Deployments, up."""
    return Server(clock)


@pytest.fixture
def versions(server):
    """Both versions of the service."""
    return ManagedVersions(
        server,
        managed(SERVICE, Workload(), {}),
        Workload(),
        Pods(server, managed_places("d"), lambda line: None),
        adopt=False,
        notify=lambda line: None,
    )


def image_of(server, role):
    """What the pods of a version are to run."""
    return server.get("Deployment", f"d-{role}")["spec"]["template"]["spec"]["containers"][0]["image"]


# Promotions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", [True, False])
def test_a_promotion_whose_write_was_not_confirmed_is_taken_back(server, versions, written):
    """
    The answer was lost, and the write may have been done: stable gets its own version back, and the error is that of the write.
    """
    lost = ClusterError("the API server did not answer for 60 s")
    server.answers = iter([(None, lost) if written else (lost, None)])
    with pytest.raises(ClusterError, match="did not answer") as caught:
        versions.promote(120, never)
    assert not isinstance(caught.value, UnrestoredError)
    assert image_of(server, "stable") == "ai:1"
    assert versions.service == SERVICE


def test_a_promotion_that_cannot_be_taken_back_says_so(server, versions):
    """
    The API server stays away: stable may be on its way to the new version, and nobody says otherwise.
    """
    server.answers = iter([(None, ClusterError("no answer")), (ClusterError("still no answer"), None)])
    with pytest.raises(UnrestoredError, match=r"no answer; d-stable could not be given back v1 \(still no answer\)"):
        versions.promote(120, never)
    assert image_of(server, "stable") == "ai:2"


def test_a_promotion_over_what_someone_else_owns_changes_nothing(server, versions):
    """
    It is refused: there is nothing to take back, and what they wrote stays.
    """
    server.answers = iter([(ConflictError('conflict with "kubectl-set"'), None), (AssertionError("written"), None)])
    with pytest.raises(ConflictError):
        versions.promote(120, never)
    assert image_of(server, "stable") == "ai:1"


def test_a_promotion_may_take_as_long_as_its_pods_do_one_after_the_other(clock, server, versions):
    """
    Six pods of 25 s each were all up after 25 s when they were deployed; replaced one by one they have 120 s each, too.
    """
    server.takes = 25.0
    versions.promote(120, never)
    assert image_of(server, "stable") == "ai:2"
    assert versions.service.stable.name == "v2"
    assert 149 < clock.now < 151


def test_a_promotion_that_is_cancelled_is_taken_back(clock, server, versions):
    """
    Somebody aborts while pods are replaced: stable's Deployment is what it was.
    """
    server.takes = 25.0
    asked = []
    with pytest.raises(CancelledError, match="of 6 are ready"):
        versions.promote(120, lambda: bool(asked.append(image_of(server, "stable"))) or len(asked) > 1)
    assert asked == ["ai:2", "ai:2"]
    assert image_of(server, "stable") == "ai:1"
    assert versions.service == SERVICE


def test_a_promotion_that_makes_no_progress_ends(clock, server, versions):
    """
    One pod takes longer than it may: the others are not waited for.
    """
    server.takes = 200.0
    with pytest.raises(ClusterError, match=r"d-stable \(version 'v2'\) has 0 of 6 pods ready after 120 s"):
        versions.promote(120, never)
    assert image_of(server, "stable") == "ai:1"


def test_a_pod_that_comes_and_goes_gains_no_time(clock, server):
    """
    Only more pods than ever before do, so that the wait is bounded by their number.
    """
    server.ready["d-canary"] = lambda: int(clock.now) % 2
    with pytest.raises(ClusterError, match=r"of 6 pods ready after 12[01] s"):
        Pods(server, managed_places("d"), lambda line: None).wait_ready("canary", 6, 120)


# Capacity ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "share", "needed"),
    [
        ("canary", 0.0, 1),
        ("canary", 0.05, 1),
        ("canary", 0.5, 3),
        ("canary", 0.51, 4),
        ("canary", 1.0, 6),
        ("stable", 0.05, 1),
        ("stable", 1.0, 6),
    ],
)
def test_a_version_has_pods_for_its_share_before_it_gets_it(clock, server, versions, role, share, needed):
    """
    When they are there that is one look and no wait; one fewer is waited for, for a minute, and then told.
    """
    server.ready[f"d-{role}"] = needed
    server.reads.clear()
    versions.ensure_capacity(role, share)
    assert server.reads == [("Deployment", f"d-{role}")]
    assert clock.slept == 0
    server.ready[f"d-{role}"] = needed - 1
    with pytest.raises(ClusterError, match=rf"d-{role} .*of {needed} pods ready after 60 s"):
        versions.ensure_capacity(role, share)
    server.ready[f"d-{role}"] = lambda: needed if clock.now > 100 else needed - 1
    versions.ensure_capacity(role, share)
    assert server.writes == [("Deployment", "d-stable"), ("Deployment", "d-canary")]


def test_a_share_of_many_pods_is_not_rounded_up_by_a_bit(server):
    """
    Seven percent of a hundred pods are seven, although 0.07 × 100 is a little more.
    """
    many = ck.Service("d", SERVICE.stable, SERVICE.canary, replicas=100)
    server.ready["d-canary"] = 7
    versions = ManagedVersions(
        server, managed(many, Workload(), {}), Workload(), Pods(server, managed_places("d"), print), adopt=False, notify=print
    )
    versions.ensure_capacity("canary", 0.07)
    assert ("Pod", "app=d,version=canary") not in server.reads


def test_a_wait_for_capacity_is_not_prolonged(clock, server, versions):
    """
    One more pod every minute would keep a failing canary's traffic where it is.
    """
    server.ready["d-stable"] = lambda: int(clock.now / 50)
    with pytest.raises(ClusterError, match="of 6 pods ready after 60 s"):
        versions.ensure_capacity("stable", 1.0)
    assert clock.now < 62


def test_a_return_waits_only_for_what_returns(clock, server, versions):
    """
    Something holds stable at two pods: all are asked for again, and the share of a canary at 5 % does not wait for them.
    """
    server.patch("Deployment", "d-stable", {"spec": {"replicas": 2}})
    server.ready["d-stable"] = 2
    versions.ensure_capacity("stable", 0.05)
    assert clock.slept == 0
    assert server.get("Deployment", "d-stable")["spec"]["replicas"] == 6


@pytest.mark.parametrize(("asked", "becomes"), [(1, 3), (3, 3), (5, 5), (0, 0)])
def test_a_canary_that_was_scaled_down_gets_what_its_share_needs(server, versions, asked, becomes):
    """
    But no pod when somebody took all away.
    """
    server.patch("Deployment", "d-canary", {"spec": {"replicas": asked}})
    if asked:
        versions.ensure_capacity("canary", 0.5)
    else:
        with pytest.raises(ClusterError, match="0 of 3 pods ready"):
            versions.ensure_capacity("canary", 0.5)
    assert server.get("Deployment", "d-canary")["spec"]["replicas"] == becomes


@pytest.mark.parametrize(
    "change", [lambda versions: versions.ensure_capacity("stable", 1.0), lambda versions: versions.scale("stable", 4)]
)
def test_a_number_of_pods_is_all_that_is_changed(server, versions, change):
    """
    What someone has mended by hand meanwhile, and what another tool has written, stays.
    """
    server.patch("Deployment", "d-stable", {"spec": {"replicas": 2, "paused": True}, "metadata": {"labels": {"team": "ai"}}})
    theirs = server.get("Deployment", "d-stable")
    theirs["spec"]["template"]["spec"]["containers"][0]["image"] = "ai:1-hotfix"
    server.replace(theirs)
    server.ready["d-stable"] = 6
    change(versions)
    found = server.get("Deployment", "d-stable")
    assert found["spec"].pop("replicas") in (4, 6)
    del theirs["spec"]["replicas"]
    assert found["spec"] == theirs["spec"]
    assert found["metadata"]["labels"]["team"] == "ai"


def test_pods_of_what_is_gone_are_not_counted(server, versions):
    """
    Somebody deleted the Deployment: that is said.
    """
    server.delete("Deployment", "d-canary")
    with pytest.raises(ClusterError, match="Deployment d-canary"):
        versions.scale("canary", 0)
    with pytest.raises(ClusterError, match="Deployment d-canary is gone"):
        versions.ensure_capacity("canary", 0.5)


# What somebody took away -----------------------------------------------------------------------------------------------


@pytest.fixture
def said():
    """Lines that stay."""
    return []


@pytest.fixture
def told(server, said):
    """Both versions, which say what they bring back."""
    pods = Pods(server, managed_places("d"), lambda line: None)
    return ManagedVersions(
        server, managed(SERVICE, Workload(), {}), Workload(), pods, adopt=False, notify=lambda line: None, say=said.append
    )


def owned(server, name, manager):
    """Note who wrote the number of pods."""
    found = server.get("Deployment", name)
    owner = {"manager": manager, "time": "2026-11-24T10:00:00Z", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
    found["metadata"]["managedFields"] = [owner]
    server._store(found)


@pytest.mark.parametrize("asked", [0, 2])
def test_a_stable_that_was_scaled_down_is_scaled_up_and_that_is_said(server, told, said, asked):
    """
    With who did it, as far as the server knows.
    """
    server.edit("Deployment", "d-stable", replicas=asked)
    owned(server, "d-stable", "kubectl")
    told.ensure_capacity("stable", 0.05)
    assert server.get("Deployment", "d-stable")["spec"]["replicas"] == 6
    assert said == [f"d-stable was scaled to {asked} by kubectl: it was scaled up to 6 again"]
    told.ensure_capacity("stable", 0.05)
    assert len(said) == 1


def test_how_many_pods_an_autoscaler_wants_is_its_own_business(server, told, said):
    """
    Fewer than the service has are left to it.
    """
    server.edit("Deployment", "d-stable", replicas=3)
    owned(server, "d-stable", "kube-controller-manager")
    told.ensure_capacity("stable", 0.05)
    assert server.get("Deployment", "d-stable")["spec"]["replicas"] == 3
    assert said == []


def test_a_stable_that_was_deleted_is_made_again_and_that_is_said(server, told, said):
    """
    Of the version that it ran; a canary is not.
    """
    server.delete("Deployment", "d-stable")
    server.delete("Deployment", "d-canary")
    told.ensure_capacity("stable", 1.0)
    assert image_of(server, "stable") == "ai:1"
    assert said == ["Deployment d-stable was deleted: it was made again, with 6 pods"]
    with pytest.raises(ClusterError, match="Deployment d-canary is gone: somebody deleted it"):
        told.ensure_capacity("canary", 1.0)


@pytest.mark.parametrize("role", ROLES)
def test_a_service_that_was_deleted_is_made_again_and_that_is_said(server, told, said, role):
    """
    A gateway takes up no route that names one which is not there.
    """
    for _ in range(2):
        told.mend(f"d-{role}")
    assert server.get("Service", f"d-{role}")["spec"]["selector"] == {"app": "d", "version": role}
    assert said == [f"Service d-{role} was deleted: it was made again"]
