"""No router at all: one Service in front of the pods of both versions, and the share of the pods is the split.

The Service's proxy draws a pod for each *connection*: the split is one of connections, and a client that keeps one
open stays on its pod.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from canarykit.errors import CanaryError, RoutingError
from canarykit.interrupts import never
from canarykit.model import ROLES, Role, TrafficSplit
from canarykit.routers.base import Capabilities, Change, KubeRouter, lacking, need_in_place
from canarykit.routers.objects import Api, NothingThere, Target, balancer_url, made_by_the_kit
from canarykit.routers.probe import Probe
from canarykit.routers.references import references
from canarykit.routers.served import Patience, until_served

__all__ = ["ReplicasRouter", "nearest_on_the_way", "pods_for", "ready_in"]

_POLL = 0.2


def pods_for(split: TrafficSplit, pods: int) -> dict[Role, int]:
    """How many pods of each version serve a split.

    Raises
    ------
    RoutingError
        So many pods cannot; says which splits they can.
    """
    canary = split.share * pods
    if abs(canary - round(canary)) > 1e-9:
        can = sorted({100 * int(canary) / pods, 100 * (int(canary) + 1) / pods})
        near = " and ".join(f"{weight:.4g} %" for weight in can)
        raise RoutingError(f"{pods} pods split the traffic in steps of {100 / pods:.4g} %: {near} are the nearest to {split}")
    return {"stable": pods - round(canary), "canary": round(canary)}


def ready_in(slices: list[dict[str, Any]], roles: Mapping[str, Role]) -> dict[Role, int]:
    """Count the pods of each version that get connections.

    Parameters
    ----------
    slices : list of mappings
        EndpointSlices of the Service.
    roles : mapping of str to {"stable", "canary"}
        Role of each pod, by its name.
    """
    found: dict[Role, int] = {"stable": 0, "canary": 0}
    for piece in slices:
        for endpoint in piece.get("endpoints") or []:
            role = roles.get(endpoint.get("targetRef", {}).get("name", ""))
            if role is not None and endpoint.get("conditions", {}).get("ready"):
                found[role] += 1
    return found


def nearest_on_the_way(have: Mapping[Role, int], want: Mapping[Role, int]) -> TrafficSplit:
    """Split just before the last pod follows, which of all on the way is the hardest to tell from the new one.

    Parameters
    ----------
    have, want : mapping of {"stable", "canary"} to int
        Pods of each version before and after. The version that grows is complete before the other shrinks.
    """
    shrinks = any(have[role] > want[role] for role in ROLES)
    last = {role: want[role] + (have[role] > want[role] if shrinks else -(have[role] < want[role])) for role in ROLES}
    return _share(last)


def _share(pods: Mapping[Role, int]) -> TrafficSplit:
    """Split that so many pods of each version serve; 0 % when there are none."""
    return TrafficSplit(100 * pods["canary"] / max(sum(pods.values()), 1))


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Pods of each version before a change, and as it wants them."""

    have: dict[Role, int]
    want: dict[Role, int]


class ReplicasRouter(KubeRouter):
    """Router of the numbers of pods.

    Parameters
    ----------
    api : Api
        The namespace's objects.
    target : Target
        The Deployments.
    pods : int
        Number of pods of both versions together, at every split.
    port : int
        Where the pods listen.
    url : str, optional
        Where the Service is reached; its load balancer's address by default.
    ready : str or mapping of role to str
        Path that each version answers.
    within : float
        Seconds until the pods of a split must be ready, and again until connections show it.
    notify : callable, optional
        Takes one line when something is removed of which nobody knows whether a route leads to it.
    """

    kind = "Service"
    gateway = None
    capabilities = Capabilities(scales=True)

    def __init__(
        self,
        api: Api,
        target: Target,
        *,
        pods: int = 4,
        port: int = 8080,
        url: str | None = None,
        ready: str | Mapping[Role, str] = "/v2/health/ready",
        within: float = 120.0,
        notify: Callable[[str], object] = lambda line: None,
    ) -> None:
        if pods < 2:
            raise RoutingError(f"two versions need two pods at least, not {pods}")
        self._api, self._target, self._pods, self._port = api, target, pods, port
        self.name = target.app
        self._writing, self._latest = threading.Lock(), Change(TrafficSplit(0))
        self._url, self._within, self._notify = url, within, notify
        self._ready: dict[Role, str] = dict.fromkeys(ROLES, ready) if isinstance(ready, str) else dict(ready)
        self.wanted: Mapping[Role, int] = {}

    @property
    def url(self) -> str:
        """Where the Service in front of both versions is reached.

        Raises
        ------
        RoutingError
            It has no address.
        """
        if self._url is None:
            found = self._api.get("Service", self._target.app) or {}
            ingress = found.get("status", {}).get("loadBalancer", {}).get("ingress", [])
            self._url = balancer_url(ingress, self._target.port)
            if self._url is None:
                raise RoutingError(f"Service {self._target.app} has no address of a load balancer (yet): give url=")
        return self._url

    def objects(self) -> list[dict[str, Any]]:
        """Return the Service in front of both versions."""
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": self._target.app, "labels": dict(self._target.labels)},
                "spec": {
                    "type": "LoadBalancer",
                    "selector": {"app": self._target.app},
                    "ports": [{"name": "http", "port": self._target.port, "targetPort": self._port, "protocol": "TCP"}],
                },
            }
        ]

    def write(self, split: TrafficSplit, *, expected: TrafficSplit | None = None) -> Change:
        """Ask for more pods of the version that is to have more; `confirm` takes the others away once these are ready.

        At no moment is there less capacity than before, with one exception: all traffic returns to stable at once when as many
        of its pods are ready as the service has replicas.
        """
        began = time.perf_counter()
        with self._writing:
            have = {role: self._asked(role) for role in ROLES}
            need_in_place(_share(have), split, expected)
            want = pods_for(split, self._pods)
            self.wanted = {role: min(want[role], have[role]) for role in ROLES}
            self._scale({role: pods for role, pods in want.items() if pods > have[role]})
            self._latest = change = Change(split, nearest_on_the_way(have, want), _Numbers(have, want), began)
            if not split.canary and self._serving()["stable"] >= self._pods // 2:
                self._scale_down(change)
        return change

    def confirm(self, change: Change, *, cancelled: Callable[[], bool] = never) -> bool:
        """Wait for the pods that were asked for, take the others away, and see that new connections show the split.

        Pods that are to go are not waited for: those of a canary that crashes never become ready.
        """
        have, want = change.details.have, change.details.want
        more = [role for role in ROLES if want[role] > have[role]]
        try:
            ready = self._wait({role: max(want[role], have[role]) for role in ROLES}, more, cancelled, after=change)
        except CanaryError:
            if not change.split.canary:
                with self._writing:
                    self._scale_down(change)  # traffic must be able to return to a stable that is in trouble too
            raise
        with self._writing:
            if not ready or self._latest is not change:
                return False
            self._need_untouched(change)
            self._scale_down(change)
        if not self._wait(want, None, cancelled, after=change):
            return False
        self.wanted = want
        return self._wait_served(change, cancelled)

    def _need_untouched(self, change: Change) -> None:
        """Check that nobody has taken the canary's pods away meanwhile."""
        asked = max(change.details.want["canary"], change.details.have["canary"])
        if change.split.canary and self._asked("canary") < asked:
            raise RoutingError(
                f"someone else took pods from Deployment {self._target.service('canary')} meanwhile: they stay away"
            )

    def _scale_down(self, change: Change) -> None:
        """Take away the pods that the split has no use for, unless another split was written meanwhile."""
        have, want = change.details.have, change.details.want
        if self._latest is change:
            self._scale({role: pods for role, pods in want.items() if pods < have[role]})

    def _scale(self, pods: Mapping[Role, int]) -> None:
        for role, number in pods.items():
            self._api.patch("Deployment", self._target.service(role), {"spec": {"replicas": number}})

    def _wait_served(self, change: Change, cancelled: Callable[[], bool]) -> bool:
        """Wait until new connections show the split: a node takes up who is ready a moment after the API server knows."""
        try:
            probe = Probe(self.url, self._ready)
        except RoutingError:
            return True  # a Service without an address serves nobody yet
        probe.aim(change.split)

        def anew() -> str | None:
            role = probe()
            probe.close()
            return role

        what, patience = f"Service {self._target.app}", Patience(self._within, cancelled=cancelled)
        return until_served(anew, change.before, change.split, what=what, patience=patience)

    def promoted(self) -> None:
        """Know that stable is of the canary's version by now: it answers where that does."""
        self._ready["stable"] = self._ready["canary"]

    def observed(self) -> TrafficSplit:
        """Share of the pods that are asked for."""
        return _share({role: self._asked(role) for role in ROLES})

    def reset(self, *, keep: bool = False) -> None:
        """Give stable all pods, and remove the Service in front of both, unless a route leads to it, or may do so unseen.

        Where one does, stable's pods come up first, and the canary keeps its pods while it alone serves.
        """
        want, name = pods_for(TrafficSplit(0), self._pods), self._target.app
        front = self._api.get("Service", name)
        seen = references(self._api, [name] if front is not None else [])
        live = bool(seen.held(name))
        if live and not self._stable_takes_over(want):
            del want["canary"]
        self._scale({role: pods for role, pods in want.items() if self._is_there(role)})
        if not made_by_the_kit(front, self._target):
            return
        if doubt := seen.doubt({name}):
            self._notify(doubt)
        if not live:
            self._api.delete("Service", name)

    def _stable_takes_over(self, want: Mapping[Role, int]) -> bool:
        """Bring up stable's pods before the canary's go; return whether some of them, or none of either version, serve."""
        if self._is_there("stable") and self._asked("canary"):
            self._scale({"stable": want["stable"]})
            with suppress(RoutingError):
                self._wait(want, ["stable"])
        serve = self._serving()
        return bool(serve["stable"] or not serve["canary"])

    def _is_there(self, role: Role) -> bool:
        return self._api.get("Deployment", self._target.service(role)) is not None

    def mirror(self, percent: float) -> None:
        """Refuse: pods cannot."""
        self.need("mirroring")

    def need(self, feature: str) -> None:
        """Refuse every feature.

        Raises
        ------
        RoutingError
            Says who can.
        """
        raise lacking("replicas as a router have", feature)

    def _asked(self, role: Role) -> int:
        """How many pods a version is to have; a canary that somebody deleted has none, and traffic can return all the same."""
        found = self._api.get("Deployment", self._target.service(role))
        if found is None and role == "canary":
            return 0
        if found is None:
            raise NothingThere(f"there is no Deployment {self._target.service(role)} in namespace {self._api.namespace}")
        return int(found["spec"].get("replicas", 1))

    def _serving(self) -> dict[Role, int]:
        """Count the pods of each version that get connections."""
        roles: dict[str, Role] = {
            pod["metadata"]["name"]: role
            for role in ROLES
            for pod in self._api.list("Pod", f"app={self._target.app},version={role}")
        }
        return ready_in(self._api.list("EndpointSlice", f"kubernetes.io/service-name={self._target.app}"), roles)

    def _wait(
        self,
        want: Mapping[Role, int],
        grown: Collection[Role] | None,
        cancelled: Callable[[], bool] = never,
        *,
        after: Change | None = None,
    ) -> bool:
        """Wait until as many pods get connections, or of those roles that have grown as many at least.

        All traffic is back on stable when none of the canary's pods gets any, and half of all pods do.

        Returns
        -------
        bool
            Whether they do; False when the wait was cancelled, or another split was written.
        """
        end, back = time.monotonic() + self._within, after is not None and not after.split.canary
        while True:
            found = self._serving()
            if back and not found["canary"] and found["stable"] >= self._pods // 2:
                return True
            if found == dict(want) if grown is None else all(found[role] >= want[role] for role in grown):
                return True
            if cancelled() or (after is not None and after is not self._latest):
                return False
            if time.monotonic() > end:
                raise RoutingError(
                    f"after {self._within:g} s {found['stable']} pods of stable and {found['canary']} of the canary "
                    f"get traffic, not {want['stable']} and {want['canary']}"
                )
            time.sleep(_POLL)
