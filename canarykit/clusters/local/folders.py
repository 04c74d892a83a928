"""The private folder of a local cluster, and the removal of those that nobody was left to remove.

A folder has a mark that names the processes it belongs to: the notebook's kernel and the supervisor. Each of them removes the
folder at its end. If both were killed, the next cluster does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["add_owner", "make", "short_temporary", "sweep"]

_PREFIX = "canarykit-"
_MARK = "owners"
_PROC = Path("/proc")


def short_temporary() -> str:
    """Folder for temporary files; not $TMPDIR when that is long, as the path of a Unix socket may have 100 characters."""
    return tempfile.gettempdir() if len(tempfile.gettempdir()) < 40 else "/tmp"


def make() -> Path:
    """Make a private folder that belongs to this process."""
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=short_temporary()))
    add_owner(folder, os.getpid())
    return folder


def add_owner(folder: Path, pid: int) -> None:
    """Note that a folder belongs to a process, too."""
    with (folder / _MARK).open("a") as mark:
        mark.write(json.dumps(_identity(pid)) + "\n")


def sweep(parent: Path | None = None) -> None:
    """Remove folders of this user whose owners have all ended; what has no mark, or one of another machine, stays.

    Parameters
    ----------
    parent : Path, optional
        Where they are; as `make` makes them by default.
    """
    for folder in (parent or Path(short_temporary())).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # the mark is none
            facts = folder.lstat()
            if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and _is_left(folder / _MARK):
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(mark: Path) -> bool:
    owners = [json.loads(line) for line in mark.read_text().splitlines()]
    here = _where()
    return bool(owners) and all(owner["where"] == here and not _lives(owner) for owner in owners)


def _lives(owner: dict[str, Any]) -> bool:
    began = _began(owner["pid"])
    return began is not None and began == owner["began"]


def _identity(pid: int) -> dict[str, Any]:
    """What tells a process from a later one of the same number, and from one of another container or machine."""
    return {"pid": pid, "began": _began(pid), "where": _where()}


def _began(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when it has ended."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        if _PROC.joinpath("self").exists():
            return None
        return _answers(pid)  # no Linux
    return None if fields[0] in "ZX" else fields[19]


def _answers(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def _where() -> list[str]:
    """The machine since it was started, and the container."""
    said = [os.uname().nodename]
    with contextlib.suppress(OSError):
        said += [(_PROC / "sys/kernel/random/boot_id").read_text().strip(), os.readlink(_PROC / "self/ns/pid")]
    return said
