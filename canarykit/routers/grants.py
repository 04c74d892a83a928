"""Which routes of other namespaces a ReferenceGrant lets name a Service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["allowing"]

_GATEWAY_API = "gateway.networking.k8s.io"


def allowing(grants: Iterable[Mapping[str, Any]], kind: str, service: str, namespace: str) -> list[tuple[str, str]]:
    """Return who may lead to a Service from elsewhere: name of the grant, and namespace of the routes.

    Parameters
    ----------
    grants : iterable of mappings
        ReferenceGrants of the Service's namespace.
    kind : str
        Kind of the routes, of the Gateway API.
    service, namespace : str
        The Service.
    """
    return [
        (grant["metadata"]["name"], place)
        for grant in grants
        if any(_names(to, service) for to in grant.get("spec", {}).get("to") or [])
        for place in dict.fromkeys(
            said.get("namespace", "")
            for said in grant["spec"].get("from") or []
            if (said.get("group"), said.get("kind")) == (_GATEWAY_API, kind)
        )
        if place not in ("", namespace)
    ]


def _names(to: Mapping[str, Any], service: str) -> bool:
    """Whether a grant is for a Service: for this one, or for all where it says no name."""
    return to.get("group", "") in ("", "core") and to.get("kind") == "Service" and to.get("name") in (None, "", service)
