"""The processes that descend from one, as Linux lists them in /proc."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

__all__ = ["busy_seconds", "children", "descendants"]

_PROC = Path("/proc")


def _fields(pid: int | str) -> list[str] | None:
    """Fields of /proc/PID/stat from the third one on; None when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the name in parentheses, which may hold any sign, parentheses and spaces too.
    return text.rpartition(")")[2].split()


def _families() -> dict[int, list[int]]:
    """Children of each process, without those that have ended and wait for their parent."""
    found: dict[int, list[int]] = defaultdict(list)
    try:
        names = os.listdir(_PROC)
    except OSError:  # no Linux
        return {}
    for name in names:
        if name.isdecimal() and (fields := _fields(name)) and fields[0] not in "ZX":
            found[int(fields[1])].append(int(name))
    return found


def children(pid: int) -> list[int]:
    """Processes that run and whose parent is this one; empty where there is no /proc."""
    return _families().get(pid, [])


def descendants(pid: int) -> list[int]:
    """Processes that run and descend from this one, parents first; empty where there is no /proc."""
    families = _families()
    found = list(families.get(pid, ()))
    for each in found:  # grows meanwhile
        found += families.get(each, ())
    return found


def busy_seconds(pids: list[int]) -> float:
    """Processor time, in seconds, that these processes and the children for which they waited have used so far."""
    ticks = sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _fields(pid)))
    return ticks / os.sysconf("SC_CLK_TCK")
