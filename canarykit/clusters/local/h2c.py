"""One GET over HTTP/2 without TLS, for servers that speak nothing else. Only the status of the answer is read."""

from __future__ import annotations

import socket
import time

__all__ = ["NotHttp2Error", "get"]

_STREAM = 1
_SETTINGS = b"\x04"
"""Type of the frame that a server of HTTP/2 sends first (RFC 9113, section 3.4)."""


class NotHttp2Error(OSError):
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
    NotHttp2Error
        The server speaks something else.
    OSError
        Nobody listens, or no answer comes in time.
    """
    from h2.connection import H2Connection  # part of the extra "local", and needed by few
    from h2.events import ConnectionTerminated, ResponseReceived, StreamReset
    from h2.exceptions import ProtocolError

    end, session, said = time.monotonic() + timeout, H2Connection(), b""
    with socket.create_connection((host, port), timeout) as connection:
        session.initiate_connection()
        fields = {":method": "GET", ":scheme": "http", ":path": path, ":authority": f"127.0.0.1:{port}"}
        session.send_headers(_STREAM, list(fields.items()), end_stream=True)
        connection.sendall(session.data_to_send())
        while (left := end - time.monotonic()) > 0:
            connection.settimeout(left)
            if not (piece := connection.recv(1 << 16)):
                raise ConnectionResetError("the server closed the connection")
            said += piece
            try:
                if said[3:4] not in (b"", _SETTINGS):
                    raise ProtocolError
                events = session.receive_data(piece)
            except ProtocolError as error:
                raise NotHttp2Error("the server does not speak HTTP/2 without TLS (h2c)") from error
            for event in events:
                if isinstance(event, ResponseReceived) and event.stream_id == _STREAM:
                    return int(dict(event.headers or ())[b":status"])
                if isinstance(event, ConnectionTerminated | StreamReset):
                    raise ConnectionResetError("the server refused the request")
            connection.sendall(session.data_to_send())
    raise TimeoutError("no answer in time")
