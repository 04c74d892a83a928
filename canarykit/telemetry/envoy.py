"""Counts from the gateway's access log: exact, in microseconds, with the version named by the gateway itself."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from canarykit.errors import CanaryError, TelemetryError
from canarykit.model import ROLES, TrafficSplit, Window
from canarykit.protocol import LOG_FIELDS, SPLIT_ROUTE
from canarykit.telemetry.logtail import LogTail
from canarykit.telemetry.requests import Request, RequestCounter

__all__ = ["IN_FLIGHT", "EnvoyTelemetry", "in_flight", "parse"]

IN_FLIGHT = r"/stats?filter=%5Ecluster%5C.(stable%7Ccanary)%5C.upstream_rq_(active%7Cpending_active)%24"
"""Page of Envoy's admin interface that `in_flight` reads."""


def parse(line: str) -> Request | None:
    """Read one line of the access log.

    Returns
    -------
    Request or None
        None for a request that was not drawn: forced to a version, or the kit's own.

    Raises
    ------
    TelemetryError
        The line is not what the gateway was told to write.
    """
    fields = line.split("\t", maxsplit=len(LOG_FIELDS) - 1)
    if len(fields) != len(LOG_FIELDS):
        raise TelemetryError(f"the gateway's access log has a line of {len(fields)} fields, not {len(LOG_FIELDS)}: {line!r}")
    start, route, role, instance, code, flags, grpc, micros, _ = fields
    if route != SPLIT_ROUTE:
        return None
    if role not in ("stable", "canary"):
        raise TelemetryError(f"the gateway's access log names a version {role!r} that was never deployed: {line!r}")
    try:
        return Request(
            start=float(start),
            role=role,  # type: ignore[arg-type]
            instance="" if instance == "-" else instance,
            code=int(code),
            seconds=math.nan if micros == "-" else int(micros) / 1e6,
            flags=frozenset() if flags == "-" else frozenset(flags.split(",")),
            grpc=None if grpc == "-" else int(grpc),
        )
    except ValueError as error:
        raise TelemetryError(f"the gateway's access log has a line that cannot be read ({error}): {line!r}") from error


def in_flight(page: str) -> tuple[int, int] | None:
    """Requests of stable and canary that are under way: answered by a replica now, or waiting for a connection to one.

    Parameters
    ----------
    page : str
        Envoy's answer to `IN_FLIGHT`.

    Returns
    -------
    tuple of int or None
        None when the page does not say it for both versions.
    """
    found = re.findall(r"^cluster\.(stable|canary)\.upstream_rq_(?:pending_)?active: (\d+)$", page, re.MULTILINE)
    stable, canary = ([int(count) for name, count in found if name == role] for role in ROLES)
    return (sum(stable), sum(canary)) if stable and canary else None


class EnvoyTelemetry:
    """Telemetry of the local cluster.

    Parameters
    ----------
    log : Path
        The access log.
    reopen : callable
        Has Envoy open the log anew.
    stats : callable
        Reads the page `IN_FLIGHT` of the admin interface.

    Notes
    -----
    Requests under way are counted by Envoy per version. Those that a header forced to a version are among them.
    """

    latency_edges = None
    tables = frozenset({"outcome", "latency", "refused", "denied"})
    assigned_only = True
    sources: Mapping[str, str] = {"requests": "the access log of the gateway"}
    delay = 0.15  # the gateway writes its log every 50 ms

    def __init__(self, log: Path, reopen: Callable[[], object], stats: Callable[[], str]) -> None:
        self._tail = LogTail(log, reopen)
        self._stats = stats
        self._counter = RequestCounter()

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count only requests that began after `since`, under this split."""
        self._take_in()
        self._counter.begin(split, since, self._in_flight())

    def read(self, now: float) -> Window:
        """Return the window since the last read."""
        under_way = self._in_flight()  # before the log: a request that ends meanwhile is in both rather than in neither
        self._take_in()
        return self._counter.close(now, under_way)

    def _in_flight(self) -> tuple[int, int] | None:
        try:
            return in_flight(self._stats())
        except CanaryError:  # it helps to judge the split; counts are complete without it
            return None

    def _take_in(self) -> None:
        try:
            for line in self._tail.lines():
                request = parse(line)
                if request is not None:
                    self._counter.add(request)
        except OSError as error:
            raise TelemetryError(f"the gateway's access log cannot be read: {error}; was the cluster torn down?") from error
