"""The state of a rollout in a ConfigMap: packed, of the same pods alone, and readable or refused."""

import base64
import json
import zlib

import numpy as np
import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.clusters.kube.saved_rollout import SavedRollout
from canarykit.clusters.kube.workloads.manifests import Workload, labels, objects
from canarykit.errors import ClusterError
from canarykit.model import TrafficSplit, Window
from canarykit.rollout import RolloutState, begin, observe


def service(image="a:2", **facts):
    """A service whose canary has this image."""
    return ck.Service("digits", ck.Version("v1", image="a:1"), ck.Version("v2", image=image), **facts)


def saved(api, of=None):
    """What keeps the state of a service."""
    of = of or service()
    return SavedRollout(api, "digits", labels(of), about=objects(of, Workload(), {}))


class Api(Namespace):
    """A namespace in memory, that applies."""

    def apply(self, body):
        """Make it, or change it."""
        if self.get(body["kind"], body["metadata"]["name"]) is None:
            return self.create(body)
        return self.patch(body["kind"], body["metadata"]["name"], body)


@pytest.fixture
def api():
    """A namespace in memory."""
    return Api()


def state():
    """A state with some evidence."""
    made = begin(ck.RolloutPlan.of(25, 50), Judge([ck.metrics.error_rate(), ck.metrics.latency()]))
    for second in range(5):
        latency = np.random.default_rng(second).integers(0, 9, (2, len(ck.metrics.LATENCY_EDGES)))
        counts = {"outcome": np.array([[70, 1], [30, 0]]), "latency": latency}
        made = observe(made, Window(float(second), second + 1.0, TrafficSplit(25), counts))
    return made


def test_what_is_read_is_what_was_written(api):
    """
    Packed: the buckets of latency alone take a hundred kilobytes as text.
    """
    made = state()
    saved(api).write(made.dump())
    found = api.get("ConfigMap", "digits-rollout")
    assert found["metadata"]["labels"] == labels(service())
    assert len(json.dumps(found)) < 0.7 * len(json.dumps(made.dump()))
    assert RolloutState.of(saved(api).read()).dump() == made.dump()


def test_the_newest_state_is_kept_until_it_is_removed(api):
    """
    Removed twice is removed.
    """
    kept = saved(api)
    for weight in (5, 25):
        kept.write({"weight": weight})
    assert kept.read() == {"weight": 25}
    for _ in range(2):
        kept.write(None)
    assert kept.read() is None


@pytest.mark.parametrize(
    "other", [service("a:3"), service(env={"A": "1"}), service(replicas=5)], ids=["image", "environment", "replicas"]
)
def test_evidence_is_about_the_same_pods(api, other):
    """
    Another number of them is no other version.
    """
    saved(api).write({"weight": 25})
    assert saved(api, other).read() == ({"weight": 25} if other.replicas == 5 else None)


@pytest.mark.parametrize(
    "packed",
    [None, "!", base64.b64encode(b"none").decode(), base64.b64encode(zlib.compress(b"[1]")).decode(),
     base64.b64encode(zlib.compress(b" " * 20_000_000)).decode()],
    ids=["missing", "no base64", "not packed", "no mapping", "a bomb"],
)  # fmt: skip
def test_what_is_no_state_is_refused(api, packed):
    """
    Somebody has edited it.
    """
    saved(api).write({"weight": 25})
    api.patch("ConfigMap", "digits-rollout", {"binaryData": {"state.json.zlib": packed}})
    with pytest.raises(ClusterError, match="ConfigMap digits-rollout holds no state of a rollout"):
        saved(api).read()
