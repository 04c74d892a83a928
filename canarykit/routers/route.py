"""What all routers share whose split is written in one object of the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, Literal

from canarykit.errors import ConflictError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.base import need_in_place
from canarykit.routers.objects import (
    Api,
    NothingThere,
    Probe,
    Target,
    answers_within,
    broken_within,
    lacking,
    made_by_the_kit,
    retried,
    until_served,
)

__all__ = ["RouteRouter"]

Feature = Literal["testers", "mirroring", "affinity", "fractions"]

_TAKES_UP = 3.0
"""Seconds in which a gateway takes up what was written, at the latest: Traefik gathers changes for two."""


class RouteRouter:
    """Router whose split is the weights in an object: the user's own, of which only they are touched, or the kit's.

    Parameters
    ----------
    api : Api
        The namespace's objects.
    target : Target
        The Services.
    url : str
        Where the gateway is reached.
    gateway : str, optional
        What is to serve the route, when the kit makes it; what that names depends on the router.
    hostname : str, optional
        Name that the route answers to.
    name : str, optional
        Of the user's own object; the kit makes one named after the service by default.
    ready : str
        A path that both versions answer.
    within : float
        Seconds until a split must be served.
    """

    kind: ClassVar[str]
    features: ClassVar[frozenset[Feature]] = frozenset()
    scales: ClassVar[bool] = False
    promoted_by: ClassVar[str | None] = None
    """What to do instead, where no promotion of the kit's Deployments reaches what this router splits."""
    advice: ClassVar[str] = "install what defines it, or choose another router"

    def __init__(
        self,
        api: Api,
        target: Target,
        *,
        url: str,
        gateway: str | None = None,
        hostname: str | None = None,
        name: str | None = None,
        ready: str = "/v2/health/ready",
        within: float = 30.0,
    ) -> None:
        self.url, self.hostname, self.name = url, hostname, name or target.app
        self._api, self._target, self.gateway = api, target, gateway
        self._adopted, self._within = name is not None, within
        self._last: dict[str, Any] | None = None
        self._probe = Probe(url, ready, host=hostname)

    # What each router says -------------------------------------------------------------------------------------------

    def objects(self) -> list[dict[str, Any]]:
        """Objects that the kit makes for this router; none that the user has already."""
        raise NotImplementedError

    @property
    def made(self) -> list[str]:
        """Names of these objects, to be removed in the end: also when what they were made from is gone."""
        return [] if self._adopted else [self.name]

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the object says.

        Raises
        ------
        RoutingError
            It says none.
        """
        raise NotImplementedError

    def splits(self, found: Mapping[str, Any]) -> bool:
        """Whether the object has anything to split; not when somebody took a version out of it."""
        return True

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch that sets the split, and of which kind; it must fail when the object has changed since it was read."""
        raise NotImplementedError

    def refusal(self, found: Mapping[str, Any], generation: int) -> str | None:
        """Say why the object as written is not served; None when its controller has accepted it, or never says."""
        return None

    # What all do -----------------------------------------------------------------------------------------------------

    def apply(self, split: TrafficSplit, *, instead_of: TrafficSplit | None = None) -> float:
        """Set the split; return the seconds until the gateway served it."""
        start = time.perf_counter()
        before, written = self._write(split, instead_of)
        self._wait_accepted(written)
        until_served(self._probe, before, split, within=self._within, what=f"{self.kind} {self.name}")
        return time.perf_counter() - start

    def observed(self) -> TrafficSplit:
        """Read the split back from the object."""
        return self.split_in(self._read())

    def reset(self) -> None:
        """Send everything to stable, and remove what the router added; what the kit adopted others give back."""
        for name in self.made:
            if made_by_the_kit(self._api.get(self.kind, name), self._target):
                self._api.delete(self.kind, name)
        own = self._api.get(self.kind, self.name) if self._adopted else None
        if own is not None:
            if self.splits(own):
                self._write(TrafficSplit(0))
            if "mirroring" in self.features:
                self.mirror(0)
        self._probe.close()

    def mirror(self, percent: float) -> None:
        """Send a copy of so many percent of the requests to the canary, whose answers nobody sees; 0 ends it.

        A gateway that accepts the route and does not know how to mirror may answer nothing any more: it is watched for a few
        seconds, and the mirror is taken away again.

        Raises
        ------
        RoutingError
            The router cannot, or the gateway behind it.
        PlanError
            It is no number from 0 to 100.
        """
        self.need("mirroring")
        wanted = TrafficSplit(percent).canary

        def once() -> None:
            body = self.mirroring(self._read(), wanted)
            if len(body) > 1:  # more than the line that compares versions
                self._api.patch(self.kind, self.name, body, how="json")

        retried(once)
        if wanted and broken_within(self._probe, _TAKES_UP):
            last = self._probe.last
            self.mirror(0)
            answers = answers_within(self._probe, _TAKES_UP)
            now = "and it answers" if answers else f"but it does not answer yet ({self._probe.last})"
            raise RoutingError(
                f"with a mirror in {self.kind} {self.name} the gateway answered nothing ({last}): this gateway cannot mirror. "
                f"The mirror was taken away again, {now}"
            )

    def mirroring(self, found: Mapping[str, Any], percent: float) -> list[dict[str, Any]]:
        """JSON patch that has the object say so; of routers that have the feature."""
        raise NotImplementedError

    def need(self, feature: Feature) -> None:
        """Refuse what this router cannot do.

        No router here has ``affinity``, which would keep a client on the version that first answered it. Istio's consistent
        hash picks a pod *after* the weights have picked the version. The Gateway API's session persistence is in the
        experimental channel, and leaves weighted routes to the implementation. ingress-nginx has ``affinity: cookie``,
        but asks the cookie before the weight: at weight 0 its clients stay on the canary, so that a rollback would not
        reach them; and Traefik, which reads the same Ingresses, ignores ``affinity-canary-behavior``.

        Raises
        ------
        RoutingError
            Says so, and who can.
        """
        if feature not in self.features:
            raise lacking(f"{self.kind} as a router has", feature)

    def _write(self, split: TrafficSplit, instead_of: TrafficSplit | None = None) -> tuple[TrafficSplit | None, dict[str, Any]]:
        """Patch the object, again while someone else writes in between; the split before, if it said one, and the object.

        A patch fails when the object has changed since it was read, so the first is made for what was read last: to read
        it again would take as long as half a write.
        """
        found: list[TrafficSplit | None] = []

        def attempt(read: dict[str, Any]) -> dict[str, Any]:
            found.append(self._said(read))
            need_in_place(found[-1], split, instead_of)
            body, how = self.change(read, split)
            self._last = written = self._api.patch(self.kind, self.name, body, how=how)
            return written

        last, written = self._last, None
        if last is not None:
            with suppress(ConflictError, RoutingError):  # someone has written since, or may have mended what cannot be split
                written = attempt(last)
        if written is None:
            written = retried(lambda: attempt(self._read()))
        # An attempt whose answer was lost finds the new split in place, which says nothing about what the gateway serves.
        before = found[-1]
        return found[0] if before is not None and before.is_near(split) else before, written

    def _said(self, found: Mapping[str, Any]) -> TrafficSplit | None:
        """Split that the object says; None when someone left it in disorder: traffic must be able to return all the same."""
        try:
            return self.split_in(found)
        except RoutingError:
            return None

    def _read(self) -> dict[str, Any]:
        self._last = found = self._api.get(self.kind, self.name)
        if found is None:
            raise NothingThere(
                f"there is no {self.kind} {self.name} in namespace {self._api.namespace}, or this cluster knows no such kind: "
                f"{self.advice}"
            )
        return found

    def _wait_accepted(self, written: Mapping[str, Any]) -> None:
        end, generation = time.monotonic() + self._within, int(written["metadata"].get("generation", 0))
        found = written
        while (said := self.refusal(found, generation)) is not None:
            if time.monotonic() > end:
                raise RoutingError(f"{self.kind} {self.name}: {said} after {self._within:g} s")
            time.sleep(0.02)
            found = self._read()


def whole_weights(split: TrafficSplit, most: int, what: str) -> tuple[int, int]:
    """Canary's weight and the total, as small whole numbers as can be: 0.1 % is 1 of 1,000.

    Parameters
    ----------
    split : TrafficSplit
        As asked.
    most : int
        The greatest total.
    what : str
        Who cannot do more, for the message.

    Raises
    ------
    RoutingError
        The split is finer than that.
    """
    total = 100
    while total <= most:
        if abs(split.share * total - round(split.share * total)) < 1e-9 * total:
            return round(split.share * total), total
        total *= 10
    raise RoutingError(f"{what} splits in parts of {most:,}; {split.canary} % is finer")
