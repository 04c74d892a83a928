"""Fork servers from one process that has already imported what they need.

Importing scikit-learn takes seconds of a processor; four replicas that each did it would not be ready within
five seconds on two cores, and a crashed one not back for three. This process imports once and then forks: each
replica is a process of its own, up in milliseconds.

It speaks with the supervisor over a Unix socket, one JSON object a line. Asked
``{"argv": [...], "log": path}`` with a listening socket attached, it forks a child that calls ``main(argv)``
with ``{fd}`` replaced, and answers ``{"pid": …}``. When a child ends it says ``{"exited": pid, "code": …}``.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from canarykit.clusters.local.mortal import die_with_parent

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Serve fork requests on a socket until it closes.

    Parameters
    ----------
    arguments : list of str
        The module to import, and the number of the inherited socket.
    """
    module_name, number = arguments
    module = importlib.import_module(module_name)
    preload = getattr(module, "preload", None)
    if preload is not None:
        preload()
    channel = socket.socket(fileno=int(number))
    wake, signalled = os.pipe()
    os.set_blocking(signalled, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
    while True:
        readable = select.select([channel.fileno(), wake], [], [])[0]
        if wake in readable:
            os.read(wake, 4096)
            _report_ended(channel)
        if channel.fileno() in readable and not _serve(channel, module, close=(wake, signalled)):
            return 0


def _report_ended(channel: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say(channel, {"exited": pid, "code": os.waitstatus_to_exitcode(status)})


def _serve(channel: socket.socket, module: Any, close: tuple[int, ...]) -> bool:
    """Answer one request; False when the supervisor is gone."""
    # The supervisor sends one request and waits for its answer, so one message is one line.
    line, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 1)
    if not line:
        return False
    request = json.loads(line)
    (listener,) = descriptors
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        channel.close()
        for descriptor in close:
            os.close(descriptor)
        _become(module, request, listener, parent)
    os.close(listener)
    _say(channel, {"pid": pid})
    return True


def _become(module: Any, request: dict[str, Any], listener: int, parent: int) -> NoReturn:
    """Be the replica: a session, a log and signal handling of its own."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent(parent)
        log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = module.main([word.replace("{fd}", str(listener)) for word in request["argv"]]) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
