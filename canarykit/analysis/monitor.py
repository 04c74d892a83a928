"""One guardrail: its counts so far, and its evidence."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from canarykit.analysis.bets import Array
from canarykit.analysis.dispersion import DispersionEstimate
from canarykit.analysis.questions import Split, question_of
from canarykit.analysis.state import Stateful
from canarykit.errors import TelemetryError
from canarykit.model import Comparison, Counts, Guardrail, Window

__all__ = ["Monitor"]

_MERGE_REQUESTS, _MERGE_CANARY = 20, 3

_LEAST = 1e-300
"""Error budget of an interval, at least: a larger φ asks for no more."""

_RECENT_REQUESTS, _RECENT_WINDOWS = 30, 10
"""What stable did last: so many of its requests and windows, at least."""

_RECENT_AT_MOST = 3600


class Monitor(Stateful):
    """One guardrail over all windows.

    Parameters
    ----------
    guardrail : Guardrail
        The guardrail that is monitored.
    alarm_at : float
        Value of E at which it would alarm alone.
    split : {"realised", "known", "mirrored"}
        Where the canary's share of a window comes from.
    dispersion : float, optional
        How much more the labels vary than those of independent requests would (φ); E is taken to the power 1/φ. By default,
        that of a rate is estimated from past windows, and that of other metrics is taken to be 1.
    """

    _STATE = (
        "totals",
        "uninformative",
        "_canary_alone",
        "silent_because",
        "_seconds",
        "_alike",
        "_pending",
        "_pending_weight",
        "_pending_replicas",
        "_events",
        "_recent",
        "_recent_requests",
        "_question",
        "_estimate",
        "dispersion",
        "_safe_dispersion",
    )

    def __init__(
        self, guardrail: Guardrail, alarm_at: float, split: Split = "realised", dispersion: float | None = None
    ) -> None:
        self.guardrail, self.metric, self.alarm_at = guardrail, guardrail.metric, alarm_at
        self.totals = np.zeros((2, len(self.metric.cells)), dtype=np.int64)
        self.uninformative = self._canary_alone = 0
        self.silent_because = "nothing was counted yet"
        self._split = split
        self._seconds = 0.0
        # Stable's requests weighted as the canary's: else a busy hour under one weight looks like a difference.
        self._alike = np.zeros(self.totals.shape)
        self._pending = np.zeros_like(self.totals)
        self._pending_weight: float | None = None
        self._pending_replicas: dict[str, tuple[int, int]] = {}
        self._events = np.zeros(2, dtype=np.int64)
        self._recent: deque[tuple[float, float]] = deque()
        self._recent_requests = 0.0
        self._question = question_of(guardrail, split)
        self._estimate = DispersionEstimate() if dispersion is None and self._question.varies and split != "mirrored" else None
        self.dispersion = self._safe_dispersion = max(dispersion or 1.0, 1.0)
        """φ, as it was known before the newest window."""

    def checked(self, window: Window) -> Counts | None:
        """Return this metric's table of a window; None when there is none.

        Raises
        ------
        TelemetryError
            It holds no counts, or its cells changed.
        """
        table = window.counts.get(self.metric.table)
        if table is None:
            return None
        counts = np.asarray(table)
        name, shape = self.metric.name, self.totals.shape
        if counts.shape != shape:
            raise TelemetryError(f"{name}: a window has a table of shape {counts.shape}, not {shape}: did the cells change?")
        whole = counts.dtype.kind in "iu"
        if counts.min() < 0 or not (whole or (np.isfinite(counts).all() and (counts == np.floor(counts)).all())):
            raise TelemetryError(f"{name}: counts must be whole numbers, 0 or more; NaN and fractions are no counts")
        return counts.astype(np.int64, copy=False)

    def update(self, window: Window, counts: Counts | None) -> None:
        """Take in one window; small ones are merged, never across a change of weight."""
        if counts is None:
            self.silent_because = window.note or f"no source counts {self.metric.table!r}"
            return
        self.silent_because = ""
        self._remember(counts)
        if self._estimate is not None:
            self._gather(window)
        if self._split == "mirrored":
            self._seconds += window.end - window.start
            self._take(counts, 0.5)
            return
        if not 0 < window.split.share < 1:
            # One version alone is no comparison; of a histogram it teaches where stable's quantile lies.
            self.uninformative += int(counts.sum())
            self._canary_alone += int(counts[1].sum())
            if self.metric.kind == "quantile":
                self._question.update(np.array([counts[0], np.zeros_like(counts[0])]), 0.0)
            self._learn(counts)
            return
        if self._split == "known":
            self._seconds += window.end - window.start
            self._take(counts, window.split.share)  # a weight says what to expect of a window of any size
            return
        if self._pending_weight != window.split.canary:
            self.uninformative += int(self._pending.sum())
            self._pending = np.zeros_like(counts)
            self._pending_weight = window.split.canary
        self.totals += counts
        self._seconds += window.end - window.start
        self._pending = self._pending + counts
        stable, canary = (int(n) for n in self._pending.sum(axis=1))
        if stable + canary >= _MERGE_REQUESTS and canary >= _MERGE_CANARY and stable > 0:
            self._alike += self._pending * np.array([[canary / stable], [1.0]])
            self._bet(self._pending, canary / (stable + canary))
            self._pending = np.zeros_like(counts)

    def _remember(self, counts: Counts) -> None:
        """Keep what stable did last: a version that was a reference may have ceased to be one."""
        good, bad = self._question.apart(counts[0])
        self._recent.append((good, bad))
        self._recent_requests += good + bad
        while len(self._recent) > _RECENT_WINDOWS and (
            self._recent_requests - sum(self._recent[0]) >= _RECENT_REQUESTS or len(self._recent) > _RECENT_AT_MOST
        ):
            self._recent_requests -= sum(self._recent.popleft())

    def _take(self, counts: Counts, share: float) -> None:
        stable, canary = (int(n) for n in counts.sum(axis=1))
        self.totals += counts
        if stable and canary:
            self._alike += counts * np.array([[canary / stable], [1.0]])
        self._bet(counts, share)

    def _bet(self, counts: Counts, share: float) -> None:
        """Judge a window by what was known before it, and learn from it after."""
        if self._estimate is not None:
            self.dispersion, self._safe_dispersion = self._estimate.cautious, self._estimate.likely
        self._events += self._question.update(counts, share)
        self._learn(counts)

    def _learn(self, counts: Counts) -> None:
        if self._estimate is not None:
            stable, canary = (int(n) for n in counts.sum(axis=1))
            self._estimate.update((int(counts[0, 1]), int(counts[1, 1])), (stable, canary), self._pending_replicas)
            self._pending_replicas = {}

    def _gather(self, window: Window) -> None:
        """Add what stable's replicas did to what they did since the last window that was learned from."""
        for name, cells in window.instances.get(self.metric.table, {}).items():
            if name.startswith("stable-"):
                bad, requests = self._pending_replicas.get(name, (0, 0))
                self._pending_replicas[name] = (bad + int(cells[1]), requests + int(cells.sum()))

    @property
    def log_e(self) -> float:
        """Evidence that the canary is worse than tolerated, natural log."""
        return self._question.log_e / self.dispersion

    @property
    def log_e_safe(self) -> float:
        """Evidence that it is no worse than the margin, natural log."""
        return self._question.log_e_safe / self._safe_dispersion

    def comparison(self, alpha: float, *, failed: bool = False) -> Comparison:
        """Summarise what was counted so far.

        Parameters
        ----------
        alpha : float
            Chance that the interval ever misses.
        failed : bool
            Whether the guardrail fails: then its interval holds nothing that the alarm rejects.
        """
        stable, canary = (int(n) for n in self.totals.sum(axis=1))
        levels = self._levels()
        interval = self._question.interval(max(alpha**self.dispersion, _LEAST))
        if failed:
            interval = self._question.shown_worse(math.log(self.alarm_at) * self.dispersion, interval)
        return Comparison(
            self.metric.name,
            levels,
            (int(self._events[0]), int(self._events[1])),
            (stable, canary),
            self._question.effect,
            interval,
            self.log_e,
            self.log_e_safe,
            self.alarm_at,
            self._question.log_e_any / self.dispersion,
            alpha,
            self.dispersion,
            self._safe_dispersion if self._estimate is None or self._estimate.known else math.nan,
        )

    def still_needed(self) -> tuple[float, float]:
        """Further requests until it is likely to be decided, and the seconds that they take at the traffic so far."""
        requests = self._question.needed(self.totals, self._levels(), self._safe_dispersion) * self._safe_dispersion
        total = int(self.totals.sum())
        return requests, (requests * self._seconds / total if total and self._seconds else float("nan"))

    @property
    def compared(self) -> Array:
        """What levels are taken from: requests per version and cell, stable's weighted as the canary's in each window."""
        return np.array(self._alike if self._alike.any() else self.totals, dtype=float)

    def _levels(self) -> tuple[float, float]:
        stable, canary = (self._question.level(row) if row.any() else float("nan") for row in self.compared)
        return stable, canary

    def missing(self) -> str | None:
        """Say what is not there; None when both versions were counted, and stable is something to compare with."""
        if self.silent_because:
            return self.silent_because
        stable, canary = self.totals.sum(axis=1)
        if not canary and self._canary_alone:
            return f"in no window did both versions serve: {self.uninformative:,} requests compare nothing"
        # A request that failed or was refused has no duration: that one reached the version is not known here.
        what = "no answered request of {} was counted" if self.metric.kind == "quantile" else "no request reached {}"
        if not canary:
            return what.format("the canary")
        return self._no_reference() if stable else what.format("stable")

    def _no_reference(self) -> str | None:
        """Say why stable is nothing to compare with: by what is shown, by all that was counted, or by what it did last."""
        for row in (self.compared[0], self.totals[0]):
            good, bad = self._question.apart(row)
            if self.totals[0].sum() >= self._question.needed_of_stable and (why := self._question.no_reference(good, bad)):
                return why
        good, bad = (sum(part) for part in zip(*self._recent, strict=True))
        why = self._question.no_reference(good, bad, surely=True)
        return why and f"of late, {why}"

    @property
    def clearable(self) -> bool:
        """Whether the levels of both versions are known: without them nothing passes."""
        enough = int(self.totals[0].sum()) >= self._question.needed_of_stable
        return enough and all(map(math.isfinite, self._levels()))
