"""Which parts of a real cluster there are, and where: everything comes from KUBECONFIG and a few variables."""

import functools
import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.errors import CanaryError

ISTIO_URL = os.environ.get("CANARYKIT_ISTIO_URL", "http://127.0.0.1:18090")
WORKLOAD = Workload(server_image=os.environ.get("CANARYKIT_SERVER_IMAGE")).fronted()
"""On the kit's own server image, by its default name unless CANARYKIT_SERVER_IMAGE says another."""


@functools.cache
def client(namespace="default"):
    """A client of the cluster that KUBECONFIG names, or None."""
    from canarykit.clusters.kube.api.client import Client

    if not os.environ.get("KUBECONFIG"):
        return None  # tests never go to a cluster that nobody named
    try:
        made = Client(None, namespace, patience=2.0)
        return made if made.get("Namespace", "default") is not None else None
    except CanaryError:
        return None


def cluster():
    """Whether there is a cluster."""
    return client() is not None


def _gateways():
    return client().list("Gateway", everywhere=True) if cluster() else []


@functools.cache
def gateway():
    """Name of the cluster's only Gateway and its address, or None."""
    from canarykit.clusters.kube.discovery import gateway_of, url_of

    try:
        name, found = gateway_of(_gateways(), os.environ.get("CANARYKIT_GATEWAY"))
    except CanaryError:
        return None
    return name, os.environ.get("CANARYKIT_GATEWAY_URL") or url_of(found)


@functools.cache
def gateway_metrics():
    """Address of the gateway's own metrics page, or None; by default one port above the gateway's."""
    found = gateway()
    if found is None or found[1] is None:
        return None
    host, _, port = found[1].rpartition(":")
    page = os.environ.get("CANARYKIT_GATEWAY_METRICS") or f"{host}:{int(port) + 1}/metrics"
    try:
        return page if urllib.request.urlopen(page, timeout=2.0).status == 200 else None
    except OSError:
        return None


@functools.cache
def ingress():
    """Address of a controller of Ingress class nginx, or None; the Gateway's own when it says nothing else."""
    if not cluster() or client().get("Namespace", "default") is None:
        return None
    return os.environ.get("CANARYKIT_INGRESS_URL") or (gateway() or (None, None))[1]


def istio():
    """Address of an Istio gateway, or None."""
    if not cluster():
        return None
    try:
        urllib.request.urlopen(ISTIO_URL, timeout=2.0)
    except urllib.error.HTTPError:
        return ISTIO_URL
    except OSError:
        # Nobody listens before there is a Gateway object; then its definition must at least be there.
        return ISTIO_URL if kind_is_there("VirtualService") else None
    return ISTIO_URL


def kserve():
    """Whether the API server knows InferenceServices."""
    return cluster() and kind_is_there("InferenceService")


def kind_is_there(kind):
    """Whether the API server knows a kind."""
    from canarykit.clusters.kube.api.client import path_of

    return client()._exchange("GET", path_of(kind, "default"), None, {})[0] == 200


def wait_for(condition, within=60.0):
    """Wait until something holds; return what it returned."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"{condition} did not come true within {within:g} s"
        time.sleep(0.2)
    return found


@contextmanager
def meanwhile(work):
    """Do something in another thread; what it raised is raised at the end, unless the body has raised."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        yield
        future.result()


def edit(client, kind, name, fields):
    """Set fields, by their paths, as someone else: in one request, so that what controllers write meanwhile is no conflict."""
    client.patch(kind, name, [{"op": "replace", "path": path, "value": value} for path, value in fields.items()], how="json")


def left_behind(client):
    """Objects of the kit that are still there."""
    kinds = ("Deployment", "Service", "ConfigMap", "HTTPRoute", "Ingress", "VirtualService", "Lease", "Job")
    mine = "app.kubernetes.io/managed-by=canarykit"
    return [(kind, found["metadata"]["name"]) for kind in kinds for found in client.list(kind, mine)]
