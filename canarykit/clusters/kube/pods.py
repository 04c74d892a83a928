"""The pods of a service: which there are, when they are ready, and what stands in their way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.diagnose import diagnose, is_ready, progress, refused, sentence
from canarykit.errors import ClusterError
from canarykit.masking import masked
from canarykit.model import ROLES, Role

__all__ = ["Pods"]

_POLL = 0.2
_TELL_EVERY = 5.0


class Pods:
    """Pods of both versions.

    Parameters
    ----------
    client : Client
        The namespace.
    app : str
        The service.
    tell : callable
        Takes one line of progress.
    """

    def __init__(self, client: Client, app: str, tell: Callable[[str], object]) -> None:
        self._client, self._app, self._tell = client, app, tell

    def of(self, role: str) -> list[dict[str, Any]]:
        """Pods of a version, oldest first."""
        return _by_age(self._client.list("Pod", f"app={self._app},version={role}"))

    def by_role(self) -> dict[Role, list[dict[str, Any]]]:
        """Pods of both versions, asked for at once, oldest first."""
        found = self._client.list("Pod", f"app={self._app},version in ({','.join(ROLES)})")
        return {role: _by_age([pod for pod in found if pod["metadata"]["labels"]["version"] == role]) for role in ROLES}

    def ready(self, role: str) -> list[dict[str, Any]]:
        """Pods of a version that get traffic."""
        return [pod for pod in self.of(role) if is_ready(pod)]

    def deployment(self, role: str) -> dict[str, Any]:
        """Return the Deployment of a version.

        Raises
        ------
        ClusterError
            Somebody deleted it.
        """
        name = f"{self._app}-{role}"
        found = self._client.get("Deployment", name)
        if found is None:
            raise ClusterError(f"Deployment {name} is gone: somebody deleted it; deploy() makes it again")
        return found

    def wait_ready(self, role: str, replicas: int, within: float, *, whole: bool = True) -> None:
        """Wait until all pods of a version are ready, and none of an older build is left.

        Parameters
        ----------
        role : {"stable", "canary"}
            Which version.
        replicas : int
            As many at least.
        within : float
            Seconds, and as many again whenever more of them are ready than ever before: a rolling update takes its pods one
            after the other. A pod that comes and goes gains nothing by that.
        whole : bool
            Wait for all of it; False: it is enough that so many pods are ready, and there is no time beyond `within`.

        Raises
        ------
        ClusterError
            They are not in time, or cannot become so; says why, with the last log lines.
        """
        start = told = time.monotonic()
        end, most = start + within, 0
        while True:
            found = self.deployment(role)
            ready, asked, done = progress(found)
            if (done and asked >= replicas) if whole else ready >= replicas:
                return
            wanted = max(asked, replicas) if whole else replicas
            if whole and ready > most:
                end, most = time.monotonic() + within, ready
            pods = [pod for pod in self.of(role) if _of_template(pod, found)]
            up = min(ready, sum(map(is_ready, pods)))  # while pods are replaced, a Deployment does not say which are ready
            why = diagnose(pods, self._events(found))
            hopeless = why is not None and why[3]
            if hopeless or time.monotonic() > end:
                waited = f"has {up} of {wanted} pods ready after {end - start:.0f} s"
                late = "does not come up" if hopeless else waited
                log = self.log(why[2] if why else (pods[-1]["metadata"]["name"] if pods else None))
                version = found["metadata"]["labels"].get("app.kubernetes.io/version", "?")
                raise ClusterError(f"{self._app}-{role} (version {version!r}) {late}: {sentence(why, log)}")
            if time.monotonic() - told > _TELL_EVERY:
                waits = "; older ones are leaving" if up >= wanted else f"; {why[1]}" if why else ""
                self._tell(f"{self._app}-{role}: {up} of {wanted} pods ready{waits}")
                told = time.monotonic()
            time.sleep(_POLL)

    def wait_gone(self, within: float) -> None:
        """Wait until the pods of both versions have finished what they had, for so many seconds at most."""
        end = time.monotonic() + within
        while time.monotonic() < end and any(self.of(role) for role in ROLES):
            time.sleep(_POLL)

    def trouble(self, role: str) -> str | None:
        """Say what is wrong with a version that was up, with the last log lines; None when nothing is."""
        pods = self.of(role)
        served = any(map(is_ready, pods))
        why = diagnose(pods, self._events(self._client.get("Deployment", f"{self._app}-{role}") or {}), served=served)
        if why is None or (served and not why[3]):
            return None
        return f"{role}: {sentence(why, self.log(why[2]))}"

    def log(self, pod: str | None, lines: int = 10) -> str:
        """Last lines that a pod wrote, masked; in its life before this one if it has written none yet."""
        if pod is None:
            return ""
        return masked(self._client.log(pod, lines=lines) or self._client.log(pod, lines=lines, previous=True))

    def _events(self, deployment: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What happened to a version, oldest first; that pods were refused only while they are."""
        try:
            found = self._client.list("Event")
        except ClusterError:
            return []  # they only explain
        ours = [
            event
            for event in found
            if event.get("involvedObject", {}).get("name", "").startswith(f"{self._app}-")
            and (event.get("reason") != "FailedCreate" or refused(deployment))
        ]
        return sorted(ours, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))


def _by_age(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _of_template(pod: Mapping[str, Any], deployment: Mapping[str, Any]) -> bool:
    """Whether a pod is of the present template: those of an older one say nothing about it."""
    (runs, *_), (asked, *_) = pod["spec"]["containers"], deployment["spec"]["template"]["spec"]["containers"]
    return all(runs.get(field) == asked.get(field) for field in ("image", "args", "command"))
