"""Why a request is lost, in a word or a few. Pure."""

from __future__ import annotations

import re

from canarykit.statuses import LIMIT_FLAG

__all__ = ["BROKEN_OFF", "UNACCOUNTED", "UNREADABLE", "at_limit", "broken_off_by", "lost_by"]

BROKEN_OFF = "broken off"
"""An answer ended after its headers and before its end."""

UNREADABLE = "unreadable"
"""An answer does not begin as one of HTTP does, or has headers that are too large."""

UNACCOUNTED = "unaccounted for"
"""A sender sent it, and nobody was told how it ended."""

_LIMIT = " limit of "
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,6})?")


def lost_by(status: int, flags: str | None, *, unsigned: bool = False, limit: str | None = None) -> str | None:
    """Say why a request was lost, though there is an answer; None when the server itself answered.

    Parameters
    ----------
    status : int
        Status of the answer.
    flags : str, optional
        The gateway's response flags; None when no gateway of ours answered.
    unsigned : bool
        It does not say which version it is from, and others do.
    limit : str, optional
        Seconds after which the gateway ends a request, as it says itself.
    """
    if status < 500:
        return None
    by_gateway = unsigned or status in (502, 503, 504) if flags is None else flags != "-"
    if not by_gateway:
        return None
    ended = LIMIT_FLAG in (flags or "").split(",") and _seconds(limit) is not None
    return f"gateway {status} at its{_LIMIT}{limit} s" if ended else f"gateway {status}"


def broken_off_by(limit: str | None, lasted: float) -> str:
    """Say why an answer broke off.

    Parameters
    ----------
    limit : str, optional
        See `lost_by`.
    lasted : float
        Seconds from the request's begin to the end of what came.
    """
    seconds = _seconds(limit)
    return BROKEN_OFF if seconds is None or lasted < seconds else f"{BROKEN_OFF} at the gateway's{_LIMIT}{limit} s"


def at_limit(cause: str) -> bool:
    """Whether a request was lost at the gateway's limit."""
    return _LIMIT in cause


def _seconds(limit: str | None) -> float | None:
    """A limit as a number; None when it is none: any server may send such a header."""
    return float(limit) if limit is not None and _SECONDS.fullmatch(limit) else None
