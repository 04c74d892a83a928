"""One guardrail's question, for each kind of metric: which evidence it needs, and what that says."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np

from canarykit.analysis.bets import Array, class_bets, latency_bets, score_bets
from canarykit.analysis.evidence import CeilingEvidence, LabelEvidence, QuantileEvidence, RateEvidence
from canarykit.analysis.histogram import moments_of, quantile_of
from canarykit.analysis.intervals import MeanDifference
from canarykit.analysis.power import HISTOGRAM_FACTOR, RATE_FACTOR, still_needed, still_needed_below
from canarykit.analysis.slowdown import SlowdownEvidence
from canarykit.analysis.state import Stateful
from canarykit.model import Counts, Guardrail, Metric

__all__ = ["SPLITS", "Question", "Split", "question_of"]

Split = Literal["realised", "known", "mirrored"]
SPLITS: tuple[Split, ...] = ("realised", "known", "mirrored")
"""Where the canary's share of a window comes from: its own counts; the configured weight; or both versions answer the
same requests, and only those are counted on which they disagree."""


_WIDE = 1.1
"""Growth of buckets from which on a ratio is no longer rounded to whole ones."""


class Question(Protocol):
    """Evidence of one kind of metric; its classes are `Stateful`."""

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

    def needed(self, totals: Counts, levels: tuple[float, float], dispersion: float) -> float:
        """Further requests until it is likely to be decided, at φ = 1; NaN when that cannot be said.

        Evidence so far counts by as much as it does at this dispersion.
        """
        ...

    def shown_worse(self, log_line: float, interval: tuple[float, float]) -> tuple[float, float]:
        """Interval of a guardrail that fails at a line (natural log): what it rejects is not in it, or nothing is known."""
        ...

    def apart(self, row: Array) -> tuple[float, float]:
        """Requests of one version that are as they should be, and those that make it no reference when they are many."""
        ...

    def no_reference(self, good: float, bad: float, *, surely: bool = False) -> str | None:
        """Say why stable, with such counts, is nothing to compare with; None when it is.

        Parameters
        ----------
        good, bad : float
            See `apart`.
        surely : bool
            Whether it must be above the limit by more than chance does: by three standard deviations.
        """
        ...

    @property
    def needed_of_stable(self) -> int:
        """Requests of stable from which on its level is taken for what it is; nothing passes before."""
        ...

    @property
    def varies(self) -> bool:
        """Whether its events are counted from independent requests, so that variation beyond chance can be seen in them."""
        ...


_ENOUGH_FOR_A_LEVEL = 30
"""Requests of stable from which on its level is taken for what it is."""

_CEILING_MASS = {"bad": 0.5, "good": 0.1}
"""Share of the evidence for a pass that goes by the ceiling. Errors are often rare, and wrong answers seldom are."""


class _Rate(Stateful):
    _STATE = ("_rate", "_ceiling")

    def __init__(self, guardrail: Guardrail, split: Split) -> None:
        self._good_first = guardrail.metric.shown == "good"
        self._margin, self._tolerate = guardrail.margin, guardrail.tolerate
        # Of a pair only the discordant ones are counted: half of them are bad however good stable is.
        self._limit = guardrail.limit if split != "mirrored" else None
        self._ceiling_at, self._ceiling_mass = guardrail.ceiling, _CEILING_MASS[guardrail.metric.shown]
        self._metric = guardrail.metric
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
        # "Worse than the margin *and* above the ceiling": a mean of both e-values.
        mass = self._ceiling_mass
        return float(np.logaddexp(self._rate.log_e_safe + math.log(1 - mass), self._ceiling.log_e + math.log(mass)))

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

    def needed(self, totals: Counts, levels: tuple[float, float], dispersion: float) -> float:
        bad = (1 - levels[0], 1 - levels[1]) if self._good_first else levels
        stable, canary = (int(n) for n in totals.sum(axis=1))
        by_ratio = still_needed(bad, (stable, canary), self._margin, log_e_safe=self.log_e_safe / dispersion)
        if self._ceiling_at is None:
            return by_ratio
        assert self._ceiling is not None
        gained = self._ceiling.log_e / dispersion
        below = still_needed_below(bad[1], (stable, canary), self._ceiling_at, mass=self._ceiling_mass, log_e_safe=gained)
        known = [requests for requests in (by_ratio, below) if not math.isnan(requests)]
        return min(known, default=float("nan"))

    def shown_worse(self, log_line: float, interval: tuple[float, float]) -> tuple[float, float]:
        low = max(interval[0], self._rate.shown_above(log_line), math.nextafter(self._tolerate, math.inf))
        return low, max(interval[1], low)

    def apart(self, row: Array) -> tuple[float, float]:
        return float(row[0]), float(row[1])

    @property
    def needed_of_stable(self) -> int:
        return 0 if self._limit is None else _ENOUGH_FOR_A_LEVEL

    def no_reference(self, good: float, bad: float, *, surely: bool = False) -> str | None:
        if self._limit is None or not _above(self._limit, good, bad, self.needed_of_stable, surely):
            return None
        return (
            f"stable {_doing(self._metric)} {100 * bad / (good + bad):.3g} % of requests, so it is no reference "
            f"(limit: {100 * self._limit:g} %)"
        )

    varies = True


class _Quantile(Stateful):
    _STATE = ("_quantile", "_shape", "_slowdown")

    def __init__(self, guardrail: Guardrail) -> None:
        metric = guardrail.metric
        assert metric.quantile is not None
        self._edges, self._p, self._margin, self._unit = metric.cells, metric.quantile, guardrail.margin, metric.unit
        self._any_slowdown, self._tolerate = guardrail.tolerate == 1, guardrail.tolerate
        self._quantile = QuantileEvidence(metric.cells, metric.quantile, guardrail.tolerate, guardrail.margin)
        self._shape = LabelEvidence(len(metric.cells), lambda stable, canary: latency_bets(stable, metric.cells, guardrail.mde))
        # Wide buckets cannot hold a quantile and its tolerated multiple apart: all buckets together can.
        widest = max((b / a for a, b in pairwise(metric.cells) if math.isfinite(b)), default=math.inf)
        coarse = widest > _WIDE
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

    def needed(self, totals: Counts, levels: tuple[float, float], dispersion: float) -> float:
        stable, canary = (int(n) for n in totals.sum(axis=1))
        if not stable or not canary or not math.isfinite(levels[0]):
            return float("nan")
        # A canary slower by the margin passes stable's quantile as often as stable passes quantile / margin.
        slow = float(totals[0][np.asarray(self._edges) > levels[0] / self._margin].sum()) / stable
        base = 1 - self._p
        return still_needed((base, base), (stable, canary), max(slow / base, 1.01), log_e_safe=self.log_e_safe / dispersion) * (
            HISTOGRAM_FACTOR / RATE_FACTOR
        )

    def shown_worse(self, log_line: float, interval: tuple[float, float]) -> tuple[float, float]:
        if self._any_slowdown and interval[0] <= 1:
            return 0.0, math.inf  # durations are distributed worse; of this quantile it is not shown
        low = max(interval[0], math.nextafter(self._tolerate, math.inf))
        return low, max(interval[1], low)

    def apart(self, row: Array) -> tuple[float, float]:
        beyond = float(row[-1]) if math.isinf(self._edges[-1]) else 0.0
        return float(row.sum()) - beyond, beyond

    needed_of_stable = 1

    def no_reference(self, good: float, bad: float, *, surely: bool = False) -> str | None:
        if not _above(1 - self._p, good, bad, self.needed_of_stable, surely):
            return None
        largest = max((edge for edge in self._edges if math.isfinite(edge)), default=0.0)
        return (
            f"{'too many' if good else 'all'} of stable's {good + bad:,.0f} durations are above the largest bucket "
            f"({f'{largest:g} {self._unit}'.strip()}), so its p{100 * self._p:g} is not known"
        )

    varies = False


class _Means(Stateful):
    """Scores, and shares of classes: differences of means, in the metric's own units."""

    _STATE = ("_labels", "_differences")

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

    def needed(self, totals: Counts, levels: tuple[float, float], dispersion: float) -> float:
        return float("nan")

    def shown_worse(self, log_line: float, interval: tuple[float, float]) -> tuple[float, float]:
        return (-math.inf, math.inf) if interval[0] <= 0 <= interval[1] else interval

    def apart(self, row: Array) -> tuple[float, float]:
        return float(row.sum()), 0.0

    needed_of_stable = 1

    def no_reference(self, good: float, bad: float, *, surely: bool = False) -> str | None:
        return None

    varies = False


def _above(limit: float, good: float, bad: float, enough: int, surely: bool) -> bool:
    """Whether a share is above a limit; surely: by more than three standard deviations of chance."""
    requests = good + bad
    slack = 3 * math.sqrt(limit * (1 - limit) * requests) if surely else 0.0
    return requests >= enough and bad > limit * requests + slack


def _doing(metric: Metric) -> str:
    """Verb for what a version does to requests in the bad cell of a rate."""
    return {"outcome": "fails", "refused": "refuses", "denied": "denies", "answers": "is wrong in"}.get(
        metric.table, "is bad in"
    )


def question_of(guardrail: Guardrail, split: Split) -> Question:
    """The question that a guardrail asks."""
    if guardrail.metric.kind == "rate":
        return _Rate(guardrail, split)
    return _Quantile(guardrail) if guardrail.metric.kind == "quantile" else _Means(guardrail)
