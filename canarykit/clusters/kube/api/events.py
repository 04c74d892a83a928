"""What happened to the objects of a namespace, of those alone that are in question."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.errors import ClusterError

__all__ = ["Events"]

_ASK_EVERY = 1.0
_EXPLAINED = 3
"""Objects whose events are read: what keeps one pod from coming up mostly keeps the others too."""

_KEPT = 60.0


class Events:
    """What happened to objects; asked for by their names, at most once a second, and only of a few.

    Parameters
    ----------
    client : Client
        The namespace.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    def of(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """What happened to these objects, oldest first; nothing where it may not be read, because it only explains."""
        now, found = time.monotonic(), []
        for name in names[:_EXPLAINED]:
            asked, events = self._known.get(name, (-math.inf, []))
            if now - asked >= _ASK_EVERY:
                events = self._asked(name)
                self._known = {**self._recent(now), name: (now, events)}
            found += events
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))

    def _recent(self, now: float) -> dict[str, tuple[float, list[dict[str, Any]]]]:
        """What need not be forgotten; a new mapping, because others may read the old one."""
        return {name: known for name, known in self._known.items() if now - known[0] < _KEPT}

    def _asked(self, name: str) -> list[dict[str, Any]]:
        try:
            return self._client.list("Event", fields=f"involvedObject.name={name}")
        except ClusterError:
            return []
