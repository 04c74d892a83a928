"""Which Service a host means, as Istio reads the names of a cluster. Pure."""

from __future__ import annotations

__all__ = ["service_of"]


def service_of(host: str, *, of: str | None, place: str | None) -> str | None:
    """Name of the Service of a namespace that a host means; None when it means something else.

    Parameters
    ----------
    host : str
        ``"chat"``, which is meant where it is written; or ``"chat.ns"``, ``"chat.ns.svc"``, ``"chat.ns.svc.cluster.local"``.
    of : str, optional
        Namespace of the Service.
    place : str, optional
        Namespace of the object in which the host is written.
    """
    name, _, rest = host.removesuffix(".").partition(".")
    near, _, domain = rest.partition(".")
    if not rest:
        return name or None if place == of else None
    return name if near == of and domain.partition(".")[0] in ("", "svc") else None
