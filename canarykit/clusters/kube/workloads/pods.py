"""The pods of a service: which there are, when they are ready, and what stands in their way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.events import Events
from canarykit.clusters.kube.api.watch import Watch
from canarykit.clusters.kube.workloads.diagnose import diagnose, is_ready, progress, refusal, sentence, unready
from canarykit.clusters.kube.workloads.selectors import equal
from canarykit.clusters.kube.workloads.shortage import health_of, lacking
from canarykit.errors import CancelledError, ClusterError, ForbiddenError
from canarykit.health import Health
from canarykit.interrupts import never
from canarykit.masking import masked
from canarykit.model import ROLES, Role
from canarykit.places import Places

__all__ = ["Pods"]

_POLL = 0.2
_TELL_EVERY = 5.0
_ADDED_WITHIN = 2.0
"""Seconds within which a pod that is ready is added to its Service."""

_SERVICE_NAME = "kubernetes.io/service-name"


class Pods:
    """Pods of both versions.

    `by_role`, `health` and `problem` are asked at every poll and read from watches. Methods that wait for a change, or act
    on what they read, ask the API server.

    Parameters
    ----------
    client : Client
        The namespace.
    places : mapping of role to Place
        Objects of both versions.
    notify : callable
        Takes one line of progress.
    expected : callable, optional
        Returns how many pods the kit gave a version; by default its Deployment says how many there are to be.
    """

    def __init__(
        self,
        client: Client,
        places: Places,
        notify: Callable[[str], object],
        expected: Callable[[Role], int | None] = lambda role: None,
    ) -> None:
        self._client, self._places, self._notify, self._expected = client, places, notify, expected
        self._events = Events(client)
        services = f"({','.join(place.service for place in places.values())})"
        self._pods = {role: Watch(client, "Pod", place.pods) for role, place in places.items()}
        self._deployments = {
            role: Watch(client, "Deployment", fields=f"metadata.name={place.deployment}") for role, place in places.items()
        }
        self._slices = Watch(client, "EndpointSlice", f"kubernetes.io/service-name in {services}")
        self._unreached: dict[str, float] = {}

    def close(self) -> None:
        """End the watches. May be called again."""
        for watched in (*self._pods.values(), *self._deployments.values(), self._slices):
            watched.stop()

    def of(self, role: Role) -> list[dict[str, Any]]:
        """Pods of a version, oldest first."""
        return _by_age(self._client.list("Pod", self._places[role].pods))

    def by_role(self) -> dict[Role, list[dict[str, Any]]]:
        """Pods of both versions as of now, oldest first."""
        return {role: _by_age(watched.objects()) for role, watched in self._pods.items()}

    def ready(self, role: Role) -> list[dict[str, Any]]:
        """Pods of a version that get traffic."""
        return [pod for pod in self.of(role) if is_ready(pod)]

    def deployment(self, role: Role) -> dict[str, Any]:
        """Return the Deployment of a version.

        Raises
        ------
        ClusterError
            Somebody deleted it.
        """
        name = self._places[role].deployment
        found = self._client.get("Deployment", name)
        if found is None:
            raise ClusterError(f"Deployment {name} is gone: somebody deleted it; deploy() makes it again")
        return found

    def wait_ready(
        self,
        role: Role,
        replicas: int,
        within: float,
        *,
        whole: bool = True,
        cancelled: Callable[[], bool] = never,
    ) -> None:
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
        cancelled : callable
            Asked again and again; once it says True, the wait ends.

        Raises
        ------
        CancelledError
            It was cancelled.
        ClusterError
            They are not in time, or cannot become so; says why, with the last log lines.
        """
        start, name = time.monotonic(), self._places[role].deployment
        end, most, told = start + within, 0, start
        while True:
            found = self.deployment(role)
            ready, asked, done = progress(found)
            if (done and asked >= replicas) if whole else ready >= replicas:
                return
            if cancelled():
                raise CancelledError(f"nobody waits any more for the pods of {name}: {ready} of {replicas} are ready")
            wanted = max(asked, replicas) if whole else replicas
            if whole and ready > most:
                end, most = time.monotonic() + within, ready
            pods = [pod for pod in self.of(role) if _of_template(pod, found, self._places[role].container)]
            up = min(ready, sum(map(is_ready, pods)))  # while pods are replaced, a Deployment does not say which are ready
            why = diagnose(pods, self._events.of(unready(pods)), refused=refusal(found))
            hopeless = why is not None and why[3]
            if hopeless or time.monotonic() > end:
                late = "does not come up" if hopeless else f"has {up} of {wanted} pods ready after {end - start:.0f} s"
                log = self.log(why[2] if why else (pods[-1]["metadata"]["name"] if pods else None))
                version = found["metadata"]["labels"].get("app.kubernetes.io/version", "?")
                raise ClusterError(f"{name} (version {version!r}) {late}: {sentence(why, log)}")
            if time.monotonic() - told > _TELL_EVERY:
                waits = "; older ones are leaving" if up >= wanted else f"; {why[1]}" if why else ""
                self._notify(f"{name}: {up} of {wanted} pods ready{waits}")
                told = time.monotonic()
            time.sleep(_POLL)

    def wait_gone(self, within: float) -> None:
        """Wait until the pods of both versions have finished what they had, for so many seconds at most."""
        end = time.monotonic() + within
        while time.monotonic() < end and any(self.of(role) for role in ROLES):
            time.sleep(_POLL)

    def health(self, role: Role) -> Health:
        """Say how a version is that was up, with the last log lines of the pod that tells more."""
        place, expected = self._places[role], self._expected(role)
        pods, deployment = _by_age(self._pods[role].objects()), self._deployment(role)
        ready = [pod for pod in pods if is_ready(pod)]
        short = lacking(expected, deployment, pods)
        events = self._events.of(unready(pods)) if short else []
        why = diagnose(pods, events, refused=refusal(deployment or {}), served=not short)
        log = self.log(why[2]) if why is not None and (short or why[3]) else ""
        unreached = self._why_unreached(place.service, ready)
        return health_of(place.deployment, expected, deployment, pods, unreached=unreached, events=events, log=log)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Services that led to no pod at the last look, though some are ready."""
        return tuple(self._unreached)

    def _deployment(self, role: Role) -> dict[str, Any] | None:
        """Return the Deployment of a version as of now; None when there is none."""
        return next(iter(self._deployments[role].objects()), None)

    def _why_unreached(self, name: str, ready: Sequence[Mapping[str, Any]]) -> str:
        """Say why a version's Service leads to no pod although some are ready; empty when it does, or nobody knows.

        A pod that has just become ready is added a moment later.
        """
        try:
            slices = [each for each in self._slices.objects() if each["metadata"]["labels"][_SERVICE_NAME] == name]
        except ForbiddenError:
            return ""
        if not ready or any(_leads(endpoint) for each in slices for endpoint in each.get("endpoints") or ()):
            self._unreached.pop(name, None)
            return ""
        if time.monotonic() - self._unreached.setdefault(name, time.monotonic()) < _ADDED_WITHIN:
            return ""
        service = self._client.get("Service", name)
        if service is None:
            return "its Service was deleted"
        if not equal(service["spec"].get("selector"), ready[-1]["metadata"]["labels"]):
            return "the selector of its Service was changed, and selects none of them"
        return "its Service leads to none of them"

    def log(self, pod: str | None, lines: int = 10) -> str:
        """Last lines that a pod wrote, masked; in its life before this one if it has written none yet."""
        if pod is None:
            return ""
        return masked(self._client.log(pod, lines=lines) or self._client.log(pod, lines=lines, previous=True))


def _leads(endpoint: Mapping[str, Any]) -> bool:
    """Whether an endpoint gets traffic; one that does not say does."""
    return endpoint.get("conditions", {}).get("ready") is not False


def _by_age(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _of_template(pod: Mapping[str, Any], deployment: Mapping[str, Any], container: str | None) -> bool:
    """Whether a pod is of the present template: those of an older one say nothing about it.

    The container that serves decides; others may have been injected before it.
    """
    (asked, *_) = [
        each for each in deployment["spec"]["template"]["spec"]["containers"] if container in (None, each.get("name"))
    ]
    (runs, *_) = [each for each in pod["spec"]["containers"] if container in (None, each.get("name"))] or [{}]
    return all(runs.get(field) == asked.get(field) for field in ("image", "args", "command"))
