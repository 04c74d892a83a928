"""The dead man's switch: a small process that returns traffic to stable when nobody renews the lease any more.

It outlives the notebook's kernel. It ends by itself when the lease is released, removed or taken over by someone
else, and after it has acted.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from canarykit.clusters.kube.binding import bind
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.lease import STATE, Lease, holder_of, stale
from canarykit.errors import CanaryError
from canarykit.routers.objects import to_stable

__all__ = ["Guard", "main"]

_LOOK_EVERY = 2.0


class Guard:
    """The process, as the one who started it sees it.

    Parameters
    ----------
    process : Popen
        Watches the lease.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    @classmethod
    def start(cls, lease: Lease, client: Client, app: str, binding: Mapping[str, Any]) -> Guard:
        """Begin to watch a lease that is held."""
        process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        )
        assert process.stdin is not None
        facts = {
            "context": client.context,
            "namespace": client.namespace,
            "app": app,
            "binding": dict(binding),
            "lease": lease.name,
            "holder": lease.holder,
        }
        process.stdin.write(json.dumps(facts).encode())
        process.stdin.close()
        return cls(process)

    def stop(self) -> None:
        """End it, when nobody has to be watched any more."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(10)


def watch(client: Client, facts: Mapping[str, Any]) -> str:
    """Look at the lease until there is nothing to guard, or nobody renews it; return what happened."""
    while True:
        try:
            found = client.get("Lease", facts["lease"])
            if holder_of(found) != facts["holder"]:
                return "released"
            assert found is not None
            if stale(found, datetime.now(UTC)):
                to_stable(bind(client, facts["app"], **facts["binding"]))
                _note(client, found)
                return "returned"
        except Exception as error:  # whatever goes wrong, it looks again: nobody else does
            with contextlib.suppress(OSError):  # the terminal may be gone with whoever is guarded
                print(f"guard of {facts['app']}: {_worded(error)}", file=sys.stderr)
        time.sleep(_LOOK_EVERY)


def _worded(error: Exception) -> str:
    """Words of an error, with its kind where it was not raised on purpose."""
    return str(error) if isinstance(error, CanaryError) else f"{type(error).__name__}: {error}"


def _note(client: Client, found: Mapping[str, Any]) -> None:
    """Leave word for whoever comes next; a conflict when somebody has come already."""
    state = json.loads(found["metadata"].get("annotations", {}).get(STATE, "{}"))
    state.update(phase="rolled back by the guard: nobody renewed the lease", weight=0.0)
    meta = {"resourceVersion": found["metadata"]["resourceVersion"], "annotations": {STATE: json.dumps(state, sort_keys=True)}}
    client.patch("Lease", found["metadata"]["name"], {"metadata": meta, "spec": {"holderIdentity": None}})


def main() -> int:
    """Watch what standard input names."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    facts = json.loads(sys.stdin.read())
    watch(Client(facts["context"], facts["namespace"]), facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
