"""What all routers share whose split is written in one object of the cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from canarykit.errors import ConflictError, RoutingError
from canarykit.interrupts import never
from canarykit.model import Role, TrafficSplit
from canarykit.routers.base import Change, KubeRouter, apply, need_in_place
from canarykit.routers.objects import Api, NothingThere, Target, made_by_the_kit, retried
from canarykit.routers.patches import given_back, joined, need_split
from canarykit.routers.probe import Probe, answers_within, broken_within
from canarykit.routers.route_format import RouteFormat
from canarykit.routers.rules import NOTE, noted, noting, split_rules, to_join
from canarykit.routers.served import Patience, until_served
from canarykit.routers.testers import Testers

__all__ = ["RouteRouter"]

_TAKES_UP = 3.0
"""Seconds in which a gateway takes up what was written, at the latest: Traefik gathers changes for two."""


class RouteRouter(RouteFormat, KubeRouter):
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
        Gateway that serves the route, when the kit makes it; what that names depends on the router.
    hostname : str, optional
        Name that the route answers to; read from the user's own object by default.
    name : str, optional
        Name of the user's own object; the kit makes one named after the service by default.
    ready : str or mapping of role to str
        Path that each version answers.
    within : float
        Seconds until a split must be served.
    settle : float
        Seconds after which a split is believed where no answer says who gave it.
    testers : Testers, optional
        Values of the header that lead to a version, in objects that the kit makes; the names of the roles by default.
    notify : callable, optional
        Takes one line when something is believed that was not seen.
    """

    wanted: Mapping[Role, int] = MappingProxyType({})

    def __init__(
        self,
        api: Api,
        target: Target,
        *,
        url: str,
        gateway: str | None = None,
        hostname: str | None = None,
        name: str | None = None,
        ready: str | Mapping[Role, str] = "/v2/health/ready",
        within: float = 30.0,
        settle: float = 1.0,
        testers: Testers | None = None,
        notify: Callable[[str], object] = lambda line: None,
    ) -> None:
        super().__init__(target, gateway=gateway, hostname=hostname, name=name)
        self._url, self._api, self._within, self._notify = url, api, within, notify
        # A gateway that needs longer to settle than others do to serve has that time.
        most = max(within, settle + _TAKES_UP)
        self._patience = Patience(most, settle, any_refusal=self._adopted, notify=notify)
        self._testers = Testers() if testers is None else testers
        self._last: dict[str, Any] | None = None
        self._probe = Probe(url, ready, host=hostname)
        self._asking = threading.Lock()  # one connection: who is told to wait no longer ends its question first

    @property
    def url(self) -> str:
        """Where the gateway is reached."""
        return self._url

    @property
    def hostname(self) -> str | None:
        """Name that the route answers to; that of the user's own object where none was given and it has been read."""
        return self._hostname or self._probe.way.host

    @property
    def own(self) -> tuple[str, str] | None:
        """Kind and name of the user's own object that is split; None where the kit makes it."""
        return (self.kind, self.name) if self._adopted else None

    # What all do -----------------------------------------------------------------------------------------------------

    def write(self, split: TrafficSplit, *, expected: TrafficSplit | None = None) -> Change:
        """Patch the object, again while someone else writes in between.

        A patch fails when the object has changed since it was read, so the first is made for what was read last: to read
        it again would take as long as half a write.
        """
        began, found = time.perf_counter(), list[TrafficSplit | None]()

        def attempt(read: dict[str, Any]) -> dict[str, Any]:
            found.append(self._said(read))
            need_in_place(found[-1], split, expected)
            body, how = self.change(read, split)
            if self._adopted and self.form is not None:
                body = [*body, *noting(read, split_rules(self.rules(read), noted(read)))]
            self._last = written = self._api.patch(self.kind, self.name, body, how=how)
            return written

        last, written = self._last, None
        if last is not None:
            with suppress(ConflictError, RoutingError):  # someone has written since, or may have mended what cannot be split
                written = attempt(last)
        if written is None:
            written = retried(lambda: attempt(self._read()))
        # An attempt whose answer was lost finds the new split in place, which says nothing about what the gateway serves.
        before = found[0] if found[-1] is not None and found[-1].is_near(split) else found[-1]
        return Change(split, before, written, began)

    def confirm(self, change: Change, *, cancelled: Callable[[], bool] = never) -> bool:
        """Wait until a controller has accepted the object, and then until the gateway's answers show the split."""
        if not self._wait_accepted(change.details, cancelled):
            return False
        return self._wait_served(change, cancelled)

    def _wait_served(self, change: Change, cancelled: Callable[[], bool]) -> bool:
        patience = replace(self._patience, cancelled=cancelled)
        with self._asking:
            self._probe.aim(change.split)
            return until_served(self._probe, change.before, change.split, what=f"{self.kind} {self.name}", patience=patience)

    def observed(self) -> TrafficSplit:
        """Read the split back from the object."""
        return self.split_in(self._read())

    def reset(self, *, keep: bool = False) -> None:
        """Send everything to stable, and remove what the router added; what the kit adopted others give back.

        Parameters
        ----------
        keep : bool
            Leave the user's own object with the weights that it has by now, and forget those of before.
        """
        for name in self.made:
            if made_by_the_kit(self._api.get(self.kind, name), self._target):
                self._api.delete(self.kind, name)
        own = self._api.get(self.kind, self.name) if self._adopted else None
        if own is not None and not keep:
            self._leave(own)
        elif own is not None and noted(own):
            path = f"/metadata/annotations/{NOTE.replace('/', '~1')}"
            self._api.patch(self.kind, self.name, [{"op": "remove", "path": path}], how="json")
        self._probe.close()

    def _leave(self, own: Mapping[str, Any]) -> None:
        """Leave the user's own object as it was: the canary's pods end after this, so that nothing may lead to them."""
        if self.splits(own):
            try:
                apply(self, TrafficSplit(0)) if self._said(own) != TrafficSplit(0) else self.write(TrafficSplit(0))
            except RoutingError as error:  # it is written: a gateway that nobody reaches must not keep all from being removed
                self._notify(f"nobody has seen the traffic return to stable: {error}")
        if "mirroring" in self.capabilities.features:
            self.mirror(0)
        self.give_back(exact=False)

    # The user's own object -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """See, before anything is written, that the user's own object can be split."""
        if self._adopted:
            found = self._read()
            if self.form is not None:
                need_split(self.form, found, self._target, self.rules(found))

    def is_changed(self) -> bool:
        """Whether the user's own object notes its weights of before."""
        return self._adopted and bool(noted(self._api.get(self.kind, self.name) or {"metadata": {}}))

    def hold_back(self) -> None:
        """Take the canary's weight away in the user's own object, before its pods are there."""
        if self._adopted and self.form is not None and self._said(self._read()) not in (None, TrafficSplit(0)):
            self.write(TrafficSplit(0))

    def join(self) -> None:
        """Add the canary to the user's own object where that names stable alone, with no weight; its pods are ready."""
        if not self._adopted or self.form is None:
            return
        form = self.form

        def once() -> dict[str, Any] | None:
            found = self._read()
            rules = self.rules(found)
            new = to_join(rules, noted(found))
            body = joined(form, found, new, self.beside) if new else None
            return None if body is None else self._api.patch(self.kind, self.name, body, how="json")

        if (written := retried(once)) is not None:
            self._last = written
            self._wait_accepted(written, never)

    def give_back(self, *, exact: bool) -> None:
        """Give the user's own object the weights and backends that it had before; the canary's share only where `exact`."""
        if not self._adopted or self.form is None:
            return
        form = self.form

        def once() -> None:
            found = self._api.get(self.kind, self.name)
            body = [] if found is None else given_back(form, found, self.rules(found), exact=exact)
            if len(body) > 1:  # more than the line that compares versions
                self._last = self._api.patch(self.kind, self.name, body, how="json")

        retried(once)

    def promoted(self) -> None:
        """Know that stable is of the canary's version by now: it answers where that does."""
        self._probe.ready["stable"] = self._probe.ready["canary"]

    # Testers ---------------------------------------------------------------------------------------------------------

    def admit_testers(self, admitted: bool) -> None:
        """Have the testers' header lead to the versions in what the kit made, as it was told, or nowhere any more."""
        self._let(self._testers if admitted else Testers(None))

    def _let(self, testers: Testers) -> None:
        if self.name not in self.made:
            return

        def once() -> None:
            found = self._api.get(self.kind, self.name)
            change = None if found is None else self.testing(found, testers)
            if change is not None:
                self._last = self._api.patch(self.kind, self.name, change[0], how=change[1])

        retried(once)

    # Features --------------------------------------------------------------------------------------------------------

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
            found = self._read()
            self._probe.aim(self._said(found) or TrafficSplit(0))
            body = self.mirroring(found, wanted)
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
        if self._adopted:
            self._probe.way = self.way(found, tuple(self._probe.ready.values()))
        return found

    def _wait_accepted(self, written: Mapping[str, Any], cancelled: Callable[[], bool]) -> bool:
        """Wait until a controller has accepted what was written; False when nobody wants to know any more."""
        end, generation = time.monotonic() + self._within, int(written["metadata"].get("generation", 0))
        found = written
        while (said := self.refusal(found, generation)) is not None:
            if cancelled():
                return False
            if time.monotonic() > end:
                raise RoutingError(f"{self.kind} {self.name}: {said} after {self._within:g} s")
            time.sleep(0.02)
            found = self._read()
        return True


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
