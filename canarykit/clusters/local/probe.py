"""What one replica answers on its ready path, in the protocol that it speaks."""

from __future__ import annotations

import http.client

from canarykit.clusters.local import h2c
from canarykit.model import Protocol

__all__ = ["probe"]

_WITHIN = 2.0


def probe(port: int, path: str, protocol: Protocol = "http") -> int | str | None:
    """Ask a server on the loopback address.

    Parameters
    ----------
    port : int
        Where it listens.
    path : str
        What is asked for.
    protocol : {"http", "h2c"}
        What it should speak.

    Returns
    -------
    int, str or None
        Its status; in words, that it speaks another protocol; None when nobody answers.
    """
    try:
        return h2c.get(port, path, _WITHIN) if protocol == "h2c" else _get(port, path)
    except h2c.NotHttp2 as error:
        return f"{error}: leave out protocol="
    except http.client.HTTPException:  # also when it closes the connection without a word
        return 'the server gives no answer of HTTP/1.1: if it speaks HTTP/2 (h2c) only, set protocol="h2c"'
    except OSError:
        return None


def _get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_WITHIN)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
