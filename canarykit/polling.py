"""Waiting for something outside: ask, rest, ask again, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from canarykit.interrupts import never

__all__ = ["poll"]

Answer = TypeVar("Answer")


def poll(ask: Callable[[], Answer], *, within: float, every: float, cancelled: Callable[[], bool] = never) -> Answer:
    """Ask until the answer is true, the time is over, or the wait is cancelled.

    It asks at least once, and once more after the time is over, so that a slow machine does not end a wait unasked.

    Parameters
    ----------
    ask : callable
        Returns something true when the wait is over; an error that it raises ends the wait.
    within : float
        Seconds to wait at most.
    every : float
        Seconds between two answers.
    cancelled : callable
        Asked after each answer; once it says True, the wait ends.

    Returns
    -------
    object
        The last answer: false when the time was over, or the wait cancelled.
    """
    end = time.monotonic() + within
    while True:
        over = time.monotonic() >= end
        answer = ask()
        if answer or over or cancelled():
            return answer
        time.sleep(every)
