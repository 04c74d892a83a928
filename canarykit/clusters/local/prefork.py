"""Fork servers from one process that has already imported what they need.

Importing scikit-learn takes seconds of a processor; four replicas that each did it would not be ready within
five seconds on two cores, and a crashed one not back for three. This process imports once and then forks: each
replica is a process of its own, up in milliseconds.

It speaks with the supervisor over a Unix socket, one JSON object a line. Asked ``{"argv": [...], "log": path}`` with a
listening socket and the control socket of a keeper attached, it forks a keeper, whose server calls ``main(argv)`` with
``{fd}`` replaced, and answers ``{"keeper": pid}``. All else is between the keeper and the supervisor.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from canarykit.clusters.local.keeper import close_others, fork_keeper
from canarykit.clusters.local.parent_death import die_with_parent

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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers that end need nobody to wait for them
    while _serve(channel, module):
        pass
    return 0


def _serve(channel: socket.socket, module: Any) -> bool:
    """Answer one request; False when the supervisor is gone."""
    # The supervisor sends one request and waits for its answer, so one message is one line.
    line, descriptors, _, _ = socket.recv_fds(channel, 1 << 20, 2)
    if not line:
        return False
    request = json.loads(line)
    listener, number = descriptors
    with socket.socket(fileno=number) as control:
        keeper = fork_keeper(control, request["log"], lambda: _fork(module, request["argv"], listener), keep=(listener,))
    os.close(listener)
    channel.sendall(json.dumps({"keeper": keeper}).encode() + b"\n")
    return True


def _fork(module: Any, argv: list[str], listener: int) -> int:
    keeper = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_server(module, argv, listener, keeper)
    return pid


def _become_server(module: Any, argv: list[str], listener: int, keeper: int) -> NoReturn:
    """Be the server: a session and signal handling of its own."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        die_with_parent(keeper)
        close_others({0, 1, 2, listener})
        code = module.main([word.replace("{fd}", str(listener)) for word in argv]) or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
