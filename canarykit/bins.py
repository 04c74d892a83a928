"""Bins: windows of one weight added up, coarse enough that a level over time says something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from canarykit.analysis import quantile_of
from canarykit.model import Counts, Metric, Window

__all__ = ["Bin", "binned"]

_BINS = 40
_ENOUGH = 30
"""Canary requests below which a level over time is noise."""


@dataclass
class Bin:
    """Some windows under one weight, added up."""

    start: float
    end: float
    weight: float
    judged: bool = True
    counts: dict[str, Counts] = field(default_factory=dict)

    def add(self, more: Window | Bin) -> None:
        """Add what came after it."""
        self.end = more.end
        for name, table in more.counts.items():
            self.counts[name] = self.counts[name] + table if name in self.counts else table

    def same_as(self, other: Bin) -> bool:
        """Whether both hold the same versions under the same weight."""
        return (self.weight, self.judged) == (other.weight, other.judged)

    @property
    def requests(self) -> tuple[int, int]:
        """Finished requests of stable and canary."""
        table = self.counts.get("outcome")
        return (0, 0) if table is None else (int(table[0].sum()), int(table[1].sum()))

    @property
    def served(self) -> float:
        """Percent of the finished requests that the canary had; NaN when there was none."""
        stable, canary = self.requests
        return 100 * canary / (stable + canary) if stable + canary else float("nan")

    @property
    def full(self) -> bool:
        """Whether each version that has weight has requests enough to say something."""
        table = self.counts.get("outcome")
        if table is None:
            return False
        enough = table.sum(axis=1) >= _ENOUGH
        return bool((enough[0] or self.weight == 100) and (enough[1] or self.weight == 0))

    def level(self, metric: Metric, row: int) -> float:
        """Level of one version; NaN with too few requests to mean anything, so that gaps stay gaps."""
        table = self.counts.get(metric.table)
        if table is None or table[row].sum() < _ENOUGH:
            return float("nan")
        if metric.quantile is not None:
            return quantile_of(table[row], metric.cells, metric.quantile)
        return float(table[row][0 if metric.shown == "good" else 1] / table[row].sum())


def binned(blocks: Sequence[Bin]) -> tuple[Bin, ...]:
    """Add up small bins, oldest first: about so many as a chart can show, each of one weight."""
    width = (blocks[-1].end - blocks[0].start) / _BINS if blocks else 0.0
    bins: list[Bin] = []
    for block in blocks:
        _put(bins, block, width)
    return tuple(bins)


def _put(bins: list[Bin], new: Bin, width: float) -> None:
    """Add a small bin to the last one, or begin another when that is full or the weight has changed."""
    last = bins[-1] if bins else None
    if last is not None and last.same_as(new) and not (last.full and last.end - last.start >= width):
        last.add(new)
        return
    if last is not None and not last.same_as(new) and len(bins) > 1 and bins[-2].same_as(last) and not last.full:
        bins.pop()
        bins[-1].add(last)  # what is left of a step is too little for a bin of its own
    bins.append(replace(new, counts=dict(new.counts)))  # the small ones stay what they are
