"""When a new split is believed to be in force: the answers of the gateway as a sequential test."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from canarykit.errors import RoutingError
from canarykit.interrupts import never
from canarykit.model import TrafficSplit

__all__ = ["Patience", "until_served"]

_SURE = math.log(1e5)
"""Evidence at which a change is believed. Before it is in force, each answer of the old split is an opportunity to be wrong:
at 1e5 to 1 for the first hundred, and more with the square of their number, that happens twice in a thousand changes,
however long it takes."""

_REST = 0.005
"""Seconds between answers that can only be of the old split: the gateway has the change to take up meanwhile."""

_STEADY = 5.0
"""Seconds after which an answer of the gateway itself, such as 401, is known to be no passing one."""

_LOGINS = (401, 403, 405, 407)
"""Statuses that say of a page which is there who may have it, or how."""

_MAX_PROBES = 1000
_FEW = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a change is waited for, and what is believed without being seen.

    Parameters
    ----------
    within : float
        Seconds until it must be in force.
    settle : float
        Seconds after which it is believed where no answer says who gave it.
    any_refusal : bool
        Believe also where the gateway answers nothing but 404 or redirects: the route is a team's own, which serves already.
    notify : callable
        Takes one line when something is believed that was not seen.
    cancelled : callable
        Says when nobody wants to know any more.
    """

    within: float = 30.0
    settle: float = 1.0
    any_refusal: bool = False
    notify: Callable[[str], object] = lambda line: None
    cancelled: Callable[[], bool] = never


def until_served(
    probe: Callable[[], str | None], before: TrafficSplit | None, after: TrafficSplit, *, what: str, patience: Patience
) -> bool:
    """Ask the gateway until the answers show the new split rather than the old one.

    The answers are a sequential test for a change (Page's cumulative sum): the likelihood of the new split over that of the
    old one, from the answer on from which that is greatest. A change that is too small to be seen in a thousand answers,
    or in a hundred when the time is over, is believed unless they speak against it as clearly; the counts of the rollout
    itself keep checking it. So is any change where no answer says who gave it, but not before it had time to settle, and any
    where the gateway turns every question away in the same manner, such as with 401: that is told once.

    Once the wait is cancelled it returns after the answer that is under way, whatever that shows.

    Parameters
    ----------
    probe : callable
        Asks once, and returns who answered.
    before, after : TrafficSplit
        The old split, None when it is not known, and the new one.
    what : str
        The route, for messages.
    patience : Patience
        How long, and what is believed.

    Returns
    -------
    bool
        Whether the split is believed; False when the wait was cancelled.

    Raises
    ------
    RoutingError
        The gateway did not serve the split in time; says what it did.
    """
    begun, silent, asked, seen = time.monotonic(), 0, 0, {"stable": 0, "canary": 0}
    end, settled = begun + patience.within, begun + patience.settle
    turned_away = _TurnedAway(probe, what, after, patience)
    # What was written before need not have been served: an object of that name was there a moment ago.
    shift = _Shift(None if before == after else before, after)
    while True:
        role, over, asked = probe(), time.monotonic() > end, asked + 1
        if patience.cancelled():
            return False
        if role in ("stable", "canary"):
            seen[role] += 1
            shift.take(role)
            if shift.shown(asked, over=over):
                return True
            if not shift.fits:
                time.sleep(_REST)
        else:
            silent += role == ""
            if role == "" and silent >= 3 and (over or time.monotonic() >= settled):
                return True  # no one says who answers: the counts of the rollout have to tell
            if role != "" and not silent and not any(seen.values()) and turned_away.believed(over=over):
                return True
            time.sleep(0.02)
        if over:
            late = f"after {patience.within:g} s the gateway does not serve it: {_counted(seen, asked, probe)}"
            raise RoutingError(f"{what} was given {after} for the canary, and {late}")


def _counted(seen: Mapping[str, int], asked: int, probe: Callable[[], str | None]) -> str:
    """Say who answered, and what may be wrong."""
    total = sum(seen.values())
    said = f"{seen['canary']} of {total} answers came from the canary"
    last, asks = getattr(probe, "last", ""), getattr(probe, "asks", "")
    asked_for = f" It was asked for {asks}." if asks else ""
    return (
        f"{said if total else f'no version answers ({last})'} in {asked} requests. "
        f"Does the route reach this gateway, and does nobody else change it?{asked_for}"
    )


class _Shift:
    """Evidence that the new split is served rather than the old one."""

    def __init__(self, before: TrafficSplit | None, after: TrafficSplit) -> None:
        self._before, self._after = before, after
        self._evidence, self._balance = 0.0, 0.0
        self.fits = 0
        """Answers since the last one that the new split cannot give."""

    def take(self, role: str) -> None:
        """Take in who answered."""
        gain = _gain(role, self._before, self._after)
        if gain == -math.inf:  # not in force at this moment, for certain
            self._evidence, self._balance, self.fits = 0.0, 0.0, 0
        else:
            self._evidence, self._balance = max(self._evidence + gain, 0.0), self._balance + gain
            self.fits += 1

    def shown(self, asked: int, *, over: bool) -> bool:
        """Whether the new split is believed after so many answers."""
        if not self.fits:
            return False
        if self._evidence >= _SURE + 2 * math.log(max(asked / _FEW, 1)):
            return True
        return self.fits >= (_FEW if over else _MAX_PROBES) and self._balance > -_SURE


class _TurnedAway:
    """Questions that the gateway itself turns away: whether the same comes of each, and what that means."""

    def __init__(self, probe: Any, what: str, after: TrafficSplit, patience: Patience) -> None:
        self._probe, self._what, self._after, self._patience = probe, what, after, patience
        self._status: int | None = None
        self._since, self._times, self._told = 0.0, 0, False

    def believed(self, *, over: bool) -> bool:
        """Take in the last answer, which was of no version; whether the split is to be believed all the same.

        Raises
        ------
        RoutingError
            Every answer is a redirect: it is of no use to ask on.
        """
        status, now = getattr(self._probe, "refused", None), time.monotonic()
        if status is None or status != self._status:
            self._status, self._since, self._times = status, now, 0
        self._times += 1
        known = status is not None and status == self._probe.believed
        wait = self._patience.settle if known else max(_STEADY, self._patience.settle)
        if status is None or self._times < 3 or not (over or now - self._since >= wait):
            return False
        said = f"the gateway answers {self._probe.asks} with {self._probe.last}"
        if not (self._patience.any_refusal or status in _LOGINS):
            if status < 400:
                raise RoutingError(f"{self._what} was given {self._after} for the canary, and {said}")
            self._tell_once(f"{said} so far: does url= lead to the gateway of this route, and hostname= to the route?")
            return False  # such as 404 of a route that nobody has taken up yet
        if not known:
            self._probe.believed = status
            self._patience.notify(
                f"{self._what}: {said}, so that nobody sees from here which version serves. {self._after} is believed after "
                f"{wait:g} s, and the counts of the rollout check it; give url= and hostname= by which the versions answer"
            )
        return True

    def _tell_once(self, said: str) -> None:
        if not self._told:
            self._told = True
            self._patience.notify(f"{self._what}: {said}")


def _gain(role: str, before: TrafficSplit | None, after: TrafficSplit) -> float:
    """Log likelihood ratio of one answer; a split of exactly 0 or 100 % cannot answer otherwise."""
    new = after.share if role == "canary" else 1 - after.share
    if new == 0:
        return -math.inf
    if before is None:
        return 1.0  # nothing to compare with: answers that fit are enough
    old = before.share if role == "canary" else 1 - before.share
    return math.log(new / old) if old else math.inf
