"""The process that owns all others, and takes them along when the notebook's kernel ends.

It reads one JSON object a line from its standard input and answers on its standard output. When the input closes
or its parent is gone, the kernel has died: it ends what it started, removes its folder and ends. It is a process
of its own because a killed kernel runs no clean-up. When it is killed itself, the keepers (`canarykit.clusters.local.keeper`)
notice and end what they keep.

===========  =============================================================================  ======================
``do``       takes                                                                          answers
===========  =============================================================================  ======================
``reserve``  name                                                                           port
``start``    name, argv, env, listen (``fd``, ``port`` or none), ports, prefork, restart    pid, port, ports
``stop``     name, grace (seconds)                                                          code
``status``                                                                                  children
``quit``
===========  =============================================================================  ======================

``{fd}`` in argv, and ``{port}`` and ``{port:NAME}`` in argv and in values of env, are replaced. Sockets are made here, so that
a port is never lost between choosing it and listening on it, and a restarted replica keeps its ports.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canarykit.clusters.local import cgroup
from canarykit.clusters.local.descendants import children, descendants
from canarykit.clusters.local.kept import Kept, NotStarted, Nursery, start_command
from canarykit.clusters.local.parent_death import adopt_orphans
from canarykit.placeholders import filled, port_variables

__all__ = ["main"]

PARENT_POLL = 0.2
BACKOFF, BACKOFF_MOST, STEADY_AFTER = 0.1, 5.0, 30.0
END_GRACE = 3.0
"""Seconds that servers have after SIGTERM when all is torn down."""

KILL_WITHIN = 5.0

_NOT_STARTED = -1
"""Exit code of what could not be started."""


@dataclass
class Child:
    """One process, over all its restarts."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    prefork: bool
    restart: bool
    listener: socket.socket | None
    named: dict[str, socket.socket] = field(default_factory=dict)
    kept: Kept | None = None
    began: float = 0.0
    restarts: int = 0
    quick_deaths: int = 0
    last_code: int | None = None
    failure: str | None = None
    """Why its last start failed; None when it did not."""
    stopping: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int | None:
        return None if self.listener is None else int(self.listener.getsockname()[1])

    @property
    def ports(self) -> dict[str, int]:
        return {name: int(reserved.getsockname()[1]) for name, reserved in self.named.items()}

    @property
    def running(self) -> bool:
        return self.kept is not None and self.kept.pid != 0

    def facts(self) -> dict[str, Any]:
        return {
            "pid": self.kept.pid if self.kept else 0,
            "keeper": self.kept.keeper if self.kept else 0,
            "port": self.port,
            "ports": self.ports,
            "running": self.running,
            "restarts": self.restarts,
            "last_code": self.last_code,
            "failure": self.failure,
        }

    def note(self, line: str) -> None:
        """Write a line to its log."""
        with contextlib.suppress(OSError), self.log.open("a") as log:
            log.write(f"{line}\n")

    def forget(self) -> None:
        """Give its ports back."""
        for reserved in (self.listener, *self.named.values()):
            if reserved is not None:
                reserved.close()


class Supervisor:
    """Starts, watches, restarts and ends processes."""

    def __init__(self, folder: Path, nursery_module: str) -> None:
        self.folder = folder
        (folder / "logs").mkdir(mode=0o700, exist_ok=True)
        self.children: dict[str, Child] = {}
        self.reserved: dict[str, socket.socket] = {}
        self.nursery = Nursery(nursery_module, folder / "logs" / "prefork.log")
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        match order.get("do"):
            case "reserve":
                self.reserved[order["name"]] = reserved = _socket("port")
                return {"port": reserved.getsockname()[1]}
            case "start":
                return await self.start(order)
            case "stop":
                return await self.stop(order["name"], order.get("grace", 10.0))
            case "status":
                return {"children": {name: child.facts() for name, child in self.children.items()}}
            case other:
                raise ValueError(f"unknown order {other!r}")

    async def start(self, order: dict[str, Any]) -> dict[str, Any]:
        """Start a process, and start it again whenever it ends, when asked to."""
        name = order["name"]
        if name in self.children and self.children[name].kept is not None:
            raise ValueError(f"{name} runs already")
        child = Child(
            name=name,
            argv=order["argv"],
            env=order.get("env", {}),
            log=self.folder / "logs" / f"{name}.log",
            prefork=order.get("prefork", False),
            restart=order.get("restart", False),
            listener=self.reserved.pop(name, None) or (_socket(order["listen"]) if order.get("listen") else None),
            named={each: _socket("port") for each in order.get("ports", ())},
        )
        self.children[name] = child
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._keep(child, begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await begun
        except BaseException:
            child.forget()
            self.children.pop(name, None)
            raise
        return child.facts()

    async def stop(self, name: str, grace: float) -> dict[str, Any]:
        """End a process and everything that it started: politely, then not."""
        child = self.children.get(name)
        if child is None:
            return {"code": None}
        child.stopping = True
        if child.kept is not None:
            child.kept.stop(grace)
            await child.ended.wait()
        child.forget()
        self.children.pop(name, None)
        return {"code": child.last_code}

    async def end_all(self) -> None:
        """End everything, and whatever descends from it."""
        await asyncio.gather(*(self.stop(name, END_GRACE) for name in list(self.children)))
        end = time.monotonic() + KILL_WITHIN
        while (left := descendants(os.getpid()) or self._known()) and time.monotonic() < end:
            for pid in left:
                _kill(pid)
            await asyncio.sleep(0.02)

    def _known(self) -> list[int]:
        """The process that forks servers, where descendants cannot be listed."""
        pid = self.nursery.pid
        return [pid] if pid is not None and _kill(pid, 0) else []

    async def _keep(self, child: Child, begun: asyncio.Future[None]) -> None:
        while True:
            try:
                kept = await self._spawn(child)
            except Exception as error:
                child.kept, child.last_code, child.failure = None, _NOT_STARTED, str(error)
                if not begun.done():
                    child.ended.set()
                    begun.set_exception(error)
                    return
                child.note(f"canarykit: {child.name} ended and cannot be started again: {error}")
                if isinstance(error, NotStarted) and not error.kind:
                    await self._kill_strays()
            else:
                child.failure = None
                if not begun.done():
                    begun.set_result(None)
                child.last_code = await kept.gone()
                if not kept.told:
                    await self._kill_strays()
                child.kept = None
            if child.stopping or not child.restart:
                child.ended.set()
                return
            steady = time.monotonic() - child.began > STEADY_AFTER
            child.quick_deaths = 0 if steady else child.quick_deaths + 1
            child.restarts += 1
            await asyncio.sleep(min(BACKOFF * 2 ** (child.quick_deaths - 1), BACKOFF_MOST) if child.quick_deaths else 0)
            if child.stopping:
                child.ended.set()
                return

    async def _spawn(self, child: Child) -> Kept:
        child.began = time.monotonic()
        if child.prefork:
            assert child.listener is not None
            child.kept = await self.nursery.fork(child.argv, child.log, child.listener)
        else:
            descriptor = child.listener.fileno() if child.listener is not None else None
            shares = any("{fd}" in word for word in child.argv)
            argv = [filled(word, port=child.port, ports=child.ports, fd=descriptor) for word in child.argv]
            env = {name: filled(value, port=child.port, ports=child.ports) for name, value in child.env.items()}
            env = {**os.environ, **port_variables(child.port, child.ports), **env}
            child.kept = start_command(argv, env, child.log, descriptor if shares else None)
        await child.kept.started()
        if child.stopping:  # while it was being started
            child.kept.stop(0)
        return child.kept

    async def _kill_strays(self) -> None:
        """End the descendants of a keeper that was killed: the operating system has made them children of this process."""
        own = {child.kept.keeper for child in self.children.values() if child.kept is not None} | {self.nursery.pid}
        end = time.monotonic() + KILL_WITHIN
        while (strays := set(children(os.getpid())) - own) and time.monotonic() < end:
            for pid in [*strays, *(each for stray in strays for each in descendants(stray))]:
                _kill(pid)
            await asyncio.sleep(0.02)


def _kill(pid: int, number: int = signal.SIGKILL) -> bool:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap() -> None:
    """Take note of children that ended, adopted ones included."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _socket(listen: str) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", 0))
    if listen == "fd":
        listener.listen(1024)
    # A port given by number stays bound here without listening: nobody else is handed it, and a server that
    # sets SO_REUSEADDR, as nearly all do, can still listen on it.
    return listener


async def _orders(supervisor: Supervisor) -> bool:
    """Serve the kernel until it is gone or says quit; return whether it said so."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def serve(order: dict[str, Any]) -> None:
        try:
            answer = {"id": order["id"], **await supervisor.handle(order)}
        except NotStarted as error:
            answer = {"id": order["id"], "error": str(error), "kind": error.kind}
        except Exception as error:
            answer = {"id": order["id"], "error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()

    tasks = set()
    while line := await reader.readline():
        order = json.loads(line)
        if order.get("do") == "quit":
            return True
        task = asyncio.create_task(serve(order))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return False


async def _orphaned(parent: int) -> bool:
    """Return when the kernel is gone, even if something it forked keeps the pipe open."""
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_POLL)
    return False


async def _asked_to_end() -> bool:
    """Return when somebody sends SIGTERM."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
    await asked.wait()
    return True


async def _run(folder: Path, nursery_module: str) -> None:
    adopt_orphans()
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, _reap)
    supervisor = Supervisor(folder, nursery_module)
    ends = (_orders(supervisor), _orphaned(os.getppid()), _asked_to_end())
    watch = [asyncio.create_task(end) for end in ends]
    try:
        done, _ = await asyncio.wait(watch, return_when=asyncio.FIRST_COMPLETED)
        if not any(task.result() for task in done):
            _remove_runtime()
    finally:
        await supervisor.end_all()
        shutil.rmtree(folder, ignore_errors=True)


def _remove_runtime() -> None:
    """Remove the folder with the connection file of a kernel that `canarykit report` ran, when both were killed."""
    runtime = os.environ.get("CANARYKIT_RUNTIME", "")
    if Path(runtime).name.startswith("canarykit-report-"):
        shutil.rmtree(runtime, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Run until the kernel is gone.

    Parameters
    ----------
    arguments : list of str
        The private folder, removed at the end; the module whose ``main`` a preforked child runs; and the cgroup that was made
        for all of it, which may be empty text.
    """
    folder, nursery_module, group = arguments
    if group:
        cgroup.join(Path(group))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(_run(Path(folder), nursery_module))
    finally:
        # What ended last may have written a line after the first removal.
        shutil.rmtree(folder, ignore_errors=True)
        if group:
            cgroup.leave(Path(group))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
