"""What routers on Kubernetes share: the objects they may ask for, and how a new split is seen in the traffic."""

from __future__ import annotations

import http.client
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from canarykit.errors import ConflictError, RoutingError
from canarykit.model import Role, TrafficSplit
from canarykit.routers.base import Router
from canarykit.wire import ROLE_HEADER

__all__ = [
    "BEFORE",
    "MANAGED",
    "Api",
    "NothingThere",
    "Probe",
    "Target",
    "address",
    "balancer_url",
    "lacking",
    "made_by_the_kit",
    "retried",
    "to_stable",
    "unchanged",
    "until_served",
]  # fmt: skip

MANAGED = "app.kubernetes.io/managed-by"

BEFORE = "canarykit.dev/before"
"""Annotation of an object that the kit has adopted: what it was before, as JSON."""

_T = TypeVar("_T")

_ATTEMPTS = 8
_PAUSE = 0.05
_SURE = math.log(1e5)
"""Evidence at which a change is believed. Before it is in force, each answer of the old split is an opportunity to be wrong:
at 1e5 to 1 for the first hundred, and more with the square of their number, that happens twice in a thousand changes,
however long it takes."""

_REST = 0.005
"""Seconds between answers that can only be of the old split: the gateway has the change to take up meanwhile."""

_SETTLE = 1.0
"""Seconds that a gateway has to take up a change, where no answer says who gave it: half of one was seen. Whoever is told that
the change is in force may replace the pods of a version, which the old split would still lead to."""

_MAX_PROBES = 1000
_FEW = 100


class Api(Protocol):
    """Objects of one namespace."""

    @property
    def namespace(self) -> str:
        """Which."""
        ...

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object; None when there is none, or no such kind."""
        ...

    def list(self, kind: str, selector: str = "", *, everywhere: bool = False, fields: str = "") -> list[dict[str, Any]]:
        """Read all objects of a kind."""
        ...

    def apply(self, body: Mapping[str, Any], *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Write the fields that we own."""
        ...

    def patch(self, kind: str, name: str, body: Any, *, how: str = "merge", sub: str = "") -> dict[str, Any]:
        """Change an object."""
        ...

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object."""
        ...


class NothingThere(RoutingError):
    """What is to be split does not exist, so that no canary gets anything through it."""


def lacking(who: str, feature: str) -> RoutingError:
    """Say that a router cannot do something, and which can: ``"HTTPRoute as a router has"``, ``"affinity"``."""
    from canarykit.routers import able

    return RoutingError(f"{who} no {feature}: {able(feature)}")


def to_stable(router: Router) -> None:
    """Send everything to stable, whatever the route says, unless it does already or there is none.

    Raises
    ------
    RoutingError
        The gateway does not serve it.
    """
    try:
        if router.observed() == TrafficSplit(0):
            return
    except NothingThere:
        return
    except RoutingError:
        pass  # rules that disagree, or no weights at all
    router.apply(TrafficSplit(0))


@dataclass(frozen=True, slots=True)
class Target:
    """What a router splits the traffic of.

    Parameters
    ----------
    app : str
        Name of the service; routes that the kit makes are named after it.
    port : int
        Port of both Services.
    labels : mapping of str to str
        Put on every object that the kit makes.
    """

    app: str
    port: int
    labels: Mapping[str, str]

    def service(self, role: Role) -> str:
        """Name of a version's Service, and of its Deployment."""
        return f"{self.app}-{role}"


def made_by_the_kit(found: Mapping[str, Any] | None, target: Target) -> bool:
    """Whether an object is the kit's to remove: it made it, rather than adopted it, and it is there."""
    if found is None:
        return False
    labels, notes = (found["metadata"].get(field, {}) for field in ("labels", "annotations"))
    return labels.get(MANAGED) == target.labels.get(MANAGED) and BEFORE not in notes


def retried(change: Callable[[], _T]) -> _T:
    """Read, change and write again while someone else writes in between.

    Parameters
    ----------
    change : callable
        Reads the object anew each time, and raises `ConflictError` when it has changed meanwhile.

    Raises
    ------
    ConflictError
        Someone else wrote in between each time.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return change()
        except ConflictError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE * (attempt + 1))
    raise AssertionError("unreachable")


def unchanged(found: Mapping[str, Any]) -> dict[str, Any]:
    """First line of a JSON patch: it fails when anything was written since the object was read."""
    return {"op": "test", "path": "/metadata/resourceVersion", "value": found["metadata"]["resourceVersion"]}


def balancer_url(ingress: Sequence[Mapping[str, Any]], port: int) -> str | None:
    """Address of a load balancer by the ingress points in a Service's status; None while it has none."""
    hosts = [point.get("ip") or point.get("hostname") for point in ingress]
    return next((address("http", host, port) for host in hosts if host), None)


def address(scheme: str, host: str, port: int) -> str:
    """URL of a host, which may be an IPv6 address."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}" + ("" if port == 80 and scheme == "http" else f":{port}")


class Probe:
    """Asks the gateway for a small page, and sees who answers.

    Parameters
    ----------
    url : str
        Of the gateway.
    path : str
        Answered by both versions without effort, such as their readiness.
    host : str, optional
        Name that the route answers to.
    header : str
        On a response: which version it came from.
    """

    def __init__(self, url: str, path: str, *, host: str | None = None, header: str = ROLE_HEADER) -> None:
        self._address, self._path, self._header = urlsplit(url), path, header
        self._host = host
        self._connection: http.client.HTTPConnection | None = None
        self.last = "no answer"

    def __call__(self, headers: Mapping[str, str] | None = None) -> str | None:
        """Ask once; the role that answered, empty when it does not say, None when no version answered."""
        try:
            if self._connection is None:
                kind = http.client.HTTPSConnection if self._address.scheme == "https" else http.client.HTTPConnection
                self._connection = kind(self._address.netloc, timeout=5.0)
            own = {"host": self._host} if self._host else {}
            self._connection.request("GET", self._address.path.rstrip("/") + self._path, headers={**own, **(headers or {})})
            answer = self._connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            self.last = f"{type(error).__name__}: {error}"
            return None
        self.last = f"status {answer.status}" + (_redirect(answer) if 300 <= answer.status < 400 else "")
        if answer.status >= 300:  # a redirect is the gateway's own: to another scheme, or to where one logs in
            return None
        return answer.getheader(self._header) or ""

    def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _redirect(answer: http.client.HTTPResponse) -> str:
    """Say where to, without what may be secret in it: a password, or a query."""
    try:
        to = urlsplit(answer.getheader("location") or "")
    except ValueError:
        return ""
    where = to._replace(netloc=to.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return f", a redirect to {where}: give url= as that" if where else ""


def broken_within(probe: Callable[[], str | None], seconds: float) -> bool:
    """Whether a gateway stops to answer after something was written that it should not mind.

    It takes up what was written after a while that nobody knows: it is asked for all of the time, or until it has failed
    three times in a row.
    """
    end, failed = time.monotonic() + seconds, 0
    while failed < 3 and time.monotonic() < end:
        failed = failed + 1 if probe() is None else 0
        time.sleep(0.02)
    return failed > 0


def answers_within(probe: Callable[[], str | None], seconds: float) -> bool:
    """Whether a gateway answers, if not yet."""
    end = time.monotonic() + seconds
    while probe() is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def until_served(
    probe: Callable[[], str | None], before: TrafficSplit | None, after: TrafficSplit, *, within: float, what: str
) -> None:
    """Ask the gateway until the answers show the new split rather than the old one.

    The answers are a sequential test for a change (Page's cumulative sum): the likelihood of the new split over that of the
    old one, from the answer on from which that is greatest. A change that is too small to be seen in a thousand answers,
    or in a hundred when the time is over, is believed unless they speak against it as clearly; the counts of the rollout
    itself keep checking it. So is any change where no answer says who gave it, but not before a second is over.

    Parameters
    ----------
    probe : callable
        Asks once, and returns who answered.
    before, after : TrafficSplit
        The old split, None when it is not known, and the new one.
    within : float
        Seconds.
    what : str
        The route, for messages.

    Raises
    ------
    RoutingError
        The gateway did not serve the split in time; says what it did.
    """
    begun, silent, asked = time.monotonic(), 0, 0
    end, settled = begun + within, begun + _SETTLE
    seen = {"stable": 0, "canary": 0}
    evidence, balance, fits = 0.0, 0.0, 0
    while True:
        role, over = probe(), time.monotonic() > end
        asked += 1
        if role in ("stable", "canary"):
            seen[role] += 1
            gain = _gain(role, before, after)
            if gain == -math.inf:
                evidence, balance, fits = 0.0, 0.0, 0  # not in force at this moment, for certain
                time.sleep(_REST)
            else:
                evidence, balance, fits = max(evidence + gain, 0.0), balance + gain, fits + 1
                if evidence >= _SURE + 2 * math.log(max(asked / _FEW, 1)) or before == after:
                    return
                if fits >= (_FEW if over else _MAX_PROBES) and balance > -_SURE:
                    return
        elif role == "":
            silent += 1
            if silent >= 3 and (over or time.monotonic() >= settled):
                return  # no one says who answers: the counts of the rollout have to tell
            time.sleep(0.02)
        else:
            time.sleep(0.02)
        if over:
            counted = f"{seen['canary']} of {sum(seen.values())} answers came from the canary"
            last = getattr(probe, "last", "")
            raise RoutingError(
                f"{what} was given {after} for the canary, and after {within:g} s the gateway does not serve it: "
                f"{counted if sum(seen.values()) else f'no version answers ({last})'} in {asked} requests. "
                "Does the route reach this gateway, and does nobody else change it?"
            )


def _gain(role: str, before: TrafficSplit | None, after: TrafficSplit) -> float:
    """Log likelihood ratio of one answer; a split of exactly 0 or 100 % cannot answer otherwise."""
    new = after.share if role == "canary" else 1 - after.share
    if new == 0:
        return -math.inf
    if before is None:
        return 1.0  # nothing to compare with: answers that fit are enough
    old = before.share if role == "canary" else 1 - before.share
    return math.log(new / old) if old else math.inf
