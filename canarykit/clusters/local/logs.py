"""Last lines of a log, for people and for error messages."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["not_about", "tail", "those"]

_READ = 16_384
_LONGEST = 4_096


def tail(path: Path, lines: int = 12) -> str:
    """Last lines of a log, for an error message."""
    try:
        with path.open("rb") as log:
            begin = max(0, log.seek(0, 2) - _READ)
            log.seek(begin)
            read = log.read().decode(errors="replace").splitlines()
    except OSError:
        return "(no log)"
    if begin and len(read) > 1:
        del read[0]  # it may be the end of a line
    return "\n".join(read[-lines:]) or "(the log is empty)"


def those(path: Path, wanted: Callable[[str], bool], lines: int) -> list[str]:
    """Last lines of a log that are wanted. All of it is read, but only so many lines are kept; none when there is no log.

    Parameters
    ----------
    path : Path
        The log.
    wanted : callable
        Takes a line without its end.
    lines : int
        How many to return at most. A line is cut after 4,096 bytes.
    """
    kept: deque[str] = deque(maxlen=lines)
    try:
        kept.extend(line for line in _lines(path) if wanted(line))
    except OSError:
        return []
    return list(kept)


def not_about(path: str) -> Callable[[str], bool]:
    """Tell lines that are about no GET of just this path."""
    asked = re.compile(rf"\bGET {re.escape(path)}(?=[\s\"'?]|$)")
    return lambda line: asked.search(line) is None


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as log:
        begins = True
        while piece := log.readline(_LONGEST):
            if begins:
                yield piece.decode(errors="replace").rstrip("\r\n")
            begins = piece.endswith(b"\n")
