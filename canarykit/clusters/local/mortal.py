"""End with one's parent: where the kernel can do it, at once and for certain."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG = 1
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
    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere the supervisor alone ends what it started.
    """
    if _LIBC is None:
        return
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
