"""The kernel's end of the supervisor: start, stop and ask about processes."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, Literal

from canarykit.clusters.local import cgroup, folders
from canarykit.clusters.local.logs import not_about, tail, those
from canarykit.errors import ClusterError

__all__ = ["NotStartedError", "Processes"]

_ANSWER_WITHIN = 30.0
_CLOSE_WITHIN = 30.0


class NotStartedError(ClusterError):
    """A program could not be started.

    Parameters
    ----------
    said : str
        The whole error.
    kind : str
        Name of the exception that the operating system's refusal is in Python, such as ``"FileNotFoundError"``.
    why : str
        Reason that the operating system gave.
    """

    def __init__(self, said: str, kind: str, why: str) -> None:
        super().__init__(said)
        self.kind, self.why = kind, why


class Processes:
    """A private folder, and the processes that live and die with it.

    Parameters
    ----------
    nursery : str
        Module whose ``main(argv)`` a preforked process runs.

    Raises
    ------
    ClusterError
        The supervisor does not start.
    """

    def __init__(self, nursery: str) -> None:
        folders.sweep()
        self.folder = folders.make()
        self._cgroup = cgroup.make(self.folder.name)
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._begin(nursery)
        except BaseException:
            self.close()
            raise

    def _begin(self, nursery: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "canarykit.clusters.local.supervisor", str(self.folder), nursery, str(self._cgroup or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the notebook, not for the servers
        )
        folders.add_owner(self.folder, self._process.pid)
        threading.Thread(target=self._read, args=(self._process,), name="canarykit-supervisor", daemon=True).start()
        self._call(do="status")

    def reserve(self, name: str) -> int:
        """Reserve a port for a process that is started later, and return it."""
        return int(self._call(do="reserve", name=name)["port"])

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        listen: Literal["fd", "port"] | None = None,
        ports: Sequence[str] = (),
        prefork: bool = False,
        restart: bool = False,
    ) -> dict[str, Any]:
        """Start a process; return its ``pid``, ``port`` and named ``ports``.

        Parameters
        ----------
        name : str
            Unique; also the name of its log.
        argv : sequence of str
            ``{fd}`` stands for an inherited listening socket, ``{port}`` and ``{port:NAME}`` for reserved ports.
        env : mapping, optional
            Added to our own environment; the same stands for ports in its values.
        listen : {"fd", "port"}, optional
            Which of the two it wants.
        ports : sequence of str
            Names of further ports. They are in the environment as ``PORT_NAME``.
        prefork : bool
            Fork it from the process that has the imports already.
        restart : bool
            Start it again whenever it ends by itself.

        Raises
        ------
        NotStartedError
            The operating system refuses: there is no such program, or it may not be executed.
        """
        return self._call(
            do="start",
            name=name,
            argv=list(argv),
            env=dict(env or {}),
            listen=listen,
            ports=list(ports),
            prefork=prefork,
            restart=restart,
        )

    def stop(self, name: str, grace: float = 10.0) -> None:
        """End a process and everything that it started: SIGTERM, and after `grace` seconds SIGKILL. Unknown names are fine."""
        self._call(do="stop", name=name, grace=grace, timeout=grace + _ANSWER_WITHIN)

    def status(self) -> dict[str, dict[str, Any]]:
        """Process ids of server and keeper, ports, ``running``, ``restarts`` and ``last_code`` of each process."""
        children: dict[str, dict[str, Any]] = self._call(do="status")["children"]
        return children

    def log(self, name: str, lines: int = 12) -> str:
        """Last lines that a process wrote."""
        return tail(self._log(name), lines)

    def own_words(self, name: str, ready: str, lines: int) -> list[str]:
        """Last lines that a process wrote, but for those about questions on its ready path, which may be hundreds."""
        return those(self._log(name), not_about(ready), lines)

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """End every process, with everything that it started, and remove the folder. May be called again.

        Servers have a few seconds after SIGTERM. On Linux, nothing outlives this, whatever sessions it began; elsewhere,
        what a server started in a session of its own may.
        """
        if self._process is not None:
            _quit(self._process)
        if self._cgroup is not None:
            cgroup.end(self._cgroup)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, *, timeout: float = _ANSWER_WITHIN, **order: Any) -> dict[str, Any]:
        number = next(self._numbers)
        future: Future[dict[str, Any]] = Future()
        self._waiting[number] = future
        try:
            with self._lock:
                assert self._process is not None and self._process.stdin is not None
                self._process.stdin.write(json.dumps({"id": number, **order}).encode() + b"\n")
                self._process.stdin.flush()
            answer = future.result(timeout)
        except (OSError, ValueError) as error:
            raise ClusterError("the local cluster is gone: it was torn down or its supervisor was killed") from error
        except TimeoutError as error:
            raise ClusterError(f"the supervisor did not answer {order['do']!r} within {timeout:g} s") from error
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            said = f"cannot {order['do']} {order.get('name', '')}: {answer['error']}"
            raise NotStartedError(said, answer["kind"], answer["error"]) if answer.get("kind") else ClusterError(said)
        return answer

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            future = self._waiting.get(answer["id"])
            if future is not None:
                with contextlib.suppress(InvalidStateError):
                    future.set_result(answer)
        for future in list(self._waiting.values()):
            with contextlib.suppress(InvalidStateError):
                future.set_exception(OSError("the supervisor ended"))


def _quit(supervisor: subprocess.Popen[bytes]) -> None:
    """Have the supervisor end everything, and wait for it."""
    with contextlib.suppress(OSError, ValueError):
        assert supervisor.stdin is not None
        supervisor.stdin.write(b'{"do": "quit"}\n')
        supervisor.stdin.close()
    try:
        supervisor.wait(_CLOSE_WITHIN)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
