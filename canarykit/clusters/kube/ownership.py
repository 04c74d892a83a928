"""Whose an object is: what the kit made it removes, what it adopted it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.manifests import MANAGER
from canarykit.model import Service
from canarykit.routers.objects import retried

__all__ = ["BEFORE", "adopted", "adoption", "mine", "remove", "restore", "restored"]

BEFORE = "canarykit.dev/before"
"""Annotation of an adopted object: what it was before, as JSON."""

_MADE = ("Deployment", "Service", "ConfigMap", "Job", "HTTPRoute", "Ingress", "VirtualService", "InferenceService")
_FOREIGN = ("Deployment", "StatefulSet", "DaemonSet", "Job", "Service", "Ingress", "HTTPRoute", "PersistentVolumeClaim", "Pod")
_ALWAYS_THERE = ("kube-root-ca.crt", "istio-ca-root-cert", "istio-ca-crl")


def mine(found: Mapping[str, Any]) -> bool:
    """Whether the kit made an object, or has adopted it."""
    return bool(found["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") == MANAGER)


def adoption(client: Client, found: Mapping[str, Any]) -> None:
    """Note on an object what it is, before it is taken over."""
    meta = found["metadata"]
    before = {
        "labels": meta.get("labels", {}),
        "annotations": {key: value for key, value in meta.get("annotations", {}).items() if key != BEFORE},
        "spec": found.get("spec"),
    }
    client.patch(found["kind"], meta["name"], {"metadata": {"annotations": {BEFORE: json.dumps(before)}}})


def restored(client: Client, service: Service) -> list[str]:
    """Give back all adopted objects of a service, as they were; return their names."""
    given = []
    for kind in _MADE:
        for found in client.list(kind, _of(service)):
            name = found["metadata"]["name"]
            if BEFORE in found["metadata"].get("annotations", {}):
                restore(client, kind, name)
                given.append(f"{kind} {name}")
    return given


def remove(client: Client, service: Service, tell: Callable[[str], object]) -> None:
    """Remove all objects of a service that the kit made, and give back the others."""
    given = restored(client, service)
    if given:
        tell(f"given back as before: {', '.join(given)}")
    for kind in _MADE:
        for found in client.list(kind, _of(service)):
            client.delete(kind, found["metadata"]["name"])


def adopted(client: Client) -> bool:
    """Whether a namespace holds anything that the kit did not make."""
    for kind in (*_FOREIGN, "ConfigMap"):
        for found in client.list(kind):
            owned = found["metadata"].get("ownerReferences") or "deletionTimestamp" in found["metadata"]
            if not owned and not mine(found) and found["metadata"]["name"] not in _ALWAYS_THERE:
                return True
    return False


def _of(service: Service) -> str:
    return f"app.kubernetes.io/managed-by={MANAGER},app.kubernetes.io/part-of={service.name}"


def restore(client: Client, kind: str, name: str) -> None:
    """Give back an adopted object as it was, if it is still there."""
    retried(lambda: _restore(client, kind, name))


def _restore(client: Client, kind: str, name: str) -> None:
    found = client.get(kind, name)
    noted = None if found is None else found["metadata"].get("annotations", {}).get(BEFORE)
    if found is None or noted is None:
        return
    before = json.loads(noted)
    meta = {key: value for key, value in found["metadata"].items() if key not in ("managedFields", "labels", "annotations")}
    body = {
        **found,
        "metadata": {**meta, "labels": before["labels"], "annotations": before["annotations"]},
        "spec": before["spec"],
    }
    # `list` leaves kind and apiVersion out of its items; `get` has them.
    client.replace(body)
