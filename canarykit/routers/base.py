"""What every router can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from canarykit.errors import EditedError, RoutingError
from canarykit.interrupts import never
from canarykit.model import Role, TrafficSplit

__all__ = ["Capabilities", "Change", "Feature", "KubeRouter", "Router", "apply", "lacking", "need_in_place"]

Feature = Literal["testers", "mirroring", "affinity", "fractions"]


def need_in_place(found: TrafficSplit | None, split: TrafficSplit, instead_of: TrafficSplit | None) -> None:
    """Check that the split to be replaced is the one in place, or that the new one is: ours, whose answer was lost.

    Parameters
    ----------
    found : TrafficSplit, optional
        In place; None when there is none, such as of rules that disagree.
    split : TrafficSplit
        Asked for.
    instead_of : TrafficSplit, optional
        To be replaced; None when any is.

    Raises
    ------
    EditedError
        Neither is.
    """
    if instead_of is not None and (found is None or not (found.is_near(instead_of) or found.is_near(split))):
        raise EditedError(f"the gateway was told {found or 'no split'}, not {instead_of}: someone else changed it")


@dataclass(frozen=True, slots=True)
class Change:
    """A split that is written, and may not be served yet.

    Parameters
    ----------
    split : TrafficSplit
        Split that was written.
    before : TrafficSplit, optional
        Split that was written before; None when nobody knows.
    details : object
        Facts that the router needs to confirm it.
    began : float
        Moment before it was written, seconds by `time.perf_counter`.
    """

    split: TrafficSplit
    before: TrafficSplit | None = None
    details: Any = None
    began: float = field(default_factory=time.perf_counter)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a router can do beside splitting.

    Parameters
    ----------
    features : frozenset of str
        ``"testers"``, ``"mirroring"``, ``"affinity"``, ``"fractions"``.
    scales : bool
        Whether the numbers of pods are its business.
    promoted_by : str, optional
        Advice, where no promotion of the kit's Deployments reaches what it splits.
    """

    features: frozenset[Feature] = frozenset()
    scales: bool = False
    promoted_by: str | None = None


class Router(Protocol):
    """Sets and reads the split of a gateway: `write` is short, and `confirm` waits until the split is served."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do beside that."""
        ...

    def write(self, split: TrafficSplit, *, expected: TrafficSplit | None = None) -> Change:
        """Write the split, and do not wait until it is served.

        Parameters
        ----------
        split : TrafficSplit
            Asked for.
        expected : TrafficSplit, optional
            The one to be replaced; any by default.

        Raises
        ------
        EditedError
            Another split was in place; nothing was changed.
        RoutingError
            It cannot be served at all; nothing was changed.
        """
        ...

    def confirm(self, change: Change, *, cancelled: Callable[[], bool] = never) -> bool:
        """Wait until the data plane serves what was written.

        It may be called while another thread writes the next split.

        Parameters
        ----------
        change : Change
            As `write` returned it.
        cancelled : callable
            Asked again and again; once it says True, the wait ends.

        Returns
        -------
        bool
            Whether the split is served; False when the wait was cancelled.

        Raises
        ------
        RoutingError
            It was not in force after a bounded time; says what was seen.
        """
        ...

    def observed(self) -> TrafficSplit:
        """Read the split back from the gateway."""
        ...

    def reset(self) -> None:
        """Return to 100 % stable and remove what the router added."""
        ...


def apply(router: Router, split: TrafficSplit, *, expected: TrafficSplit | None = None) -> float:
    """Write a split and wait until it is served; return the seconds that took. Parameters and errors as of both steps."""
    change = router.write(split, expected=expected)
    router.confirm(change)
    return time.perf_counter() - change.began


def lacking(who: str, feature: str) -> RoutingError:
    """Say that a router cannot do something, and which can: ``"HTTPRoute as a router has"``, ``"affinity"``."""
    from canarykit.routers import able

    return RoutingError(f"{who} no {feature}: {able(feature)}")


class KubeRouter(Router, Protocol):
    """What a router on Kubernetes can do for its route beside the weights: nothing, where there is no route."""

    capabilities: ClassVar[Capabilities] = Capabilities()
    kind: ClassVar[str]
    """Kind of the object that is split."""
    name: str
    """Name of that object."""
    gateway: str | None
    """Gateway that serves the route; None where it is not known, or there is none."""
    wanted: Mapping[Role, int]
    """Pods that each version was given last; empty where that is not the router's business."""

    def reset(self, *, keep: bool = False) -> None:
        """Return to 100 % stable and remove what the router added.

        Parameters
        ----------
        keep : bool
            Leave a team's own route with the weights that it has by now.
        """
        ...

    @property
    def url(self) -> str:
        """Where the gateway is reached.

        Raises
        ------
        RoutingError
            It has no address yet.
        """
        ...

    @property
    def hostname(self) -> str | None:
        """Name that the route answers to; None when it answers to any."""
        return None

    def objects(self) -> list[dict[str, Any]]:
        """Objects that the kit makes for this router; none that the user has already."""
        ...

    def mirror(self, percent: float) -> None:
        """Send a copy of so many percent of the requests to the canary, whose answers nobody sees; 0 ends it.

        Raises
        ------
        RoutingError
            The router cannot, or the gateway behind it.
        """
        ...

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
        if feature not in self.capabilities.features:
            raise lacking(f"{self.kind} as a router has", feature)

    @property
    def own(self) -> tuple[str, str] | None:
        """Kind and name of the user's own object that is split; None where the kit makes it."""
        return None

    def check(self) -> None:
        """See, before anything is written, that the route can be split.

        Raises
        ------
        RoutingError
            It cannot; says why, and what to do in which order.
        """

    def is_changed(self) -> bool:
        """Whether a team's own route notes its weights of before: this rollout, or an earlier one, has changed them."""
        return False

    def hold_back(self) -> None:
        """Take the canary's weight away, before its pods are there; nobody is asked whether that is served."""

    def join(self) -> None:
        """Add the canary to a route that names stable alone, with no weight; its pods are ready."""

    def give_back(self, *, exact: bool) -> None:
        """Give a team's own route what it had before; with the canary's share of then where `exact`."""

    def admit_testers(self, admitted: bool) -> None:
        """Have the testers' header lead to the canary, where that is wanted, or no header any more."""

    def promoted(self) -> None:
        """Know that stable is of the canary's version by now: it answers where that does."""
