"""One GET over HTTP/2 without TLS, for servers that speak nothing else. Of the answer only the status is read."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

__all__ = ["NotHttp2", "get"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RESET, _SETTINGS, _GOAWAY = 1, 3, 4, 7
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x4, 0x8, 0x20
_STREAM = 1
_LARGEST_FRAME = 16_384
"""Bytes that a peer may put into a frame unless it was allowed more (RFC 9113, section 4.2)."""

# HPACK, RFC 7541, appendix A: where names and values stand in the static table.
_AUTHORITY, _METHOD_GET, _PATH, _SCHEME_HTTP = 1, 0x82, 4, 0x86
_STATUSES = {8: 200, 9: 204, 10: 206, 11: 304, 12: 400, 13: 404, 14: 500}
_HUFFMAN_DIGITS = {format(digit, "05b") if digit < 3 else format(digit + 22, "06b"): digit for digit in range(10)}


class NotHttp2(OSError):
    """Whoever answers does not speak HTTP/2 without TLS."""


def get(port: int, path: str, timeout: float = 2.0, *, host: str = "127.0.0.1") -> int:
    """Return the status of a GET on the loopback address.

    Parameters
    ----------
    port : int
        Where the server listens.
    path : str
        Path of the request.
    timeout : float
        Seconds for the whole exchange.
    host : str
        Address of this machine.

    Raises
    ------
    NotHttp2
        The server speaks something else.
    OSError
        Nobody listens, or no answer comes in time.
    """
    end = time.monotonic() + timeout
    with socket.create_connection((host, port), timeout) as connection:
        fields = bytes([_METHOD_GET, _SCHEME_HTTP]) + _field(_PATH, path) + _field(_AUTHORITY, f"127.0.0.1:{port}")
        connection.sendall(
            _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, _END_STREAM | _END_HEADERS, _STREAM, fields)
        )
        for kind, flags, stream, content in _frames(connection, end):
            if kind == _GOAWAY or (kind == _RESET and stream == _STREAM):
                raise ConnectionResetError("the server refused the request")
            if kind == _HEADERS and stream == _STREAM and (status := _status(_block(flags, content))) >= 200:
                return status
    raise AssertionError  # frames end with an answer or with an error


def _field(name: int, value: str) -> bytes:
    """A header field with a name of the static table, not indexed."""
    text = value.encode()
    return bytes([name]) + _length(len(text)) + text


def _length(number: int) -> bytes:
    """A whole number with a prefix of seven bits."""
    if number < 127:
        return bytes([number])
    number, written = number - 127, bytearray([127])
    while number >= 128:
        written.append(number % 128 + 128)
        number //= 128
    return bytes([*written, number])


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def _frames(connection: socket.socket, end: float) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, stream and content of each frame that comes in time."""
    first = True
    while True:
        head = _read(connection, 9, end)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if length > _LARGEST_FRAME or (first and kind != _SETTINGS):
            raise NotHttp2("the server does not speak HTTP/2 without TLS (h2c)")
        first = False
        yield kind, flags, int.from_bytes(head[5:], "big") & 0x7FFF_FFFF, _read(connection, length, end)


def _read(connection: socket.socket, length: int, end: float) -> bytes:
    read = b""
    while len(read) < length:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        connection.settimeout(left)
        piece = connection.recv(length - len(read))
        if not piece:
            raise ConnectionResetError("the server closed the connection")
        read += piece
    return read


def _block(flags: int, content: bytes) -> bytes:
    """The header block of a HEADERS frame, without padding and priority."""
    padding = content[0] if flags & _PADDED else 0
    begin = (1 if flags & _PADDED else 0) + (5 if flags & _PRIORITY else 0)
    return content[begin : len(content) - padding]


def _status(block: bytes) -> int:
    """The status, which is the first field of an answer."""
    while block and block[0] & 0xE0 == 0x20:  # the size of the table is changed before it
        block = block[1:]
    try:
        if block[0] & 0x80:
            return _STATUSES[block[0] & 0x7F]
        name = block[0] & (0x3F if block[0] & 0x40 else 0x0F)
        length = block[1] & 0x7F
        text = block[2 : 2 + length]
        if name not in _STATUSES:
            raise KeyError(name)
        return _huffman(text) if block[1] & 0x80 else int(text)
    except (IndexError, KeyError, ValueError) as error:
        raise NotHttp2("the server's answer does not begin with a status, as one of HTTP/2 does") from error


def _huffman(text: bytes) -> int:
    bits, number = "".join(f"{byte:08b}" for byte in text), 0
    for _ in range(3):
        code = bits[:5] if bits[:5] in _HUFFMAN_DIGITS else bits[:6]
        number, bits = number * 10 + _HUFFMAN_DIGITS[code], bits[len(code) :]
    return number
