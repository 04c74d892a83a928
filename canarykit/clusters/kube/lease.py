"""Who conducts a rollout, and where it stands: one Lease per service, renewed while somebody is there."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from canarykit.errors import ClusterError, ConflictError
from canarykit.routers.objects import retried

__all__ = ["STATE", "Lease", "holder_of", "stale"]

STATE = "canarykit.dev/rollout"
"""Annotation of the Lease: where the rollout stands, as JSON."""

_MICROS = "%Y-%m-%dT%H:%M:%S.%fZ"


class Objects(Protocol):
    """What a lease needs of a cluster."""

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object."""
        ...

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a new object."""
        ...

    def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a whole object."""
        ...

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object."""
        ...


def holder_of(found: Mapping[str, Any] | None) -> str:
    """Who holds a lease; empty when nobody does."""
    return "" if found is None else str(found.get("spec", {}).get("holderIdentity") or "")


def stale(found: Mapping[str, Any], now: datetime) -> bool:
    """Whether a lease has not been renewed for as long as it says; one that says nothing of it is."""
    spec = found.get("spec", {})
    if not spec.get("renewTime") or not spec.get("leaseDurationSeconds"):
        return True
    renewed = datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
    return (now - renewed).total_seconds() > float(spec["leaseDurationSeconds"])


def _dead(holder: str) -> bool:
    """Whether a holder was a process of this machine that is gone."""
    host, _, rest = holder.rpartition("-")[0].rpartition("-")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


class Lease:
    """Keeps other kits off a service while this one conducts it, and tells the next one where it stands.

    Parameters
    ----------
    objects : Objects
        Of the namespace.
    app : str
        The service.
    labels : mapping of str to str
        Of the object.
    seconds : int
        Without a renewal for so long, nobody is there.
    """

    def __init__(self, objects: Objects, app: str, labels: Mapping[str, str], *, seconds: int = 60) -> None:
        self._objects, self._labels, self._seconds = objects, labels, seconds
        self.name = f"{app}-rollout"
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.state: dict[str, Any] = {}
        self.lost: str | None = None
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def acquire(self) -> dict[str, Any]:
        """Take the lease; return where the rollout stood, empty when there was none.

        Raises
        ------
        ClusterError
            Someone else conducts this service.
        """
        retried(self._take)  # of two that take it at once, the second then sees the first
        self._thread = threading.Thread(target=self._renew, name="canarykit-lease", daemon=True)
        self._thread.start()
        return dict(self.state)

    def remember(self, **facts: Any) -> None:
        """Write down where the rollout stands."""
        with self._lock:
            self.state.update(facts)
            retried(lambda: self._write(self._objects.get("Lease", self.name)))

    def release(self) -> None:
        """Let the next one in; what is known stays written."""
        self._stop()
        with self._lock:
            found = self._objects.get("Lease", self.name)
            if holder_of(found) == self.holder and found is not None:
                found["spec"]["holderIdentity"] = None
                self._objects.replace(found)

    def remove(self) -> None:
        """Release it and leave nothing."""
        self._stop()
        found = self._objects.get("Lease", self.name)
        if holder_of(found) in ("", self.holder):
            self._objects.delete("Lease", self.name)

    def _take(self) -> None:
        found = self._objects.get("Lease", self.name)
        if found is not None and self._in_use(found):
            raise ClusterError(
                f"{holder_of(found)} conducts a rollout of this service (Lease {self.name}, renewed "
                f"{found['spec']['renewTime']}): wait until it ends, or end it there"
            )
        self.state = json.loads(found["metadata"].get("annotations", {}).get(STATE, "{}")) if found else {}
        self._write(found)

    def _in_use(self, found: Mapping[str, Any]) -> bool:
        """Whether someone else is there; a request that was sent twice may find that we are."""
        holder = holder_of(found)
        return holder not in ("", self.holder) and not stale(found, datetime.now(UTC)) and not _dead(holder)

    def _stop(self) -> None:
        self._changed.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def _write(self, found: Mapping[str, Any] | None) -> None:
        if found is not None and self._thread is not None and holder_of(found) not in ("", self.holder):
            self.lost = f"{holder_of(found)} has taken over the rollout of this service"
            raise ClusterError(self.lost)
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": dict(self._labels),
                "annotations": {STATE: json.dumps(self.state, sort_keys=True)},
            },
            "spec": {
                "holderIdentity": self.holder,
                "leaseDurationSeconds": self._seconds,
                "renewTime": datetime.now(UTC).strftime(_MICROS),
            },
        }
        if found is None:
            self._objects.create(body)
        else:
            body["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]  # type: ignore[index]
            self._objects.replace(body)

    def _renew(self) -> None:
        while not self._changed.wait(self._seconds / 4):
            try:
                with self._lock:
                    self._write(self._objects.get("Lease", self.name))
            except ConflictError:
                continue  # written in between: the next turn sees by whom
            except ClusterError:
                if self.lost:
                    return
