"""Load from inside the cluster: an indexed Job of many senders, whose results are read from their logs and merged."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.events import Events
from canarykit.clusters.kube.workloads.diagnose import diagnose, sentence, unready
from canarykit.clusters.kube.workloads.manifests import MANAGER, Workload, labels
from canarykit.clusters.kube.workloads.neighbours import check_neighbours
from canarykit.errors import ClusterError, PlanError
from canarykit.load.load import SentTraffic, Summary, specification
from canarykit.masking import looks_secret, masked
from canarykit.model import Service

__all__ = ["JobLoad", "job"]

_FOLDER, _FILE = "/spec", "spec.json"
_POLL = 0.2
_UP_WITHIN = 60.0
_GRACE = 30
_LARGEST = 1_000_000


def job(name: str, service: Service, workload: Workload, *, pods: int) -> dict[str, Any]:
    """Return the indexed Job of so many senders."""
    container = {
        "name": "load",
        "image": workload.image,
        "imagePullPolicy": workload.pull_policy or "IfNotPresent",
        "command": ["python3", "-m", "canarykit.load.generator", "--spec", f"{_FOLDER}/{_FILE}"],
        "volumeMounts": [{"name": "spec", "mountPath": _FOLDER, "readOnly": True}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE,
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "spec", "configMap": {"name": name}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels(service)},
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": 0,  # a sender that died took with it what is known of its requests
            "template": {"metadata": {"labels": _pod_labels(name)}, "spec": pod},
        },
    }


def _pod_labels(name: str) -> dict[str, str]:
    """Labels of senders: none of the service's, so that nothing which selects its pods selects these."""
    return {
        "app.kubernetes.io/component": "load-generator",
        "app.kubernetes.io/managed-by": MANAGER,
        "canarykit.dev/load": name,
    }


class JobLoad(SentTraffic):
    """Open-loop traffic from pods of the cluster.

    Parameters
    ----------
    client : Client
        The namespace.
    service : Service
        The service that gets the traffic.
    workload : Workload
        Its `image` sends.
    url : str
        Address of the service as the pods see it, with the path.
    pods : int
        Senders; each sends its share of the rate.
    **options
        See `canarykit.load.load.specification`.

    Raises
    ------
    PlanError
        Options that cannot be used, payloads that are too large for a ConfigMap, or a header or a query that looks like a
        secret.
    """

    def __init__(
        self, client: Client, service: Service, workload: Workload, *, url: str, pods: int = 1, **options: Any
    ) -> None:
        if pods < 1:
            raise PlanError(f"traffic from inside needs one pod at least, not {pods}")
        _check_no_secret(url, options.get("headers") or {})
        self._client, self._service, self._workload, self._pods = client, service, workload, pods
        super().__init__({**specification(url, **options), "senders": pods})
        self._text = json.dumps(self._spec)
        if len(self._text) > _LARGEST:
            raise PlanError(f"the payloads have {len(self._text):,} bytes, and a ConfigMap takes {_LARGEST:,}: send fewer")
        self.name = f"{service.name}-load-{secrets.token_hex(3)}"
        self._events = Events(client)
        self._sent: dict[str, int] = {}
        self._strange: deque[str] = deque(maxlen=5)
        self._readers: list[threading.Thread] = []
        self._stopped = False

    def start(self) -> JobLoad:
        """Begin to send; return itself once every sender runs.

        Raises
        ------
        ClusterError
            A sender does not come up, or a Service would send requests to it; says why. Nothing of it is left.
        """
        spec = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "labels": labels(self._service)},
            "data": {_FILE: self._text},
        }
        senders = job(self.name, self._service, self._workload, pods=self._pods)
        check_neighbours(self._client, [senders])
        try:
            self._client.apply(spec)
            self._client.apply(senders)
            for pod in self._wait_running():
                reader = threading.Thread(target=self._read, args=(pod,), name=f"canarykit-{pod}", daemon=True)
                reader.start()
                self._readers.append(reader)
        except BaseException:
            self._remove()
            raise
        return self

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for: rate, shape, duration, seed and path, and from how many pods."""
        return {**super().asked, "pods": self._pods}

    def __repr__(self) -> str:
        return f"JobLoad: {self._spec['rate']:g} requests/s from {self._pods} pods"

    def stop(self) -> Summary:
        """Send no more, wait for what is under way, and say what became of all. May be called again.

        Raises
        ------
        ClusterError
            A sender ended by itself, so that nobody knows what became of its last requests.
        """
        if self._stopped:
            return self.summary
        for pod in self._running():
            self._client.delete("Pod", pod["metadata"]["name"], grace=_GRACE)  # its log ends when it has ended
        for reader in self._readers:
            reader.join(_GRACE + self._spec["timeout"])
        self._remove()
        self._stopped = True  # not before: when the API server is away, the next call has to do it
        if len(self._sent) < self._pods:
            raise ClusterError(
                f"{self._pods - len(self._sent)} of {self._pods} senders ended before they were told to; "
                "what became of their last requests is not known"
                + ("; their logs end with:\n" + "\n".join(self._strange) if self._strange else "")
            )
        return self.summary

    def _running(self) -> list[dict[str, Any]]:
        return self._client.list("Pod", f"canarykit.dev/load={self.name}")

    def _wait_running(self) -> list[str]:
        end = time.monotonic() + _UP_WITHIN
        while True:
            pods = self._running()
            begun = [pod["metadata"]["name"] for pod in pods if pod.get("status", {}).get("phase") in ("Running", "Succeeded")]
            if len(begun) == self._pods:
                return begun
            why = diagnose(pods, self._events.of(unready(pods)), refused=self._refusal() if len(pods) < self._pods else "")
            if time.monotonic() > end or (why is not None and why[3]):
                raise ClusterError(f"{len(begun)} of {self._pods} senders came up: {sentence(why, '')}")
            time.sleep(_POLL)

    def _refusal(self) -> str:
        """Why the API server makes no pods of the Job; empty when nothing is known of that."""
        failed = [event for event in self._events.of([self.name]) if event.get("reason") == "FailedCreate"]
        return str(failed[-1].get("message", "")) if failed else ""

    def _read(self, pod: str) -> None:
        """Take in what a sender writes, line by line, until it ends."""
        rest = b""
        for piece in self._client.follow(pod):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    self._strange.append(line.decode(errors="replace"))  # of a log that holds errors too
                    continue
                sent = self._tally.take(record)
                if sent is not None:
                    self._sent[pod] = sent

    def _remove(self) -> None:
        self._client.delete("Job", self.name)
        self._client.delete("ConfigMap", self.name)


def _check_no_secret(url: str, headers: Mapping[str, str]) -> None:
    """Refuse what looks like a secret: what senders are told stands in a ConfigMap, which many may read."""
    query = parse_qsl(urlsplit(url).query)
    for where, given in (("headers=", headers.items()), ("the query of path=", query)):
        for name, value in given:
            if looks_secret(name) or masked(f"{name}: {value}") != f"{name}: {value}":
                raise PlanError(
                    f"{where} holds {masked(name)!r}, which looks like a secret, and pods that send are told by a ConfigMap, "
                    "which others can read: leave it out, where the service needs none from inside the cluster, or send from "
                    "here, without inside="
                )
