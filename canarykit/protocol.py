"""Words that the gateway, the load and the telemetry must agree on, and what is an address."""

import ipaddress
import re
from urllib.parse import urlsplit

from canarykit.errors import PlanError

__all__ = [
    "FLAGS_HEADER",
    "FORCED_ROUTE",
    "INSTANCE_HEADER",
    "LIMIT_HEADER",
    "LOG_FIELDS",
    "METADATA",
    "METRICS_PORT",
    "PING_PATH",
    "REQUEST_ID_HEADER",
    "ROLE_HEADER",
    "SPLIT_ROUTE",
    "VERSION_HEADER",
    "check_address",
    "is_loopback",
    "request_path",
]

ROLE_HEADER = "x-canarykit-role"
"""On a request: which version must answer it. On a response: which one did, said by the gateway."""

VERSION_HEADER = "x-canarykit-version"
"""On a response: the name of the version that answered."""

INSTANCE_HEADER = "x-canarykit-instance"
"""On a response: the replica that answered."""

FLAGS_HEADER = "x-canarykit-flags"
"""On a response: what went wrong on the way, in the gateway's own flags; ``-`` when nothing did."""

LIMIT_HEADER = "x-canarykit-limit"
"""On a response: seconds after which the gateway ends a request, whatever its version does."""

REQUEST_ID_HEADER = "x-request-id"

METADATA = "canarykit"
"""Namespace of the endpoint metadata that names the version and the replica."""

PING_PATH = "/.canarykit/ping"
"""Answered by the gateway itself: a round trip through its worker."""

METRICS_PORT = 9464
"""Where the kit's own server in a container shows its metrics: no Service has this port, so that no route leads there."""

SPLIT_ROUTE, FORCED_ROUTE = "split", "forced"
"""Names of the gateway's routes. A forced request was not drawn, so it is no evidence."""

LOG_FIELDS = {
    "start": "%START_TIME(%s.%6f)%",
    "route": "%ROUTE_NAME%",
    "role": "%UPSTREAM_CLUSTER%",
    "instance": f"%UPSTREAM_METADATA({METADATA}:instance)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "grpc": "%GRPC_STATUS_NUMBER%",
    "micros": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}
"""Fields of one line of the gateway's access log, separated by tabs. The id comes last: a client chose it."""


_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|//|[^/?]+:\d+(/|$)", re.IGNORECASE)
"""How a path begins that is a whole address."""


def request_path(path: str) -> str:
    """Return the path of requests, with a slash before it where there was none.

    Parameters
    ----------
    path : str
        Such as ``"/predict"`` or ``"predict"``; a query may follow.

    Raises
    ------
    PlanError
        It is a whole address, or has signs that no path holds.
    """
    if not isinstance(path, str) or not path:
        raise PlanError(f'path= is the path of requests below the service\'s address, such as "/predict", not {path!r}')
    if _ADDRESS.match(path):
        raise PlanError('path= is a whole address: give only what follows the host, such as "/predict"')
    if not path.isprintable() or any(sign in path for sign in " #\\"):
        shown = path.partition("?")[0]  # a query may hold a key
        raise PlanError(f"path= holds a space, or another sign that no path holds: {shown!r}; write %20 and the like instead")
    return path if path.startswith("/") else f"/{path}"


def check_address(parameter: str, url: str, *, user: bool = False) -> None:
    """Refuse what is no address, and a password in one: addresses end up in journals, progress and errors.

    Parameters
    ----------
    parameter : str
        Who was given it, for the message, which never holds the value.
    url : str
        Such as ``"https://ai.example.com/models"``.
    user : bool
        Whether a user and a password may stand before the host, because whoever uses it takes them out.

    Raises
    ------
    PlanError
        It is none, or has a password.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, (parts.hostname or "").encode("idna")
        whole = parts.scheme in ("http", "https") and host and port != 0 and url.isprintable() and " " not in url
    except ValueError:
        whole = False
    # A password with a slash in it looks like a path: an @ is refused wherever it is.
    if not user and "@" in url:
        raise PlanError(
            f"{parameter} has a user or a password in it (before an @): it would be written into the journal and shown; give "
            "an address that needs none, such as the gateway's within your network"
        )
    if not whole or "?" in url or "#" in url or "@" in parts.path:
        raise PlanError(
            f"{parameter} is no address of the form http://HOST:PORT/PATH or https://HOST:PORT/PATH: nothing follows the path, "
            "and special signs are written as %40 and the like"
        )


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine itself: ``localhost``, or an address of the loopback interface."""
    if host is None or host == "localhost" or host.endswith(".localhost"):
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
