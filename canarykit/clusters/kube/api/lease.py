"""Who conducts a rollout, and where it stands: one Lease per service, renewed while somebody is there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from canarykit.clusters.kube.api.liveness import (
    PROCESSES,
    Watched,
    duration_of,
    holder_of,
    looked_up,
    renewed_here,
    this_process,
)
from canarykit.errors import CanaryError, ClusterError, ConflictError, PlanError
from canarykit.routers.objects import retried

__all__ = ["LET_GO", "RETURNED", "STATE", "Lease", "check_times", "state_of"]

STATE = "canarykit.dev/rollout"
"""Annotation of the Lease: where the rollout stands, as JSON."""

LET_GO = "canarykit.dev/let-go-by"
"""Annotation of the Lease: the holder that has let go of it. One that nobody holds without it was edited."""

RETURNED = "rolled back by the guard: nobody renewed the lease"
"""Phase of a rollout whose guard has acted."""

_SHORTEST = 5
"""Seconds: a request to the API server may take some of them."""

_MICROS = "%Y-%m-%dT%H:%M:%S.%fZ"
_LOOK_EVERY = 1.0
_RENEWALS = 6
"""Renewals in the time for which a lease is held."""


class Objects(Protocol):
    """What a lease needs of a cluster."""

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object."""
        ...

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a new object."""
        ...

    def patch(self, kind: str, name: str, body: Any, *, how: str = "merge", sub: str = "") -> dict[str, Any]:
        """Change an object."""
        ...

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object."""
        ...


class Time(Protocol):
    """A clock that nobody sets, and waiting by it."""

    def monotonic(self) -> float:
        """Seconds."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...


def check_times(lease: int, ready_within: float) -> None:
    """Check how long a lease is held without a renewal, and how long a version may take until it is ready.

    Raises
    ------
    PlanError
        A time that is none.
    """
    if isinstance(lease, bool) or not isinstance(lease, int) or lease < _SHORTEST:
        raise PlanError(f"lease= takes a whole number of seconds, {_SHORTEST} or more, not {lease!r}")
    if isinstance(ready_within, bool) or not isinstance(ready_within, int | float) or not ready_within > 0:
        raise PlanError(f"ready_within= takes a number of seconds above 0, not {ready_within!r}")


def state_of(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where the rollout stands by its lease; empty when that says nothing, or nothing that can be read."""
    noted = {} if found is None else found["metadata"].get("annotations") or {}
    try:
        said = json.loads(noted.get(STATE, "{}"))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _holders_so_far(found: Mapping[str, Any]) -> int:
    return int((found.get("spec") or {}).get("leaseTransitions") or 0)


class Lease:
    """Keeps other kits off a service while this one conducts it, and tells the next one where it stands.

    A lease that was deleted or emptied by hand is taken again, unless somebody else may have conducted the rollout meanwhile.
    Then it is *lost*: the canary's weight rises no more from here, while traffic may still return to stable. Only somebody
    else who holds the lease, and is there, keeps this process from that.

    Parameters
    ----------
    objects : Objects
        Objects of the namespace.
    app : str
        The service.
    labels : mapping of str to str
        Labels of the Lease.
    seconds : int
        Without a renewal for so long, nobody is there.
    notify : callable, optional
        Takes a line about what is waited for.
    clock : Time
        By which others are watched.
    """

    def __init__(
        self,
        objects: Objects,
        app: str,
        labels: Mapping[str, str],
        *,
        seconds: int = 60,
        notify: Callable[[str], object] = lambda line: None,
        clock: Time = time,
    ) -> None:
        self._objects, self._labels, self._notify, self._clock = objects, labels, notify, clock
        self.name = f"{app}-rollout"
        self.holder = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.state: dict[str, Any] = {}
        self.lost: str | None = None
        """Why nothing but traffic to stable is changed from here any more; None while there is no reason."""
        self.held = False
        """Whether it was taken and neither let go nor, for all we know, lost."""
        self.left = False
        """Whether it is kept and renewed no more, so that whoever guards it acts."""
        self.seconds = seconds
        """For how long it is held without a renewal."""
        self._before: dict[str, Any] | None = None
        self._watched = Watched(clock.monotonic)
        self._holders = 0
        self._version: str | None = None
        self._written = (-math.inf, -math.inf)
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None
        self._lock = threading.RLock()

    # Taking it ---------------------------------------------------------------------------------------------------------

    def wait_free(self) -> dict[str, Any] | None:
        """Wait until it may be taken, before anything else is looked at; return it as it is then.

        One that nobody holds, or a process of this machine that has ended, may be taken at once. Any other is watched for as
        long as it lasts without a renewal.

        Raises
        ------
        ClusterError
            Someone else conducts this service: they renew it.
        """
        told = False
        while True:
            found = self._objects.get("Lease", self.name)
            self._watched.look(found)
            if found is None or not self._somebody_else(found):
                return found
            holder, lasts = holder_of(found), duration_of(found)
            if self._watched.renewed or renewed_here(found):
                raise ClusterError(
                    f"{holder} conducts a rollout of this service (it renews Lease {self.name}): "
                    "wait until it ends, or end it there"
                )
            if not told:
                self._notify(
                    f"{holder} holds Lease {self.name}: waiting up to {lasts:g} s to see whether it is renewed "
                    "(to go on at once when that process is gone, delete the Lease)"
                )
                told = True
            self._clock.sleep(min(_LOOK_EVERY, lasts / 10))

    def acquire(self) -> dict[str, Any]:
        """Take the lease; return where the rollout stood, empty when there was none.

        Raises
        ------
        ClusterError
            Someone else conducts this service.
        """
        with self._lock:
            retried(self._take)  # of two that take it at once, the second then sees the first
        self.held = True
        self.keep()
        return dict(self.state)

    def keep(self) -> None:
        """Renew it from now on, until it is stopped or left."""
        self.left = False
        if self._thread is None or not self._thread.is_alive():
            self._changed = threading.Event()  # of its own: one that was stopped may still be at its last renewal
            self._thread = threading.Thread(target=self._renew, args=(self._changed,), name="canarykit-lease", daemon=True)
            self._thread.start()

    def leave(self) -> None:
        """Keep it and renew it no more: whoever guards it is to act when its time is over."""
        self.stop()
        self.left = True

    # While it is held --------------------------------------------------------------------------------------------------

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
        if self._age() > self.seconds / 2:
            self.renew()

    def check_nobody_else(self) -> None:
        """See, before traffic returns to stable, that nobody else conducts the rollout.

        Where that cannot be seen, because the lease or the API server is away, traffic may return.

        Raises
        ------
        ClusterError
            Somebody else holds it, and is there, for all that is known.
        """
        if self.lost is None and self._age() <= self.seconds / 2:
            return
        try:
            found = self._objects.get("Lease", self.name)
        except CanaryError:
            return
        self._watched.look(found)
        if found is not None and self._somebody_else(found):
            raise ClusterError(self._lose(f"{holder_of(found)} has taken over"))

    def renew(self) -> None:
        """Ask the server whether it is still ours, and have it for another while.

        Raises
        ------
        ClusterError
            It is lost; says to whom.
        """
        with self._lock:
            if self.lost is not None:
                raise ClusterError(self.lost)
            retried(self._write_ours)

    def reclaim(self) -> None:
        """Have it once more to end the rollout, also where its guard has acted, or somebody has deleted it.

        Raises
        ------
        ClusterError
            Somebody else conducts the rollout, or has conducted it since.
        """
        with self._lock:
            found = self._objects.get("Lease", self.name)
            if found is not None and holder_of(found) != self.holder and self._others_since(found):
                raise ClusterError(self._lose(f"{holder_of(found) or 'somebody else'} has taken over"))
            retried(lambda: self._write_ours(again=True))
            self.lost = None  # nobody else came

    def save_state(self, **facts: Any) -> None:
        """Write down where the rollout stands; a lease that nobody holds is taken again for it.

        Raises
        ------
        ClusterError
            Somebody else holds it.
        """
        with self._lock:
            self.state.update(facts)
            retried(lambda: self._write_ours(again=True))

    # Letting go --------------------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Let the next one in; what is known stays written."""
        self._end(self._let_go)

    def remove(self) -> None:
        """Release it and leave nothing."""
        self._end(lambda found: self._objects.delete("Lease", self.name))

    def give_back(self, **facts: Any) -> None:
        """Leave it as it was before it was taken: not there, or held by nobody, with what was known then and these facts."""
        if self._before is None:
            self.remove()
        else:
            self.state = {**self._before, **facts}
            self.release()

    def stop(self) -> None:
        """Renew it no more: unless it is let go, whoever guards it acts when its time is over."""
        self._changed.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    # Inside ------------------------------------------------------------------------------------------------------------

    def _age(self) -> float:
        """Seconds since it was written, by two clocks: one is set by hand, and the other stands still while a laptop sleeps."""
        return max(time.time() - self._written[0], self._clock.monotonic() - self._written[1])

    def _take(self) -> None:
        found = self.wait_free()
        self.state, self._before = state_of(found), None if found is None else state_of(found)
        self._holders = 0 if found is None else _holders_so_far(found) + 1
        self._write(found)

    def _somebody_else(self, found: Mapping[str, Any]) -> bool:
        """Whether somebody else holds it, and is there for all we know; a request that was sent twice may find that we are."""
        if holder_of(found) in ("", self.holder) or looked_up(found) == "dead":
            return False
        return self._watched.unchanged <= duration_of(found) > 0

    def _others_since(self, found: Mapping[str, Any]) -> bool:
        """Whether somebody else has held it since it was taken here."""
        return holder_of(found) not in ("", self.holder) or _holders_so_far(found) != self._holders

    def _write_ours(self, *, again: bool = False) -> None:
        """Write it where it is ours or, by accident, nobody's.

        Parameters
        ----------
        again : bool
            Take it again also where somebody else may have conducted the rollout meanwhile, if nobody does now.
        """
        if self._version is not None and self.lost is None:
            try:
                self._write({"metadata": {"resourceVersion": self._version}})
                return
            except ConflictError:
                self._version = None  # somebody has written since, or deleted it
        found = self._objects.get("Lease", self.name)
        self._watched.look(found)
        if found is not None and self._somebody_else(found):
            raise ClusterError(self._lose(f"{holder_of(found)} has taken over"))
        taken = ""
        if holder_of(found) != self.holder:
            if reason := self._doubt(found):
                said = self._lose(reason)
                if not again:
                    raise ClusterError(said)
            else:
                taken = f"Lease {self.name} was {'deleted' if found is None else 'emptied'} by somebody: it is taken again"
            if found is not None and self._others_since(found):
                self._holders = _holders_so_far(found) + 1
        self._write(found)
        self.held = True
        if taken:  # only now: whoever is told may fail
            with contextlib.suppress(Exception):
                self._notify(taken)

    def _doubt(self, found: Mapping[str, Any] | None) -> str | None:
        """Say why somebody else may have changed the rollout, where nobody holds the lease; None when nobody can have."""
        if found is not None and self._others_since(found):
            return f"{holder_of(found) or 'somebody else'} has taken over"
        if self._age() > self.seconds or state_of(found).get("phase") == RETURNED:
            return "nobody renewed the lease in time, so that its guard or somebody else has ended"
        return None

    def _lose(self, who: str) -> str:
        """Once it was lost it stays so: whoever came meanwhile may have changed everything."""
        self.held = False
        if self.lost is None:
            self.lost = (
                f"{who} the rollout of this service: nothing is changed from here any more, but that traffic returns to stable "
                "while nobody else is there; deploy() again to go on"
            )
        return self.lost

    def _write(self, found: Mapping[str, Any] | None) -> None:
        written, now = (time.time(), self._clock.monotonic()), datetime.now(UTC).strftime(_MICROS)
        notes = {STATE: json.dumps(self.state, sort_keys=True), PROCESSES: this_process()}
        spec = {
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.seconds,
            "leaseTransitions": self._holders,
            "renewTime": now,
        }
        if found is None:
            meta = {"name": self.name, "labels": dict(self._labels), "annotations": notes}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            made = self._objects.create(body)
        else:
            made = self._patch(found, {**notes, LET_GO: None}, spec)
        self._version = made["metadata"]["resourceVersion"]
        self._written = written
        self._watched.look(made)

    def _patch(self, found: Mapping[str, Any], notes: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
        """Write our own fields, and leave those of others; a conflict when somebody has written since."""
        version = found["metadata"]["resourceVersion"]
        meta = {"resourceVersion": version, "labels": dict(self._labels), "annotations": dict(notes)}
        return self._objects.patch("Lease", self.name, {"metadata": meta, "spec": dict(spec)})

    def _let_go(self, found: Mapping[str, Any]) -> None:
        notes = {LET_GO: self.holder, STATE: json.dumps(self.state, sort_keys=True)}
        self._patch(found, notes, {"holderIdentity": None})

    def _end(self, end: Callable[[Mapping[str, Any]], object]) -> None:
        """End it, if it is ours; when it was lost meanwhile, that is known afterwards."""
        self.stop()

        def once() -> None:
            found = self._objects.get("Lease", self.name)
            if holder_of(found) == self.holder:
                assert found is not None
                end(found)
            elif holder_of(found):
                self._lose(f"{holder_of(found)} has taken over")

        with self._lock:
            retried(once)
            self.held, self._version = False, None

    def _renew(self, stopped: threading.Event) -> None:
        while not stopped.wait(self.seconds / _RENEWALS):
            try:
                with self._lock:
                    if stopped.is_set():
                        return
                    retried(self._write_ours)
            except (
                Exception
            ):  # whatever it was, the next turn tries again: without a word, the guard would act on a live rollout
                if self.lost:
                    return
