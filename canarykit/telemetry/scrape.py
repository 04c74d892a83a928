"""Counts read from each replica's own metrics page: identity is which replica was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

from canarykit.errors import CanaryError
from canarykit.model import Role, TrafficSplit, Window
from canarykit.telemetry import buckets
from canarykit.telemetry.base import Answered
from canarykit.telemetry.catalogue import Exposition, exposition
from canarykit.telemetry.counters import CounterWindows, Series, increases, label_names
from canarykit.telemetry.lives import Life
from canarykit.telemetry.page import Known, Page, page_of, read_page

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


_THREADS = 64
"""Pages that are read at the same time."""

_ROUNDS, _AT_ONCE = 3, 3
"""How often a page is read again in a row, and how many times at once: each time another worker may answer."""


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
        self._lives: dict[str, Life] = {}
        self._workers = ""
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
            look = self._look(since)
            self._before, problems = look.totals, look.problems
        except CanaryError as error:
            if not self._begun:
                raise
            problems = [str(error)]
        for life in self._lives.values():
            life.mark()
        # What an unread replica counts until it can be read may be of an earlier weight: then counting begins later.
        self._begun, self._marked = True, not problems
        self._windows.begin(split, since)

    def label(self, answers: Iterable[Answered]) -> None:
        """Tell which answers were right."""
        self._windows.label(answers)

    def read(self, now: float) -> Window:
        """Return the window since the last read; empty, with the reason, while a replica cannot be read."""
        if self._workers:
            return self._windows.close(now, self._workers)
        look = self._look(now)
        doubts = [life.doubt for life in self._lives.values() if life.doubt]
        if self._workers or look.problems or doubts:
            # The counts of one version alone would look like a split that lies; they stay in the counters until all are read.
            return self._windows.close(now, self._workers or "; ".join(look.problems or doubts))
        if not self._marked:
            for life in self._lives.values():
                life.mark()
            self._before, self._marked = look.totals, True
            return self._windows.close(now, "a replica could not be read when the weight was changed: counting begins here")
        anew = {name: base for name, life in self._lives.items() if (base := life.take_anew()) is not None}
        others = {series: total for series, total in self._before.items() if series.instance not in look.gone | anew.keys()}
        before = others | {series: total for base in anew.values() for series, total in base.items()}
        self._windows.add(increases(before, look.totals))
        self._before = look.totals
        return self._windows.close(now)

    def _look(self, now: float) -> _Look:
        """Read the pages of all replicas, and those again that may be one worker's of several."""
        replicas = self._replicas()
        totals: dict[Series, float] = {}
        problems: list[str] = []
        present = {replica.name for replica in replicas}
        self._known = {name: known for name, known in self._known.items() if name in present}
        self._lives = {name: life for name, life in self._lives.items() if name in present}
        for replica, page in self._pages(replicas):
            if isinstance(page, OSError):
                said = str(page)
                problems.append(said if said.startswith(replica.name) else f"{replica.name} cannot be read: {said}")
                continue
            totals |= page.totals
            self._lives.setdefault(replica.name, Life(replica.name)).see(now, page.totals, page.started)
        if totals.keys() != self._before.keys():
            buckets.check(totals)
            self._windows.learn_edges(totals)
        self._read_again(replicas)
        return _Look(totals, problems, {series.instance for series in self._before} - present)

    def _read_again(self, replicas: Sequence[Replica]) -> None:
        """Read pages a few times in a row: all of them before anything is counted, later those of new or strange replicas."""
        strange = {name for name, life in self._lives.items() if life.strange}
        for _ in range(_ROUNDS if strange else 0):
            again = [replica for replica in replicas if replica.name in strange for _ in range(_AT_ONCE)]
            found: dict[str, list[tuple[dict[Series, float], float | None]]] = {}
            for replica, page in self._pages(again):
                if isinstance(page, Page):
                    found.setdefault(replica.name, []).append(page)
            for name, pages in found.items():
                self._lives[name].see_again(pages)
        proofs = sorted(life.proof for life in self._lives.values() if life.proof)
        self._workers = self._workers or "; ".join(proofs)

    def _pages(self, replicas: Sequence[Replica]) -> list[tuple[Replica, Page | OSError]]:
        with ThreadPoolExecutor(max(min(len(replicas), _THREADS), 1)) as pool:
            texts = list(pool.map(_fetched, replicas))
        return [
            (replica, text if isinstance(text, OSError) else self._page_of(replica, text))
            for replica, text in zip(replicas, texts, strict=True)
        ]

    def _page_of(self, replica: Replica, text: str) -> Page:
        return page_of(text, self._entry, replica.role, replica.name, self._known.setdefault(replica.name, {}))


class _Look(NamedTuple):
    """Totals of all replicas, what could not be read, and the replicas that are gone."""

    totals: dict[Series, float]
    problems: list[str]
    gone: set[str]


def _fetched(replica: Replica) -> str | OSError:
    try:
        return replica.fetch()
    except OSError as error:
        return error
