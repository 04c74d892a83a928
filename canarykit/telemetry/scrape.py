"""Counts read from each replica's own metrics page: identity is which replica was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from canarykit.errors import CanaryError, TelemetryError
from canarykit.model import Role, TrafficSplit, Window
from canarykit.telemetry.base import Answered
from canarykit.telemetry.catalogue import Exposition, exposition
from canarykit.telemetry.counters import CounterWindows, Series, increases, label_names, series_of

__all__ = ["Replica", "ScrapeTelemetry", "read_page"]


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica, and how to read its metrics.

    Parameters
    ----------
    role : {"stable", "canary"}
        The version that it runs.
    name : str
        Its own.
    fetch : callable
        Returns its page in Prometheus' text format; raises OSError when it cannot be had.
    """

    role: Role
    name: str
    fetch: Callable[[], str]


Known = dict[str, Series | None]
"""What lines of a page count, by all of them but the number."""


def read_page(text: str, entry: Exposition, role: Role, instance: str, known: Known | None = None) -> dict[Series, float]:
    """Read the counters of a page.

    Parameters
    ----------
    text : str
        In Prometheus' text format.
    entry : Exposition
        What the counters are called.
    role, instance : str
        Whose page it is.
    known : dict, optional
        Remembers what each line counts: a histogram of 200 buckets takes the parser 5 ms each time, and a change of weight
        waits for that.

    Raises
    ------
    TelemetryError
        It is none in Prometheus' text format.
    """
    known = {} if known is None else known
    totals = {}
    try:
        for line in map(str.strip, text.splitlines()):
            if not line or line.startswith("#"):
                continue
            key, _, number = line.rpartition(" ")
            if key in known:
                series, value = known[key], float(number)
            else:
                (sample,) = (sample for family in text_string_to_metric_families(line) for sample in family.samples)
                series, value = series_of(entry, sample.name, sample.labels, role, instance), float(sample.value)
                if key.endswith("}") or (key and " " not in key):  # else the line ends with a time, which is new each time
                    known[key] = series
            if series is not None:
                totals[series] = value
    except ValueError as error:
        raise TelemetryError(f"the metrics page of {instance} cannot be read: {error}") from error
    return totals


class ScrapeTelemetry:
    """Telemetry from the replicas themselves.

    Requests that no replica saw, such as those that the gateway lost, are not among them: the load counts those.

    Parameters
    ----------
    replicas : callable
        Returns the replicas that there are now.
    entry : str or Exposition
        What they call their counters.
    place : str
        Where they show them, in words.
    """

    delay = 0.1

    def __init__(
        self,
        replicas: Callable[[], Sequence[Replica]],
        entry: str | Exposition = "canarykit",
        place: str = "on the metrics page of each replica",
    ) -> None:
        self._replicas, self._entry, self._place = replicas, exposition(entry), place
        self._windows = CounterWindows(self._entry)
        self._before: dict[Series, float] = {}
        self._known: dict[str, Known] = {}
        self._begun = self._marked = False

    @property
    def tables(self) -> frozenset[str]:
        """Tables that its counters fill."""
        return self._entry.tables

    @property
    def assigned_only(self) -> bool:
        """Whether the router assigned all that is counted: a gateway's counters say so, a pod's do not."""
        return self._entry.assigned_only

    @property
    def latency_edges(self) -> tuple[float, ...] | None:
        """Upper edges of its latency buckets in seconds, once a page was read."""
        return self._windows.edges

    @property
    def sources(self) -> Mapping[str, str]:
        """Which counters are read, where, and what of them is left out."""
        read = {what: f"{name} {self._place}" for what, name in self._entry.names.items()}
        return read | self._entry.told(label_names(self._before))

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count from now on, under this split.

        Raises
        ------
        CanaryError
            Nothing can be read at all, the first time. Later it is the next `read` that says so, if it is still so then: the
            weight has changed already.
        """
        try:
            self._before, problems, _ = self._read()
        except CanaryError as error:
            if not self._begun:
                raise
            problems = [str(error)]
        # What an unread replica counts until it can be read may be of an earlier weight: then counting begins later.
        self._begun, self._marked = True, not problems
        self._windows.begin(split, since)

    def label(self, answers: Iterable[Answered]) -> None:
        """Tell which answers were right."""
        self._windows.label(answers)

    def read(self, now: float) -> Window:
        """Return the window since the last read; empty, with the reason, while a replica cannot be read."""
        totals, problems, gone = self._read()
        if problems:
            # The counts of one version alone would look like a split that lies; they stay in the counters until all are read.
            return self._windows.close(now, "; ".join(problems))
        if not self._marked:
            self._before, self._marked = totals, True
            return self._windows.close(now, "a replica could not be read when the weight was changed: counting begins here")
        before = {series: total for series, total in self._before.items() if series.instance not in gone}
        self._windows.add(increases(before, totals))
        self._before = totals
        return self._windows.close(now)

    def _read(self) -> tuple[dict[Series, float], list[str], set[str]]:
        """Totals of all replicas, what could not be read, and the replicas that are gone."""
        replicas = self._replicas()
        totals: dict[Series, float] = {}
        problems = []
        with ThreadPoolExecutor(max(len(replicas), 1)) as pool:
            pages = list(pool.map(_page, replicas))
        for replica, page in zip(replicas, pages, strict=True):
            if isinstance(page, OSError):
                said = str(page)
                problems.append(said if said.startswith(replica.name) else f"{replica.name} cannot be read: {said}")
                continue
            known = self._known.setdefault(replica.name, {})
            totals |= read_page(page, self._entry, replica.role, replica.name, known)
        if totals.keys() != self._before.keys():
            self._windows.learn_edges(totals)
        present = {replica.name for replica in replicas}
        self._known = {name: known for name, known in self._known.items() if name in present}
        return totals, problems, {series.instance for series in self._before} - present


def _page(replica: Replica) -> str | OSError:
    try:
        return replica.fetch()
    except OSError as error:
        return error
