"""The weight that a budget of harm allows. Pure."""

from __future__ import annotations

import math

from canarykit.analysis.harm import Harm
from canarykit.plan import Pace

__all__ = ["budget", "paced_weight"]

_START, _LEAST = 1.0, 0.01
"""Percent at first where no traffic is known, and the smallest weight."""


def paced_weight(pace: Pace, harm: Harm, *, interval: float, now: float, delay: float = 0.0) -> float:
    """Return the weight that a budget of harm allows until something can be done about it, percent.

    Parameters
    ----------
    pace : Pace
        The budget.
    harm : Harm
        How many more of the canary's requests go badly than of stable's, at most.
    interval : float
        Seconds between two decisions.
    now : float
        On the clock of the windows, seconds.
    delay : float
        Seconds until a finished request is counted, at most.

    Returns
    -------
    float
        budget ÷ (excess · rate · time), with two digits. The time is that of the requests that are as dangerous as the next
        ones: those that were sent and are not counted yet, and those of two intervals, because what the first one shows
        changes the second at the earliest, and an alarm takes more than one look.
    """
    rate, share = harm.rate, harm.share
    if not harm.outcomes[1].any() and pace.start is not None:
        return pace.start
    if not rate > 0:
        return min(_START, pace.max_weight)
    seconds = interval + max(interval + delay, now - harm.until + interval)
    weight = 100 * pace.harm / (share * rate * seconds) if share else math.inf
    return min(float(f"{max(weight, _LEAST):.2g}"), pace.max_weight)


def budget(pace: Pace, harm: Harm) -> str:
    """Say in words why the weight is what it is."""
    share = harm.share
    worse = "any of its requests may go badly" if share >= 1 else f"at most {100 * share:.2g} % more go badly than with stable"
    return f"{worse}, and {pace.harm:g} may until something can be done about it"
