"""Where a gateway or a Service is, when the cluster itself can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from canarykit.errors import RoutingError
from canarykit.routers.objects import address

__all__ = ["gateway_of", "url_of"]


def gateway_of(found: Sequence[Mapping[str, Any]], asked: str | None) -> tuple[str, Mapping[str, Any] | None]:
    """Pick the Gateway that is to serve a route.

    Parameters
    ----------
    found : sequence of mappings
        All that can be seen.
    asked : str, optional
        ``"namespace/name"``.

    Returns
    -------
    tuple of (str, mapping or None)
        Its name, and the object when it can be seen.

    Raises
    ------
    RoutingError
        There is none, or not the one that was asked for, or more than one and none was asked for.
    """
    known = {f"{gateway['metadata']['namespace']}/{gateway['metadata']['name']}": gateway for gateway in found}
    if asked is not None:
        if known and asked not in known:
            raise RoutingError(f"there is no Gateway {asked} to be seen here, only {', '.join(sorted(known))}")
        return asked, known.get(asked)
    if len(known) == 1:
        return next(iter(known.items()))
    seen = f"several Gateways are to be seen here ({', '.join(sorted(known))})" if known else "no Gateway is to be seen here"
    raise RoutingError(f'{seen}: name the one that is to serve the route, as gateway="namespace/name"')


def url_of(gateway: Mapping[str, Any] | None) -> str | None:
    """Address of a Gateway's first HTTP listener; None when it does not say."""
    if gateway is None:
        return None
    addresses = gateway.get("status", {}).get("addresses", [])
    listeners = [entry for entry in gateway["spec"].get("listeners", []) if entry["protocol"] in ("HTTP", "HTTPS")]
    if not addresses or not listeners:
        return None
    listener = listeners[0]
    return address(listener["protocol"].lower(), addresses[0]["value"], listener["port"])
