"""Guardrails + evidence -> verdict, with its sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from canarykit import words
from canarykit.analysis.evidence import Array, CeilingEvidence, QuantileEvidence, RateEvidence
from canarykit.errors import PlanError, TelemetryError
from canarykit.model import Alarm, Comparison, Counts, Guardrail, Judgement, TrafficSplit, Verdict, Window, Word

__all__ = ["Judge", "quantile_of"]

_MERGE_REQUESTS, _MERGE_CANARY = 20, 3
_NONE = (float("nan"), float("nan"))


def quantile_of(cells: Counts | Array, edges: Sequence[float], quantile: float) -> float:
    """Quantile of a histogram, log-linear inside its bucket; NaN when it is empty.

    Parameters
    ----------
    cells : (cells,) array
        Requests per bucket, weighted or not.
    edges : sequence of float
        Upper edge of each bucket.
    quantile : float
        0 to 1.
    """
    cumulative = np.cumsum(cells)
    if not cumulative[-1]:
        return float("nan")
    target = quantile * cumulative[-1]
    index = int(np.searchsorted(cumulative, target))
    if index == 0 or math.isinf(edges[index]):
        return float(edges[index])
    inside = (target - cumulative[index - 1]) / cells[index]
    return float(edges[index - 1] * (edges[index] / edges[index - 1]) ** inside)


class _Watch:
    """One guardrail: its counts so far and its evidence."""

    def __init__(self, guardrail: Guardrail, alarm_at: float) -> None:
        self.guardrail, self.metric, self.alarm_at = guardrail, guardrail.metric, alarm_at
        self.totals = np.zeros((2, len(self.metric.cells)), dtype=np.int64)
        # Stable's requests weighted as the canary's: else a busy hour under one weight looks like a difference.
        self._alike = np.zeros(self.totals.shape)
        self.uninformative = 0
        self.silent_because = "nothing was counted yet"
        self._pending = np.zeros_like(self.totals)
        self._pending_split: TrafficSplit | None = None
        self._events = np.zeros(2, dtype=np.int64)
        self._ceiling = CeilingEvidence(guardrail.ceiling) if guardrail.ceiling is not None else None
        self._rate = RateEvidence(guardrail.tolerate, guardrail.margin, guardrail.mde)
        self._quantile = (
            QuantileEvidence(self.metric.cells, self.metric.quantile, guardrail.tolerate, guardrail.margin)
            if self.metric.quantile is not None
            else None
        )

    def update(self, window: Window, counts: Counts | None) -> None:
        """Take in one window; small ones are merged, never across a change of weight."""
        if counts is None:
            self.silent_because = window.note or f"no source counts {self.metric.table!r}"
            return
        self.silent_because = ""
        if not 0 < window.split.share < 1:
            # One version alone is no comparison; it only teaches where stable's quantile lies.
            if self._quantile is not None:
                self._quantile.update(counts[0].astype(float), np.zeros(counts.shape[1]))
            return
        if self._pending_split != window.split:
            self.uninformative += int(self._pending.sum())
            self._pending = np.zeros_like(counts)
            self._pending_split = window.split
        self.totals += counts
        self._pending = self._pending + counts
        requests = self._pending.sum(axis=1)
        if requests.sum() >= _MERGE_REQUESTS and requests[1] >= _MERGE_CANARY and requests[0] > 0:
            self._bet(self._pending)
            self._pending = np.zeros_like(counts)

    def _bet(self, counts: Counts) -> None:
        stable, canary = counts.sum(axis=1)
        self._alike += counts * np.array([[canary / stable], [1.0]])
        if self._quantile is not None:
            events = self._quantile.update(counts[0].astype(float), counts[1].astype(float))
            self._events += events or (0, 0)
            return
        bad = counts[:, 1]
        self._rate.update(float(bad[1]), float(bad.sum()), canary / (stable + canary))
        self._events += bad
        if self._ceiling is not None:
            self._ceiling.update(float(bad[1]), float(canary))

    def checked(self, window: Window) -> Counts | None:
        """Return this metric's table of a window; None when there is none."""
        table = window.counts.get(self.metric.table)
        if table is None:
            return None
        counts = np.asarray(table)
        name, shape = self.metric.name, self.totals.shape
        if counts.shape != shape:
            raise TelemetryError(f"{name}: a window has a table of shape {counts.shape}, not {shape}: did the cells change?")
        if not np.isfinite(counts).all() or (counts < 0).any() or (counts != np.floor(counts)).any():
            raise TelemetryError(f"{name}: counts must be whole numbers, 0 or more; NaN and fractions are no counts")
        return counts.astype(np.int64)

    @property
    def log_e(self) -> float:
        return self._quantile.log_e if self._quantile is not None else self._rate.log_e

    @property
    def log_e_safe(self) -> float:
        if self._quantile is not None:
            return self._quantile.log_e_safe
        if self._ceiling is None:
            return self._rate.log_e_safe
        return float(np.logaddexp(self._rate.log_e_safe, self._ceiling.log_e) - math.log(2))

    def comparison(self, alpha: float) -> Comparison:
        """Summarise what was counted so far."""
        stable, canary = (int(n) for n in self.totals.sum(axis=1))
        levels = tuple(self._level(row) for row in (self._alike if self._alike.any() else self.totals))
        if self._quantile is not None:
            effect, interval = self._quantile.effect, self._quantile.interval(alpha)
        else:
            effect, interval = self._rate.effect, self._rate.interval(alpha)
        return Comparison(
            self.metric.name,
            (levels[0], levels[1]),
            (int(self._events[0]), int(self._events[1])),
            (stable, canary),
            effect,
            interval,
            self.log_e,
            self.log_e_safe,
            self.alarm_at,
        )

    def _level(self, row: Counts | Array) -> float:
        if not row.sum():
            return float("nan")
        if self.metric.quantile is not None:
            return quantile_of(row, self.metric.cells, self.metric.quantile)
        return float(row[0 if self.metric.shown == "good" else 1] / row.sum())

    def missing(self) -> str | None:
        """Say what is not there; None when both versions were counted."""
        if self.silent_because:
            return self.silent_because
        stable, canary = self.totals.sum(axis=1)
        if not canary:
            return "no request reached the canary"
        return None if stable else "no request reached stable"


class Judge:
    """Guardrails, windows in, judgement out. Memory does not grow with the number of windows.

    Parameters
    ----------
    guardrails : sequence of Guardrail
        The family; a rollback needs the weighted mean of its e-values to reach ``1 / alpha``.
    alpha : float
        Chance that a canary that is no worse than tolerated is ever failed.
    beta : float
        Chance that a canary worse than a margin is ever passed.

    Raises
    ------
    PlanError
        alpha or beta is not between 0 and 1.
    """

    def __init__(self, guardrails: Sequence[Guardrail], *, alpha: float = 0.05, beta: float = 0.05) -> None:
        if not (0 < alpha < 1 and 0 < beta < 1):
            raise PlanError(f"alpha and beta must be between 0 and 1, not {alpha} and {beta}")
        self.alpha, self.beta = alpha, beta
        weights = np.array([guardrail.weight for guardrail in guardrails])
        self._log_weights = np.log(weights / weights.sum())
        self._watches = [_Watch(guardrail, 1 / alpha) for guardrail in guardrails]
        self._alarm: Alarm | None = None
        self._alarm_sentence = ""
        self._said: Judgement | None = None

    def update(self, window: Window) -> None:
        """Take in one window.

        Raises
        ------
        TelemetryError
            Counts that are none, or whose cells changed.
        """
        self._said = None
        tables = [watch.checked(window) for watch in self._watches]  # all of it is good, or none is taken in
        for watch, table in zip(self._watches, tables, strict=True):
            watch.update(window, table)
        if self._alarm is None and self.log_e >= math.log(1 / self.alpha):
            guilty = max(self._watches, key=lambda watch: watch.log_e)
            comparison = guilty.comparison(self.alpha)
            self._alarm = Alarm(guilty.metric.name, window.end, comparison.requests)
            self._alarm_sentence = words.failed(comparison, guilty.metric)

    @property
    def calm(self) -> bool:
        """Whether nothing has alarmed."""
        return self._alarm is None

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Canary against stable on each guardrail, so far."""
        return tuple(watch.comparison(self.alpha) for watch in self._watches)

    @property
    def log_e(self) -> float:
        """Evidence of the family: the weighted mean of its e-values, natural log."""
        return float(np.logaddexp.reduce([w.log_e for w in self._watches] + self._log_weights))

    @property
    def judgement(self) -> Judgement:
        """What the evidence shows so far."""
        if self._said is None:
            self._said = self._judge()
        return self._said

    def _judge(self) -> Judgement:
        verdicts = tuple(self._verdict(watch) for watch in self._watches)
        said = {verdict.word for verdict in verdicts}
        word: Word
        if self._alarm is not None:
            word, sentence = "fail", self._alarm_sentence
        elif "no data" in said:
            word, sentence = "no data", _join(verdicts, "no data")
        elif said == {"pass"}:
            found = [(verdict.comparison, watch.metric) for verdict, watch in zip(verdicts, self._watches, strict=True)]
            word, sentence = "pass", words.all_passed(found)
        else:
            word, sentence = "inconclusive", _join(verdicts, "inconclusive")
        return Judgement(word, sentence, verdicts, self.log_e, self._alarm)

    def _verdict(self, watch: _Watch) -> Verdict:
        comparison, metric = watch.comparison(self.alpha), watch.metric
        word: Word = "inconclusive"
        missing = watch.missing()
        if self._alarm is not None and self._alarm.guardrail == metric.name:
            word, sentence = "fail", self._alarm_sentence
        elif missing is not None:
            word, sentence = "no data", missing
        elif watch.log_e >= math.log(1 / self.alpha):
            word, sentence = "fail", words.failed(comparison, metric)
        elif watch.log_e_safe >= math.log(1 / self.beta):
            word, sentence = "pass", words.passed(comparison, metric, watch.guardrail.margin, watch.guardrail.ceiling)
        else:
            sentence = words.undecided(comparison, metric)
        return Verdict(metric.name, word, sentence, comparison, words.cells(comparison, metric))


def _join(verdicts: Sequence[Verdict], word: Word) -> str:
    return "; ".join(
        verdict.sentence if word != "no data" else f"{verdict.guardrail}: {verdict.sentence}"
        for verdict in verdicts
        if verdict.word == word
    )
