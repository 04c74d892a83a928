"""A cgroup (version 2) around everything that a local cluster starts, where we may make one.

Keepers end the descendants of a server. If the supervisor and the keepers are killed at the same time, nobody is left who knows
those; but their cgroup does, and the notebook's kernel can end all in it. Many containers and desktops allow no cgroups. Then
there is none.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

__all__ = ["end", "join", "leave", "make"]

_PROC = Path("/proc")
_PREFIX = "canarykit-"
_EMPTY_WITHIN = 5.0
_OLD = 60.0


def make(name: str) -> Path | None:
    """Make a cgroup below that of this process; None where that is not possible.

    Parameters
    ----------
    name : str
        It begins with ``canarykit-``.
    """
    parent = _own()
    if parent is None:
        return None
    _sweep(parent)
    made = parent / name
    try:
        made.mkdir()
    except OSError:
        return None
    if (made / "cgroup.kill").exists():  # Linux 5.14
        return made
    made.rmdir()
    return None


def _sweep(parent: Path) -> None:
    """Remove what those left who were killed; only a cgroup in which nothing runs can be removed."""
    for left in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _OLD:  # a new one may be empty as yet
                left.rmdir()


def join(group: Path) -> None:
    """Move this process into a cgroup; what it starts from now on will be there, too."""
    with contextlib.suppress(OSError):
        (group / "cgroup.procs").write_text("0")


def leave(group: Path) -> None:
    """Move this process back, and remove the cgroup when nothing else is in it."""
    with contextlib.suppress(OSError):
        (group.parent / "cgroup.procs").write_text("0")
        group.rmdir()


def end(group: Path) -> None:
    """End everything that is left in a cgroup, and remove it."""
    with contextlib.suppress(OSError):
        (group / "cgroup.kill").write_text("1")
    until = time.monotonic() + _EMPTY_WITHIN
    while group.exists() and time.monotonic() < until:
        try:
            group.rmdir()
        except OSError:  # what was killed is still ending
            time.sleep(0.01)


def _own() -> Path | None:
    """Folder of this process's cgroup."""
    try:
        groups = (_PROC / "self/cgroup").read_text().splitlines()
        mounts = (_PROC / "self/mounts").read_text().splitlines()
    except OSError:  # no Linux
        return None
    path = next((line.removeprefix("0::") for line in groups if line.startswith("0::")), None)
    root = next((fields[1] for line in mounts if (fields := line.split())[2] == "cgroup2"), None)
    if path is None or root is None:
        return None
    folder = Path(root, path.lstrip("/"))
    return folder if folder.is_dir() else None
