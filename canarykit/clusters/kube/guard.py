"""The dead man's switch: a small process that returns traffic to stable when nobody renews the lease any more.

It outlives the notebook's kernel. It ends by itself when the lease is let go or taken over by someone else, and after it has
acted. A lease that was deleted or emptied by accident is taken again by its holder; when that does not happen, it acts as well.
While the canary alone has pods that are ready, it waits: a stable without any would answer nobody.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.lease import LET_GO, RETURNED, STATE, Lease, state_of
from canarykit.clusters.kube.api.liveness import Watched, holder_of
from canarykit.clusters.kube.binding import bind, end_testers
from canarykit.clusters.kube.fallback import only_canary_serves
from canarykit.errors import CanaryError, ClusterError
from canarykit.places import read_places
from canarykit.routers.objects import to_stable

__all__ = ["Guard", "main"]

_LOOKS, _LOOK_EVERY = 10, 5.0
"""Looks in the time for which a lease is held, and seconds between two at most."""

_GIVES_UP = 86_400.0
"""Seconds without one answer, after which the cluster, or the right to look at it, is taken to be gone for good."""

_PAUSES = 1.0, 60.0
"""Seconds before it is started again: the first time, and at most; one that lasted for longer begins anew."""


class Guard:
    """The process, as the one who started it sees it: it is started again when it ends before its work is done.

    Parameters
    ----------
    launch : callable
        Starts the process; what that writes on its standard output is why it ends.
    notify : callable
        Takes one line when it had to be started again.
    """

    def __init__(self, launch: Callable[[], subprocess.Popen[bytes]], notify: Callable[[str], object]) -> None:
        self._launch, self._notify = launch, notify
        self._over, self._lock = threading.Event(), threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.process = self._launch()
        self._tender = threading.Thread(target=self._tend, name="canarykit-guard", daemon=True)
        self._tender.start()

    @classmethod
    def start(
        cls, lease: Lease, client: Client, app: str, binding: Mapping[str, Any], notify: Callable[[str], object]
    ) -> Guard:
        """Begin to watch a lease that is held.

        Raises
        ------
        ClusterError
            This machine starts no process.
        """
        facts = {
            "context": client.context,
            "namespace": client.namespace,
            "app": app,
            "binding": dict(binding),
            "lease": lease.name,
            "holder": lease.holder,
            "seconds": lease.seconds,
        }
        files = {"KUBECONFIG": client.connection.kubeconfig} if client.connection.kubeconfig else {}
        return cls(lambda: _launched(facts, files), notify)

    def watch_again(self) -> None:
        """Start it again where it has done its work, and there is something to guard all the same."""
        if not self._tender.is_alive() and not self._over.is_set():
            self._begin()

    def stop(self) -> None:
        """End it, when nobody has to be watched any more."""
        self._over.set()
        with self._lock:
            if self.process.poll() is None:
                self.process.terminate()
        self.process.wait(10)

    def _tend(self) -> None:
        """Start it again for as long as it has not done its work: without a word, a rollout would go on unguarded."""
        why, told, pause = _why_ended(self.process), "", _PAUSES[0]
        while why and not self._over.is_set():
            if why != told:  # one that fails each time says so once
                with contextlib.suppress(Exception):  # whoever is told must not end this
                    self._notify(
                        f"the guard, which returns traffic when this process dies, has ended ({why}): it is started again"
                    )
            told = why
            if self._over.wait(pause):
                return
            began, pause = time.monotonic(), min(2 * pause, _PAUSES[1])
            try:
                with self._lock:
                    if self._over.is_set():
                        return
                    self.process = self._launch()
                why = _why_ended(self.process)
            except ClusterError as error:
                why = str(error)
            if time.monotonic() - began > _PAUSES[1]:
                told, pause = "", _PAUSES[0]


def _launched(facts: Mapping[str, Any], files: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process, with the files of the kubeconfig that were meant, and say what it is to watch."""
    others = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    command = [sys.executable, "-m", __name__]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, env={**others, **files}
        )
    except OSError as error:
        raise ClusterError(f"no guard can be started on this machine: {error}") from error
    assert process.stdin is not None
    with contextlib.suppress(OSError), process.stdin:  # one that has ended already is noticed where it is waited for
        process.stdin.write(json.dumps(facts).encode())
    return process


def _why_ended(process: subprocess.Popen[bytes]) -> str:
    """Wait until it ends; empty when it has acted, or there was nothing to guard any more."""
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read().decode(errors="replace").strip()
    code = process.wait()
    if code == 0:
        return ""
    return said or (f"status {code}" if code > 0 else f"signal {-code}")


def watch(client: Client, facts: Mapping[str, Any]) -> str:
    """Look at the lease until there is nothing to guard, or nobody renews it; return what happened."""
    watched, lasts, answered, said = Watched(), float(facts["seconds"]), time.monotonic(), ""
    while time.monotonic() - answered < _GIVES_UP:
        try:
            found = client.get("Lease", facts["lease"])
            answered = time.monotonic()
            if _is_over(found, facts["holder"]):
                return "released"
            watched.look(found, seconds=lasts)
            if watched.unchanged > lasts:
                router = bind(client, facts["app"], **facts["binding"])
                if only_canary_serves(client, read_places(facts["binding"]["places"]), router):
                    raise ClusterError("the canary alone serves: traffic returns as soon as a pod of stable is ready")
                to_stable(router)
                end_testers(router, lambda line: _say(facts["app"], line))
                if found is not None:
                    _note(client, found)
                return "returned"
        except Exception as error:  # whatever goes wrong, it looks again: nobody else does
            said, before = _worded(error), said
            if said != before:
                _say(facts["app"], said)
        time.sleep(min(_LOOK_EVERY, lasts / _LOOKS))
    return "gone"


def _say(app: str, line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone with whoever is guarded
        print(f"guard of {app}: {line}", file=sys.stderr)


def _is_over(found: Mapping[str, Any] | None, holder: str) -> bool:
    """Whether somebody else conducts the rollout, or it was let go on purpose."""
    if found is None or holder_of(found) == holder:
        return False
    return holder_of(found) != "" or LET_GO in (found["metadata"].get("annotations") or {})


def _worded(error: Exception) -> str:
    """Words of an error, with its kind where it was not raised on purpose."""
    return str(error) if isinstance(error, CanaryError) else f"{type(error).__name__}: {error}"


def _note(client: Client, found: Mapping[str, Any]) -> None:
    """Leave word for whoever comes next; a conflict when somebody has come already."""
    state = {**state_of(found), "phase": RETURNED, "weight": 0.0}
    meta = {"resourceVersion": found["metadata"]["resourceVersion"], "annotations": {STATE: json.dumps(state, sort_keys=True)}}
    client.patch("Lease", found["metadata"]["name"], {"metadata": meta, "spec": {"holderIdentity": None}})


def main() -> int:
    """Watch what standard input names; say on standard output why that cannot be."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    facts = json.loads(sys.stdin.read())
    try:
        client = Client(facts["context"], facts["namespace"])
        bind(client, facts["app"], **facts["binding"])  # what it needs to act is seen to be there before it is needed
    except Exception as error:
        print(_worded(error))
        return 1
    watch(client, facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
