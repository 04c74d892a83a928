"""Whose an object is: what the kit made it removes, what it adopted it gives back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.workloads.manifests import MANAGER
from canarykit.clusters.kube.workloads.removal import leads_to, remove_unused
from canarykit.errors import ForbiddenError
from canarykit.model import Service
from canarykit.routers.objects import BEFORE, retried
from canarykit.routers.references import references

__all__ = ["adoption", "mine", "put_back", "remove", "restore", "restored"]

_MADE = ("Deployment", "Service", "ConfigMap", "Job", "HTTPRoute", "Ingress", "VirtualService", "InferenceService")
_NEEDED = ("Deployment", "Service", "ConfigMap")
"""Kinds that every service has; a role may leave out the others that its router does not write."""


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


def restored(client: Client, service: Service, notify: Callable[[str], object]) -> list[str]:
    """Give back all adopted objects of a service, as they were; return their names.

    A Service that a live route leads to, or may do so unseen, is given back only where its own pods are ready: they may be gone
    by now. What is not given back, and what nobody knows of, is told.
    """
    adopted = [(kind, found) for kind, found in _made(client, service) if BEFORE in found["metadata"].get("annotations", {})]
    seen = references(client, {found["metadata"]["name"] for kind, found in adopted if kind == "Service"})
    given = []
    for kind, found in adopted:
        name = found["metadata"]["name"]
        if kind == "Service" and (seen.unseen or seen.held(name)) and not leads_to(client, _selector_before(found)):
            if seen.held(name):
                why = "a route leads to it" if name in seen.by else seen.allowed({name})
                notify(f"not given back, because {why} and its own pods are not ready: Service {name}")
                continue
            notify(f"the own pods of Service {name} are not ready, and {seen.doubt({name})}")
        restore(client, kind, name)
        given.append(f"{kind} {name}")
    return given


def _selector_before(found: Mapping[str, Any]) -> Mapping[str, str]:
    """Selector that an adopted Service had."""
    selector: Mapping[str, str] = (json.loads(found["metadata"]["annotations"][BEFORE]).get("spec") or {}).get("selector") or {}
    return selector


def remove(client: Client, service: Service, notify: Callable[[str], object], *, own: tuple[str, str] | None = None) -> bool:
    """Remove all objects of a service that the kit made, but none that a live route leads to, and give back the others.

    Parameters
    ----------
    client : Client
        The namespace.
    service : Service
        Whose objects.
    notify : callable
        Takes one line on what is given back, and on what stays.
    own : (str, str), optional
        Kind and name of the user's own route, which stays also where it carries the kit's label: a program of Pulumi has it so.

    Returns
    -------
    bool
        Whether nothing had to stay.
    """
    given = restored(client, service, notify)
    if given:
        notify(f"given back as before: {', '.join(given)}")
    left = [(kind, found) for kind, found in _made(client, service) if (kind, found["metadata"]["name"]) != own]
    kept = [found for _, found in left if BEFORE in found["metadata"].get("annotations", {})]
    made = [(kind, found["metadata"]["name"]) for kind, found in left if BEFORE not in found["metadata"].get("annotations", {})]
    return remove_unused(client, made, notify) and not kept


def _made(client: Client, service: Service) -> list[tuple[str, dict[str, Any]]]:
    """Objects of a service that the kit made or adopted, with their kinds; all are known before the first is touched."""
    found = []
    for kind in _MADE:
        try:
            found += [(kind, body) for body in client.list(kind, _of(service))]
        except ForbiddenError:
            if kind in _NEEDED:
                raise
    return found


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


def put_back(client: Client, before: Mapping[str, Any], *, pods_stay: bool) -> None:
    """Write an object of the kit's as it was, over what a deployment that failed has made of it, if it is still there.

    Parameters
    ----------
    client : Client
        The namespace.
    before : mapping
        The whole object, as it was read.
    pods_stay : bool
        Its number of pods is the split in force, which others have seen to.
    """
    kind, name = before["kind"], before["metadata"]["name"]

    def once() -> None:
        found = client.get(kind, name)
        if found is None:
            return
        meta = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
        meta |= {key: before["metadata"].get(key, {}) for key in ("labels", "annotations")}
        spec = {**before["spec"], "replicas": found["spec"]["replicas"]} if pods_stay else before["spec"]
        client.replace({**found, "metadata": meta, "spec": spec})

    retried(once)
    if owners := before["metadata"].get("managedFields"):
        # Otherwise each field would have a second owner, and a later apply that leaves one out would not remove it.
        client.patch(kind, name, [{"op": "replace", "path": "/metadata/managedFields", "value": owners}], how="json")
