"""Bodies of answers: read to their end, decoded, and kept only as far as somebody reads them."""

from __future__ import annotations

import aiohttp

from canarykit.encodings import Decoder

__all__ = ["ACCEPTED", "MOST_KEPT", "body_of"]

ACCEPTED = "gzip, deflate"
"""What a server may encode its answers with, whatever else this machine could decode."""

MOST_KEPT = 16 * 1024 * 1024
"""Bytes of one decoded answer that are kept at most: thousands may be under way."""


async def body_of(response: aiohttp.ClientResponse, *, kept: bool) -> bytes | None:
    """Read a body to its end.

    Parameters
    ----------
    response : ClientResponse
        Response of a session that does not decode by itself.
    kept : bool
        Whether somebody reads it. Otherwise it is only seen whether it is whole.

    Returns
    -------
    bytes or None
        None when it is not kept, is longer than `MOST_KEPT`, or is encoded in another way than was asked for.

    Raises
    ------
    BrokenBody
        It is not encoded as its headers say, or ends within.
    """
    decoder = Decoder(response.headers.get("content-encoding", ""))
    body = bytearray()
    kept = kept and decoder.known
    async for encoded in response.content.iter_any():
        for piece in decoder.decoded(encoded):
            kept = kept and len(body) + len(piece) <= MOST_KEPT
            if kept:
                body += piece
            else:
                body.clear()
    decoder.close()
    return bytes(body) if kept else None
