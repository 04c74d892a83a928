"""A rollout's windows, added up and judged as they come, so that nobody has to judge them again. Pure.

A day of windows of a second takes half a minute to judge. What a report or a panel needs of them is
small: some hundred sums to draw, what the evidence was at some hundred moments, and what it is now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from canarykit.analysis import Judge
from canarykit.analysis.state import comparison_of, plain
from canarykit.bins import Bin
from canarykit.model import Comparison, Counts, Window

__all__ = ["CHUNK", "Digest", "Poll"]

CHUNK = 64
"""Windows after which what is known is worth keeping; as many are judged again at most."""

_SINGLE = 512
"""Windows that are kept one by one, so that a short rollout is drawn finely; later ones are added up."""

_POLLS = 150
"""Moments of a short rollout at which the evidence is kept; of a longer one some more, and ever fewer per window."""


@dataclass(frozen=True, slots=True)
class Poll:
    """What was known at one moment.

    Parameters
    ----------
    time : float
        Seconds since the epoch.
    comparisons : tuple of Comparison
        One per guardrail.
    log_e : float
        Strongest adjusted evidence of a guardrail, natural log.
    """

    time: float
    comparisons: tuple[Comparison, ...]
    log_e: float

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Poll:
        """Return the poll whose fields `plain` made this of."""
        comparisons = tuple(comparison_of(each) for each in written["comparisons"])
        return cls(float(written["time"]), comparisons, float(written["log_e"]))


@dataclass
class Digest:
    """What is known of the windows so far; what it makes of them depends on the windows alone.

    Parameters
    ----------
    windows : int
        How many there were.
    polls : list of Poll
        Evidence at some moments.
    blocks : list of Bin
        Sums of windows of one weight, oldest first.
    instances : dict of str to (cells,) int array
        Latency counts of each replica while both versions had traffic.
    """

    windows: int = 0
    polls: list[Poll] = field(default_factory=list)
    blocks: list[Bin] = field(default_factory=list)
    instances: dict[str, Counts] = field(default_factory=dict)
    _calm: bool = True
    _judged_until: float | None = None
    _new_polls: int = 0
    _new_blocks: int = 0

    def add(self, window: Window, judge: Judge) -> None:
        """Add a window that the judge has taken in, if it was to be judged."""
        every = max(1, self.windows // _POLLS)
        if window.judged:
            self._judged_until = window.end
            if self.windows % every == 0 or judge.calm != self._calm:
                self.poll(judge)
            self._calm = judge.calm
            if 0 < window.split.share < 1:
                for name, cells in window.instances.get("latency", {}).items():
                    self.instances[name] = self.instances.get(name, np.zeros(1, dtype=np.int64)) + cells
        elif self._judged_until is not None:
            self.poll(judge)  # the last word on a rollout that has ended
        self._put(window)
        self.windows += 1

    def poll(self, judge: Judge) -> None:
        """Note what the judge knows at the end of the last window that was judged, unless that is noted already."""
        if self._judged_until is not None and (not self.polls or self.polls[-1].time != self._judged_until):
            self.polls.append(Poll(self._judged_until, judge.comparisons, judge.log_e))

    def _put(self, window: Window) -> None:
        """Add a window to the last block, or begin a new one where each has its own, or the weight has changed."""
        new = Bin(window.start, window.end, window.split.canary, window.judged)
        new.add(window)
        joins = self.windows >= _SINGLE and self.windows % CHUNK != 0
        if joins and self.blocks[-1].same_as(new):
            self.blocks[-1].add(new)
        else:
            self.blocks.append(new)

    @property
    def due(self) -> bool:
        """Whether what is known is worth keeping now."""
        return self.windows % CHUNK == 0 and self.windows > 0

    def copy(self) -> Digest:
        """Return what is known now; it does not change when more is added here."""
        last = [replace(block, counts=dict(block.counts)) for block in self.blocks[-1:]]
        return replace(self, polls=list(self.polls), blocks=[*self.blocks[:-1], *last], instances=dict(self.instances))

    def forget_polls(self) -> None:
        """Forget what a judge knew who was replaced; all else is news again, because the journal forgets it, too."""
        self.polls, self._judged_until = [], None
        self._new_polls = self._new_blocks = 0

    def news(self) -> dict[str, Any]:
        """Return what has come since the last call, as plain data."""
        polls, blocks = self.polls[self._new_polls :], self.blocks[self._new_blocks :]
        self._new_polls, self._new_blocks = len(self.polls), len(self.blocks)
        return {
            "windows": self.windows,
            "calm": self._calm,
            "judged until": self._judged_until,
            "polls": [plain(asdict(poll)) for poll in polls],
            "blocks": [_block(block) for block in blocks],
            "instances": {name: _sparse(cells) for name, cells in self.instances.items()},
        }

    @classmethod
    def of(cls, news: Sequence[Mapping[str, Any]]) -> Digest:
        """Return the digest whose news these were, oldest first."""
        made = cls()
        for each in news:
            made.polls += [Poll.of(poll) for poll in each["polls"]]
            made.blocks += [_bin(block) for block in each["blocks"]]
        if news:
            last = news[-1]
            made.windows, made._calm, made._judged_until = last["windows"], last["calm"], last["judged until"]
            made.instances = {name: _dense(cells) for name, cells in last["instances"].items()}
        made._new_polls, made._new_blocks = len(made.polls), len(made.blocks)
        return made


def _block(block: Bin) -> dict[str, Any]:
    counts = {name: [_sparse(row) for row in table] for name, table in block.counts.items()}
    return {"start": block.start, "end": block.end, "weight": block.weight, "judged": block.judged, "counts": counts}


def _bin(written: Mapping[str, Any]) -> Bin:
    counts = {name: np.stack([_dense(row) for row in rows]) for name, rows in written["counts"].items()}
    return Bin(written["start"], written["end"], written["weight"], written["judged"], counts)


def _sparse(cells: Counts) -> list[Any]:
    """How many cells there are, and the number and count of those that are not empty."""
    filled = np.flatnonzero(cells)
    return [len(cells), filled.tolist(), cells[filled].tolist()]


def _dense(written: Sequence[Any]) -> Counts:
    size, filled, counts = written
    dense = np.zeros(size, dtype=np.int64)
    dense[filled] = counts
    return dense
