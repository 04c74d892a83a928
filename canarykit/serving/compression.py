"""Compressed requests are read, up to a bound; answers are compressed for who asks for it, where it is worth it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from canarykit.encodings import BrokenBody, Decoder

__all__ = ["LARGEST_BODY", "Compressed", "body_of", "chosen"]

LARGEST_BODY = 64 * 1024 * 1024
"""Bytes that a request may have, decoded; Triton's default."""

_WORTH = 1000
"""Bytes from which on an answer becomes shorter by more than a packet's head."""

_LEVEL = 1  # the fastest: the loop waits meanwhile
_ENCODERS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, _LEVEL, mtime=0),
    "deflate": lambda body: zlib.compress(body, _LEVEL),
}


async def body_of(request: Request) -> bytes:
    """Return the decoded body of a request.

    Raises
    ------
    HTTPException
        415: another encoding than gzip or deflate. 413: longer than `LARGEST_BODY`, decoded. 400: not encoded as it says.
    """
    encoding = request.headers.get("content-encoding", "")
    decoder, body = Decoder(encoding), bytearray()
    if not decoder.known:
        raise HTTPException(415, f"content-encoding {encoding!r} is not read here: send gzip, deflate or none")
    try:
        async for encoded in request.stream():
            for piece in decoder.decoded(encoded):
                body += piece
                if len(body) > LARGEST_BODY:
                    raise HTTPException(413, f"the request has more than {LARGEST_BODY:,} bytes, decoded")
        decoder.close()
    except BrokenBody as error:
        raise HTTPException(400, f"the request is not encoded in {encoding}, as its header says") from error
    return bytes(body)


def chosen(accepted: str) -> str | None:
    """Return how an answer is encoded for a header ``accept-encoding``; None when it is not."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        try:
            weights[name.removeprefix("x-")] = float(weight)
        except ValueError:
            return None
    wanted = {name: weights.get(name, weights.get("*", 0.0)) for name in _ENCODERS}
    best = max(wanted, key=lambda name: wanted[name])
    return best if wanted[best] > 0 and wanted[best] >= weights.get("identity", 0.0) else None


class Compressed:
    """Encodes answers that come in one piece, as all of this server do."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept-encoding")
        encoding = chosen(accepted.decode("latin-1"))
        begun: list[Message] = []

        async def encoded(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
                return
            body = message.get("body", b"")
            if begun:
                start = begun.pop()
                if encoding is not None and len(body) >= _WORTH and not message.get("more_body"):
                    body = _ENCODERS[encoding](body)
                    length = (b"content-length", str(len(body)).encode())
                    kept = [field for field in start["headers"] if field[0] != b"content-length"]
                    start["headers"] = [*kept, length, (b"content-encoding", encoding.encode())]
                start["headers"] = [*start["headers"], (b"vary", b"accept-encoding")]
                await send(start)
            await send({**message, "body": body})

        await self._app(scope, receive, encoded)
