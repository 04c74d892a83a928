"""Headers that every request gets, checked before anything is sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from canarykit.errors import PlanError
from canarykit.protocol import REQUEST_ID_HEADER

__all__ = ["checked_headers"]

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_AROUND = " \t\r\n"
_OF_THE_SENDER = frozenset({
    REQUEST_ID_HEADER, "content-length", "transfer-encoding", "expect", "upgrade", "te", "trailer",
})  # fmt: skip
"""What the sender says itself: each request has an id of its own, and the body's form is known."""
_UNDERSTOOD = frozenset({"gzip", "deflate", "identity"})


def checked_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return headers by their names in small letters, without white space around values: a token's file ends with a line feed.

    Parameters
    ----------
    headers : mapping of str to str, optional
        Sent with each request.

    Raises
    ------
    PlanError
        A header that cannot be sent. It says the header's name, and never the value, which may be a token.
    """
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise PlanError(f"headers= takes names and texts, such as {{'host': 'ai.example.com'}}, not a {_kind(headers)}")
    checked: dict[str, str] = {}
    for number, (name, value) in enumerate(headers.items(), start=1):
        # Such a name is not shown: "authorization: Bearer …" may stand there as a whole.
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise PlanError(f"headers= has a name (the {number}. one) that is none: it holds letters, digits and hyphens only")
        if name.lower() in checked:
            raise PlanError(f"headers= has {name!r} twice; small and capital letters are the same there")
        checked[name.lower()] = _value(name, value)
    return checked


def _value(name: str, value: object) -> str:
    if name.lower() in _OF_THE_SENDER:
        raise PlanError(f"headers= has {name!r}, which the sender sets itself for each request: leave it out")
    if not isinstance(value, str):
        unset = ": is a variable not set?" if value is None else f': write it as text, {{"{name}": "…"}}'
        raise PlanError(f"headers= has {_kind(value)} for {name!r}, not text{unset}")
    value = value.strip(_AROUND)
    if _CONTROL.search(value) or any("\ud800" <= sign <= "\udfff" for sign in value):
        raise PlanError(f"headers= has a value for {name!r} with a line feed or another sign that no header holds")
    if (
        name.lower() == "accept-encoding"
        and not {part.split(";")[0].strip().lower() for part in value.split(",")} <= _UNDERSTOOD
    ):
        raise PlanError(
            f"headers= asks for an encoding with {name!r} that the sender cannot read: choose of gzip, deflate, identity"
        )
    return value


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
