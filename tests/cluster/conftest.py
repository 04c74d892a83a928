"""A namespace of its own for each module, and pods of the kit's own server in it."""

import contextlib
import secrets
import time

import cluster_parts as parts
import pytest

import canarykit as ck
from canarykit.clusters.kube import manifests
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.manifests import Workload
from canarykit.serving import digits

WORKLOAD = Workload(server_image=parts.SERVER_IMAGE, service_type="ClusterIP")


@contextlib.contextmanager
def fresh_namespace(made=True):
    """Name of a namespace that nobody else uses; it is gone afterwards."""
    name = f"canarykit-test-{secrets.token_hex(3)}"
    client = Client(None, name)
    if made:
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield name
    finally:
        client.delete("Namespace", name)


@pytest.fixture
def namespace():
    """An empty namespace."""
    with fresh_namespace() as name:
        yield name


@pytest.fixture(scope="session")
def estimators():
    """Models by kind, trained once."""
    return {kind: digits.model(kind) for kind in ("stable", "good", "failing", "slow")}


@pytest.fixture
def service_of(estimators):
    """Make a service of two models."""

    def make(canary="good", stable="stable", replicas=1):
        versions = ck.Version("v1", model=estimators[stable]), ck.Version("v2", model=estimators[canary])
        return ck.Service("digits", *versions, replicas=replicas)

    return make


@pytest.fixture
def connect(namespace):
    """Make clusters in the namespace; each is let go afterwards."""
    made = []

    def make(where=namespace, **options):
        options = {"hostname": f"{where}.test", "workload": WORKLOAD, **options}
        cluster = ck.KubeCluster(None, where, **options)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        with contextlib.suppress(ck.errors.CanaryError):
            cluster.release()


@pytest.fixture(scope="module")
def running(estimators):
    """A namespace where both versions of ``digits`` run behind Services, two pods each; its name and the model files."""
    from canarykit.clusters.kube.cluster import _model_file
    from canarykit.clusters.kube.pods import Pods

    service = ck.Service("digits", ck.Version("v1", model=estimators["stable"]), ck.Version("v2", model=estimators["good"]))
    with fresh_namespace() as name:
        client = Client(None, name)
        for body in manifests.objects(service, WORKLOAD, {role: _model_file(service, role) for role in ("stable", "canary")}):
            client.apply(body)
        pods = Pods(client, "digits", print)
        for role in ("stable", "canary"):
            pods.wait_ready(role, 2, 120.0)
        yield client


def wait_for(condition, within=60.0):
    """Wait until something holds; return what it returned."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"{condition} did not come true within {within:g} s"
        time.sleep(0.2)
    return found
