"""The namespace of a service: made when it is missing, and removed again when nobody else uses it."""

from __future__ import annotations

from collections.abc import Callable

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.inventory import contents
from canarykit.clusters.kube.workloads import manifests
from canarykit.errors import ClusterError, ForbiddenError

__all__ = ["MADE_BY", "Namespace"]

MADE_BY = "canarykit.dev/made-by"
"""Annotation of a Namespace that a deployment made; others, also those of an exported file, are not the kit's to remove."""


class Namespace:
    """The namespace that a client writes to.

    Parameters
    ----------
    client : Client
        Client for that namespace.
    notify : callable
        Takes one line.
    """

    def __init__(self, client: Client, notify: Callable[[str], object]) -> None:
        self._client, self._notify = client, notify

    def is_there(self) -> bool:
        """Whether it exists.

        Raises
        ------
        ClusterError
            It is being deleted.
        """
        name = self._client.namespace
        try:
            found = self._client.get("Namespace", name)
        except ForbiddenError:
            return True  # a role within the namespace: then there is one
        if found is not None and found.get("status", {}).get("phase") == "Terminating":
            raise ClusterError(f"namespace {name} is being deleted: wait until it is gone, or take another one")
        return found is not None

    def ensure(self) -> bool:
        """Make it when it is missing; return whether it was."""
        if self.is_there():
            return False
        body = manifests.namespace(self._client.namespace)
        self._client.create({**body, "metadata": {**body["metadata"], "annotations": {MADE_BY: "deploy"}}})
        return True

    def remove(self) -> None:
        """Remove it if a deployment made it and nothing is left in it, whoever made that; say so where it stays."""
        name = self._client.namespace
        try:
            found = self._client.get("Namespace", name)
            if found is None or MADE_BY not in found["metadata"].get("annotations", {}):
                return
            if held := contents(self._client):
                more = f" and {len(held) - 3} more" if len(held) > 3 else ""
                self._notify(f"namespace {name} stays: it holds {', '.join(held[:3])}{more}")
                return
            self._client.delete("Namespace", name)
        except ClusterError as error:
            self._notify(f"namespace {name} stays: {error}")
