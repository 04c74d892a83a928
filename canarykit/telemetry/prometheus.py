"""Counts from a Prometheus: its raw samples, so that they are whole numbers with their times."""

from __future__ import annotations

import base64
import http.client
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from canarykit.errors import TelemetryError
from canarykit.model import ROLES, Role, TrafficSplit, Window
from canarykit.telemetry.base import Answered
from canarykit.telemetry.catalogue import Exposition, Labels, exported, exposition
from canarykit.telemetry.counters import CounterWindows, Series, increases, label_names, series_of
from canarykit.telemetry.pace import Pace
from canarykit.wire import check_address

__all__ = ["PrometheusTelemetry", "Select", "selector"]

_TIMEOUT = 10.0
_LOOK_BACK = 300.0
_LATE = 0.5
_AWAY = (429, 502, 503, 504)

Samples = dict[str, dict[float, dict[Series, float]]]
"""Per source and time of a scrape: the totals."""


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


class _AwayError(TelemetryError):
    """Prometheus did not answer; it may the next time."""


class PrometheusTelemetry:
    """Telemetry from a Prometheus that scrapes a gateway, or the replicas.

    Raw samples are read instead of ``increase()``, which extrapolates: whole numbers, and restarts are seen.

    Parameters
    ----------
    url : str
        Of Prometheus; ``http://user:password@host:9090`` is understood, and never shown.
    entry : str or Exposition
        Who is scraped: ``"traefik"``, ``"istio"``, ``"canarykit"``, ….
    select : mapping of role to labels, to str, or to a list of these
        Labels of each version's series, or matchers as PromQL has them; what is in a list is added up. Labels that an
        operator's scrape renames are understood under both names: those of the first that finds anything are used.

    Raises
    ------
    PlanError
        Nothing is known of such metrics, or the address is none.
    """

    def __init__(self, url: str, entry: str | Exposition, select: Mapping[Role, Select]) -> None:
        check_address("the address of Prometheus", url, user=True)
        self._url, self._authorization = _without_password(url)
        self._entry = exposition(entry)
        self._windows = CounterWindows(self._entry)
        self._spelt = _spelt(self._entry, select)
        self._known: set[str] = set()
        self._before: dict[str, dict[Series, float]] = {}
        self._read_until: dict[str, float] = {}
        self._pace = Pace()
        self._since = time.time()
        self._last = self._since
        self._interval = 15.0
        self._begun = self._blind = False

    @property
    def delay(self) -> float:
        """Seconds after which a finished request has surely been scraped, and all other sources too."""
        return self._interval + self._pace.spread + 2 * _LATE

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
        """Upper edges of its latency buckets in seconds, once a series was seen."""
        return self._windows.edges

    @property
    def sources(self) -> Mapping[str, str]:
        """The queries, as they are asked, and what of the answers is left out."""
        asked = {
            f"{what} of {role}": f"{self._url}: "
            + " or ".join(query for queries in self._spelt for query in queries[role, what])
            for role, what in self._spelt[0]
        }
        return asked | self._entry.told(label_names(series for totals in self._before.values() for series in totals))

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
            self._known |= set(self._samples(since - _LOOK_BACK))
            self._blind = False
        except TelemetryError:
            if not self._begun:
                raise
            self._blind = True
        self._begun = True
        self._since = self._last = since
        self._before, self._read_until = {}, {}
        self._pace.begin()
        self._windows.begin(split, since)

    def label(self, answers: Iterable[Answered]) -> None:
        """Tell which answers were right."""
        self._windows.label(answers)

    def read(self, now: float) -> Window:
        """Return the window since the last read; empty, with the reason, while Prometheus has nothing new of all sources."""
        try:
            found = self._samples(min(self._last, now) - (_LOOK_BACK if self._blind else 2 * self._interval))
        except _AwayError as error:
            return self._windows.close(now, str(error))
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
        newest = {source: max(scrapes) for source, scrapes in found.items() if max(scrapes) >= silent}
        marks = unread - began
        due, waiting = self._pace.due(pending, newest, marks=marks, fresh=began, interval=self._interval)
        late = sorted(source for source in newest if len(pending[source]) <= (source in marks))
        if waiting and len(late) < len(newest):
            whom = ", ".join(late or waiting)
            return self._windows.close(now, f"Prometheus has yet to scrape {whom} since the last look")
        counted = [] if waiting else [self._take_in(source, found[source], moments) for source, moments in due.items()]
        if not any(counted):
            return self._windows.close(now, "Prometheus has not scraped since the last look")
        held_back = [moments[len(due[source])] for source, moments in pending.items() if len(moments) > len(due[source])]
        self._last = min([now, *held_back])
        return self._windows.close(now)

    def _pending(self, source: str, scrapes: Iterable[float]) -> list[float]:
        """Times of scrapes of a source under this weight that were not taken in yet."""
        after = self._read_until.get(source, -math.inf)
        return [moment for moment in sorted(scrapes) if moment >= self._since and moment > after]

    def _take_in(self, source: str, scrapes: Mapping[float, Mapping[Series, float]], moments: Iterable[float]) -> bool:
        """Count what one source has grown by; return whether anything was new."""
        fresh = False
        for moment in moments:
            totals = dict(scrapes[moment])
            before = self._before.get(source, {})
            if before:
                self._windows.add(increases(before, totals))
                fresh = True
                if all(total >= before.get(series, 0.0) for series, total in totals.items()):
                    totals = {**before, **totals}  # a series that this scrape lacks has not begun anew
            elif not self._there_before(source, scrapes):
                self._windows.add(increases({}, totals))  # it began after the weight was in force
                fresh = True
            self._before[source], self._read_until[source] = totals, moment
        return fresh

    def _there_before(self, source: str, scrapes: Mapping[float, Any]) -> bool:
        """Whether a source was known before counting began, or may have been."""
        return source in self._known or min(scrapes) < self._since + self._interval

    def _samples(self, since: float) -> Samples:
        """Raw samples of all our series since a moment."""
        # All queries are for the same moment, a little ago: a scrape is either in all of them or in none.
        until = time.time() - _LATE
        seconds = max(math.ceil(until - since), 1)
        found: Samples = {}
        # Of two spellings one is used, so that a gateway that is stored under both is counted once.
        for queries in self._spelt:
            found = self._found(queries, seconds, until)
            if found:
                self._spelt = [queries, *(other for other in self._spelt if other is not queries)]
                break
        self._windows.learn_edges({series for scrapes in found.values() for totals in scrapes.values() for series in totals})
        gaps = [b - a for scrapes in found.values() for a, b in pairwise(sorted(scrapes))]
        if gaps:
            self._interval = median(gaps)
        return found

    def _found(self, queries: Queries, seconds: int, until: float) -> Samples:
        """Raw samples of the series that these queries find."""
        found: Samples = {}
        for role, query in ((role, query) for (role, _), asked in queries.items() for query in asked):
            for matrix in self._ask(f"{query}[{seconds}s]", until):
                labels = {key: value for key, value in matrix["metric"].items() if key != "__name__"}
                source = labels.get("pod") or labels.get("instance") or "?"
                series = series_of(self._entry, matrix["metric"]["__name__"], labels, role, source)
                for moment, value in matrix["values"] if series is not None else ():
                    assert series is not None
                    found.setdefault(source, {}).setdefault(float(moment), {})[series] = float(value)
        return found

    def _ask(self, query: str, at: float) -> list[dict[str, Any]]:
        """Answer of Prometheus to an instant query for a range of samples."""
        body = urllib.parse.urlencode({"query": query, "time": f"{at:.3f}"}).encode()
        request = urllib.request.Request(f"{self._url}/api/v1/query", body)
        if self._authorization:
            request.add_unredirected_header("authorization", self._authorization)  # it is for this Prometheus alone
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:300]
            kind = _AwayError if error.code in _AWAY else TelemetryError
            raise kind(f"Prometheus at {self._url} answers {error.code} to {query}: {text}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _AwayError(f"Prometheus at {self._url} cannot be reached: {error}") from error
        try:
            found: list[dict[str, Any]] = json.loads(said)["data"]["result"]
        except (ValueError, LookupError, TypeError) as error:
            raise TelemetryError(f"{self._url} does not answer as a Prometheus does: {said[:100]!r}") from error
        return found


def _spelt(entry: Exposition, select: Mapping[Role, Select]) -> list[Queries]:
    """Queries under each spelling of the labels."""
    plain: dict[Role, list[Labels | str]] = {
        role: [chosen] if isinstance(chosen, str | Mapping) else list(chosen) for role, chosen in select.items()
    }
    renamed: dict[Role, list[Labels | str]] = {
        role: [part if isinstance(part, str) else exported(part) for part in parts] for role, parts in plain.items()
    }
    return [
        {(role, what): [name + selector(part) for part in parts[role]] for role in ROLES for what, name in entry.names.items()}
        for parts in ([plain] if renamed == plain else [plain, renamed])
    ]


def _without_password(url: str) -> tuple[str, str | None]:
    """Address without what it says of the user, and that as a header."""
    parts = urllib.parse.urlsplit(url.rstrip("/"))
    if parts.username is None:
        return url.rstrip("/"), None
    said = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return clean, f"Basic {base64.b64encode(said.encode()).decode()}"
