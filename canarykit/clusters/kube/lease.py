"""Who conducts a rollout, and where it stands: one Lease per service, renewed while somebody is there."""

from __future__ import annotations

import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from canarykit.errors import ClusterError, ConflictError
from canarykit.routers.objects import retried

__all__ = ["PROCESSES", "STATE", "Lease", "holder_of", "stale"]

STATE = "canarykit.dev/rollout"
"""Annotation of the Lease: where the rollout stands, as JSON."""

PROCESSES = "canarykit.dev/processes"
"""Annotation of the Lease: among which processes its holder's number is one."""

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


def _processes() -> str:
    """Name the processes that can be seen from here: containers of one name count theirs each for itself."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""  # of another system, where there are no such containers


def _dead(found: Mapping[str, Any]) -> bool:
    """Whether a holder was a process of this machine that is gone."""
    host, _, rest = holder_of(found).rpartition("-")[0].rpartition("-")
    seen = found["metadata"].get("annotations", {}).get(PROCESSES, "")
    if host != socket.gethostname() or seen != _processes() or not rest.isdigit():
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
        self.held = False
        """Whether it was taken and neither let go nor, for all we know, lost."""
        self.left = False
        """Whether it is kept and renewed no more, so that whoever guards it acts."""
        self._written = (-math.inf, -math.inf)
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def check_free(self) -> None:
        """See that it may be taken, before anything else is looked at.

        Raises
        ------
        ClusterError
            Someone else conducts this service.
        """
        self._refuse(self._objects.get("Lease", self.name))

    def acquire(self) -> dict[str, Any]:
        """Take the lease; return where the rollout stood, empty when there was none.

        Raises
        ------
        ClusterError
            Someone else conducts this service.
        """
        retried(self._take)  # of two that take it at once, the second then sees the first
        self.held = True
        self.keep()
        return dict(self.state)

    def keep(self) -> None:
        """Renew it from now on, until it is stopped or left."""
        self.left = False
        if self._thread is None:
            self._changed = threading.Event()  # of its own: one that was stopped may still be at its last renewal
            self._thread = threading.Thread(target=self._renew, args=(self._changed,), name="canarykit-lease", daemon=True)
            self._thread.start()

    def leave(self) -> None:
        """Keep it and renew it no more: whoever guards it is to act when its time is over."""
        self.stop()
        self.left = True

    def check(self) -> None:
        """See, before something is changed, that it is still ours.

        While it was renewed within half of its life nobody else takes it, so that the server need not be asked.

        Raises
        ------
        ClusterError
            It is lost; says to whom.
        """
        if self.lost is not None:
            raise ClusterError(self.lost)
        # Of two clocks: one is set by hand, and the other stands still while a laptop sleeps.
        age = max(time.time() - self._written[0], time.monotonic() - self._written[1])
        if age > self._seconds / 2:
            self.renew()

    def renew(self, *, again: bool = False) -> None:
        """Ask the server whether it is still ours, and have it for another while.

        Parameters
        ----------
        again : bool
            Take it again where it was left and its guard has acted, so that nobody holds it.

        Raises
        ------
        ClusterError
            It is lost; says to whom.
        """
        with self._lock:
            if again and self.left and self.lost is None and not holder_of(self._objects.get("Lease", self.name)):
                retried(self._take)
            retried(self._write_ours)

    def remember(self, **facts: Any) -> None:
        """Write down where the rollout stands.

        Raises
        ------
        ClusterError
            It is lost; says to whom.
        """
        with self._lock:
            self.state.update(facts)
            retried(self._write_ours)

    def release(self) -> None:
        """Let the next one in; what is known stays written."""
        self.stop()
        with self._lock:
            found = self._objects.get("Lease", self.name)
            if self._is_ours(found) and found is not None:
                found["spec"]["holderIdentity"] = None
                self._objects.replace(found)
        self.held = False

    def remove(self) -> None:
        """Release it and leave nothing."""
        self.stop()
        with self._lock:
            if self._is_ours(self._objects.get("Lease", self.name)):
                self._objects.delete("Lease", self.name)
        self.held = False

    def stop(self) -> None:
        """Renew it no more: unless it is let go, whoever guards it acts when its time is over."""
        self._changed.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def _take(self) -> None:
        found = self._objects.get("Lease", self.name)
        self._refuse(found)
        self.state = json.loads(found["metadata"].get("annotations", {}).get(STATE, "{}")) if found else {}
        self._write(found)

    def _refuse(self, found: Mapping[str, Any] | None) -> None:
        if found is not None and self._in_use(found):
            raise ClusterError(
                f"{holder_of(found)} conducts a rollout of this service (Lease {self.name}, renewed "
                f"{found['spec']['renewTime']}): wait until it ends, or end it there"
            )

    def _in_use(self, found: Mapping[str, Any]) -> bool:
        """Whether someone else is there; a request that was sent twice may find that we are."""
        holder = holder_of(found)
        return holder not in ("", self.holder) and not stale(found, datetime.now(UTC)) and not _dead(found)

    def _is_ours(self, found: Mapping[str, Any] | None) -> bool:
        """Whether we hold it. Once it was lost it stays so: whoever came meanwhile may have changed everything."""
        holder = holder_of(found)
        if self.lost is None and holder != self.holder:
            who = f"{holder} has taken over" if holder else "nobody renewed the lease, and the guard or somebody else has ended"
            self.lost = f"{who} the rollout of this service: nothing is changed from here any more; deploy() again to go on"
            self.held = False
        return self.lost is None

    def _write_ours(self) -> None:
        found = self._objects.get("Lease", self.name)
        if not self._is_ours(found):
            raise ClusterError(str(self.lost))
        self._write(found)

    def _write(self, found: Mapping[str, Any] | None) -> None:
        written = time.time(), time.monotonic()
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "labels": dict(self._labels),
                "annotations": {STATE: json.dumps(self.state, sort_keys=True), PROCESSES: _processes()},
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
        self._written = written

    def _renew(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._seconds / 4):
            try:
                with self._lock:
                    self._write_ours()
            except ConflictError:
                continue  # written in between: the next turn sees by whom
            except ClusterError:
                if self.lost:
                    return
