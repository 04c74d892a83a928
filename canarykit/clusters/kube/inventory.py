"""What a namespace holds, of whatever kind: the API server says which there are, and only names are read, so no secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from canarykit.clusters.kube.api.client import Client
from canarykit.errors import ClusterError

__all__ = ["contents", "listable"]

_ROOTS = ("/api", "/apis")
_ALL_KINDS = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_ONLY_NAMES = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_BESIDE = ("events", "endpoints")
"""Kinds that tell of others, and go with them."""

_ALWAYS_THERE = (
    ("configmaps", "kube-root-ca.crt"),
    ("configmaps", "istio-ca-root-cert"),
    ("configmaps", "istio-ca-crl"),
    ("serviceaccounts", "default"),
)


def contents(client: Client) -> list[str]:
    """What somebody has put into a client's namespace: nothing that belongs to something else, or is leaving.

    Raises
    ------
    ClusterError
        Not everything may be listed, or the API server does not know all of its kinds at present.
    """
    found = []
    for root in _ROOTS:
        kinds = client.read(root, "the list of kinds", accept=_ALL_KINDS)
        for base, resource in listable(kinds or {}, root):
            held = client.read(f"{base}/namespaces/{quote(client.namespace)}/{resource}", resource, accept=_ONLY_NAMES)
            found += [f"{resource}/{name}" for name in _names(held or {}) if (resource, name) not in _ALWAYS_THERE]
    return found


def listable(kinds: Mapping[str, Any], root: str) -> Iterator[tuple[str, str]]:
    """Kinds of object that a namespace may hold and a user may make: path of the group's version, and plural name.

    Parameters
    ----------
    kinds : mapping
        The API server's own list, with all groups in one (Kubernetes 1.30 and later).
    root : {"/api", "/apis"}
        Path above the groups.

    Raises
    ------
    ClusterError
        The list is not whole.
    """
    if "items" not in kinds:
        raise ClusterError("this API server does not list all of its kinds at once")
    for group in kinds["items"]:
        name, versions = group["metadata"].get("name", ""), group.get("versions", [])
        if not versions:
            continue
        newest = versions[0]
        if newest.get("freshness") == "Stale":
            raise ClusterError(f"the kinds of {name or 'the core'} are not known at present")
        base = f"{root}/{f'{name}/' if name else ''}{newest['version']}"
        for entry in newest.get("resources", []):
            made = {"list", "create"} <= set(entry.get("verbs", []))
            if entry.get("scope") == "Namespaced" and made and entry["resource"] not in _BESIDE:
                yield base, entry["resource"]


def _names(held: Mapping[str, Any]) -> Iterator[str]:
    for entry in held.get("items") or []:  # an empty list of names is sent as none
        meta = entry["metadata"]
        if not meta.get("ownerReferences") and "deletionTimestamp" not in meta:
            yield meta["name"]
