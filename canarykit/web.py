"""One HTTP client for all that the kit asks: gateways, model servers, Prometheus, Envoy's administration."""

from __future__ import annotations

import socket
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.util import Timeout

from canarykit.protocol import is_loopback

__all__ = ["Answer", "Client", "NoAnswerError", "checked_token", "read_token"]

_PIECE = 1 << 16


class NoAnswerError(OSError):
    """Nobody answers, or not in time, or not in HTTP/1.1.

    Parameters
    ----------
    reason : str
        Reason, in words.
    connected : bool
        Whether there was a connection, and an answer that cannot be read, or none before the connection was closed.
    """

    def __init__(self, reason: str, *, connected: bool = False) -> None:
        super().__init__(reason)
        self.connected = connected


@dataclass(frozen=True, slots=True)
class Answer:
    """Response that was read.

    Attributes
    ----------
    status : int
        HTTP status; a redirect is not followed.
    headers : mapping of str to str
        Names are found in any case.
    body : bytes
        Bytes of the body, as far as they were read.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Client:
    """Sends requests to one address, one at a time, and keeps the connection.

    Parameters
    ----------
    url : str
        Address of the server, such as ``"https://prometheus.example"``.
    timeout : float
        Seconds to wait for a connection, and for each part of an answer.
    proxies : bool
        Whether to use the proxies that the environment names. What listens on this machine is asked directly: no proxy
        reaches it.
    unix : path, optional
        Socket in the file system that the server listens on, whatever `url` says.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        proxies: bool = False,
        unix: Path | None = None,
    ) -> None:
        parts = urlsplit(url)
        options: dict[str, Any] = {"timeout": Timeout(connect=timeout, read=timeout), "maxsize": 1, "retries": False}
        host = parts.hostname or ""
        direct = not proxies or is_loopback(host) or urllib.request.proxy_bypass(host)
        proxy = None if direct else urllib.request.getproxies().get(parts.scheme)
        self._timeout, self._root = timeout, f"{parts.scheme}://{parts.netloc}"
        self._connections = urllib3.ProxyManager(proxy, **options) if proxy else urllib3.PoolManager(**options)
        if unix:
            self._connections.pool_classes_by_scheme = {"http": partial(_UnixPool, unix)}  # type: ignore[dict-item]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        most: int | None = None,
    ) -> Answer:
        """Send a request, and read the answer.

        Parameters
        ----------
        method : str
            Such as ``"GET"``.
        path : str
            Path and query, from the root of the server.
        headers : mapping of str to str, optional
            More headers.
        body : bytes, optional
            Body of the request.
        most : int, optional
            Bytes to read of the answer's body at most, for as long as `timeout` at most; all of it by default.

        Raises
        ------
        NoAnswerError
            Nobody answers, or not in time, or not in HTTP/1.1.
        """
        try:
            response = self._connections.urlopen(
                method,
                self._root + path,
                body=body,
                headers=dict(headers or {}),
                redirect=False,
                preload_content=most is None,
                decode_content=False,
            )
            said = response.data if most is None else self._read(response, most)
        except (HTTPError, OSError, ValueError) as error:
            raise NoAnswerError(_reason(error), connected=isinstance(error, ProtocolError)) from error
        return Answer(response.status, response.headers, said)

    def close(self) -> None:
        """End the connection."""
        self._connections.clear()

    def _read(self, response: urllib3.BaseHTTPResponse, most: int) -> bytes:
        """Read the beginning of a body. A connection with more on it cannot be used again."""
        end, read, piece = time.monotonic() + self._timeout, b"", b""
        try:
            while len(read) < most and time.monotonic() < end and (piece := response.read1(min(_PIECE, most - len(read)))):
                read += piece
        except (HTTPError, OSError):
            response.close()  # the status is known
        if piece:
            response.close()
        response.release_conn()
        return read


class _UnixConnection(HTTPConnection):
    """Connection to a socket in the file system."""

    socket_path: str

    def _new_conn(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(self.timeout)
        made.connect(self.socket_path)
        return made


class _UnixPool(urllib3.HTTPConnectionPool):
    def __init__(self, path: Path, host: str, port: int | None, **options: Any) -> None:
        super().__init__(host, port, **options)
        self.ConnectionCls = type("Connection", (_UnixConnection,), {"socket_path": str(path)})


def _reason(error: BaseException) -> str:
    """Say what went wrong: errors of urllib3 are wrapped in one another, and show objects."""
    cause = getattr(error, "reason", None)
    while isinstance(cause, BaseException):
        error, cause = cause, getattr(cause, "reason", None)
    said = error.args[-1] if error.args else ""
    return str(said).partition(">: ")[2] or str(said) or type(error).__name__


def read_token(path: str | Path) -> str:
    """Read a bearer token from a file, anew for each request: tokens are replaced while they are used.

    Raises
    ------
    ValueError
        The file cannot be read, or holds no token; says which file, and nothing of what is in it.
    """
    try:
        return checked_token(Path(path).read_text(), f"the file {path}")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"the file {path} with the token cannot be read: {why}") from None


def checked_token(text: str, where: str) -> str:
    """Return a token without the blanks around it.

    Raises
    ------
    ValueError
        It is none; says where, and nothing of it.
    """
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"{where} holds no token: a token is one word of printable ASCII")
    return token
