"""A namespace of its own for each test or module, and pods of the kit's own server in it."""

import contextlib
import secrets

import accounts
import cluster_parts as parts
import pytest

import canarykit as ck
from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.workloads import manifests
from canarykit.places import managed_places
from canarykit.serving import digits


@contextlib.contextmanager
def fresh_namespace():
    """An administrator's client of a namespace that nobody else uses; it is gone afterwards."""
    name = f"canarykit-test-{secrets.token_hex(3)}"
    admin = Client(None, name)
    admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield admin
    finally:
        admin.delete("Namespace", name)


@pytest.fixture(autouse=True, scope="session")
def known_parts():
    """Look for the cluster's parts as whoever runs the tests, before any of them becomes somebody who may see less."""
    return [look() for look in (parts.client, parts.gateway, parts.gateway_metrics, parts.ingress)]


@pytest.fixture
def admin():
    """An administrator's client of an empty namespace."""
    with fresh_namespace() as made:
        yield made


@pytest.fixture
def namespace(admin, tmp_path, monkeypatch):
    """Name of an empty namespace, where this process is the service account of deploy/rbac.yaml and may do no more."""
    for body in accounts.role_objects():
        accounts.create(admin, body)
    monkeypatch.setenv("KUBECONFIG", str(accounts.kubeconfig(admin, tmp_path / "kubeconfig")))
    return admin.namespace


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
        if options.get("router", "gateway-api") == "gateway-api":
            gateway, url = parts.gateway()
            options = {"gateway": gateway, "url": url, "hostname": f"{where}.test", **options}
        options = {"workload": parts.WORKLOAD, **options}
        cluster = ck.KubeCluster(None, where, **options)
        made.append(cluster)
        return cluster

    yield make
    for cluster in made:
        with contextlib.suppress(ck.errors.CanaryError):
            cluster.release()


@pytest.fixture(scope="module")
def running(estimators):
    """An administrator's client of a namespace where both versions of ``digits`` run behind Services, two pods each."""
    from canarykit.clusters.kube.workloads.model_files import model_files
    from canarykit.clusters.kube.workloads.pods import Pods

    service = ck.Service("digits", ck.Version("v1", model=estimators["stable"]), ck.Version("v2", model=estimators["good"]))
    with fresh_namespace() as client:
        models = model_files(service)
        for body in manifests.objects(service, parts.WORKLOAD, models):
            client.apply(body)
        pods = Pods(client, managed_places("digits"), print)
        for role in models:
            pods.wait_ready(role, 2, 120.0)
        yield client


@pytest.fixture
def experiment():
    """Make experiments that say nothing; each is torn down afterwards."""
    made = []

    def make(service, cluster, **options):
        guardrails = options.pop("guardrails", [ck.metrics.error_rate(), ck.metrics.latency(), ck.metrics.accuracy()])
        exp = ck.Experiment(service, cluster, guardrails=guardrails, notify=lambda line: None, **options)
        made.append(exp)
        return exp

    yield make
    for exp in made:
        exp.teardown()
