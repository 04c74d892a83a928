"""Losses: what a verdict does not say and an ending has to. Pure, but for what it remembers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from scipy.stats import binom

from canarykit.model import AT_LIMIT, Counts, Guardrail, Window

__all__ = ["Losses"]

_TABLES = {"refused": "requests refused", "denied": "requests denied", "answers": "wrong answers"}
"""What the second cell of a table counts, in words."""

_WORSE, _ENOUGH = 1.5, 10
"""Wrong answers are usual: they are told when the canary gives so many, and so many times as often as stable does."""


_UNLIKELY = 1e-3
"""Chance of as many bad requests at the limit itself, below which a canary with all traffic is known to be above it. It is
looked at once per interval of a promotion, so for a minute or so."""


class Losses:
    """Requests that went badly without a guardrail on it, those that failed after the last verdict, and those at the limit.

    Parameters
    ----------
    limit : float, optional
        Seconds after which the gateway ends a request; None when nobody knows.
    """

    def __init__(self, limit: float | None = None) -> None:
        self._limit, self._at_limit, self._told = limit, 0, False
        self._counted: dict[str, Counts] = {}
        self._promoting = False
        self._since_promotion: dict[str, Counts] = {}

    def take(self, window: Window) -> None:
        """Count one window."""
        if window.judged and 0 < window.split.share < 1:
            for name in _TABLES:
                if name in window.counts:
                    self._counted[name] = window.counts[name] + self._counted.get(name, 0)
        if AT_LIMIT in window.counts:
            self._at_limit += int(window.counts[AT_LIMIT][:, 1].sum())
        if self._promoting:
            for name, table in window.counts.items():
                self._since_promotion[name] = table + self._since_promotion.get(name, 0)

    def promoting(self) -> None:
        """A promotion begins: no verdict comes after it."""
        self._promoting, self._since_promotion = True, {}

    def over_limit(self, guardrails: Iterable[Guardrail]) -> str | None:
        """Say which guardrail's limit the canary has passed since a promotion began; None while it keeps all.

        There is nothing to compare it with by then: it has all traffic.
        """
        for guardrail in guardrails:
            table = self._since_promotion.get(guardrail.metric.table)
            if guardrail.limit is None or table is None or table.shape[1] != 2:
                continue
            total, bad = int(table[1].sum()), int(table[1, 1])
            # The exact test: so many bad ones, or more, at the limit.
            if bad > guardrail.limit * total and binom.sf(bad - 1, total, guardrail.limit) < _UNLIKELY:
                return (
                    f"{guardrail.name}: {bad:,} of the canary's {total:,} requests since it has all traffic, "
                    f"above the limit of {100 * guardrail.limit:g} %"
                )
        return None

    def news(self) -> str | None:
        """Say, once, that the gateway ends requests."""
        if self._told or not self._at_limit:
            return None
        self._told = True
        return self._ended()

    def _ended(self) -> str:
        requests = "1 request" if self._at_limit == 1 else f"{self._at_limit:,} requests"
        limit = "time limit" if self._limit is None else f"limit of {self._limit:g} s"
        return f"504: the gateway's {limit} ended {requests}; set timeout= of the cluster, as in LocalCluster(timeout=60)"

    def told(self, lost: Mapping[str, int], compared: Collection[str]) -> list[str]:
        """Say what was lost, in clauses; none when nothing was.

        Parameters
        ----------
        lost : mapping of str to int
            Lost requests of the kit's own traffic, by cause.
        compared : collection of str
            Tables that a guardrail compares.
        """
        said = []
        if any(lost.values()):
            causes = ", ".join(f"{count:,} {cause}" for cause, count in sorted(lost.items()) if count)
            said.append(f"{sum(lost.values()):,} of the requests that the kit sent were lost ({causes})")
        if self._at_limit:
            said.append(self._ended())
        elif lost.get("gateway 504"):
            said.append("a gateway's 504 is most often its own time limit: see the timeouts of its route")
        for name, table in self._counted.items():
            if name not in compared and _worth_telling(name, table):
                stable, canary = (f"{row[1]:,} of {row.sum():,}" for row in table)
                said.append(f"{_TABLES[name]}: {stable} by stable, {canary} by the canary; no guardrail compares them")
        ended, failed = (int(count) for count in self._since_promotion.get("outcome", np.zeros((2, 2))).sum(axis=0))
        if failed:
            said.append(f"{failed:,} of {ended + failed:,} requests failed during the promotion and after it")
        return said


def _worth_telling(name: str, table: Counts) -> bool:
    if name != "answers":
        return bool(table[:, 1].any())
    stable, canary = table[:, 1] / np.maximum(table.sum(axis=1), 1)
    return bool(table[1, 1] >= _ENOUGH and canary > _WORSE * stable)
