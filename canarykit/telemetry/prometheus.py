"""Counts from a Prometheus: its raw samples, so that they are whole numbers with their times."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from canarykit.errors import CanaryError, TelemetryError
from canarykit.model import ROLES, Role, TrafficSplit, Window
from canarykit.telemetry import buckets
from canarykit.telemetry.alignment import Alignment
from canarykit.telemetry.catalogue import Exposition, Labels, exported
from canarykit.telemetry.counters import CounterTelemetry, Page, Series, check_totals, increases, label_names, series_of
from canarykit.telemetry.prometheus_api import PrometheusApi, seconds_of, selects
from canarykit.telemetry.restarts import START, Life, proofs
from canarykit.telemetry.targets import Scrapes, Target, Targets, target_of

__all__ = ["PrometheusTelemetry", "Select", "selector"]

_LOOK_BACK = 300.0
_SCRAPES_BACK = 5
_USUAL_INTERVAL = 15.0
_LATE = 0.5


Select = Labels | str | Sequence[Labels | str]
"""Which series are a version's."""

Queries = dict[tuple[Role, str], list[str]]
"""Per version and what is counted: the series."""


def selector(labels: Labels | str) -> str:
    """Write labels as PromQL does; a value that begins with ``~`` is a regular expression. A text is matchers already."""
    if isinstance(labels, str):
        return "{" + labels + "}"
    parts = []
    for name, value in sorted(labels.items()):
        sign, text = ("=~", value[1:]) if value.startswith("~") else ("=", value)
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'{name}{sign}"{escaped}"')
    return "{" + ",".join(parts) + "}"


class PrometheusTelemetry(CounterTelemetry):
    """Telemetry from a Prometheus that scrapes a gateway, or the replicas.

    Raw samples are read instead of ``increase()``, which extrapolates: whole numbers, and restarts are seen.

    Parameters
    ----------
    url : str
        Address of Prometheus; ``http://user:password@host:9090`` is understood, and never shown.
    entry : str or Exposition
        Who is scraped: ``"traefik"``, ``"istio"``, ``"canarykit"``, ….
    select : mapping of role to labels, to str, or to a list of these
        Labels of each version's series, or matchers as PromQL has them; what is in a list is added up. Labels that an
        operator's scrape renames are understood under both names: those of the first that finds anything are used.
    token_file : path, optional
        File with the bearer token; see `PrometheusApi`.

    Raises
    ------
    PlanError
        Nothing is known of such metrics, the address is none, or there are two ways to say who asks.
    """

    def __init__(
        self,
        url: str,
        entry: str | Exposition,
        select: Mapping[Role, Select],
        *,
        token_file: str | Path | None = None,
    ) -> None:
        super().__init__(entry)
        self._api = PrometheusApi(url, token_file=token_file)
        self._select = [part for role in ROLES for part in _parts(select[role]) if not isinstance(part, str)]
        self._spelt = _spelt(self._entry, select)
        self._known: set[str] = set()
        self._before: dict[str, dict[Series, float]] = {}
        self._read_until: dict[str, float] = {}
        self._lives: dict[str, Life] = {}
        self._targets = Targets()
        self._alignment = Alignment()
        self._seen: set[frozenset[str]] = set()
        self._since = time.time()
        self._last = self._since
        self._configured: dict[Target, float] | None = {}
        self._asked_for: set[Target] = set()
        # As Prometheus is configured, else as its samples show, else the usual one; and that of whoever is scraped most often.
        self._interval = self._shortest = _USUAL_INTERVAL
        self._blind = self._measured = False

    @property
    def delay(self) -> float:
        """Seconds after which a finished request has surely been scraped, and all other sources too."""
        return self._interval + self._alignment.spread + 2 * _LATE

    @property
    def sources(self) -> Mapping[str, str]:
        """The queries, as they are asked; what of the answers is left out; how often is scraped; and what is scraped twice."""
        said = {
            f"{what} of {role}": f"{self._api.url}: "
            + " or ".join(query for queries in self._spelt for query in queries[role, what])
            for role, what in self._spelt[0]
            if what != START
        }
        said |= self._entry.told(self._seen)
        said["scrape interval"] = f"{self._interval:g} s"
        if twice := self._targets.twice:
            said["scraped twice"] = f"{', '.join(twice)}: counted once, from the first that is named"
        return said

    def begin(self, split: TrafficSplit, since: float) -> None:
        """Count from now on: what the first scrape after `since` says is where counting begins.

        Raises
        ------
        TelemetryError
            Nothing can be read at all, the first time. Later it is the next `read` that says so: the weight has changed
            already, and what was scraped meanwhile is not lost.
        """
        try:
            # Seen once, so that its buckets, the interval of its scrapes and its sources are known.
            found = self._samples(since - self._look_back)
            if self._look_back > _LOOK_BACK:
                found = self._samples(since - self._look_back)
            self._known |= set(found)
            self._blind = False
        except CanaryError:
            if self._split is None:
                raise
            self._blind = True
        if self._split is not None:
            for life in self._lives.values():
                life.expect(self._split, split)
        self._split = split
        self._since = self._last = since
        self._before, self._read_until = {}, {}
        self._alignment.begin()
        self._windows.begin(split, since)

    def _read(self, now: float) -> Window:
        found = self._samples(min(self._last, now) - (self._look_back if self._blind else 2 * self._interval))
        if workers := proofs(self._lives):
            return self._windows.close(now, workers)
        if self._blind:
            self._known |= {source for source, scrapes in found.items() if min(scrapes) < self._since}
            self._blind = False
        if not found:
            return self._windows.close(now, f"Prometheus has no series {self._entry.requests} of either version")
        pending = {source: self._pending(source, scrapes) for source, scrapes in found.items()}
        unread = {source for source in found if source not in self._read_until}
        began = {source for source in unread if not self._there_before(source, found[source])}
        # Whoever missed two scrapes is waited for no longer: its pod may be gone.
        silent = now - 2 * self._interval - 2 * _LATE
        newest = {source: self._clear(source, scrapes) for source, scrapes in found.items() if max(scrapes) >= silent}
        marks = unread - began
        due, waiting = self._alignment.due(
            pending, newest, marks=marks, fresh=began, interval=self._interval, shortest=self._shortest
        )
        late = sorted(source for source in newest if len(pending[source]) <= (source in marks))
        doubts = [self._lives[source].doubt for source in late if self._lives[source].doubt]
        if doubts:
            return self._windows.close(now, "; ".join(doubts))
        if waiting and len(late) < len(newest):
            whom = ", ".join(late or waiting)
            return self._windows.close(now, f"Prometheus has yet to scrape {whom} since the last look", waiting=True)
        counted = [] if waiting else [self._take_in(source, found[source], moments) for source, moments in due.items()]
        if not any(counted):
            return self._windows.close(now, "Prometheus has not scraped since the last look", waiting=True)
        held_back = [moments[len(due[source])] for source, moments in pending.items() if len(moments) > len(due[source])]
        doubted = [self._lives[source].doubted_since for source in newest]
        self._last = min([now, *held_back, *doubted])
        roles = {source: {series.role for series in scrapes[max(scrapes)].totals} for source, scrapes in found.items()}
        return self._windows.close(now, apart=self._alignment.apart(roles))

    @property
    def _look_back(self) -> float:
        """Seconds that are looked back for what there was before."""
        return max(_LOOK_BACK, _SCRAPES_BACK * self._interval)

    def _clear(self, source: str, scrapes: Iterable[float]) -> float:
        """Time of the last scrape of a source that can be counted."""
        return max((moment for moment in scrapes if moment < self._lives[source].doubted_since), default=-math.inf)

    def _pending(self, source: str, scrapes: Iterable[float]) -> list[float]:
        """Times of scrapes of a source under this weight that were not taken in yet."""
        after, until = self._read_until.get(source, -math.inf), self._lives[source].doubted_since
        return [moment for moment in sorted(scrapes) if moment >= self._since and after < moment < until]

    def _take_in(self, source: str, scrapes: Scrapes, moments: Iterable[float]) -> bool:
        """Count what one source has grown by; return whether anything was new."""
        fresh = False
        for moment in moments:
            totals: dict[Series, float] = dict(scrapes[moment].totals)
            before: Mapping[Series, float] = self._before.get(source, {})
            if before:
                anew = self._lives[source].anew.get(moment)
                if not before.keys() & totals.keys():
                    anew = totals  # a copy whose series have other labels took over: what it counted is no growth
                before = before if anew is None else anew
                self._windows.add(increases(before, totals))
                fresh = True
                if anew is None:
                    totals = {**before, **totals}  # a series that this scrape lacks has not begun anew
            elif not self._there_before(source, scrapes):
                self._windows.add(increases({}, totals))  # it began after the weight was in force
                fresh = True
            self._before[source], self._read_until[source] = totals, moment
        return fresh

    def _there_before(self, source: str, scrapes: Mapping[float, Any]) -> bool:
        """Whether a source was known before counting began, or may have been."""
        return source in self._known or min(scrapes) < self._since + self._interval

    def _samples(self, since: float) -> dict[str, Scrapes]:
        """Raw samples of all our series since a moment, by the sources that are counted."""
        # All queries are for the same moment, a little ago: a scrape is either in all of them or in none.
        until = time.time() - _LATE
        seconds = max(math.ceil(until - since), 1)
        scraped: dict[str, dict[Target, Scrapes]] = {}
        # Of two spellings one is used, so that a gateway that is stored under both is counted once.
        best: set[Role] = set()
        for queries in self._spelt:
            candidate, roles = self._scraped(queries, seconds, until)
            if len(roles) > len(best):
                best, scraped = roles, candidate
                self._spelt = [queries, *(other for other in self._spelt if other is not queries)]
            if len(best) == len(ROLES):
                break
        self._learn_interval(scraped)
        silent = until - 2 * self._interval - 2 * _LATE
        found: dict[str, Scrapes] = {}
        for source, targets in scraped.items():
            counting = {
                target: {moment: scrape for moment, scrape in scrapes.items() if scrape.totals}
                for target, scrapes in targets.items()
            }
            counted = {target: scrapes for target, scrapes in counting.items() if scrapes}
            if not counted:
                continue
            picked, late = self._targets.pick(source, counted, silent)
            self._known |= late  # what they have counted so far may be of any weight
            found |= {name: _named(counted[target], name) for name, target in picked.items()}
        latest = max((max(scrapes) for scrapes in found.values()), default=until) - 2 * self._interval - 2 * _LATE
        found = {source: kept for source, scrapes in found.items() if (kept := _readable(scrapes, latest))}
        self._windows.learn_edges(
            {series for scrapes in found.values() for scrape in scrapes.values() for series in scrape.totals}
        )
        newest = (series for scrapes in found.values() for series in scrapes[max(scrapes)].totals)
        self._seen |= {frozenset(names) for names in label_names(newest)}
        for source, scrapes in found.items():
            life = self._lives.setdefault(source, Life(source))
            for moment in sorted(moment for moment in scrapes if moment > life.moment):
                life.see(moment, scrapes[moment].totals, scrapes[moment].started)
        self._forget(found, latest)
        if not self._configured:
            self._measure_interval(found)
        return found

    def _forget(self, found: dict[str, Scrapes], silent: float) -> None:
        """Forget sources that were one worker's of several and are gone, and what is known of those that are long gone."""
        for source, life in list(self._lives.items()):
            gone = source not in found or max(found[source]) < silent
            if gone and life.proof:
                found.pop(source, None)
                self._known.add(source)  # whoever comes back under this name is looked at anew
            elif source in found or life.moment >= silent - self._look_back:
                continue
            for remembered in (self._lives, self._before, self._read_until):
                remembered.pop(source, None)

    def _scraped(self, queries: Queries, seconds: int, until: float) -> tuple[dict[str, dict[Target, Scrapes]], set[Role]]:
        """Raw samples of the series that these queries find, by source and target; and the versions that they count."""
        scraped: dict[str, dict[Target, Scrapes]] = {}
        roles: set[Role] = set()
        for (role, what), asked in queries.items():
            for query in asked:
                for matrix in self._api.query(f"{query}[{seconds}s]", until):
                    if self._sort_in(scraped, role, what, matrix):
                        roles.add(role)
        return scraped, roles

    def _measure_interval(self, found: Mapping[str, Scrapes]) -> None:
        """Take the interval from the samples: a scrape that was missed makes no source slower."""
        gaps = [[b - a for a, b in pairwise(sorted(scrapes))] for scrapes in found.values()]
        usual = [median(each) for each in gaps if len(each) > 2]
        if not usual and not self._measured and any(gaps):
            usual = [median(gap for each in gaps for gap in each)]
        if usual:
            self._measured, self._interval, self._shortest = True, max(usual), min(usual)

    def _sort_in(self, scraped: dict[str, dict[Target, Scrapes]], role: Role, what: str, matrix: Mapping[str, Any]) -> bool:
        """Add the samples of one series to those of its target; return whether it counts requests."""
        labels = matrix["metric"]
        source = labels.get("pod") or labels.get("instance") or "?"
        target, own = target_of(labels, self._entry)
        try:
            series = None if what == START else series_of(self._entry, labels["__name__"], own, role, source)
        except ValueError as error:
            raise TelemetryError(f"{source} has a series {labels} that cannot be read: {error}") from error
        if series is None and what != START:
            return False
        scrapes = scraped.setdefault(source, {}).setdefault(target, {})
        for moment, value in matrix["values"]:
            scrape = scrapes.setdefault(float(moment), Page({}, []))
            if series is None:
                scrape.starts.append(float(value))
            else:
                scrape.totals[series] = float(value)
        return series is not None

    def _learn_interval(self, scraped: Mapping[str, Mapping[Target, Scrapes]]) -> None:
        """Ask Prometheus how often it scrapes, whenever there are targets of which that is not known."""
        targets = {target for found in scraped.values() for target in found}
        if self._configured is None or (self._split is not None and targets <= self._asked_for):
            return
        self._asked_for |= targets
        said = self._api.targets()
        if said is None:
            self._configured = None  # it does not say, so the samples have to
            return
        # Others may have joined some labels to the series, but not to the targets: of those, job and instance are enough.
        known = [{name: value for name, value in target if name in ("job", "instance")} for target in targets]
        wanted = [*self._select, *filter(None, known)]
        for entry in said:
            labels, interval = entry.get("labels") or {}, seconds_of(entry.get("scrapeInterval"))
            if interval is not None and any(selects(each, labels) for each in wanted):
                self._configured[target_of(labels, self._entry)[0]] = interval
        if self._configured:
            self._interval, self._shortest = max(self._configured.values()), min(self._configured.values())


def _parts(chosen: Select) -> list[Labels | str]:
    """What is added up for one version."""
    return [chosen] if isinstance(chosen, str | Mapping) else list(chosen)


def _spelt(entry: Exposition, select: Mapping[Role, Select]) -> list[Queries]:
    """Queries under each spelling of the labels."""
    plain: dict[Role, list[Labels | str]] = {role: _parts(chosen) for role, chosen in select.items()}
    spellings = [plain]
    for by_pod in (False, True):
        renamed: dict[Role, list[Labels | str]] = {
            role: [part if isinstance(part, str) else exported(part, by_pod=by_pod) for part in parts]
            for role, parts in plain.items()
        }
        if renamed not in spellings:
            spellings.append(renamed)
    # A gateway's processes do not carry the labels of the backends that they count.
    names = entry.names | ({START: START} if entry.backend is None else {})
    return [
        {(role, what): [name + selector(part) for part in parts[role]] for role in ROLES for what, name in names.items()}
        for parts in spellings
    ]


def _readable(scrapes: Scrapes, silent: float) -> Scrapes:
    """Scrapes of a source whose counters count, as if the others had been missed.

    Raises
    ------
    TelemetryError
        The newest one does not, and the source has not been silent since a moment before it.
    """
    newest, readable = max(scrapes), {}
    for moment, scrape in scrapes.items():
        try:
            check_totals(scrape.totals)
            buckets.check(scrape.totals)
            readable[moment] = scrape
        except TelemetryError:
            if moment == newest and newest >= silent:
                raise
    return readable


def _named(scrapes: Scrapes, name: str) -> Scrapes:
    """The same scrapes, of a source with this name."""
    return {
        moment: Page({series._replace(instance=name): total for series, total in scrape.totals.items()}, scrape.starts)
        for moment, scrape in scrapes.items()
    }
