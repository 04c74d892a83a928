"""Which scrape targets count the same: a pod that two jobs scrape is counted once. Pure, but for its memory.

Prometheus adds labels to what a target says: ``job``, ``instance``, ``container`` and others. Where two jobs select one pod,
or two Prometheuses scrape it, each of its series is stored twice, with other values of these labels and at other seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain

from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.counters import Page, Series

__all__ = ["Scrapes", "Target", "Targets", "target_of"]

_TARGET_LABELS = (
    *("job", "instance", "endpoint", "service", "container", "node"),
    *("prometheus", "prometheus_replica", "__replica__", "replica", "cluster", "monitor", "scrape_job"),
)
"""Labels that Prometheus, its operator and those who join several of them add, by their usual names."""

_APART = 0.1
"""Seconds between two scrapes from which on they have an order: a page takes a moment to be written."""

Target = tuple[tuple[str, str], ...]
"""The labels that tell a target from others of the same pod."""


Scrapes = dict[float, Page]
"""What a target said, by the times of the scrapes."""


def target_of(labels: Mapping[str, str], entry: Exposition) -> tuple[Target, dict[str, str]]:
    """Split the labels of a series into those of its target and those that the application gave it."""
    ours = {entry.backend, entry.code, entry.fault}
    names = [name for name in _TARGET_LABELS if name in labels and (name not in ours or f"exported_{name}" in labels)]
    own = {name: value for name, value in labels.items() if name not in names and name != "__name__"}
    return tuple((name, labels[name]) for name in names), own


class Targets:
    """Remembers which targets of each source are counted, and which are copies of them."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, Target], str] = {}
        self._counted: dict[str, Target] = {}
        self._differ: dict[tuple[str, Target, Target], int] = {}

    @property
    def twice(self) -> list[str]:
        """What is scraped more than once, and by which targets; the first is the one that is counted."""
        found: dict[str, list[Target]] = {}
        for (_, target), name in sorted(self._names.items()):
            found.setdefault(name, []).append(target)
        said = []
        for name, targets in found.items():
            if len(targets) > 1:
                targets.sort(key=lambda target: target != self._counted[name])
                times = "twice" if len(targets) == 2 else f"{len(targets)} times"
                said.append(f"{name} is scraped {times} ({'; '.join(map(_described, targets))})")
        return said

    def pick(self, source: str, scraped: Mapping[Target, Scrapes], silent: float) -> tuple[dict[str, Target], set[str]]:
        """Say which targets of a source to count.

        One that is counted stays until it has been silent for a while and a copy of it has not.

        Parameters
        ----------
        source : str
            A pod, or a gateway.
        scraped : mapping of Target to Scrapes
            Recent scrapes of all its targets.
        silent : float
            A target whose last scrape was before this moment is silent.

        Returns
        -------
        tuple of (dict, set)
            Targets by the name under which to count them, and those names that are new although the source is not.
        """
        before = {name for (known, _), name in self._names.items() if known == source}
        absent = {self._counted[name] for name in before} - scraped.keys()
        for target in sorted(scraped, key=lambda target: (-len(_keys(scraped[target])), target)):
            name = self._names.get((source, target))
            if name and (self._counted[name] in (target, *absent) or self._same(source, scraped, self._counted[name], target)):
                continue
            mine = {name for (known, _), name in self._names.items() if known == source} - ({name} if name else set())
            copied = next((other for other in sorted(mine) if self._same(source, scraped, self._counted[other], target)), None)
            name = copied or (source if source not in mine and not name else _apart(source, target, mine))
            self._names[source, target] = name
            self._counted.setdefault(name, target)
        picked = {}
        for name in {self._names[source, target] for target in scraped}:
            copies = [target for target in scraped if self._names[source, target] == name]
            kept = self._counted[name]
            best = min(copies, key=lambda t: (max(scraped[t]) < silent, t != kept, -len(_keys(scraped[t])), t))
            self._counted[name] = picked[name] = best
        return picked, (set(picked) - before if before else set())

    def _same(self, source: str, scraped: Mapping[Target, Scrapes], one: Target, other: Target) -> bool:
        """Whether two targets show the same counters, as far as can be seen; what was once seen to differ stays so."""
        if one not in scraped or one == other:
            return False
        pair = (source, min(one, other), max(one, other))
        if self._differ.get(pair, 0) < 2:
            shared = _shared(scraped[one], scraped[other])
            if not shared:
                return False
            self._differ[pair] = max((_contradictions(samples) for samples in shared), default=0)
        return self._differ[pair] < 2


def _keys(scrapes: Scrapes) -> set[Series]:
    return set(chain.from_iterable(scrape.totals for scrape in scrapes.values()))


def _shared(one: Scrapes, other: Scrapes) -> list[list[tuple[float, int, float]]]:
    """Samples (time, which target, total) of the counters that both targets have."""
    keys = [_keys(one), _keys(other)]
    values = [{name: _values(found, name) for name in _label_names(chain(*keys))} for found in keys]
    # Labels of a pod that one job adds and the other does not: the same on all series of a target.
    extra = {
        name for name in values[0] if values[0][name] != values[1][name] and len(values[0][name]) == len(values[1][name]) == 1
    }
    samples: dict[Series, list[tuple[float, int, float]]] = {}
    for number, scrapes in enumerate((one, other)):
        for moment, scrape in scrapes.items():
            for series, total in scrape.totals.items():
                rest = tuple(label for label in series.rest if label[0] not in extra)
                samples.setdefault(series._replace(rest=rest, instance=""), []).append((moment, number, total))
    return [sorted(found) for found in samples.values() if len({number for _, number, _ in found}) == 2]


def _contradictions(samples: Iterable[tuple[float, int, float]]) -> int:
    """How often what one target says cannot be what the other said of the same counter; two are enough."""
    last: dict[int, tuple[float, float]] = {}
    found = 0
    for moment, number, total in samples:
        own, other = last.get(number), last.get(1 - number)
        if other is not None and other[0] == moment:
            found += 2 * (other[1] != total)
        elif own is not None and other is not None and own[0] + _APART <= other[0] <= moment - _APART:
            # Without a restart in between, a copy says something between the two.
            found += own[1] <= total and not own[1] <= other[1] <= total
        last[number] = moment, total
    return found


def _label_names(keys: Iterable[Series]) -> set[str]:
    return {name for series in keys for name, _ in series.rest}


def _values(keys: Iterable[Series], name: str) -> set[str | None]:
    return {dict(series.rest).get(name) for series in keys}


def _described(target: Target) -> str:
    return ", ".join(f"{name} {value}" for name, value in target) or "no label of a target"


def _apart(source: str, target: Target, taken: set[str]) -> str:
    said = f"{source} ({_described(target)})"
    return said if said not in taken else f"{said} {len(taken) + 1}"
