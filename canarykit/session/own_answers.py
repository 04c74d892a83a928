"""Answers to the kit's own traffic: whether the traffic itself is any good, and whether answers can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from canarykit.load.causes import at_limit
from canarykit.load.tally import Answer
from canarykit.statuses import kind_of

__all__ = ["OwnAnswers"]

_ENOUGH = 20
"""Requests to stable from which on their answers say something about what is sent."""

_NEARLY_ALL = 0.9

_REASONS = 50
"""Different reasons that are counted of each version; each may name keys of an answer."""


class OwnAnswers:
    """Counts what stable, or nobody, answered to what one sender sent.

    A canary that refuses what stable accepts is found by a guardrail. Where stable refuses it too, nothing can be learned
    from such traffic, and whoever sends it has to be told.

    Parameters
    ----------
    asked : mapping of str to value
        Options of the traffic, see `Load.asked`: advice names ``compression=``, ``content_type=`` and ``answer=`` as they were
        given.
    """

    def __init__(self, asked: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._asked = asked
        self._seen: Counter[str] = Counter()
        self._labelled: Counter[str] = Counter()
        self._readable = 0
        self._unread: dict[str, Counter[str]] = {}
        self._told: set[str] = set()

    def take(self, answers: Iterable[Answer]) -> None:
        """Count answers."""
        for answer in answers:
            if answer.role != "canary":
                self._seen[_named(answer)] += 1
            if answer.label is not None:
                self._labelled[answer.role] += 1
                self._readable += answer.said is not None
            if answer.label is not None and answer.unread is not None:
                reasons = self._unread.setdefault(answer.role, Counter())
                reasons[answer.unread if answer.unread in reasons or len(reasons) < _REASONS else "other reasons"] += 1

    @property
    def useless(self) -> str | None:
        """Say why nothing can be learned from this traffic; None when something can, or too little is known."""
        total = sum(self._seen.values())
        bad = {name: count for name, count in self._seen.items() if name}
        if total < _ENOUGH or sum(bad.values()) < _NEARLY_ALL * total:
            return None
        most = sorted(bad, key=lambda name: (-bad[name], name))[:3]
        found = ", ".join(f"{bad[name]:,} × {name}" for name in most)
        said = f"stable does not serve what the kit sends: {sum(bad.values()):,} of {total:,} requests ({found}). "
        if at_limit(most[0]):
            return said + "The gateway gave up: set timeout= of the cluster, as in LocalCluster(timeout=60)"
        form = [f"{name}=" for name in ("compression", "content_type") if name in self._asked]
        return said + f"Check {', '.join(['path=', 'method=', 'payloads=', *form])} and headers= of send()"

    @property
    def unreadable(self) -> str | None:
        """Say that no labelled answer of either version could be read; None when one could, or none was labelled."""
        if not self._labelled or self._readable:
            return None
        why = sum(self._unread.values(), Counter())
        where = (
            f"the value at answer={self._asked['answer']!r} of send()"
            if "answer" in self._asked
            else "the value at answer= of send(), which is the first value of the first output by default, outputs.0.data.0"
        )
        return (
            f"no answer of either version to {self._labelled.total():,} labelled requests could be read"
            f"{f' ({_most(why)})' if why else ''}; a label is compared with {where}"
        )

    def news(self) -> list[str]:
        """Say which version's answers cannot be read, and why; each version once, when there are enough of them."""
        new = [role for role, why in self._unread.items() if role not in self._told and why.total() >= _ENOUGH]
        self._told.update(new)
        if new and self.unreadable is not None:
            self._told.update(self._unread)
            return [self.unreadable]
        return [
            f"{self._unread[role].total():,} of {self._labelled[role]:,} labelled answers of {role or 'the service'} could not "
            f"be read, and count as wrong ({_most(self._unread[role])}). Check answer= of send()"
            for role in new
        ]


def _most(reasons: Counter[str]) -> str:
    """The most frequent reason."""
    return min(reasons, key=lambda reason: (-reasons[reason], reason))


def _named(answer: Answer) -> str:
    """What went wrong, in a word or two; empty when nothing did."""
    if answer.lost is not None:
        return f"lost ({answer.lost})"
    if 300 <= answer.status < 400:
        return f"redirected ({answer.status})"
    kind = kind_of(answer.status)
    return "" if kind == "ok" else f"{kind} ({answer.status})"
