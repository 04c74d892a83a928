"""The objects of a namespace as a router reads them: its own from a watch, all else from the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.watch import Watch
from canarykit.errors import ConflictError, ForbiddenError

__all__ = ["Reading"]

_READ_OFTEN = ("HTTPRoute", "VirtualService", "Ingress", "InferenceService", "Deployment")
"""Kinds in which a split is written: they are read at every look."""


class Reading:
    """A client for a router, whose split is read at every look without a request.

    Parameters
    ----------
    client : Client
        The namespace; it writes.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._watched: dict[tuple[str, str], Watch | None] = {}

    @property
    def namespace(self) -> str:
        """Which."""
        return self._client.namespace

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object; None when there is none, or no such kind. That there is none the API server itself says."""
        watched = self._watch(kind, name) if namespace in (None, self.namespace) else None
        if watched is not None:
            try:
                for found in watched.objects():
                    return found
            except ForbiddenError:
                self._watched[kind, name] = None  # to be read, but not to be listed
        return self._client.get(kind, name, namespace=namespace)

    def list(self, kind: str, selector: str = "", *, everywhere: bool = False, fields: str = "") -> list[dict[str, Any]]:
        """Read all objects of a kind."""
        return self._client.list(kind, selector, everywhere=everywhere, fields=fields)

    def serves(self, kind: str) -> bool:
        """Whether the cluster knows a kind."""
        return self._client.serves(kind)

    def apply(self, body: Mapping[str, Any], *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Write the fields that we own."""
        return self._client.apply(body, dry_run=dry_run, force=force)

    def patch(self, kind: str, name: str, body: Any, *, how: str = "merge", sub: str = "") -> dict[str, Any]:
        """Change an object; the next read has the change. After a conflict the API server is read."""
        watched = self._watched.get((kind, name))
        try:
            written = self._client.patch(kind, name, body, how=how, sub=sub)
        except ConflictError:
            if watched is not None:
                watched.doubt()
            raise
        if watched is not None:
            watched.note(written)
        return written

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object."""
        return self._client.delete(kind, name, grace=grace)

    def close(self) -> None:
        """End the watches."""
        for watched in self._watched.values():
            if watched is not None:
                watched.stop()

    def _watch(self, kind: str, name: str) -> Watch | None:
        if kind not in _READ_OFTEN:
            return None
        if (kind, name) not in self._watched:
            self._watched[kind, name] = Watch(self._client, kind, fields=f"metadata.name={name}")
        return self._watched[kind, name]
