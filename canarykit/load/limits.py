"""How many requests may be under way at once, so that a slow server does not slow down what is sent."""

from __future__ import annotations

import math
import resource

from canarykit.load.shapes import peak

__all__ = ["MOST_UNDER_WAY", "files_for", "most_under_way"]

MOST_UNDER_WAY = 10_000
"""Requests under way at most, whatever the rate: each needs some 10 kB of memory besides its answer, and a port of its own."""

_HEADROOM = 6.0
"""Standard deviations by which a Poisson count may exceed its mean."""
_SPARE = 16
_OTHER_FILES = 64
"""Files that the sending process opens besides its connections."""


def most_under_way(rate: float, shape: str, timeout: float) -> int:
    """Requests that are under way at most when a server answers nothing until the timeout.

    Parameters
    ----------
    rate : float
        Requests per second.
    shape : str
        Shape of the traffic: its peak counts.
    timeout : float
        Seconds after which a request is given up.
    """
    mean = rate * peak(shape) * timeout
    return min(MOST_UNDER_WAY, math.ceil(mean + _HEADROOM * math.sqrt(mean)) + _SPARE)


def files_for(connections: int) -> int:
    """Let this process open so many connections; return how many it may.

    Parameters
    ----------
    connections : int
        Wanted at once.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):  # some systems have a lower bound of their own
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return connections if soft == resource.RLIM_INFINITY else min(connections, max(1, soft - _OTHER_FILES))
