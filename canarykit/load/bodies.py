"""Bodies of answers: read to their end, decoded, and kept only as far as somebody reads them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import aiohttp

__all__ = ["ACCEPTED", "MOST_KEPT", "BrokenBody", "body_of"]

ACCEPTED = "gzip, deflate"
"""What a server may encode its answers with, whatever else this machine could decode."""

MOST_KEPT = 16 * 1024 * 1024
"""Bytes of one decoded answer that are kept at most: thousands may be under way."""

_AT_ONCE = 256 * 1024
"""Bytes that are decoded at once: some kilobytes can become gigabytes."""
_GZIP, _ZLIB, _RAW = 31, 15, -15


class BrokenBody(Exception):
    """A body is not encoded as its headers say, or ends within."""


async def body_of(response: aiohttp.ClientResponse, *, kept: bool) -> bytes | None:
    """Read a body to its end.

    Parameters
    ----------
    response : ClientResponse
        Of a session that does not decode by itself.
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
    decoder = _Decoder(response.headers.get("content-encoding", ""))
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


class _Decoder:
    """Decodes a body piece by piece.

    Parameters
    ----------
    encoding : str
        Header ``content-encoding``.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding.strip().lower().removeprefix("x-")
        self._inner: zlib._Decompress | None = None
        self.known = self._encoding in ("", "identity", "gzip", "deflate")

    def decoded(self, encoded: bytes) -> Iterator[bytes]:
        """Yield what a piece says, in pieces of bounded size."""
        if self._encoding not in ("gzip", "deflate"):
            yield encoded
            return
        while encoded:
            if self._inner is None or self._inner.eof:  # several members may follow each other
                self._inner = zlib.decompressobj(self._bits(encoded))
            yield from self._member(self._inner, encoded)
            encoded = self._inner.unused_data

    def close(self) -> None:
        """Hold that all has come; an empty body is whole."""
        if self._inner is not None and not self._inner.eof:
            raise BrokenBody

    def _bits(self, encoded: bytes) -> int:
        """Deflate comes with a header of zlib, as it should, or without."""
        return _GZIP if self._encoding == "gzip" else _ZLIB if encoded[0] & 0x0F == 8 else _RAW

    @staticmethod
    def _member(inner: zlib._Decompress, encoded: bytes) -> Iterator[bytes]:
        while True:
            try:
                piece = inner.decompress(encoded, _AT_ONCE)
            except zlib.error as error:
                raise BrokenBody from error
            yield piece
            encoded = inner.unconsumed_tail
            if inner.eof or (not encoded and len(piece) < _AT_ONCE):
                return
