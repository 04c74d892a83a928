"""What the operating system does for processes whose parent ends: end them at once, or hand them to a grandparent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["adopt_orphans", "die_with_parent"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Loaded here and not after a fork, where loading a library may deadlock.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> None:
    """Have the operating system end this process when its parent's starting thread ends.

    Parameters
    ----------
    parent : int
        Process id of the parent, to notice one that ended before this call.

    Notes
    -----
    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere the keeper alone ends what it started.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose own parent ends; return whether the operating system can do that.

    Without it, a process that forks twice becomes a child of process 1, and nobody knows whose it was.

    Notes
    -----
    Linux only (prctl(2), PR_SET_CHILD_SUBREAPER). Children do not inherit it.
    """
    return _LIBC is not None and _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
