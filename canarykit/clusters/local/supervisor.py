"""The process that owns all others, and takes them along when the notebook's kernel ends.

It reads one JSON object a line from its standard input and answers on its standard output. When the input closes
or its parent is gone, the kernel has died: it kills what it started, removes its folder and ends. It is a process
of its own because a killed kernel runs no clean-up.

===========  ======================================================================  =========================
``do``       takes                                                                   answers
===========  ======================================================================  =========================
``reserve``  name                                                                    port
``start``    name, argv, env, listen (``fd``, ``port`` or none), prefork, restart    pid, port
``stop``     name, grace (seconds)                                                   code
``status``                                                                           children
``quit``
===========  ======================================================================  =========================

``{fd}`` and ``{port}`` in argv are replaced. Sockets are made here, so that a port is never lost between choosing
it and listening on it, and a restarted replica keeps its port.
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

from canarykit.clusters.local.mortal import die_with_parent

__all__ = ["main"]

PARENT_POLL = 0.2
BACKOFF, BACKOFF_MOST, STEADY_AFTER = 0.1, 5.0, 30.0


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
    pid: int = 0
    began: float = 0.0
    restarts: int = 0
    quick_deaths: int = 0
    last_code: int | None = None
    stopping: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def port(self) -> int | None:
        return None if self.listener is None else int(self.listener.getsockname()[1])

    @property
    def running(self) -> bool:
        return self.pid != 0

    def facts(self) -> dict[str, Any]:
        return {
            "pid": self.pid,
            "port": self.port,
            "running": self.running,
            "restarts": self.restarts,
            "last_code": self.last_code,
        }


class Nursery:
    """Our end of `canarykit.clusters.local.prefork`."""

    def __init__(self, module: str, log: Path) -> None:
        self._module, self._log = module, log
        self._writer: socket.socket | None = None
        self._kept: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._lock = asyncio.Lock()
        self._children: dict[int, asyncio.Future[int]] = {}
        self._reading: asyncio.Task[None] | None = None

    async def fork(self, child: Child) -> int:
        """Fork a child; return its pid."""
        async with self._lock:
            if self._process is None or self._process.returncode is not None:
                await self._begin()
            assert self._writer is not None and child.listener is not None
            request = json.dumps({"argv": child.argv, "log": str(child.log)}).encode()
            socket.send_fds(self._writer, [request], [child.listener.fileno()])
            answer = await self._answers.get()
            if "pid" not in answer:
                raise RuntimeError(f"the process that forks replicas ended:\n{self._log.read_text()[-2000:]}")
            return int(answer["pid"])

    async def wait(self, pid: int) -> int:
        """Wait for a forked child; return its exit code, negative for a signal."""
        return await self._children.setdefault(pid, asyncio.get_running_loop().create_future())

    async def _begin(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "canarykit.clusters.local.prefork", self._module, str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_mortal(),
            )
        self._writer = ours
        # The writer must be kept although nothing is written to it: a forgotten one closes the connection.
        reader, self._kept = await asyncio.open_connection(sock=ours.dup())
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            message = json.loads(line)
            if "exited" in message:
                pid = message["exited"]
                future = self._children.setdefault(pid, asyncio.get_running_loop().create_future())
                if not future.done():
                    future.set_result(message["code"])
            else:
                self._answers.put_nowait(message)
        for future in self._children.values():
            if not future.done():
                future.set_result(-signal.SIGKILL)
        self._answers.put_nowait({})

    @property
    def pid(self) -> int | None:
        return None if self._process is None or self._process.returncode is not None else self._process.pid


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
        """Start a process, and keep it running when asked to."""
        name = order["name"]
        if name in self.children and self.children[name].running:
            raise ValueError(f"{name} runs already")
        child = Child(
            name=name,
            argv=order["argv"],
            env=order.get("env", {}),
            log=self.folder / "logs" / f"{name}.log",
            prefork=order.get("prefork", False),
            restart=order.get("restart", False),
            listener=self.reserved.pop(name, None) or (_socket(order["listen"]) if order.get("listen") else None),
        )
        self.children[name] = child
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._keep(child, begun))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await begun
        return child.facts()

    async def stop(self, name: str, grace: float) -> dict[str, Any]:
        """End a process and all of its group: politely, then not."""
        child = self.children.get(name)
        if child is None:
            return {"code": None}
        child.stopping = True
        if child.running:
            _signal(child.pid, signal.SIGTERM)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(child.ended.wait(), grace)
            _signal(child.pid, signal.SIGKILL)
            await child.ended.wait()
        if child.listener is not None:
            child.listener.close()
        del self.children[name]
        return {"code": child.last_code}

    def kill_all(self) -> None:
        """End everything at once."""
        for child in self.children.values():
            child.stopping = True
            if child.pid:
                _signal(child.pid, signal.SIGKILL)
        if self.nursery.pid is not None:
            _signal(self.nursery.pid, signal.SIGKILL)

    async def _keep(self, child: Child, begun: asyncio.Future[None]) -> None:
        while True:
            try:
                wait = await self._spawn(child)
            except Exception as error:
                child.ended.set()
                child.last_code = -1
                if not begun.done():
                    begun.set_exception(error)
                return
            if not begun.done():
                begun.set_result(None)
            child.last_code = await wait
            _signal(child.pid, signal.SIGKILL)  # what is left of its group
            child.pid = 0
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

    async def _spawn(self, child: Child) -> Any:
        child.began = time.monotonic()
        if child.prefork:
            child.pid = await self.nursery.fork(child)
            return self.nursery.wait(child.pid)
        shares = child.listener is not None and any("{fd}" in word for word in child.argv)
        descriptor = child.listener.fileno() if child.listener is not None else -1
        argv = [word.replace("{fd}", str(descriptor)).replace("{port}", str(child.port)) for word in child.argv]
        env = {**os.environ, **child.env}
        if child.port is not None:
            env["PORT"] = str(child.port)
        with child.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env=env,
                pass_fds=[descriptor] if shares else [],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_mortal(),
            )
        child.pid = process.pid
        return process.wait()


def _mortal() -> Any:
    parent = os.getpid()
    return lambda: die_with_parent(parent)


def _signal(pid: int, number: int) -> None:
    """Signal a child's whole group; a child that has ended (0) has none, and 0 would be our own."""
    if not pid:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


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


async def _run(folder: Path, nursery_module: str) -> None:
    supervisor = Supervisor(folder, nursery_module)
    watch = [asyncio.create_task(_orders(supervisor)), asyncio.create_task(_orphaned(os.getppid()))]
    try:
        done, _ = await asyncio.wait(watch, return_when=asyncio.FIRST_COMPLETED)
        if not any(task.result() for task in done):
            _remove_runtime()
    finally:
        supervisor.kill_all()
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
        The private folder, removed at the end, and the module whose ``main`` a preforked child runs.
    """
    folder, nursery_module = arguments
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        asyncio.run(_run(Path(folder), nursery_module))
    finally:
        # Killed replicas may have written a last line after the first removal.
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
