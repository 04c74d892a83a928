"""Values refuse what cannot be."""

import pytest

import canarykit as ck
from canarykit.errors import PlanError


@pytest.mark.parametrize("weight", [-0.1, 100.1, float("nan"), float("inf"), "many", None])
def test_a_weight_outside_0_to_100_is_refused(weight):
    """
    A weight is a number of percent from 0 to 100.
    """
    with pytest.raises(PlanError, match="canary weight must be"):
        ck.TrafficSplit(weight)


def test_a_split_takes_fractions_and_adds_up():
    """
    Fractions of a percent are weights too, and stable has the rest.
    """
    split = ck.TrafficSplit(0.05)
    assert (split.stable, split.share, str(split)) == (99.95, 0.0005, "0.05 %")


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        ({}, "none of them"),
        ({"model": object(), "image": "x"}, "model and image"),
        ({"command": "serve {port}"}, "list of words"),
        ({"command": b"serve {port}"}, "list of words"),
        ({"command": 8000}, "list of words"),
        ({"command": ["serve", 8000]}, r"write the number 8000 as '8000', or as '\{port\}' if it is the port"),
        ({"command": ["serve", 0.5]}, "write the number 0.5 as '0.5'"),
        ({"command": ["serve", None, "{port}"]}, "each of them text: it has None"),
        ({"command": ["serve", "{port}", "a\0b"]}, "zero byte"),
        ({"image": "x", "ready": None}, "ready of version 'v1' must be a path such as /healthz, not None"),
        ({"image": "x", "ready": 200}, "must be a path"),
        ({"image": "x", "ready": "healthz"}, "must be a path"),
    ],
)
def test_a_version_comes_from_exactly_one_place(sources, complaint):
    """
    Zero or two sources, a command that is no list of words, a ready path that is none: each is refused in words.
    """
    with pytest.raises(PlanError, match=complaint):
        ck.Version("v1", **sources)


@pytest.mark.parametrize(
    ("env", "complaint"),
    [
        ({"DEBUG": 1}, r"env= values are text: write DEBUG='1' \(env= of .* has a value of type int\)"),
        ({"DEBUG": True}, r"write DEBUG='1' .* has True\)"),
        ({"RATE": 0.5}, "write RATE='…' .* of type float"),
        ({"MODE": None}, "write MODE='…' .* has None"),
        ({"TOKEN": b"s3cret"}, "of type bytes"),
        ({"TOKEN": "a\0b"}, "no zero byte"),
        ({"A=B": "x"}, "has the name 'A=B'"),
        ({"": "x"}, "has the name ''"),
        ({"1ST": "x"}, "begin with no digit"),
        ({"MY VAR": "x"}, "has the name 'MY VAR'"),
        ({2: "x"}, "has the name 2"),
        ([("A", "x")], "mapping of names to text"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(sorted(map(str, value))) or "empty",
)
@pytest.mark.parametrize("whose", ["version", "service"])
def test_an_environment_is_names_and_text(whose, env, complaint):
    """
    What would be turned into text is refused, without a word of a value that may be a secret.
    """
    version = ck.Version("v1", image="x")
    with pytest.raises(PlanError, match=complaint) as refused:
        ck.Version("v1", image="x", env=env) if whose == "version" else ck.Service("a", version, version, env=env)
    assert whose in str(refused.value)
    assert "s3cret" not in str(refused.value)


def test_an_environment_takes_what_processes_and_pods_do():
    """
    Any text, also none; names with dots and dashes.
    """
    env = {"_A.b-C1": "", "LONG": "a=b\nc"}
    assert ck.Version("v1", image="x", env=env).env == env


def test_a_service_has_a_name_and_replicas():
    """
    A name that would not fit into a path, and no replicas, are refused.
    """
    version = ck.Version("v1", image="x")
    with pytest.raises(PlanError, match="service name"):
        ck.Service("a/b", version, version)
    for wrong in (0, -1, "2", 1.5, None, True):
        with pytest.raises(PlanError, match="at least one replica"):
            ck.Service("a", version, version, replicas=wrong)
    with pytest.raises(PlanError, match="service name"):
        ck.Service(7, version, version)
    with pytest.raises(PlanError, match="canary of service 'a' is a Version, not None"):
        ck.Service("a", version, None)
    assert ck.Service("a", version, ck.Version("v2", image="y")).rehearsal().canary is version


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ck.metrics.error_rate(margin=1.0), "margin"),
        (lambda: ck.metrics.error_rate(tolerate=0), "tolerate"),
        (lambda: ck.metrics.error_rate(ceiling=2), "ceiling"),
        (lambda: ck.metrics.error_rate(mde=0.9), "mde"),
        (lambda: ck.metrics.latency(0.95, mde=1.5), "tolerate=1"),
        (lambda: ck.metrics.latency(95), "quantile between 0 and 1"),
        (lambda: ck.metrics.latency(0.95, tolerate=1.5, margin=1.2), "margin"),
    ],
)
def test_guardrails_that_contradict_themselves_are_refused(make, complaint):
    """
    A margin below what is tolerated cannot be shown, and so on.
    """
    with pytest.raises(PlanError, match=complaint):
        make()


def test_latency_cells_count_every_duration_once():
    """
    Zero goes to the first bucket, what never ended to the last, NaN to none.
    """
    cells = ck.metrics.latency_cells([0.0, 50e-6, 0.01, 1e9, float("inf")])
    assert (cells.sum(), cells[0], cells[-1]) == (5, 2, 2)
    with pytest.raises(ValueError, match="NaN"):
        ck.metrics.latency_cells([float("nan")])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"deployment": "rec", "image": "a:1"}, "not image and deployment"),
        ({"deployment": "rec", "like": "rec"}, "not deployment and like"),
        ({"deployment": "rec", "args": ["--fast"]}, "args of version 'v1' cannot differ"),
        ({"deployment": "rec", "env": {"A": "b"}}, "env= of version 'v1' cannot differ"),
        ({"like": "rec", "service": "rec"}, "service= of version 'v1' is the Service of deployment="),
        ({"image": "a:1", "container": "server"}, "container= of version 'v1' is a container of deployment= or like="),
        ({"image": "a:1", "args": "--fast"}, "args of version 'v1' must be a list of words, not one string"),
        ({"command": ["serve", "{port}"], "args": ["--fast"]}, "args= of version 'v1' is for a container"),
        ({"like": "rec", "resources": "1 cpu"}, "resources= of version 'v1' is a mapping"),
    ],
)
def test_what_cannot_be_said_of_a_deployment_of_ones_own_is_refused(given, says):
    """
    It runs already, and a copy of it is another way.
    """
    with pytest.raises(PlanError, match=says):
        ck.Version("v1", **given)


@pytest.mark.parametrize(
    ("stable", "canary", "says"),
    [
        ({"like": "rec"}, {"like": "rec"}, "stable of 'rec' is what serves now"),
        ({"deployment": "rec"}, {"image": "a:2"}, "one version of 'rec' is a Deployment of your own and the other is not"),
        ({"image": "a:1"}, {"like": "rec"}, "one version of 'rec' is a Deployment of your own and the other is not"),
        ({"deployment": "rec"}, {"like": "other"}, "is a copy of other, and stable is rec"),
        ({"deployment": "rec"}, {"deployment": "rec"}, "both versions of 'rec' are Deployment rec"),
    ],
)
def test_versions_of_different_ways_are_refused(stable, canary, says):
    """
    Both are a team's own, or none is.
    """
    with pytest.raises(PlanError, match=says):
        ck.Service("rec", ck.Version("v1", **stable), ck.Version("v2", **canary))


def test_a_copy_may_have_another_image():
    """
    Image and the Deployment that it is like belong together.
    """
    canary = ck.Version("v2", like="rec", image="a:2", args=["--fast"], resources={"requests": {"cpu": "1"}})
    assert ck.Service("rec", ck.Version("v1", deployment="rec"), canary).canary.image == "a:2"
