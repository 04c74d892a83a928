"""SavedRollout: the state of a rollout in a ConfigMap, for another process that goes on with it."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.errors import ClusterError

__all__ = ["SavedRollout"]

_STATE, _ABOUT = "state.json.zlib", "about"
_LARGEST = 10_000_000
"""Bytes of the state when it is unpacked: a fraction of it is usual, and no ConfigMap is to fill the memory."""


class SavedRollout:
    """Writes the state of a rollout, and reads it back where it is about the same versions.

    Parameters
    ----------
    client : Client
        Writes while the rollout is conducted from here.
    app : str
        The service.
    labels : mapping of str to str
        Labels of the ConfigMap; it is removed with all others that have them.
    about : sequence of mappings
        Objects that are deployed. Evidence about other pods is of no use.
    """

    def __init__(self, client: Client, app: str, labels: Mapping[str, str], *, about: Sequence[Mapping[str, Any]]) -> None:
        self._client, self.name, self._labels = client, f"{app}-rollout", dict(labels)
        pods = [body["spec"]["template"] for body in about if body["kind"] == "Deployment"] or list(about)
        self._about = hashlib.sha256(json.dumps(pods, sort_keys=True).encode()).hexdigest()

    def write(self, state: Mapping[str, Any] | None) -> None:
        """Write the state; None removes it.

        Raises
        ------
        ClusterError
            It cannot be written; what was written before stays.
        """
        if state is None:
            self._client.delete("ConfigMap", self.name)
            return
        packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "labels": self._labels},
            "data": {_ABOUT: self._about},
            "binaryData": {_STATE: packed},
        }
        self._client.apply(body)

    def read(self) -> Mapping[str, Any] | None:
        """Return the state that was written last; None when there is none, or when it is about other pods.

        Raises
        ------
        ClusterError
            It cannot be read, or is none.
        """
        found = self._client.get("ConfigMap", self.name)
        if found is None or (found.get("data") or {}).get(_ABOUT) != self._about:
            return None
        try:
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(base64.b64decode(found["binaryData"][_STATE]), _LARGEST)
            if unpacker.unconsumed_tail:
                raise ValueError(f"it has more than {_LARGEST:,} bytes")
            state = json.loads(text)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ClusterError(f"ConfigMap {self.name} holds no state of a rollout: {error!r}") from error
        if not isinstance(state, dict):
            raise ClusterError(f"ConfigMap {self.name} holds no state of a rollout")
        return state
