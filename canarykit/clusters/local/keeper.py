"""The parent of one server: it collects everything that the server starts, and ends all of it.

Servers start processes: workers, which may begin sessions of their own, and daemons, which fork twice. No signal to the
server or its group reaches those. Each server therefore has a keeper, which adopts every orphan among its
descendants. The keeper ends only when it has no child left. So the end of the keeper is the proof that nothing is left.

The supervisor and the keeper speak over a socket, one JSON object a line:

===============  ====================================================================================================
from the keeper  ``{"pid": n}`` after the start, or ``{"error": "…", "kind": "…"}``; ``{"exited": code}`` at its end
to the keeper    ``{"stop": seconds}``
===============  ====================================================================================================

The keeper ends the server in three steps: SIGTERM to the server's group, SIGTERM to what is left of its descendants, SIGKILL.
When the server ends by itself, its descendants are ended too: they may hold its port. When the socket closes, the
supervisor is gone, and SIGKILL is sent at once.

Orphans are collected on Linux only. Elsewhere the keeper signals the server's process group, and a worker with a session of its
own may outlive it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from canarykit.clusters.local.descendants import descendants
from canarykit.clusters.local.parent_death import adopt_orphans

__all__ = ["close_others", "fork_keeper"]

ORPHAN_GRACE = 1.0
"""Seconds that descendants of a server have after SIGTERM, once the server itself has ended."""

KILL_WITHIN = 10.0
"""Seconds after which a process that does not end after SIGKILL (the kernel holds it) is given up."""

_KILL_EVERY = 0.02


def fork_keeper(control: socket.socket, log: str, start: Callable[[], int], *, keep: tuple[int, ...] = ()) -> int:
    """Fork a keeper; return its process id. The caller must have one thread only.

    Parameters
    ----------
    control : socket
        The keeper's end of the connection to the supervisor. The caller closes its copy.
    log : str
        Path of the file that the server writes to.
    start : callable
        Starts the server, in the keeper, as a leader of its process group; returns its process id.
    keep : tuple of int
        File descriptors that `start` needs. All others are closed: a forgotten copy of another server's socket would keep
        that socket open.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    _become_keeper(control, log, start, keep)


def _become_keeper(control: socket.socket, log: str, start: Callable[[], int], keep: tuple[int, ...]) -> NoReturn:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for opened, standard in ((nothing, 0), (written, 1), (written, 2)):
            os.dup2(opened, standard)
        close_others({0, 1, 2, control.fileno(), *keep})
        _Keeper(control, adopts=adopt_orphans()).run(start, keep)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def close_others(keep: set[int]) -> None:
    """Close all file descriptors but these."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            for number in {int(name) for name in os.listdir(folder)} - keep:
                with contextlib.suppress(OSError):  # the one that listed the folder
                    os.close(number)
            return


class _Keeper:
    def __init__(self, control: socket.socket, *, adopts: bool) -> None:
        self._control, self._adopts = control, adopts
        self._main = 0
        self._ended = False
        self._childless = False
        self._supervised = True
        self._deadline: float | None = None

    def run(self, start: Callable[[], int], keep: tuple[int, ...]) -> None:
        wake, signalled = os.pipe()
        os.set_blocking(signalled, False)
        os.set_blocking(wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        try:
            self._main = start()
        except Exception as error:
            self._say(error=str(error), kind=type(error).__name__)
            return
        for number in keep:  # a copy here would keep the server's port open
            os.close(number)
        self._say(pid=self._main)
        while not self._ended and not self._overdue():
            self._wait(wake)
        self._end_all(wake)

    def _overdue(self) -> bool:
        return not self._supervised or (self._deadline is not None and time.monotonic() >= self._deadline)

    def _wait(self, wake: int, most: float | None = None) -> None:
        """Wait until a child ended, the supervisor said something, the deadline is there, or `most` seconds passed."""
        bounds = [most] if most is not None else []
        if self._deadline is not None:
            bounds.append(max(0.0, self._deadline - time.monotonic()))
        watched = [wake, self._control.fileno()] if self._supervised else [wake]
        readable = select.select(watched, [], [], min(bounds, default=None))[0]
        if wake in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 4096)
        if self._control.fileno() in readable:
            self._take_orders()
        self._reap()

    def _take_orders(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except OSError:
            data = b""
        self._supervised = bool(data)
        for line in data.splitlines():
            until = time.monotonic() + json.loads(line)["stop"]
            if self._deadline is None and not self._ended:
                _signal_group(self._main, signal.SIGTERM)
            self._deadline = until if self._deadline is None else min(until, self._deadline)

    def _reap(self) -> None:
        """Take note of the children that ended, adopted ones included."""
        while not self._childless:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if not pid:
                return
            if pid == self._main:
                self._ended = True
                self._say(exited=os.waitstatus_to_exitcode(status))

    def _end_all(self, wake: int) -> None:
        """End what is left: politely if the server has ended and somebody waits, then not."""
        self._deadline = None
        if self._ended:
            for pid in descendants(os.getpid()):
                _signal(pid, signal.SIGTERM)
            end = time.monotonic() + ORPHAN_GRACE
            while not self._childless and self._supervised and (left := end - time.monotonic()) > 0:
                self._wait(wake, left)
        end = time.monotonic() + KILL_WITHIN
        if not self._adopts:
            _signal_group(self._main, signal.SIGKILL)
        # A process that was about to fork may have a child that was not listed: hence again, until there is none.
        while not self._childless and time.monotonic() < end:
            for pid in descendants(os.getpid()):
                _signal(pid, signal.SIGKILL)
            self._wait(wake, _KILL_EVERY)

    def _say(self, **message: Any) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
