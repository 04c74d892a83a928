"""What every router can do."""

from __future__ import annotations

from typing import Protocol

from canarykit.errors import EditedError
from canarykit.model import TrafficSplit

__all__ = ["Router", "WithoutRoute", "need_in_place", "never"]


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


class Router(Protocol):
    """Sets and reads the split of a gateway."""

    def apply(self, split: TrafficSplit, *, instead_of: TrafficSplit | None = None) -> float:
        """Set the split; return when the data plane serves it.

        Parameters
        ----------
        split : TrafficSplit
            Asked for.
        instead_of : TrafficSplit, optional
            The one to be replaced; any by default.

        Returns
        -------
        float
            Seconds until it was in force.

        Raises
        ------
        EditedError
            Another split was in place; nothing was changed.
        RoutingError
            It was not in force after a bounded time, or cannot be served at all; says what was seen.
        """
        ...

    def observed(self) -> TrafficSplit:
        """Read the split back from the gateway."""
        ...

    def reset(self) -> None:
        """Return to 100 % stable and remove what the router added."""
        ...


def never() -> bool:
    """Answer that nobody has cancelled a wait."""
    return False


class WithoutRoute:
    """What a router does for a route beside its weights: nothing, where there is no route."""

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

    def let_testers_in(self) -> None:
        """Have the testers' header lead to the canary, where that is wanted."""

    def end_testers(self) -> None:
        """Have no header lead to the canary any more."""

    def promoted(self) -> None:
        """Know that stable is of the canary's version by now: it answers where that does."""
