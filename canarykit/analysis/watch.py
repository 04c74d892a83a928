"""One guardrail: its counts so far, and its evidence."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from canarykit.analysis.bets import Array, class_bets, latency_bets, score_bets
from canarykit.analysis.evidence import CeilingEvidence, LabelEvidence, QuantileEvidence, RateEvidence
from canarykit.analysis.histogram import moments_of, quantile_of
from canarykit.analysis.intervals import MeanDifference
from canarykit.analysis.power import HISTOGRAM_FACTOR, RATE_FACTOR, still_needed
from canarykit.analysis.slowdown import SlowdownEvidence
from canarykit.errors import TelemetryError
from canarykit.model import Comparison, Counts, Guardrail, TrafficSplit, Window

__all__ = ["SPLITS", "Split", "Watch"]

Split = Literal["realised", "known", "mirrored"]
SPLITS: tuple[Split, ...] = ("realised", "known", "mirrored")
"""Where the canary's share of a window comes from: its own counts; the configured weight; or both versions answer the
same requests, and only those are counted on which they disagree."""

_MERGE_REQUESTS, _MERGE_CANARY = 20, 3
_NOTHING = (float("nan"), float("nan"))


class Question(Protocol):
    """Evidence of one kind of metric."""

    @property
    def log_e(self) -> float:
        """That the canary is worse than tolerated."""
        ...

    @property
    def log_e_safe(self) -> float:
        """That it is no worse than the margin."""
        ...

    @property
    def log_e_any(self) -> float:
        """That it differs at all, as far as this kind can tell."""
        ...

    @property
    def effect(self) -> float:
        """Canary against stable."""
        ...

    def update(self, counts: Counts, share: float) -> tuple[int, int]:
        """Take in one window; return its events, stable first."""
        ...

    def interval(self, alpha: float) -> tuple[float, float]:
        """Confidence sequence of the effect."""
        ...

    def level(self, row: Array) -> float:
        """Level of one version with these counts."""
        ...

    def needed(self, totals: Counts, levels: tuple[float, float]) -> float:
        """Further requests until it is likely to be decided; NaN when that cannot be said."""
        ...


class _Rate:
    def __init__(self, guardrail: Guardrail, split: Split) -> None:
        self._good_first = guardrail.metric.shown == "good"
        self._margin = guardrail.margin
        # Wrong answers are not rare: the right ones are evidence, too; not of a pair, where one tells the other.
        both = self._good_first and split != "mirrored"
        self._rate = RateEvidence(guardrail.tolerate, guardrail.margin, guardrail.mde, both_cells=both)
        self._ceiling = CeilingEvidence(guardrail.ceiling) if guardrail.ceiling is not None else None

    def update(self, counts: Counts, share: float) -> tuple[int, int]:
        stable, canary = (int(n) for n in counts[:, 1])
        served = counts.sum(axis=1)
        self._rate.update(canary, stable + canary, share, (float(served[0]), float(served[1])))
        if self._ceiling is not None:
            self._ceiling.update(canary, float(counts[1].sum()))
        return stable, canary

    @property
    def log_e(self) -> float:
        return self._rate.log_e

    @property
    def log_e_safe(self) -> float:
        if self._ceiling is None:
            return self._rate.log_e_safe
        # "Worse than the margin *and* above the ceiling": the mean of both e-values.
        return float(np.logaddexp(self._rate.log_e_safe, self._ceiling.log_e) - math.log(2))

    @property
    def log_e_any(self) -> float:
        return self._rate.log_e

    @property
    def effect(self) -> float:
        return self._rate.effect

    def interval(self, alpha: float) -> tuple[float, float]:
        return self._rate.interval(alpha)

    def level(self, row: Array) -> float:
        return float(row[0 if self._good_first else 1] / row.sum())

    def needed(self, totals: Counts, levels: tuple[float, float]) -> float:
        bad = (1 - levels[0], 1 - levels[1]) if self._good_first else levels
        stable, canary = (int(n) for n in totals.sum(axis=1))
        return still_needed(bad, (stable, canary), self._margin, log_e_safe=self.log_e_safe)


class _Quantile:
    def __init__(self, guardrail: Guardrail) -> None:
        metric = guardrail.metric
        assert metric.quantile is not None
        self._edges, self._p, self._margin = metric.cells, metric.quantile, guardrail.margin
        self._any_slowdown = guardrail.tolerate == 1
        self._quantile = QuantileEvidence(metric.cells, metric.quantile, guardrail.tolerate, guardrail.margin)
        self._shape = LabelEvidence(len(metric.cells), lambda stable, canary: latency_bets(stable, metric.cells, guardrail.mde))
        # A bucket wider than the tolerated ratio cannot hold a quantile and its multiple apart: all buckets together can.
        widest = max((b / a for a, b in pairwise(metric.cells) if math.isfinite(b)), default=math.inf)
        coarse = widest > max(guardrail.tolerate, 1.1)
        self._slowdown = SlowdownEvidence(metric.cells, guardrail.tolerate, guardrail.margin) if coarse else None

    def update(self, counts: Counts, share: float) -> tuple[int, int]:
        self._shape.update(counts.astype(float), share)
        if self._slowdown is not None:
            self._slowdown.update(counts.astype(float), share)
        return self._quantile.update(counts[0].astype(float), counts[1].astype(float)) or (0, 0)

    @property
    def log_e(self) -> float:
        # Instances are not versions: that latency differs *somehow* fails a canary only when no slowdown is tolerated.
        if self._any_slowdown:
            return self._shape.log_e
        return self._mean(self._quantile.log_e, self._slowdown.log_e if self._slowdown else None)

    @property
    def log_e_safe(self) -> float:
        return self._mean(self._quantile.log_e_safe, self._slowdown.log_e_safe if self._slowdown else None)

    @staticmethod
    def _mean(exact: float, interpolated: float | None) -> float:
        """Logarithm of the mean of two e-values; of one, itself."""
        return exact if interpolated is None else float(np.logaddexp(exact, interpolated) - math.log(2))

    @property
    def log_e_any(self) -> float:
        return self._shape.log_e

    @property
    def effect(self) -> float:
        return (self._slowdown or self._quantile).effect

    def interval(self, alpha: float) -> tuple[float, float]:
        return (self._slowdown or self._quantile).interval(alpha)

    def level(self, row: Array) -> float:
        return quantile_of(row, self._edges, self._p)

    def needed(self, totals: Counts, levels: tuple[float, float]) -> float:
        stable, canary = (int(n) for n in totals.sum(axis=1))
        if not stable or not canary or not math.isfinite(levels[0]):
            return float("nan")
        # A canary slower by the margin passes stable's quantile as often as stable passes quantile / margin.
        slow = float(totals[0][np.asarray(self._edges) > levels[0] / self._margin].sum()) / stable
        base = 1 - self._p
        return still_needed((base, base), (stable, canary), max(slow / base, 1.01), log_e_safe=self.log_e_safe) * (
            HISTOGRAM_FACTOR / RATE_FACTOR
        )


class _Means:
    """Scores, and shares of classes: differences of means, in the metric's own units."""

    def __init__(self, guardrail: Guardrail) -> None:
        metric = guardrail.metric
        self._margin = guardrail.margin
        if metric.kind == "score":
            self._columns = [np.asarray(metric.cells, dtype=float)]
            self._labels = LabelEvidence(len(metric.cells), lambda stable, canary: score_bets(stable, metric.cells))
        else:
            self._columns = list(np.eye(len(metric.cells)))
            self._labels = LabelEvidence(len(metric.cells), class_bets)
        self._both_sides = metric.kind == "classes"
        self._differences = [MeanDifference() for _ in self._columns]

    def update(self, counts: Counts, share: float) -> tuple[int, int]:
        self._labels.update(counts.astype(float), share)
        for values, difference in zip(self._columns, self._differences, strict=True):
            rows = [(float(row.sum()), *moments_of(row, values)) for row in counts]
            difference.update(rows[0], rows[1])
        return int(counts[0].sum()), int(counts[1].sum())

    @property
    def log_e(self) -> float:
        return self._labels.log_e

    @property
    def log_e_any(self) -> float:
        return self._labels.log_e

    @property
    def log_e_safe(self) -> float:
        sides = []
        for difference in self._differences:
            for bound in (-self._margin, self._margin) if self._both_sides else (-self._margin,):
                inside = (difference.estimate - bound) * (1 if bound < 0 else -1)
                sides.append(difference.log_e(bound) if inside > 0 else -difference.log_e(bound))
        return min(sides)  # all must be cleared

    @property
    def _largest(self) -> MeanDifference:
        return max(self._differences, key=lambda difference: abs(np.nan_to_num(difference.estimate)))

    @property
    def effect(self) -> float:
        return self._largest.estimate

    def interval(self, alpha: float) -> tuple[float, float]:
        return self._largest.interval(alpha / len(self._differences))

    def level(self, row: Array) -> float:
        values = self._columns[self._differences.index(self._largest)]
        return moments_of(row, values)[0]

    def needed(self, totals: Counts, levels: tuple[float, float]) -> float:
        return float("nan")


class Watch:
    """One guardrail over all windows.

    Parameters
    ----------
    guardrail : Guardrail
        What is watched.
    alarm_at : float
        Value of E at which it would alarm alone.
    split : {"realised", "known", "mirrored"}
        Where the canary's share of a window comes from.
    dispersion : float
        How much more the labels vary than independent requests would (φ of an A/A split); E is taken to the power 1/φ.
    """

    def __init__(self, guardrail: Guardrail, alarm_at: float, split: Split = "realised", dispersion: float = 1.0) -> None:
        self.guardrail, self.metric, self.alarm_at = guardrail, guardrail.metric, alarm_at
        self.totals = np.zeros((2, len(self.metric.cells)), dtype=np.int64)
        self.uninformative = 0
        self.silent_because = "nothing was counted yet"
        self._split, self._dispersion = split, max(dispersion, 1.0)
        self._seconds = 0.0
        # Stable's requests weighted as the canary's: else a busy hour under one weight looks like a difference.
        self._alike = np.zeros(self.totals.shape)
        self._pending = np.zeros_like(self.totals)
        self._pending_split: TrafficSplit | None = None
        self._events = np.zeros(2, dtype=np.int64)
        kinds: dict[str, Callable[[], Question]] = {
            "rate": lambda: _Rate(guardrail, split),
            "quantile": lambda: _Quantile(guardrail),
            "score": lambda: _Means(guardrail),
            "classes": lambda: _Means(guardrail),
        }
        self._question = kinds[self.metric.kind]()

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
        if self._split == "mirrored":
            self._seconds += window.end - window.start
            self._take(counts, 0.5)
            return
        if not 0 < window.split.share < 1:
            # One version alone is no comparison; of a histogram it teaches where stable's quantile lies.
            self.uninformative += int(counts.sum())
            if self.metric.kind == "quantile":
                self._question.update(np.array([counts[0], np.zeros_like(counts[0])]), 0.0)
            return
        if self._split == "known":
            self._seconds += window.end - window.start
            self._take(counts, window.split.share)  # a weight says what to expect of a window of any size
            return
        if self._pending_split != window.split:
            self.uninformative += int(self._pending.sum())
            self._pending = np.zeros_like(counts)
            self._pending_split = window.split
        self.totals += counts
        self._seconds += window.end - window.start
        self._pending = self._pending + counts
        stable, canary = (int(n) for n in self._pending.sum(axis=1))
        if stable + canary >= _MERGE_REQUESTS and canary >= _MERGE_CANARY and stable > 0:
            self._alike += self._pending * np.array([[canary / stable], [1.0]])
            self._events += self._question.update(self._pending, canary / (stable + canary))
            self._pending = np.zeros_like(counts)

    def _take(self, counts: Counts, share: float) -> None:
        stable, canary = (int(n) for n in counts.sum(axis=1))
        self.totals += counts
        if stable and canary:
            self._alike += counts * np.array([[canary / stable], [1.0]])
        self._events += self._question.update(counts, share)

    @property
    def log_e(self) -> float:
        """Evidence that the canary is worse than tolerated, natural log."""
        return self._question.log_e / self._dispersion

    @property
    def log_e_safe(self) -> float:
        """Evidence that it is no worse than the margin, natural log."""
        return self._question.log_e_safe / self._dispersion

    def comparison(self, alpha: float) -> Comparison:
        """Summarise what was counted so far."""
        stable, canary = (int(n) for n in self.totals.sum(axis=1))
        levels = self._levels()
        return Comparison(
            self.metric.name,
            levels,
            (int(self._events[0]), int(self._events[1])),
            (stable, canary),
            self._question.effect,
            self._question.interval(alpha**self._dispersion),
            self.log_e,
            self.log_e_safe,
            self.alarm_at,
            self._question.log_e_any / self._dispersion,
        )

    def still_needed(self) -> tuple[float, float]:
        """Further requests until it is likely to be decided, and the seconds that they take at the traffic so far."""
        requests = self._question.needed(self.totals, self._levels()) * self._dispersion
        total = int(self.totals.sum())
        return requests, (requests * self._seconds / total if total and self._seconds else float("nan"))

    def _levels(self) -> tuple[float, float]:
        tables: Counts | Array = self._alike if self._alike.any() else self.totals
        stable, canary = (self._question.level(row) if row.any() else float("nan") for row in tables)
        return stable, canary

    def missing(self) -> str | None:
        """Say what is not there; None when both versions were counted."""
        if self.silent_because:
            return self.silent_because
        stable, canary = self.totals.sum(axis=1)
        if not canary:
            return "no request reached the canary"
        return None if stable else "no request reached stable"
