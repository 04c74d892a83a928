"""No router at all: one Service in front of the pods of both versions, and the share of the pods is the split.

The Service's proxy draws a pod for each *connection*: the split is one of connections, and a client that keeps one
open stays on its pod.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from canarykit.errors import CanaryError, RoutingError
from canarykit.model import ROLES, Role, TrafficSplit
from canarykit.routers.base import WithoutRoute, need_in_place
from canarykit.routers.objects import Api, NothingThere, Target, balancer_url, lacking, made_by_the_kit
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


class ReplicasRouter(WithoutRoute):
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
    hostname = None
    scales = True
    """The numbers of pods are its business."""
    promoted_by = None

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
        self._url, self._within, self._notify = url, within, notify
        self._ready: dict[Role, str] = dict.fromkeys(ROLES, ready) if isinstance(ready, str) else dict(ready)
        self.wanted: dict[Role, int] = {}
        """Pods that each version was given last; empty before."""

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

    def apply(self, split: TrafficSplit, *, instead_of: TrafficSplit | None = None) -> float:
        """Change the numbers of pods; return the seconds until those that are asked for, and no others, are served."""
        start, have = time.perf_counter(), {role: self._asked(role) for role in ROLES}
        need_in_place(_share(have), split, instead_of)
        want = pods_for(split, self._pods)
        self.wanted = {role: min(want[role], have[role]) for role in ROLES}
        more = {role: pods for role, pods in want.items() if pods > have[role]}
        fewer = {role: pods for role, pods in want.items() if pods < have[role]}
        # More first, and ready, before there are fewer: at no moment is there less capacity than before. Pods that are to go
        # are not waited for: those of a canary that crashes never become ready.
        self._scale(more)
        try:
            self._wait({role: max(want[role], have[role]) for role in ROLES}, grown=more)
        except CanaryError:
            if not split.canary:
                self._scale(fewer)  # traffic must be able to return to a stable that is in trouble too
            raise
        if split.canary and self._asked("canary") < max(want["canary"], have["canary"]):
            raise RoutingError(
                f"someone else took pods from Deployment {self._target.service('canary')} meanwhile: they stay away"
            )
        self._scale(fewer)
        self._wait(want)
        self.wanted = want
        self._confirm(nearest_on_the_way(have, want), split)
        return time.perf_counter() - start

    def _scale(self, pods: Mapping[Role, int]) -> None:
        for role, number in pods.items():
            self._api.patch("Deployment", self._target.service(role), {"spec": {"replicas": number}})

    def _confirm(self, before: TrafficSplit, after: TrafficSplit) -> None:
        """Wait until new connections show the split: a node takes up who is ready a moment after the API server knows."""
        try:
            probe = Probe(self.url, self._ready)
        except RoutingError:
            return  # a Service without an address serves nobody yet
        probe.aim(after)

        def anew() -> str | None:
            role = probe()
            probe.close()
            return role

        until_served(anew, before, after, what=f"Service {self._target.app}", patience=Patience(self._within))

    def promoted(self) -> None:
        """Know that stable is of the canary's version by now: it answers where that does."""
        self._ready["stable"] = self._ready["canary"]

    def observed(self) -> TrafficSplit:
        """Share of the pods that are asked for."""
        return _share({role: self._asked(role) for role in ROLES})

    def reset(self) -> None:
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
                self._wait(want, grown=["stable"])
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

    def _wait(self, want: Mapping[Role, int], *, grown: Collection[Role] | None = None) -> None:
        """Wait until as many pods get connections, or of those roles that have grown as many at least."""
        end = time.monotonic() + self._within
        while True:
            found = self._serving()
            if found == dict(want) if grown is None else all(found[role] >= want[role] for role in grown):
                return
            if time.monotonic() > end:
                raise RoutingError(
                    f"after {self._within:g} s {found['stable']} pods of stable and {found['canary']} of the canary "
                    f"get traffic, not {want['stable']} and {want['canary']}"
                )
            time.sleep(_POLL)
