"""What every cluster promises to a rollout: the same of the simulated one as of the real one on this machine."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import canarykit as ck
from canarykit.clusters.base import Clock, Cluster, Traffic
from canarykit.clusters.simulated import SCENARIOS, Behaviour, Scenario, SimulatedCluster
from canarykit.errors import CanaryError, ClusterError, PlanError
from canarykit.health import Health
from canarykit.metrics import CONFUSION, LATENCY_EDGES
from canarykit.routers.base import Router, apply
from canarykit.telemetry.base import Telemetry
from canarykit.telemetry.labels import LabelledAnswers

KINDS = ["simulated", pytest.param("local", marks=pytest.mark.real("envoy"))]


@pytest.fixture(scope="module", params=KINDS)
def cluster(request, models):
    """A cluster that runs a service."""
    made = ck.connect(request.param)
    made.deploy(served(models))
    yield made
    made.teardown()


def served(models):
    """A service for either."""
    stable, canary = (ck.Version(name, model=models[kind]) for name, kind in (("v1", "stable"), ("v2", "good")))
    return ck.Service("digits", stable, canary, replicas=1)


def members(protocol):
    """What a protocol asks for: names of properties, and methods with the names of their parameters."""
    for name, member in vars(protocol).items():
        if isinstance(member, property):
            yield name, None
        elif inspect.isfunction(member) and not name.startswith("_"):
            yield name, list(inspect.signature(member).parameters)[1:]


def test_every_protocol_is_fulfilled(cluster):
    """
    Cluster, clock, router, telemetry and traffic have all that is asked, under the same names.
    """
    traffic = cluster.send(50)
    for protocol, thing in (
        (Cluster, cluster), (Clock, cluster.clock), (Router, cluster.router), (Telemetry, cluster.telemetry),
        (Traffic, traffic),
    ):  # fmt: skip
        for name, parameters in members(protocol):
            assert hasattr(thing, name), f"{type(thing).__name__} has no {name}"
            if parameters is not None and name != "send":
                assert list(inspect.signature(getattr(thing, name)).parameters) == parameters or "facts" in parameters
    traffic.stop()
    traffic.stop()


def test_a_split_is_in_force_when_apply_returns(cluster):
    """
    None, all, fractions, twice the same; reset returns to stable.
    """
    for weight in (0, 12.5, 12.5, 0.1, 100):
        assert apply(cluster.router, ck.TrafficSplit(weight)) >= 0
        assert cluster.router.observed() == ck.TrafficSplit(weight)
    cluster.router.reset()
    assert cluster.router.observed() == ck.TrafficSplit(0)


def test_windows_follow_one_another_and_hold_one_split(cluster):
    """
    Each begins where the one before ended; counts are whole numbers of both versions; labels make answers.
    """
    cluster.ensure_capacity("canary")
    assert cluster.health("canary") == Health()
    apply(cluster.router, ck.TrafficSplit(50))
    cluster.telemetry.begin(ck.TrafficSplit(50), cluster.clock.now())
    traffic, windows, labels = cluster.send(150, seed=2), [], LabelledAnswers()
    for _ in range(3):
        cluster.clock.sleep(1.0)
        labels.take(traffic.answers())
        windows.append(labels.added_to(cluster.telemetry.read(cluster.clock.now())))
    record = traffic.record()
    traffic.stop()
    assert [window.start for window in windows[1:]] == [window.end for window in windows[:-1]]
    for window in windows:
        assert window.split == ck.TrafficSplit(50)
        assert window.counts["outcome"].shape == window.counts["answers"].shape == (2, 2)
        assert window.counts["latency"].shape == (2, len(LATENCY_EDGES))
        assert all(table.dtype == np.int64 and (table >= 0).all() for table in window.counts.values())
        assert min(window.requests) > 0
    assert (record["lost_total"], traffic.asked["rate"]) == (0, 150)
    assert traffic.classes == tuple(range(10))
    cluster.router.reset()


def test_a_window_of_no_traffic_says_so(cluster):
    """
    Silence is a window, with a note.
    """
    cluster.telemetry.begin(ck.TrafficSplit(0), cluster.clock.now())
    window = cluster.telemetry.read(cluster.clock.now())
    assert window.requests == (0, 0)
    assert "no request" in window.note


def test_it_runs_one_service(cluster, models):
    """
    A second one is refused, and so is what cannot be sent.
    """
    with pytest.raises(ClusterError, match="runs a service already"):
        cluster.deploy(served(models))
    for options in ({"rate": "fast"}, {"rate": 1, "shape": "wave"}):
        with pytest.raises(PlanError):
            cluster.send(**options)


@pytest.mark.parametrize("kind", KINDS)
def test_before_a_deployment_it_says_what_to_do(kind):
    """
    Traffic and weight need something that runs.
    """
    cluster = ck.connect(kind)
    for call in (lambda: cluster.send(1), lambda: cluster.ensure_capacity("canary")):
        with pytest.raises(ClusterError, match="deploy a service first"):
            call()
    cluster.teardown()
    cluster.teardown()


@settings(max_examples=40)
@given(
    name=st.sampled_from(sorted(SCENARIOS)),
    seed=st.integers(0, 2**32),
    weights=st.lists(st.floats(0, 100), min_size=1, max_size=4),
    rate=st.floats(0.1, 500),
    shape=st.sampled_from(["steady", "ramp", "spike"]),
)
def test_any_simulated_traffic_adds_up(name, seed, weights, rate, shape):
    """
    Under any scenario, seed, weight and shape: each request is in each table, each one that did not fail has a label, and
    each one that was accepted a duration.
    """
    never = ["never", "{port}"]
    service = ck.Service("digits", ck.Version("v1", command=never), ck.Version("v2", command=never))
    cluster = SimulatedCluster(name, seed=seed)
    cluster.deploy(service)
    traffic, counted = cluster.send(rate, shape=shape), 0
    for weight in weights:
        split = ck.TrafficSplit(weight)
        apply(cluster.router, split)
        cluster.telemetry.begin(split, cluster.clock.now())
        cluster.clock.sleep(5.0)
        window = cluster.telemetry.read(cluster.clock.now())
        good = window.counts["outcome"][:, 0]
        for table in ("answers", CONFUSION):
            assert (window.counts[table].sum(axis=1) == good).all()
        turned_away = window.counts["refused"][:, 1] + window.counts["denied"][:, 1]
        assert (window.counts["latency"].sum(axis=1) == good - turned_away).all()
        assert (turned_away <= window.counts["answers"][:, 1]).all()
        for table in cluster.telemetry.tables - {"latency"}:
            assert tuple(window.counts[table].sum(axis=1)) == window.requests
        right = window.counts[CONFUSION].reshape(2, 10, 11).trace(axis1=1, axis2=2)
        assert (right == window.counts["answers"][:, 0]).all()
        assert (weight > 0 or window.requests[1] == 0) and (weight < 100 or window.requests[0] == 0)
        counted += sum(window.requests)
    assert traffic.record()["answered"] == counted


def test_simulated_traffic_has_a_shape_an_end_and_only_the_labels_it_was_given(service):
    """
    A spike is seen, nothing comes after the duration, and payloads without labels make no answers.
    """
    cluster = SimulatedCluster("good")
    cluster.deploy(service)
    cluster.send(100, shape="spike", duration=30.0)
    sizes = []
    for _ in range(40):
        cluster.clock.sleep(1.0)
        sizes.append(sum(cluster.telemetry.read(cluster.clock.now()).requests))
    assert min(sizes[18:20]) > 2 * max(sizes[:18])
    assert sum(sizes[30:]) == 0
    cluster.send(100, payloads=[{"body": 1}])
    cluster.clock.sleep(1.0)
    assert set(cluster.telemetry.read(cluster.clock.now()).counts) == {"outcome", "latency", "refused", "denied"}


def test_simulated_refusals_are_counted_and_say_nothing(service):
    """
    A third of the canary's requests is refused, as the window, the traffic and the answers say; stable refuses none.
    """
    cluster = SimulatedCluster("refusing", seed=2)
    cluster.deploy(service)
    traffic = cluster.send(1000)
    apply(cluster.router, ck.TrafficSplit(50))
    cluster.telemetry.begin(ck.TrafficSplit(50), cluster.clock.now())
    cluster.clock.sleep(5.0)
    window = cluster.telemetry.read(cluster.clock.now())
    (accepted, refused) = window.counts["refused"][1]
    assert refused / (accepted + refused) == pytest.approx(1 / 3, abs=0.05)
    assert window.counts["refused"][0, 1] == window.counts["denied"][:, 1].sum() == 0
    assert window.counts[CONFUSION].reshape(2, 10, 11)[:, :, -1].sum(axis=1).tolist() == [0, refused]
    assert traffic.summary.statuses["canary"] == {200: accepted, 422: refused}


def test_what_is_refused_and_denied_changes_no_other_number(service):
    """
    Failures, and how many requests there are, are drawn as without refusals; right answers become fewer.
    """
    windows = []
    for canary in (Behaviour(errors=0.1), Behaviour(errors=0.1, refused=0.2, denied=0.5)):
        cluster = SimulatedCluster(Scenario("one", canary=canary), seed=1)
        cluster.deploy(service)
        cluster.send(1000)
        cluster.clock.sleep(5.0)
        windows.append(cluster.draw(cluster.clock.now() - 5, cluster.clock.now(), ck.TrafficSplit(50)))
    plain, refusing = windows
    assert plain["outcome"].tolist() == refusing["outcome"].tolist()
    assert refusing["denied"][1, 1] / refusing["outcome"][1, 0] == pytest.approx(0.4, abs=0.05)
    assert refusing["answers"][1, 0] < 0.5 * plain["answers"][1, 0]


def test_an_address_names_scenario_and_seed():
    """
    The scenario of the address comes first; another seed is another throw; what is no scenario or option is refused.
    """
    assert ck.connect("simulated").scenario == SCENARIOS["good"]
    assert ck.connect("simulated", scenario="wrong").scenario == SCENARIOS["wrong"]
    assert ck.connect("simulated:slow", scenario="wrong").scenario == SCENARIOS["slow"]
    assert ck.connect("simulated?seed=3").scenario == SCENARIOS["good"]
    drawn = set()
    for seed in (0, 3):
        cluster = ck.connect(f"simulated:same?seed={seed}")
        cluster.deploy(served({"stable": "a.skops", "good": "b.skops"}))
        cluster.send(100)
        now = cluster.clock.now()
        drawn.add(int(cluster.draw(now, now + 60.0, ck.TrafficSplit(50))["outcome"].sum()))
    assert len(drawn) == 2
    for where, complaint in (
        ("simulated:splendid", "choose one of good, slow"),
        ("simulated:good?sed=1", "takes \\?seed=NUMBER"),
        ("simulated?seed=x", "takes \\?seed=NUMBER"),
        ("simulation", "no cluster is known"),
    ):
        with pytest.raises(PlanError, match=complaint):
            ck.connect(where)


@pytest.mark.parametrize(
    "where",
    [
        "http://me:s3cret@host",
        "local:http://me:s3cret@host",
        "local?token=s3cret",
        "local?ready_within=s3cret",
        "local?timeout=s3cret",
        "local?http://me:s3cret@host&s3cret=1",
        "simulated?token=s3cret",
        "simulated:http://me:s3cret@host",
        "simulated:good?seed=1&prometheus=http%3A%2F%2Fme%3As3cret%40host",
        "kube:/ns?http://me:s3cret@host",
        "kube:/ns?router=http://me:s3cret@host",
        "kube:/ns?metrics=token%3Ds3cret",
        "kube:/ns?url=http://me:s3cret@host",
        "kube:/ns?prometheus=me:s3cret@host:9090",
        "kube:/ns?service_type=http%3A%2F%2Fme%3As3cret%40host",
    ],
)
def test_a_password_in_an_address_is_in_no_error(where):
    """
    Wherever it stands by mistake: the error says what is wrong without it, and so does what stands behind the error.
    """
    with pytest.raises(CanaryError) as caught:
        ck.connect(where)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None or "s3cret" not in str(caught.value.__cause__)
