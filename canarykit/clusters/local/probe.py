"""What one replica answers on its ready path, in the protocol that it speaks."""

from __future__ import annotations

from collections.abc import Mapping

from canarykit.clusters.local import h2c
from canarykit.clusters.local.listening import Address
from canarykit.model import Protocol
from canarykit.web import Answer, Client, NoAnswerError

__all__ = ["get", "probe", "serves"]

_WITHIN = 2.0
_READ_MOST = 1 << 20
_LOCAL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_METRICS = ("text/plain; version=", "application/openmetrics-text")
"""Content types of Prometheus metrics. Their servers give them on any path."""
_UNREADABLE = 'the server gives no answer of HTTP/1.1: if it speaks HTTP/2 (h2c) only, set protocol="h2c"'


def probe(port: int, path: str, protocol: Protocol = "http") -> int | str | None:
    """Ask a server on the loopback address.

    Parameters
    ----------
    port : int
        Where it listens.
    path : str
        Path of the request.
    protocol : {"http", "h2c"}
        Expected protocol.

    Returns
    -------
    int, str or None
        Its status; in words, that it speaks another protocol; None when nobody answers.
    """
    try:
        return h2c.get(port, path, _WITHIN) if protocol == "h2c" else get(port, path)
    except h2c.NotHttp2Error as error:
        return f"{error}: leave out protocol="
    except NoAnswerError as error:
        return _UNREADABLE if error.connected else None
    except OSError:
        return None


def serves(address: Address, path: str, protocol: Protocol = "http") -> bool:
    """Whether a server answers a GET with any status at an address, other than with Prometheus metrics.

    Parameters
    ----------
    address : Address
        Address on this machine.
    path : str
        Path of the request.
    protocol : {"http", "h2c"}
        Expected protocol.
    """
    host = _LOCAL.get(address.host, address.host)
    try:
        if protocol == "h2c":
            return bool(h2c.get(address.port, path, _WITHIN, host=host))
        return not _ask(host, address.port, path).headers.get("content-type", "").startswith(_METRICS)
    except OSError:
        return False


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> int:
    """Status of a GET of HTTP/1.1 on the loopback address.

    Raises
    ------
    NoAnswerError
        Nobody answers, or in another protocol.
    """
    return _ask("127.0.0.1", port, path, headers).status


def _ask(host: str, port: int, path: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask, and take the whole answer: a server that still sends when the connection is closed may log an error."""
    with Client(f"http://{f'[{host}]' if ':' in host else host}:{port}", timeout=_WITHIN) as client:
        return client.ask("GET", path, headers=headers, most=_READ_MOST)
