"""What a status says about a request: answered, refused, denied, or failed by the server."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum
from typing import Literal

__all__ = [
    "BAD_KINDS",
    "LEFT",
    "LIMIT_FLAG",
    "RESET",
    "SWITCHED",
    "TOO_LONG",
    "GrpcStatus",
    "Kind",
    "broken_off",
    "kind_of",
    "kind_of_grpc",
]

Kind = Literal["ok", "refused", "denied", "failed"]
"""ok: answered. refused: the server did not accept the request as it was sent (400, 404, 405, 413, 415, 422, …), or sent the
client elsewhere (301, 302, 307, …): a redirect is no answer, and a quick one. denied: it did not accept who asked, or how often
(401, 403, 407, 429). failed: the server's own fault (5xx), or nobody waited for the end (0, 499)."""

BAD_KINDS: Mapping[str, Kind] = {"outcome": "failed", "refused": "refused", "denied": "denied"}
"""Of each table with two cells, the kind of request that its second cell counts."""

_DENIED = frozenset({401, 403, 407, 429})
"""HTTP statuses about who asks, or how often."""

_NOT_MODIFIED = 304

_GIVEN_UP = frozenset({0, 499})
"""No status, because the client left before there was one; 499 is nginx's way to say so."""

GrpcStatus = IntEnum(
    "GrpcStatus",
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED "
    "FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED",
    start=0,
)
"""The statuses of gRPC, by their numbers."""

_GRPC_DENIED = frozenset({GrpcStatus.PERMISSION_DENIED, GrpcStatus.RESOURCE_EXHAUSTED, GrpcStatus.UNAUTHENTICATED})
"""About who asks, or how often."""

_GRPC_REFUSED = frozenset({
    GrpcStatus.INVALID_ARGUMENT, GrpcStatus.NOT_FOUND, GrpcStatus.ALREADY_EXISTS, GrpcStatus.FAILED_PRECONDITION,
    GrpcStatus.ABORTED, GrpcStatus.OUT_OF_RANGE,
})  # fmt: skip
"""The request was not accepted as it was sent. All others but OK are the server's fault, or nobody waited for the end."""

# Envoy's response flags of a request that did not come to its end, whatever its status says: after the headers were sent it
# stays 200. The others are refusals of the gateway with a status of their own (RL 429, UAEX 403, NR 404), or say that a
# fault was injected.
RESET = frozenset({"LR", "UC", "UF", "UPE", "UR", "UH", "UO", "URX", "OM", "NC"})
"""The version or the gateway broke it off, or their connection did."""

LIMIT_FLAG = "UT"
"""The gateway ended the request at its own time limit. The version may have been at work."""

TOO_LONG = frozenset({"DT", "SI", "UMSDR", LIMIT_FLAG})
"""It took too long: the gateway gave up."""

LEFT = frozenset({"DC", "DR"})
"""The client left. A stalled version and an impatient client look alike."""

SWITCHED = 101
"""Status of a connection that became a WebSocket: whoever closes it first ends it as it should be."""


def broken_off(code: int | None, flags: Collection[str]) -> bool:
    """Say whether Envoy's response flags mean that an answer did not come to its end.

    Parameters
    ----------
    code : int, optional
        HTTP status of the answer; None when it is not known.
    flags : collection of str
        Response flags, each by itself.
    """
    return not (RESET | TOO_LONG | (frozenset() if code == SWITCHED else LEFT)).isdisjoint(flags)


def kind_of(code: int) -> Kind:
    """Say what an HTTP status means for the version that answered.

    Parameters
    ----------
    code : int
        100 to 599; 0 when there was none.
    """
    if code in _GIVEN_UP or code >= 500:
        return "failed"
    if code in _DENIED:
        return "denied"
    return "refused" if 300 <= code < 500 and code != _NOT_MODIFIED else "ok"


def kind_of_grpc(code: int) -> Kind:
    """Say what a gRPC status means for the version that answered. Its HTTP status is 200 all the same.

    Parameters
    ----------
    code : int
        0 to 16; others count as failed, because no server that works sends them.
    """
    if code in _GRPC_DENIED:
        return "denied"
    return "ok" if code == GrpcStatus.OK else "refused" if code in _GRPC_REFUSED else "failed"
