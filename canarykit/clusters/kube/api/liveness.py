"""Whether the holder of a Lease is still there.

A process of this machine is looked up. Any other holder is watched, as client-go does it: it is gone when its record has not
changed for as long as the record says, by the monotonic clock of whoever watches. Clocks of two machines are never compared.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

__all__ = ["PROCESSES", "Watched", "duration_of", "holder_of", "looked_up", "renewed_here", "this_process"]

PROCESSES = "canarykit.dev/processes"
"""Annotation of a Lease: boot of the machine, namespace of process numbers, and start of the process that holds it."""

_STATE, _START = 0, 19
"""Places in /proc/PID/stat, counted from behind the name of the program."""


def holder_of(found: Mapping[str, Any] | None) -> str:
    """Who holds a lease; empty when nobody does."""
    return "" if found is None else str((found.get("spec") or {}).get("holderIdentity") or "")


def duration_of(found: Mapping[str, Any] | None) -> float:
    """Seconds for which a lease is held without a renewal; 0 when it does not say."""
    said = {} if found is None else found.get("spec") or {}
    return float(said.get("leaseDurationSeconds") or 0)


class Watched:
    """How long a lease has not changed, as far as this process has seen.

    A gap between two looks, while the API server was away or this machine asleep, counts for half of the lease's duration at
    most: the holder could not renew it either, and is given the time to do so.

    Parameters
    ----------
    now : callable
        Seconds of a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._record: str | None = None
        self._looked: float | None = None
        self.unchanged = 0.0
        """Seconds without a change."""
        self.renewed = False
        """Whether the last look found another record than the one before it."""

    def look(self, found: Mapping[str, Any] | None, *, seconds: float | None = None) -> None:
        """Take in what was read just now.

        Parameters
        ----------
        found : mapping, optional
            The lease; None when there is none.
        seconds : float, optional
            Its duration, in place of what it says.
        """
        now, record = self._now(), None if found is None else json.dumps(found.get("spec"), sort_keys=True)
        before, self._looked = self._looked, now
        self.renewed = before is not None and record != self._record
        if before is None or self.renewed:
            self.unchanged = 0.0
        else:
            self.unchanged += min(now - before, (duration_of(found) if seconds is None else seconds) / 2)
        self._record = record


def this_process() -> str:
    """Name this process among all that were ever started; empty on systems that cannot tell.

    Containers of one name count their processes each for itself, and a number is given again to another process.
    """
    among, found = _numbers(), _stat(os.getpid())
    return f"{among} {found[_START]}" if among and found else ""


def looked_up(found: Mapping[str, Any]) -> Literal["alive", "dead", "unknown"]:
    """Look for the holder among the processes of this machine; unknown when it is not one of them, for all that can be told."""
    host, _, number = holder_of(found).rpartition("-")[0].rpartition("-")
    noted = str((found["metadata"].get("annotations") or {}).get(PROCESSES, ""))
    *among, start = noted.rsplit(" ", 1) if noted.count(" ") > 1 else (noted, "")  # older kits noted no start
    here = _numbers()
    if not here or among != [here] or host != socket.gethostname() or not number.isdigit():
        return "unknown"
    stat = _stat(int(number))
    if stat is None:
        return "dead" if _no_such(int(number)) else "unknown"
    if stat[_STATE] in "ZX" or start not in ("", stat[_START]):
        return "dead"
    return "alive" if start else "unknown"


def renewed_here(found: Mapping[str, Any]) -> bool:
    """Whether a living process of this machine has renewed the lease in time, by the one clock that both have."""
    if looked_up(found) != "alive":
        return False
    try:
        renewed = datetime.fromisoformat(str(found["spec"]["renewTime"]).replace("Z", "+00:00"))
        return 0 <= (datetime.now(UTC) - renewed).total_seconds() <= duration_of(found)
    except (KeyError, ValueError, TypeError):
        return False


def _numbers() -> str:
    """Name the processes that can be seen from here, whose numbers are their own; empty where there is no /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _stat(number: int) -> list[str] | None:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _no_such(number: int) -> bool:
    """Whether there is no process of this number, also where /proc hides those of other users."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
