"""Requests as they are sent: method, bytes of the body, content type and compression. Pure."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from canarykit.errors import PlanError
from canarykit.load.headers import checked_headers
from canarykit.load.payloads import NO_BODY, Payload

__all__ = ["METHODS", "carried", "checked_method", "content_type_of", "form", "has_body", "portable"]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, mtime=0),  # without the time: the same payloads give the same bytes
    "deflate": zlib.compress,
}
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+\s*(;.*)?")
_NO_JSON = (
    "text/",
    "image/",
    "audio/",
    "video/",
    "multipart/",
    "application/x-www-form-urlencoded",
    "application/octet-stream",
)


def checked_method(method: str) -> str:
    """Return a method in capitals.

    Raises
    ------
    PlanError
        It is none that is sent.
    """
    if not isinstance(method, str) or method.upper() not in METHODS:
        raise PlanError(f"method= is one of {', '.join(METHODS)}, not {method!r}")
    return method.upper()


def has_body(method: str) -> bool:
    """Whether requests of a method usually have a body."""
    return method in _WITH_BODY


def form(
    payloads: Sequence[Payload], headers: Mapping[str, str] | None, content_type: str | None, compression: str | None
) -> dict[str, Any]:
    """Return what a sender is told: `headers`, `bodies`, and `content_types` where payloads have their own.

    Parameters
    ----------
    payloads : sequence of Payload
        Payloads to send.
    headers : mapping of str to str, optional
        Sent with each request.
    content_type : str, optional
        Content type of all payloads without one of their own.
    compression : {"gzip", "deflate"}, optional
        How bodies are compressed.

    Raises
    ------
    PlanError
        Headers, content types or a compression that cannot be sent, or that contradict each other or the bodies.
    """
    checked = checked_headers(headers)
    if content_type is not None:
        if "content-type" in checked:
            raise PlanError("content_type= and a content-type in headers= are given: leave out one of them")
        checked["content-type"] = _media_type("content_type=", content_type)
    types = [
        None if payload.content_type is None else _media_type(f'"content_type" of payload {number}', payload.content_type)
        for number, payload in enumerate(payloads, start=1)
    ]
    usual = checked.get("content-type")
    bodies = [
        _encoded(f"payload {number}", payload.body, own or usual)
        for number, (payload, own) in enumerate(zip(payloads, types, strict=True), start=1)
    ]
    if compression is not None:
        # What was text is sent as bytes, and keeps its content type.
        types = [own or usual or content_type_of(portable(body)) for own, body in zip(types, bodies, strict=True)]
        bodies = _compressed(bodies, compression, checked)
    elif "content-encoding" in checked and any(isinstance(body, str) for body in bodies):
        raise PlanError(
            "headers= has a content-encoding, and a payload is not encoded bytes: leave the header out, and let "
            'compression="gzip" (or "deflate") encode all bodies'
        )
    told = {"headers": checked, "bodies": [portable(body) for body in bodies]}
    return told | ({"content_types": types} if any(types) else {})


def portable(body: str | bytes | None) -> str | dict[str, str] | None:
    """Return a body as JSON holds it: bytes in Base64."""
    return {"base64": base64.b64encode(body).decode()} if isinstance(body, bytes) else body


def carried(body: str | Mapping[str, str] | None) -> bytes | None:
    """Return the bytes that `portable` wrote; None where a request has no body."""
    if body is None:
        return None
    return body.encode() if isinstance(body, str) else base64.b64decode(body["base64"])


def content_type_of(body: str | Mapping[str, str] | None) -> str | None:
    """Content type of a body that was given none."""
    return None if body is None else "application/json" if isinstance(body, str) else "application/octet-stream"


def _media_type(where: str, value: object) -> str:
    if not isinstance(value, str) or not _MEDIA_TYPE.fullmatch(value.strip()):
        raise PlanError(f'{where} is a media type such as "image/png" or "text/plain; charset=utf-8", not {value!r}')
    return checked_headers({"content-type": value})["content-type"]


def _encoded(where: str, body: Any, content_type: str | None) -> str | bytes | None:
    """A body as text or bytes. Text is JSON, too, unless its content type is another."""
    if body is NO_BODY:
        return None
    if isinstance(body, bytes):
        return body
    if content_type is None or "json" in content_type.lower():
        return json.dumps(body)
    if isinstance(body, str):
        try:
            body.encode()
        except UnicodeEncodeError as error:
            raise PlanError(f"{where} cannot be written in UTF-8: {error}") from error
        return body
    if content_type.lower().startswith(_NO_JSON):
        raise PlanError(
            f"{where} has the content type {content_type!r}, and its body is neither text nor bytes: give what is sent as "
            'text or bytes, in a file as {"body_base64": "…"}'
        )
    return json.dumps(body)


def _compressed(bodies: Sequence[str | bytes | None], compression: str, headers: dict[str, str]) -> list[str | bytes | None]:
    """Compress bodies, and say so in the headers."""
    if not isinstance(compression, str) or compression not in _COMPRESSIONS:
        raise PlanError(f'compression= is "gzip" or "deflate", or None, not {compression!r}')
    if "content-encoding" in headers:
        raise PlanError("compression= and a content-encoding in headers= are given: leave out one of them")
    if all(body is None for body in bodies):
        raise PlanError("compression= is given, and no request has a body")
    headers["content-encoding"] = compression
    pack = _COMPRESSIONS[compression]
    raw = (body.encode() if isinstance(body, str) else body for body in bodies)
    return [None if body is None else pack(body) for body in raw]
