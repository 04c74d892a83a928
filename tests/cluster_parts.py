"""Which parts of a real cluster there are, and where: everything comes from KUBECONFIG and a few variables."""

import functools
import os
import urllib.error
import urllib.request

from canarykit.errors import CanaryError

ISTIO_URL = os.environ.get("CANARYKIT_ISTIO_URL", "http://127.0.0.1:18090")
SERVER_IMAGE = os.environ.get("CANARYKIT_SERVER_IMAGE")
"""Image of the kit's own server; the kit's default name when it is not set."""


@functools.cache
def client(namespace="default"):
    """A client of the cluster that KUBECONFIG names, or None."""
    from canarykit.clusters.kube.client import Client

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


def gateway():
    """Name of the cluster's only Gateway and its address, or None."""
    from canarykit.clusters.kube.discovery import gateway_of, url_of

    try:
        name, found = gateway_of(_gateways(), os.environ.get("CANARYKIT_GATEWAY"))
    except CanaryError:
        return None
    return name, os.environ.get("CANARYKIT_GATEWAY_URL") or url_of(found)


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
    from canarykit.clusters.kube.client import path_of

    return client()._exchange("GET", path_of(kind, "default"), None, {})[0] == 200
