"""The namespace of a service: made when it is missing, and removed again when nobody else uses it."""

from __future__ import annotations

from collections.abc import Callable

from canarykit.clusters.kube import manifests
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.ownership import adopted, mine
from canarykit.errors import ClusterError

__all__ = ["Namespace"]


class Namespace:
    """The namespace that a client writes to.

    Parameters
    ----------
    client : Client
        Of that namespace.
    tell : callable
        Takes one line.
    """

    def __init__(self, client: Client, tell: Callable[[str], object]) -> None:
        self._client, self._tell = client, tell

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
        except ClusterError as error:
            if "no permission" in str(error):
                return True  # a role within the namespace: then there is one
            raise
        if found is not None and found.get("status", {}).get("phase") == "Terminating":
            raise ClusterError(f"namespace {name} is being deleted: wait until it is gone, or take another one")
        return found is not None

    def ensure(self) -> bool:
        """Make it when it is missing; return whether it was."""
        if self.is_there():
            return False
        self._client.create(manifests.namespace(self._client.namespace))
        return True

    def remove(self) -> None:
        """Remove it if the kit made it and nobody has put anything into it since."""
        name = self._client.namespace
        try:
            found = self._client.get("Namespace", name)
            if found is None or not mine(found) or adopted(self._client):
                return
            self._client.delete("Namespace", name)
        except ClusterError as error:
            self._tell(f"namespace {name} stays: {error}")
