"""Counts read from each replica's own metrics page: identity is which replica was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest

from canarykit.errors import CanaryError, TelemetryError
from canarykit.model import ROLES, Role, TrafficSplit, Window
from canarykit.telemetry import buckets
from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.counters import CounterTelemetry, Page, Series, check_totals, increases, label_names
from canarykit.telemetry.page import Known, page_of
from canarykit.telemetry.restarts import Life, proofs

__all__ = ["Replica", "ScrapeTelemetry"]


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

_NEW_AT_ONCE = 8
"""New replicas whose pages are read again with one look; the others wait for the next looks."""

_KEPT = 900.0
"""Seconds for which an absent replica is remembered. Names of pods are unique: one that is back goes on where it was, and
one that has restarted shows a fall."""


@dataclass(slots=True)
class _Remembered:
    """What is remembered of a replica.

    Parameters
    ----------
    life : Life
        Whether its counters were restarted.
    seen : float
        When it was last there.
    lines : dict
        Series of each counting line of its page.
    before : dict of Series to float
        Totals up to which it is counted.
    marked : bool
        Whether these are of the weight in force; otherwise its next totals are where counting begins.
    """

    life: Life
    seen: float
    lines: Known = field(default_factory=dict)
    before: dict[Series, float] = field(default_factory=dict)
    marked: bool = True


class ScrapeTelemetry(CounterTelemetry):
    """Telemetry from the replicas themselves.

    Requests that no replica saw, such as those that the gateway lost, are not among them: the load counts those.

    Parameters
    ----------
    replicas : callable
        Returns the replicas that there are now.
    entry : str or Exposition
        Names of their counters.
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
        super().__init__(entry)
        self._replicas, self._place = replicas, place
        self._remembered: dict[str, _Remembered] = {}
        self._present: set[str] = set()
        self._marked = False

    @property
    def sources(self) -> Mapping[str, str]:
        """Which counters are read, where, and what of them is left out."""
        read = {what: f"{name} {self._place}" for what, name in self._entry.names.items()}
        return read | self._entry.told(label_names(series for known in self._remembered.values() for series in known.before))

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count from now on, under this split.

        Raises
        ------
        CanaryError
            Nothing can be read at all, the first time. Later it is the next `read` that says so, if it is still so then: the
            weight has changed already.
        """
        pages: dict[str, dict[Series, float]] = {}
        try:
            pages, problems = self._look(self._listed(since), since)
        except CanaryError as error:
            if self._split is None:
                raise
            problems = [str(error)]
        # What an unread replica counts until it can be read may be of an earlier weight: then counting begins later.
        self._mark(pages)
        if self._split is not None:
            for known in self._remembered.values():
                known.life.expect(self._split, split)
        self._split, self._marked = split, not problems
        self._windows.begin(split, since)

    def _read(self, now: float) -> Window:
        replicas = self._listed(now)
        if workers := proofs(self._lives):
            return self._windows.close(now, workers)
        pages, problems = self._look(replicas, now)
        doubts = [life.doubt for life in self._lives.values() if life.doubt]
        if missing := proofs(self._lives) or "; ".join(problems or doubts):
            # The counts of one version alone would look like a split that lies; they stay in the counters until all are read.
            return self._windows.close(now, missing)
        if not self._marked:
            self._mark(pages)
            self._marked = True
            return self._windows.close(now, "a replica could not be read when the weight was changed: counting begins here")
        for name, totals in pages.items():
            self._count(self._remembered[name], totals)
        return self._windows.close(now)

    @property
    def _lives(self) -> dict[str, Life]:
        """Of the replicas that there are now."""
        return {name: known.life for name, known in self._remembered.items() if name in self._present}

    def _mark(self, pages: Mapping[str, dict[Series, float]]) -> None:
        """Begin to count from these totals; a replica whose page is not there begins with its next one."""
        for name, known in self._remembered.items():
            known.life.mark()
            known.marked = name in pages
            known.before = pages.get(name, known.before)

    def _count(self, known: _Remembered, totals: dict[Series, float]) -> None:
        """Count what one replica has grown by. A series that its page lacks has not begun anew, unless the process has."""
        anew = known.life.take_anew()
        before = known.before if anew is None else anew
        if known.marked:
            self._windows.add(increases(before, totals))
        known.before, known.marked = {**before, **totals}, True

    def _listed(self, now: float) -> Sequence[Replica]:
        """Find the replicas that there are now, and forget those that have been absent for long."""
        replicas = self._replicas()
        self._present = {replica.name for replica in replicas}
        for name in self._present:
            self._remembered.setdefault(name, _Remembered(Life(name), now)).seen = now
        self._remembered = {name: known for name, known in self._remembered.items() if now - known.seen <= _KEPT}
        for name in self._remembered.keys() - self._present:
            if self._remembered[name].life.proof:  # whoever comes back under this name is looked at anew
                self._remembered[name] = _Remembered(Life(name), self._remembered[name].seen, marked=False)
        return replicas

    def _look(self, replicas: Sequence[Replica], now: float) -> tuple[dict[str, dict[Series, float]], list[str]]:
        """Read the pages of all replicas, and those again that may be one worker's of several.

        Returns
        -------
        tuple of (dict, list of str)
            Totals of the replicas that could be read, and why the others could not.
        """
        pages: dict[str, dict[Series, float]] = {}
        problems: list[str] = []
        changed = False
        for replica, page in self._pages(replicas):
            known = self._remembered[replica.name]
            if isinstance(page, Page) and not (page.totals or not known.life.counting or known.life.began_anew(page.started)):
                page = TelemetryError(
                    f"{replica.name} shows no {self._entry.requests} any more: its page is empty, or is another server's"
                )
            if not isinstance(page, Page):
                if isinstance(page, CanaryError) and self._split is None:
                    raise page
                said = str(page)
                problems.append(said if replica.name in said else f"{replica.name} cannot be read: {said}")
                continue
            pages[replica.name] = page.totals
            changed = changed or page.totals.keys() != known.before.keys()
            known.life.see(now, page.totals, page.started)
        if changed:
            self._windows.learn_edges(series for totals in pages.values() for series in totals)
        self._read_again(replicas)
        return pages, problems

    def _read_again(self, replicas: Sequence[Replica]) -> None:
        """Read pages a few times in a row: some of new replicas, of both versions, and all that are in doubt."""
        lives = self._lives
        strange = [replica for replica in replicas if lives[replica.name].strange and lives[replica.name].counting]
        new = [replica for replica in strange if lives[replica.name].new]
        turns = [[replica for replica in new if replica.role == role] for role in ROLES]
        chosen = [replica for pair in zip_longest(*turns) for replica in pair if replica is not None][:_NEW_AT_ONCE]
        chosen += [replica for replica in strange if not lives[replica.name].new]
        for _ in range(_ROUNDS if chosen else 0):
            found: dict[str, list[Page]] = {}
            for replica, page in self._pages([replica for replica in chosen for _ in range(_AT_ONCE)]):
                if isinstance(page, Page):
                    found.setdefault(replica.name, []).append(page)
            for name, pages in found.items():
                lives[name].see_again(pages)

    def _pages(self, replicas: Sequence[Replica]) -> list[tuple[Replica, Page | OSError | CanaryError]]:
        with ThreadPoolExecutor(max(min(len(replicas), _THREADS), 1)) as pool:
            return list(zip(replicas, pool.map(self._page, replicas), strict=True))

    def _page(self, replica: Replica) -> Page | OSError | CanaryError:
        """What a replica's page says, or why it cannot be read or counted."""
        known = self._remembered[replica.name]
        try:
            page = page_of(replica.fetch(), self._entry, replica.role, replica.name, known.lines)
            check_totals(page.totals)
            if page.totals.keys() != known.before.keys():
                buckets.check(page.totals)
            return page
        except (OSError, CanaryError) as error:
            return error
