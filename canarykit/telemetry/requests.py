"""From single requests to a window: pure counting."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import AT_LIMIT, ROLES, Counts, Role, TrafficSplit, Window
from canarykit.statuses import BAD_KINDS, LEFT, LIMIT_FLAG, RESET, SWITCHED, TOO_LONG, Kind, broken_off, kind_of, kind_of_grpc

__all__ = ["Request", "RequestCounter"]

_GRPC_NEVER_ENDED = frozenset({1, 4})
"""CANCELLED and DEADLINE_EXCEEDED."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request as the gateway saw it.

    Parameters
    ----------
    start : float
        Seconds since the epoch.
    role : {"stable", "canary"}
        Who was drawn to answer it.
    instance : str
        Replica that answered, or empty.
    code : int
        Status sent to the client; 0 when the client left before there was one.
    seconds : float
        From the request's first byte to the answer's last; NaN when there was no last byte.
    flags : frozenset of str
        Envoy's response flags: what went wrong on the way.
    grpc : int, optional
        The gRPC status; None when it was no gRPC request.

    Notes
    -----
    An answer that breaks off after its headers is failed, whatever its status said. So is one whose client left after the
    headers: the version may have stalled, and nobody waited for the end. A client that had a refusal and left is refused.
    """

    start: float
    role: Role
    instance: str
    code: int
    seconds: float
    flags: frozenset[str] = frozenset()
    grpc: int | None = None

    @property
    def kind(self) -> Kind:
        """What became of it: answered, refused, denied, or failed by the version."""
        kind = kind_of(self.code)
        if kind == "ok" and self.grpc is not None:
            kind = kind_of_grpc(self.grpc)
        has_refusal = kind in ("refused", "denied") and bool(self.flags & LEFT)
        return "failed" if self._cut and not has_refusal else kind

    @property
    def latency(self) -> float | None:
        """Seconds, infinity for what never ended, None for what says nothing of how fast the version answers.

        A quick failure, or a refusal, must not look like a quick answer. A WebSocket stays as long as anyone wants.
        """
        kind = self.kind
        if kind != "failed":
            return self.seconds if kind == "ok" and self.code != SWITCHED else None
        waited = self.code in (0, 504) or self.grpc in _GRPC_NEVER_ENDED or bool(self.flags & (TOO_LONG | LEFT))
        return math.inf if waited or (self._cut and not self.flags & RESET) else None

    @property
    def _cut(self) -> bool:
        """Whether the answer broke off after its headers."""
        # Envoy's own refusals have flags too, and are whole.
        flagged = kind_of(self.code) == "ok" and broken_off(self.code, self.flags)
        return (math.isnan(self.seconds) and self.code != SWITCHED) or flagged


class RequestCounter:
    """Counts requests into windows."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._left_out = 0
        self._earlier = [0, 0]
        self._since = -math.inf
        self._opened: float | None = None
        self._split = TrafficSplit(0)

    def begin(self, split: TrafficSplit, since: float, in_flight: tuple[int, int] | None = None) -> None:
        """Count only requests that began after `since`, under this split.

        Parameters
        ----------
        split : TrafficSplit
            The weight in force.
        since : float
            Seconds since the epoch at which it was.
        in_flight : tuple of int, optional
            Requests of stable and canary that are under way now, drawn under an earlier weight.
        """
        self._earlier = list(in_flight or (0, 0))
        self._left_out += len(self._requests)
        self._requests.clear()
        self._split, self._since, self._opened = split, since, since

    def add(self, request: Request) -> None:
        """Count one finished request."""
        if request.start < self._since:
            # Drawn under another weight: in this window it would be evidence of a lie.
            self._left_out += 1
            index = ROLES.index(request.role)
            self._earlier[index] = max(0, self._earlier[index] - 1)
            return
        self._requests.append(request)

    def close(self, now: float, in_flight: tuple[int, int] | None = None) -> Window:
        """Return the window up to now, and begin the next.

        Parameters
        ----------
        now : float
            Seconds since the epoch.
        in_flight : tuple of int, optional
            Requests of stable and canary that are under way, whenever they began; None when that is not known.
        """
        counts: dict[str, Counts] = {name: _zeros(2) for name in BAD_KINDS}
        counts[AT_LIMIT] = _zeros(2)
        counts["latency"] = _zeros(len(LATENCY_EDGES))
        durations: dict[tuple[Role, str], list[float]] = {}
        outcomes: dict[str, Counts] = {}
        for request in self._requests:
            kind = request.kind
            if request.instance:  # a request that the gateway sent nowhere says nothing about a replica
                outcomes.setdefault(request.instance, np.zeros(2, dtype=np.int64))[int(kind == "failed")] += 1
            for name, bad in BAD_KINDS.items():
                counts[name][ROLES.index(request.role), int(kind == bad)] += 1
            counts[AT_LIMIT][ROLES.index(request.role), int(LIMIT_FLAG in request.flags)] += 1
            if request.latency is not None:
                durations.setdefault((request.role, request.instance), []).append(request.latency)
        latency: dict[str, Counts] = {}
        for (role, instance), seconds in durations.items():
            cells = latency_cells(seconds)
            counts["latency"][ROLES.index(role)] += cells
            latency[instance or f"{role}-unknown"] = cells
        start = self._opened if self._opened is not None else now
        window = Window(
            start,
            now,
            self._split,
            counts,
            {"latency": latency, "outcome": outcomes},
            self._left_out,
            "" if self._requests else "no request reached the gateway",
            in_flight=self._drawn(in_flight),
        )
        self._requests, self._left_out, self._opened = [], 0, now
        return window

    def _drawn(self, in_flight: tuple[int, int] | None) -> tuple[int, int] | None:
        """Of the requests under way, those that were drawn under the weight in force."""
        if in_flight is None:
            return None
        # At most as many as there are: those that began between the change of weight and its count are no earlier ones.
        self._earlier = [min(earlier, now) for earlier, now in zip(self._earlier, in_flight, strict=True)]
        stable, canary = (now - earlier for earlier, now in zip(self._earlier, in_flight, strict=True))
        return stable, canary


def _zeros(cells: int) -> Counts:
    return np.zeros((2, cells), dtype=np.int64)
