"""Content encodings of HTTP, decoded piece by piece: whoever sends some kilobytes may mean gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

__all__ = ["BrokenBody", "Decoder"]

_AT_ONCE = 256 * 1024
"""Bytes that are decoded at once: some kilobytes can become gigabytes."""
_GZIP, _ZLIB, _RAW = 31, 15, -15


class BrokenBody(Exception):
    """A body is not encoded as its headers say, or ends within."""


class Decoder:
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
        """Whether bodies are decoded; others are passed on as they are."""

    def decoded(self, encoded: bytes) -> Iterator[bytes]:
        """Yield what a piece says, in pieces of bounded size.

        Raises
        ------
        BrokenBody
            It is not encoded so.
        """
        if self._encoding not in ("gzip", "deflate"):
            yield encoded
            return
        while encoded:
            if self._inner is None or self._inner.eof:  # several members may follow each other
                self._inner = zlib.decompressobj(self._bits(encoded))
            yield from self._member(self._inner, encoded)
            encoded = self._inner.unused_data

    def close(self) -> None:
        """Hold that all has come; an empty body is whole.

        Raises
        ------
        BrokenBody
            Something is missing.
        """
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
