"""Counts from the gateway's access log: exact, in microseconds, with the version named by the gateway itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from canarykit.errors import TelemetryError
from canarykit.model import TrafficSplit, Window
from canarykit.telemetry.base import Answered
from canarykit.telemetry.logtail import LogTail
from canarykit.telemetry.requests import Request, RequestCounter
from canarykit.wire import LOG_FIELDS, SPLIT_ROUTE

__all__ = ["EnvoyTelemetry", "parse"]


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
    start, route, role, instance, code, _flags, micros, request_id = fields
    if route != SPLIT_ROUTE:
        return None
    if role not in ("stable", "canary"):
        raise TelemetryError(f"the gateway's access log names a version {role!r} that was never deployed: {line!r}")
    return Request(
        start=float(start),
        role=role,  # type: ignore[arg-type]
        instance="" if instance == "-" else instance,
        code=int(code),
        seconds=math.nan if micros == "-" else int(micros) / 1e6,
        request_id=request_id,
    )


class EnvoyTelemetry:
    """Telemetry of the local cluster.

    Parameters
    ----------
    log : Path
        The access log.
    reopen : callable
        Has Envoy open the log anew.
    """

    latency_edges = None
    tables = frozenset({"outcome", "latency"})
    assigned_only = True
    sources: Mapping[str, str] = {"requests": "the access log of the gateway"}
    delay = 0.15  # the gateway writes its log every 50 ms

    def __init__(self, log: Path, reopen: Callable[[], object]) -> None:
        self._tail = LogTail(log, reopen)
        self._counter = RequestCounter()

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count only requests that began after `since`, under this split."""
        self._take_in()
        self._counter.begin(split, since)

    def label(self, answers: Iterable[Answered]) -> None:
        """Tell which answers were right."""
        self._counter.label((answer.request_id, answer.right) for answer in answers if answer.right is not None)

    def read(self, now: float) -> Window:
        """Return the window since the last read."""
        self._take_in()
        return self._counter.close(now)

    def _take_in(self) -> None:
        try:
            for line in self._tail.lines():
                request = parse(line)
                if request is not None:
                    self._counter.add(request)
        except OSError as error:
            raise TelemetryError(f"the gateway's access log cannot be read: {error}; was the cluster torn down?") from error
