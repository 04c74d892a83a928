"""The supervisor's end of a keeper and of the process that forks servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canarykit.clusters.local.environment import thread_limits
from canarykit.clusters.local.keeper import fork_keeper
from canarykit.clusters.local.parent_death import die_with_parent

__all__ = ["Kept", "NotStarted", "Nursery", "start_command"]


class NotStarted(RuntimeError):
    """A server could not be started.

    Parameters
    ----------
    why : str
        Reason that the operating system gave.
    kind : str
        Name of the exception that it was; empty when the keeper was killed.
    """

    def __init__(self, why: str, kind: str) -> None:
        super().__init__(why)
        self.kind = kind


class Kept:
    """A server and everything that it starts, until all of that has ended.

    Parameters
    ----------
    control : socket
        Our end of the connection to the keeper.
    keeper : int
        Process id of the keeper.
    """

    def __init__(self, control: socket.socket, keeper: int) -> None:
        self.keeper = keeper
        self.pid = 0
        self.code = -int(signal.SIGKILL)  # that of a keeper that could not say any
        self.told = False
        """Whether the keeper said how the server ended; one that was killed could not."""
        self._control = control
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def started(self) -> None:
        """Wait until the server runs; `pid` is its process id then.

        Raises
        ------
        NotStarted
            It could not be started; says why.
        """
        self._reader, self._writer = await asyncio.open_connection(sock=self._control)
        said = await self._hear()
        if "pid" not in said:
            self._writer.close()
            raise NotStarted(said.get("error", "its keeper was killed"), said.get("kind", ""))
        self.pid = said["pid"]

    async def gone(self) -> int:
        """Wait until the server and all of its descendants have ended; return its exit code, negative for a signal."""
        while said := await self._hear():
            self.code, self.told = said["exited"], True
        assert self._writer is not None
        self._writer.close()
        return self.code

    def stop(self, grace: float) -> None:
        """Have it ended: SIGTERM, and after so many seconds SIGKILL."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps({"stop": grace}).encode() + b"\n")

    async def _hear(self) -> dict[str, Any]:
        assert self._reader is not None
        line = b""
        with contextlib.suppress(OSError):
            line = await self._reader.readline()
        said: dict[str, Any] = json.loads(line) if line else {}
        return said


def start_command(argv: Sequence[str], env: dict[str, str], log: Path, listener: int | None) -> Kept:
    """Start a program under a keeper of its own.

    Parameters
    ----------
    argv : sequence of str
        The program and its words.
    env : dict
        Its whole environment.
    log : Path
        Where it writes.
    listener : int, optional
        File descriptor that it inherits.
    """
    keep = () if listener is None else (listener,)

    def start() -> int:
        keeper = os.getpid()
        process = subprocess.Popen(
            list(argv),
            env=env,
            pass_fds=keep,
            start_new_session=True,
            preexec_fn=lambda: die_with_parent(keeper),
        )
        process.returncode = 0  # the keeper waits for all of its children by itself
        return process.pid

    ours, theirs = socket.socketpair()
    with theirs:
        return Kept(ours, fork_keeper(theirs, str(log), start, keep=keep))


class Nursery:
    """Our end of `canarykit.clusters.local.prefork`."""

    def __init__(self, module: str, log: Path) -> None:
        self._module, self._log = module, log
        self._lock = asyncio.Lock()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._channel: socket.socket | None = None
        self.pid: int | None = None

    async def fork(self, argv: Sequence[str], log: Path, listener: socket.socket) -> Kept:
        """Fork a server under a keeper of its own.

        Raises
        ------
        RuntimeError
            The process that forks ended before it answered.
        """
        request = json.dumps({"argv": list(argv), "log": str(log)}).encode()
        async with self._lock:
            # The one that is there may have been killed since.
            if self._reader is not None and (kept := await self._ask(request, listener)):
                return kept
            await self._begin()
            if kept := await self._ask(request, listener):
                return kept
        raise RuntimeError(f"the process that forks replicas ended:\n{self._log.read_text()[-2000:]}")

    async def _ask(self, request: bytes, listener: socket.socket) -> Kept | None:
        assert self._channel is not None and self._reader is not None
        ours, theirs = socket.socketpair()
        line = b""
        with theirs, contextlib.suppress(OSError):
            socket.send_fds(self._channel, [request], [listener.fileno(), theirs.fileno()])
            line = await self._reader.readline()
        if line:
            return Kept(ours, json.loads(line)["keeper"])
        ours.close()
        return None

    async def _begin(self) -> None:
        if self._writer is not None:
            self._writer.close()
        ours, theirs = socket.socketpair()
        parent = os.getpid()
        with theirs, self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "canarykit.clusters.local.prefork", self._module, str(theirs.fileno())],
                env={**os.environ, **thread_limits(os.environ)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: die_with_parent(parent),
            )
        process.returncode = 0  # the supervisor waits for all of its children by itself
        self.pid, self._channel = process.pid, ours
        # The writer must be kept although nothing is written to it: a forgotten one closes the connection.
        self._reader, self._writer = await asyncio.open_connection(sock=ours.dup())
