"""From counters that only grow to windows of counts: pure, but for what it remembers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from canarykit.errors import CanaryError, TelemetryError
from canarykit.model import ROLES, Counts, Role, TrafficSplit, Window
from canarykit.statuses import BAD_KINDS, Kind
from canarykit.telemetry import buckets
from canarykit.telemetry.catalogue import Exposition, exposition

__all__ = [
    "CounterTelemetry", "CounterWindows", "Page", "Series", "Totals", "check_totals", "increases", "label_names", "series_of",
]  # fmt: skip


class Series(NamedTuple):
    """One counter of one source.

    Parameters
    ----------
    role : {"stable", "canary"}
        Whose requests it counts, as the gateway or the choice of the target says.
    instance : str
        The source that counts: a pod, or the gateway.
    what : {"requests", "failures", "latency"}
        Meaning of the counter.
    kind : {"ok", "refused", "denied", "failed"}
        Outcome of the requests that it counts.
    edge : float
        Upper edge of a bucket in seconds. NaN otherwise would not equal itself, so it is -1.
    rest : tuple of (str, str)
        All its labels, so that two series are never taken for one.
    """

    role: Role
    instance: str
    what: str
    kind: Kind
    edge: float
    rest: tuple[tuple[str, str], ...]


Totals = Mapping[Series, float]


class Page(NamedTuple):
    """What one metrics page says.

    Parameters
    ----------
    totals : dict of Series to float
        Counters of requests.
    starts : list of float
        Start times of processes that it names, seconds since the epoch.
    """

    totals: dict[Series, float]
    starts: list[float]

    @property
    def started(self) -> float | None:
        """When the process started; None when the page does not say, or names several."""
        return self.starts[0] if len(self.starts) == 1 else None


def series_of(entry: Exposition, name: str, labels: Mapping[str, str], role: Role, instance: str) -> Series | None:
    """Say what a sample of an exposition counts; None when it is none of ours, or counts probes and scrapes.

    Raises
    ------
    TelemetryError
        No label says what became of its requests: errors would pass unseen.
    """
    what = entry.counts(name)
    if what is None or (what == "latency" and "le" not in labels) or entry.ignores(labels):
        return None
    kind = entry.kind(labels, what)
    if kind is None and name not in entry.names.values():
        return None  # another counter, whose name is ours with _total
    if kind is None:
        found = ", ".join(f"{key}={value!r}" for key, value in sorted(labels.items())) or "none"
        raise TelemetryError(
            f"{name} of {instance} has no label {entry.code} with a status (its labels: {found}), so that errors would pass "
            "unseen: name who counts with metrics=, give an Exposition of your own, or pick other series with select="
        )
    edge = float(labels["le"]) * entry.seconds if what == "latency" else -1.0
    return Series(role, instance, what, kind, edge, tuple(sorted(labels.items())))


def label_names(totals: Iterable[Series]) -> list[list[str]]:
    """Names of the labels of each series of requests."""
    return [[name for name, _ in series.rest] for series in totals if series.what == "requests"]


def check_totals(totals: Totals) -> None:
    """Refuse totals that count nothing.

    Raises
    ------
    TelemetryError
        A total is NaN, negative or no whole number.
    """
    for series, total in totals.items():
        if not (total >= 0 and float(total).is_integer()):
            raise TelemetryError(f"{series.instance} counts {total} {series.what}: a count is a whole number, 0 or more")


def increases(before: Totals, after: Totals) -> dict[Series, int]:
    """How much each counter has grown.

    A source of which any counter has fallen was restarted: all of its counters began at zero again. One that was not
    there before began at zero.

    Parameters
    ----------
    before, after : mapping of Series to float
        Totals at two moments, as `check_totals` accepts them.
    """
    restarted = {series.instance for series, total in after.items() if total < before.get(series, 0.0)}
    return {
        series: int(total - (0.0 if series.instance in restarted else before.get(series, 0.0)))
        for series, total in after.items()
    }


class CounterWindows:
    """Counts what counters have grown by into windows.

    Parameters
    ----------
    entry : Exposition
        Names of the counters.
    """

    def __init__(self, entry: Exposition) -> None:
        self._entry = entry
        self.edges: tuple[float, ...] | None = None
        """Edges on which latency is compared; fixed with the first window after they became known."""
        self._fixed = False
        self._unlike = ""
        self._grown: dict[Series, int] = {}
        self._split, self._since = TrafficSplit(0), -math.inf
        self._moved = 0.0
        self._seen: Counts | None = None
        self._opened: float | None = None
        self._counted_from = -math.inf

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count from now on, under this split."""
        self._grown = {}
        self._moved = 0.0 if self._opened is None else abs(split.share - self._split.share)
        self._split, self._since, self._opened = split, since, since
        self._counted_from = since

    def learn_edges(self, totals: Iterable[Series]) -> None:
        """Take note of the buckets that there are now.

        Until the first window is given out, the edges that all have are used. After it they stay: whoever judges has begun
        with them. A histogram that lacks one of them makes latency no data, with the reason in the window's note.

        Raises
        ------
        TelemetryError
            An edge is no number.
        """
        found = buckets.histograms(totals)
        if not found:
            return
        if not self._fixed:
            self.edges, self._unlike = buckets.common(found)
        elif self.edges is not None:
            self._unlike = buckets.unlike(found, self.edges)

    def add(self, grown: Mapping[Series, int]) -> None:
        """Take in what counters have grown by."""
        for series, count in grown.items():
            self._grown[series] = self._grown.get(series, 0) + count

    def close(self, now: float, missing: str = "", *, waiting: bool = False, apart: float = 0.0) -> Window:
        """Return the window up to now, and begin the next.

        Parameters
        ----------
        now : float
            Seconds since the epoch.
        missing : str
            Why nothing is known of this interval: then the window is empty, and what was counted stays for the next.
        waiting : bool
            Whether that is no fault so far: the source has nothing new yet, and the next window begins where this one does.
        apart : float
            Seconds between the reading of one version's source and the other's.
        """
        start = self._opened if self._opened is not None else now
        if missing and waiting:
            return Window(start, now, self._split, {}, note=missing, waiting=True)
        self._opened = now
        if missing:
            return Window(start, now, self._split, {}, note=missing)
        # A window after one that said nothing holds what was counted since the last that did.
        counted_from, self._counted_from = self._counted_from, now
        instances: dict[str, dict[str, Counts]] = {}
        counts, instances["outcome"] = self._outcomes()
        self._fixed = self._fixed or self.edges is not None or bool(self._unlike)
        if self.edges is not None and not self._unlike:
            counts["latency"], instances["latency"] = self._latency(self.edges)
            self._seen = counts["latency"].sum(axis=0) + (0 if self._seen is None else self._seen)
            if self._tilts(counted_from, now, int(counts["outcome"].sum())):
                self._grown = {}
                note = "left out: many requests that began under the earlier weight ended in this window"
                return Window(start, now, self._split, {}, left_out=int(counts["outcome"].sum()), note=note)
        note = self._unlike if counts["outcome"].any() else f"no request was counted in {self._entry.requests}"
        self._grown = {}
        told = instances if self._entry.backend is None else {}
        return Window(start, now, self._split, counts, told, note=note, apart=apart)

    def _tilts(self, start: float, end: float, requests: int) -> bool:
        """Whether requests of the earlier weight, which are counted when they end, would make this one look like a lie.

        Little's law: as many are under way as come while one is answered. How long that takes is known from all that was
        counted so far. They tilt a window when they shift the canary's count by more than its standard deviation.
        """
        share, begun = self._split.share, start - self._since
        if self._seen is None or not self._seen.sum() or not requests or not self._moved or not 0 < share < 1:
            return False
        edges = np.array(self.edges)
        finite = edges[np.isfinite(edges)]
        longest = np.where(np.isfinite(edges), edges, 2 * finite.max(initial=0.0))
        ended = np.minimum(longest, end - self._since) - np.minimum(longest, begun)
        earlier = requests / (end - start) * float(self._seen @ ended) / float(self._seen.sum()) if end > start else 0.0
        return earlier * self._moved > math.sqrt(requests * share * (1 - share))

    def _outcomes(self) -> tuple[dict[str, Counts], dict[str, Counts]]:
        """Tables of what became of requests, each of which counts every request once; and good and failed of each replica."""
        every: Counter[str] = Counter()
        kinds: Counter[tuple[str, Kind]] = Counter()
        for series, count in self._grown.items():
            if series.what == "latency":
                continue
            for who in _counted_for(series):
                kinds[who, series.kind] += count
                every[who] += count if series.what == "requests" or self._entry.beside else 0
        bad = {
            table: np.array([kinds[role, kind] for role in ROLES], dtype=np.int64)
            for table, kind in BAD_KINDS.items()
            if table in self._entry.tables
        }
        # A counter of failures that is read a moment after that of requests may be ahead of it.
        requests = np.maximum([every[role] for role in ROLES], sum(bad.values()))
        tables = {table: np.stack([requests - counts, counts], axis=1) for table, counts in bad.items()}
        failed = {name: kinds[name, "failed"] for name in every if name not in ROLES}
        return tables, {name: np.array([max(every[name] - count, 0), count]) for name, count in failed.items()}

    def _latency(self, edges: Sequence[float]) -> tuple[Counts, dict[str, Counts]]:
        """Cells of the durations of both versions, and of each replica."""
        place = {edge: number for number, edge in enumerate(edges)}
        cumulative: dict[str, Counts] = {role: np.zeros(len(edges), dtype=np.int64) for role in ROLES}
        for series, count in self._grown.items():
            # A quick failure or refusal must not look like a quick answer. Who ended before another edge is in the next, too.
            if series.kind == "ok" and series.edge in place:
                for who in _counted_for(series):
                    cumulative.setdefault(who, np.zeros(len(edges), dtype=np.int64))[place[series.edge]] += count
        # A page that was written while a request ended may have it in one bucket and not yet in the next.
        cells = {who: np.maximum(np.diff(counts, prepend=0), 0) for who, counts in cumulative.items()}
        return np.stack([cells.pop(role) for role in ROLES]), cells


def _counted_for(series: Series) -> tuple[str, str]:
    """The version and the replica whose requests a counter counts."""
    return series.role, f"{series.role}-{series.instance}"


class CounterTelemetry(ABC):
    """What all telemetry from counters has in common.

    Parameters
    ----------
    entry : str or Exposition
        Names of the counters.
    """

    def __init__(self, entry: str | Exposition) -> None:
        self._entry = exposition(entry)
        self._windows = CounterWindows(self._entry)
        self._split: TrafficSplit | None = None
        # A gateway's counters hold only what the router assigned; a pod's also hold what came to the pod itself.
        self.tables, self.assigned_only = self._entry.tables, self._entry.assigned_only

    @property
    def latency_edges(self) -> tuple[float, ...] | None:
        """Upper edges of its latency buckets in seconds, once a counter was read."""
        return self._windows.edges

    def read(self, now: float) -> Window:
        """Return the window since the last read; empty, with the reason, while not all can be read, or nothing is new.

        Raises
        ------
        CanaryError
            Nothing can be read, and counting has not begun.
        """
        try:
            return self._read(now)
        except CanaryError as error:
            if self._split is None:
                raise
            return self._windows.close(now, str(error))

    @abstractmethod
    def _read(self, now: float) -> Window: ...
