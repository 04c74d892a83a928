"""From single requests to a window: pure counting, with answers joined to requests by id."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import ROLES, Counts, Role, TrafficSplit, Window

__all__ = ["Request", "RequestCounter"]

_REMEMBERED = 200_000
"""Requests that wait for their label, and labels that wait for their request, at most."""


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
    request_id : str
        As the client gave it.
    """

    start: float
    role: Role
    instance: str
    code: int
    seconds: float
    request_id: str

    @property
    def failed(self) -> bool:
        """Whether the version did not answer as it should. A 4xx is the client's own doing."""
        return self.code == 0 or self.code >= 500

    @property
    def latency(self) -> float | None:
        """Seconds, infinity for what never ended, None for a quick failure (which must not look like a quick answer)."""
        if math.isnan(self.seconds) or self.code in (0, 504):
            return math.inf
        return None if self.failed else self.seconds


class RequestCounter:
    """Counts requests and right answers into windows."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._roles: OrderedDict[str, Role] = OrderedDict()
        self._labels: OrderedDict[str, bool] = OrderedDict()
        self._answers = _zeros(2)
        self._labelled = False
        self._left_out = 0
        self._since = -math.inf
        self._opened: float | None = None
        self._split = TrafficSplit(0)

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count only requests that began after `since`, under this split."""
        self._left_out += len(self._requests) + int(self._answers.sum())
        self._requests.clear()
        self._answers = _zeros(2)
        self._roles.clear()
        self._labels.clear()
        self._split, self._since, self._opened = split, since, since

    def add(self, request: Request) -> None:
        """Count one finished request."""
        if request.start < self._since:
            # Drawn under another weight: in this window it would be evidence of a lie.
            self._left_out += 1
            return
        self._requests.append(request)
        right = self._labels.pop(request.request_id, None)
        if right is not None:
            self._answer(request.role, right)
        else:
            _remember(self._roles, request.request_id, request.role)

    def label(self, answers: Iterable[tuple[str, bool]]) -> None:
        """Tell which answers were right; in any order with the requests themselves."""
        for request_id, right in answers:
            self._labelled = True
            role = self._roles.pop(request_id, None)
            if role is not None:
                self._answer(role, right)
            else:
                _remember(self._labels, request_id, right)

    def close(self, now: float) -> Window:
        """Return the window up to now, and begin the next."""
        counts: dict[str, Counts] = {"outcome": _zeros(2), "latency": _zeros(len(LATENCY_EDGES))}
        durations: dict[tuple[Role, str], list[float]] = {}
        for request in self._requests:
            counts["outcome"][ROLES.index(request.role), int(request.failed)] += 1
            if request.latency is not None:
                durations.setdefault((request.role, request.instance), []).append(request.latency)
        instances: dict[str, Counts] = {}
        for (role, instance), seconds in durations.items():
            cells = latency_cells(seconds)
            counts["latency"][ROLES.index(role)] += cells
            instances[instance or f"{role}-unknown"] = cells
        if self._labelled:
            counts["answers"] = self._answers
        start = self._opened if self._opened is not None else now
        window = Window(start, now, self._split, counts, instances, self._left_out, self._note())
        self._requests, self._answers, self._left_out, self._opened = [], _zeros(2), 0, now
        return window

    def _answer(self, role: Role, right: bool) -> None:
        self._answers[ROLES.index(role), int(not right)] += 1

    def _note(self) -> str:
        missing = []
        if not self._requests:
            missing.append("no request reached the gateway")
        if not self._labelled:
            missing.append("no labels have arrived")
        return "; ".join(missing)


def _remember(memory: OrderedDict[str, Role] | OrderedDict[str, bool], key: str, value: Role | bool) -> None:
    memory[key] = value  # type: ignore[assignment]
    if len(memory) > _REMEMBERED:
        memory.popitem(last=False)


def _zeros(cells: int) -> Counts:
    return np.zeros((2, cells), dtype=np.int64)
