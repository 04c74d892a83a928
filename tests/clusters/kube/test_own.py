"""Versions of a team: what is found of them, what a rollout waits for and scales, and what a promotion writes."""

import copy
import itertools
from pathlib import Path

import pytest
import yaml
from kube_doubles import Namespace

import canarykit as ck
from canarykit import polling
from canarykit.clusters.kube.workloads import pods as pods_module
from canarykit.clusters.kube.workloads.own import OwnVersions, prepare_own
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.errors import CancelledError, ClusterError, PlanError, UnrestoredError

EXAMPLE = Path(__file__).parents[3] / "deploy/examples/recommender.yaml"
COPY = ck.Service(
    "recommender",
    ck.Version("v1", deployment="recommender"),
    ck.Version("v2", like="recommender", image="registry.example/recommender:2", env={"MODEL": "2026-11"}),
)
BOTH = ck.Service("recommender", ck.Version("v1", deployment="blue"), ck.Version("v2", deployment="green"))


class Server(Namespace):
    """A namespace whose Deployments are up at once, unless `ready` says of one how many pods are."""

    def __init__(self, *bodies):
        self.ready, self.asked, self.failing = {}, [], {}
        super().__init__(*bodies)

    def get(self, kind, name, *, namespace=None):
        found = super().get(kind, name)
        if found is not None and kind == "Deployment":
            asked = found["spec"]["replicas"]
            up = self.ready.get(name, asked)
            found["status"] = {
                "observedGeneration": found["metadata"]["generation"],
                "replicas": asked,
                "updatedReplicas": asked,
                "availableReplicas": up() if callable(up) else up,
            }
        return found

    def list(self, kind, selector="", **options):
        self.asked.append(kind)
        return super().list(kind, selector, **options)

    def patch(self, kind, name, body, **options):
        errors = self.failing.get(name)
        if errors and (error := errors.pop(0)) is not None:
            raise error
        return super().patch(kind, name, body, **options)

    def apply(self, body, **options):
        return self._store(body)


def colour(name, objects):
    """The example's Deployment and Service under another name and label."""
    found = copy.deepcopy([objects["Deployment"], objects["Service"]])
    for body in found:
        body["metadata"]["name"] = name
    labels = {"app.kubernetes.io/name": name, "tier": "serving"}
    found[0]["spec"]["selector"] = {"matchLabels": labels}
    found[0]["spec"]["template"]["metadata"]["labels"] = labels
    found[1]["spec"]["selector"] = labels
    return found


@pytest.fixture
def objects():
    """Objects of the example, by kind."""
    return {body["kind"]: body for body in yaml.safe_load_all(EXAMPLE.read_text())}


@pytest.fixture
def server(objects, monkeypatch):
    """A namespace with the team's application in three colours."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            self.now += seconds

    monkeypatch.setattr(pods_module, "time", Clock())
    return Server(objects["Deployment"], objects["Service"], *colour("blue", objects), *colour("green", objects))


def versions_of(server, service=COPY):
    """Versions as `deploy` would have them, with the copy written; and what is said."""
    prepared, said = prepare_own(server, service), []
    for body in prepared.bodies:
        server.create(copy.deepcopy(body))
    pods = Pods(server, prepared.places, said.append)
    return OwnVersions(server, prepared, pods, notify=said.append, say=said.append), said


def serving(server, name="recommender"):
    """The container that serves, of a Deployment."""
    return server.get("Deployment", name)["spec"]["template"]["spec"]["containers"][1]


def test_a_copy_is_prepared_from_what_is_there(server):
    """
    Names, labels, the port of the pods and of the Services, and the path of the team's own probe; nothing is written.
    """
    before = list(server.writes)
    prepared = prepare_own(server, COPY)
    assert server.writes == before
    assert {role: (place.deployment, place.service, place.container) for role, place in prepared.places.items()} == {
        "stable": ("recommender", "recommender", "server"),
        "canary": ("recommender-canary", "recommender-canary", "server"),
    }
    assert (prepared.port, prepared.service_port) == (8000, 80)
    assert prepared.ready == {"stable": "/healthz", "canary": "/healthz"}
    assert [body["kind"] for body in prepared.bodies] == ["Deployment", "Service"]
    assert prepared.canary["metadata"]["annotations"]["canarykit.dev/build"] == "v2 registry.example/recommender:2"
    assert not prepared.leaves_canary
    assert "PersistentVolumeClaim" not in server.asked


def test_two_deployments_are_found_and_left_alone(server):
    """
    Nothing is to be written, and a promotion leaves the canary with the traffic.
    """
    prepared = prepare_own(server, BOTH)
    assert (prepared.bodies, prepared.canary, prepared.leaves_canary) == ([], None, True)
    assert prepared.places["canary"].selector == {"app.kubernetes.io/name": "green", "tier": "serving"}


def test_a_path_that_was_given_comes_before_that_of_the_probe(server):
    """
    Paths may differ between the versions.
    """
    service = ck.Service("r", ck.Version("v1", deployment="blue", ready="/up"), ck.Version("v2", deployment="green"))
    assert prepare_own(server, service).ready == {"stable": "/up", "canary": "/healthz"}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda server: server.delete("Deployment", "green"), "no Deployment green in namespace ns"),
        (lambda server: server.delete("Service", "green"), "no Service selects the pods of Deployment green"),
        (
            lambda server: server.edit("Service", "green", selector={"tier": "serving"}),
            r"Service green of canary selects .* stable",
        ),
        (
            lambda server: server.edit("Deployment", "blue", selector={"matchLabels": {"tier": "serving"}}),
            "Deployment blue of stable selects the pods of canary",
        ),
        (lambda server: server.edit("Service", "green", ports=[{"port": 81, "targetPort": "web"}]), "different ports"),
    ],
    ids=["no deployment", "no service", "a service of both", "a deployment of both", "another port"],
)
def test_versions_that_cannot_be_told_apart_are_refused(server, damage, says):
    """
    In words, before anything is written.
    """
    server.delete("Service", "recommender")
    damage(server)
    with pytest.raises((ClusterError, PlanError), match=says):
        prepare_own(server, BOTH)


def test_the_copy_follows_what_stable_has_now(server):
    """
    An autoscaler has given stable eight pods by noon: a share of a quarter takes two, all traffic eight; never fewer than one.
    """
    versions, _ = versions_of(server)
    server.edit("Deployment", "recommender", replicas=8)
    for share, pods in ((0.05, 1), (0.25, 2), (1.0, 8), (0.25, 8)):
        versions.ensure_capacity("canary", share)
        assert server.get("Deployment", "recommender-canary")["spec"]["replicas"] == pods
    assert server.get("Deployment", "recommender")["spec"]["replicas"] == 8
    assert versions.wanted == {"canary": 8}


@pytest.mark.parametrize("role", ["stable", "canary"])
def test_pods_of_the_team_are_waited_for_and_never_scaled(server, role):
    """
    Whoever scales them has chosen; with none that is ready the wait ends in an error.
    """
    versions, said = versions_of(server, BOTH)
    name, counts = {"stable": "blue", "canary": "green"}[role], iter([0, 0, 1, 2, 2])
    server.ready[name] = lambda: next(counts)
    versions.ensure_capacity(role, 1.0)
    assert said == [f"{role} has 0 of the 2 pods that its share needs: waiting for the others first"]
    versions.scale(role, 5)
    assert server.get("Deployment", name)["spec"]["replicas"] == 2
    server.ready[name] = 0
    with pytest.raises(ClusterError, match=f"{name} .* has 0 of 2 pods ready after 60 s"):
        versions.ensure_capacity(role, 0.5)


def test_a_promotion_gives_the_team_the_canarys_image_and_nothing_else(server):
    """
    Image and variables of one container; number of pods, labels and the other container stay.
    """
    versions, _ = versions_of(server)
    before = server.get("Deployment", "recommender")
    versions.promote(60.0, lambda: False)
    after = server.get("Deployment", "recommender")
    assert serving(server)["image"] == "registry.example/recommender:2"
    assert serving(server)["env"][1] == {"name": "MODEL", "value": "2026-11"}
    for body in (before, after):
        body["metadata"] = {key: body["metadata"].get(key) for key in ("name", "labels", "annotations")}
        body.pop("status")
        for field in ("image", "env"):
            body["spec"]["template"]["spec"]["containers"][1].pop(field)
    assert after == before
    assert versions.service.stable.name == "v2"


@pytest.mark.parametrize(
    ("ready", "cancelled", "error"),
    [(0, lambda: True, CancelledError), (0, lambda: False, ClusterError)],
    ids=["cancelled", "never ready"],
)
def test_a_promotion_that_ends_early_gives_back_what_was(server, ready, cancelled, error):
    """
    The team's container is as it was.
    """
    versions, _ = versions_of(server)
    before = serving(server)
    server.ready["recommender"] = ready
    with pytest.raises(error):
        versions.promote(5.0, cancelled)
    assert serving(server) == before
    assert versions.service.stable.name == "v1"


def test_a_promotion_that_cannot_be_taken_back_says_so(server):
    """
    Nobody must believe that stable is what it was.
    """
    versions, _ = versions_of(server)
    server.ready["recommender"], server.failing["recommender"] = 0, [None, ClusterError("away")]
    with pytest.raises(UnrestoredError, match=r"could not be given back what it had \(away\)"):
        versions.promote(5.0, lambda: False)


def test_a_service_of_the_copy_is_made_again_and_one_of_the_team_is_not(server):
    """
    What the kit made it mends, and says so.
    """
    versions, said = versions_of(server)
    for name in ("recommender-canary", "recommender"):
        server.delete("Service", name)
        versions.mend(name)
    assert server.get("Service", "recommender-canary") is not None
    assert server.get("Service", "recommender") is None
    assert said == ["Service recommender-canary was deleted: it was made again"]


def controller(server, text, *, after):
    """A GitOps controller that applies the patch of a file after so many reads, with its variables in an order of its own."""
    reads = itertools.count()

    def ready():
        if next(reads) == after:
            (patch,) = yaml.safe_load(Path(text).read_text())["spec"]["template"]["spec"]["containers"]
            found = server.get("Deployment", "recommender")["spec"]["template"]
            container = found["spec"]["containers"][1]
            container["image"] = patch["image"]
            container["env"] = [*patch["env"], *(each for each in container["env"] if each["name"] != "MODEL")]
            server.edit("Deployment", "recommender", template=found)
        return 2

    server.ready["recommender"] = ready


@pytest.fixture
def handed_over(server, tmp_path, monkeypatch):
    """Versions that somebody else promotes, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(polling.time, "sleep", lambda seconds: None)
    versions, said = versions_of(server)
    versions._hand_over = 0.5
    return versions, said


def test_a_promotion_is_handed_over_as_a_patch(server, handed_over, tmp_path):
    """
    What differs is in a file that its owner alone reads; the kit writes nothing of the team's, and sees that it is applied.
    """
    versions, said = handed_over
    file = tmp_path / "recommender-promotion.yaml"
    controller(server, file, after=3)
    writes = list(server.writes)
    versions.promote(60.0, lambda: False)
    assert yaml.safe_load(file.read_text())["spec"]["template"]["spec"]["containers"] == [
        {"name": "server", "image": "registry.example/recommender:2", "env": [{"name": "MODEL", "value": "2026-11"}]}
    ]
    assert file.stat().st_mode & 0o077 == 0
    assert server.writes == [*writes, ("Deployment", "recommender")]  # the controller's
    assert said == [f"commit what is in {file}: Deployment recommender has 0.5 s to run it"]
    assert versions.service.stable.name == "v2"


@pytest.mark.parametrize(("cancelled", "error"), [(True, CancelledError), (False, ClusterError)])
def test_a_promotion_that_nobody_carries_out_ends(server, handed_over, cancelled, error):
    """
    In time, or when it is cancelled; stable is what it was.
    """
    versions, _ = handed_over
    with pytest.raises(error, match=r"run what is in recommender-promotion\.yaml"):
        versions.promote(60.0, lambda: cancelled)
    assert versions.service.stable.name == "v1"


def test_a_promotion_that_was_handed_over_and_fails_is_no_old_version(server, handed_over, tmp_path):
    """
    The controller has applied it, and the pods do not come up: the kit cannot take that back.
    """
    versions, _ = handed_over
    controller(server, tmp_path / "recommender-promotion.yaml", after=3)
    ready = server.ready["recommender"]
    server.ready["recommender"] = lambda: ready() and 0
    with pytest.raises(UnrestoredError, match=r"runs the change of .* by now: revert it there"):
        versions.promote(60.0, lambda: False)
