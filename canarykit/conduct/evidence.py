"""Evidence: what was counted so far, judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from canarykit import metrics
from canarykit.analysis import Judge, quantile_of
from canarykit.analysis.checks import SplitCheck
from canarykit.clusters.base import Cluster, Traffic
from canarykit.conduct.record import Record
from canarykit.model import Counts, Guardrail, Judgement, Window
from canarykit.telemetry.base import Answered

__all__ = ["Evidence"]

_ALMOST_ALL = 0.99

_SPLIT_ALPHA = 0.001
"""Chance that a gateway which serves what it was asked is doubted all the same. It is spent beside the guardrails' own, so it
is small; one that serves nine tenths of the weight is found some seconds later for that."""


class Evidence:
    """Takes in windows, and judges them.

    What changes it needs the experiment's lock; `judgement`, `needed` and `guardrails` may be read without.

    Parameters
    ----------
    cluster : Cluster
        Its telemetry counts.
    guardrails : sequence of Guardrail
        What is judged.
    alpha : float
        Chance of a false alarm over the whole rollout.
    record : Record
        Told when what is judged becomes known more exactly.
    """

    def __init__(self, cluster: Cluster, guardrails: Sequence[Guardrail], alpha: float, record: Record) -> None:
        self._cluster, self._alpha, self._record = cluster, alpha, record
        self._classes: tuple[Any, ...] = ()
        self._split_check = SplitCheck(alpha=min(alpha, _SPLIT_ALPHA))
        self._latency: Counts = np.zeros(1, dtype=np.int64)
        self.guardrails = tuple(guardrails)
        self._judge = Judge(self.guardrails, alpha=alpha)
        self.judgement: Judgement = self._judge.judgement
        self.needed = (float("nan"),) * len(self.guardrails)
        """Seconds until each guardrail is likely to be decided; NaN when unknown."""

    @property
    def requests(self) -> tuple[int, int]:
        """Requests of stable and canary that were judged."""
        verdicts = self.judgement.verdicts
        return verdicts[0].comparison.requests if verdicts else (0, 0)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the guardrails."""
        return tuple(guardrail.name for guardrail in self.guardrails)

    def heard(self, window: Window) -> frozenset[str]:
        """Guardrails for which a window counted something of the canary: requests or answers, however rare the bad ones."""
        tables = {name for name, table in window.counts.items() if table[1].any()}
        return frozenset(guardrail.name for guardrail in self.guardrails if guardrail.metric.table in tables)

    @property
    def split_alarm(self) -> str | None:
        """Why the split that is served is not the one that was asked for; None when nothing says so."""
        return self._split_check.alarm

    def use_classes(self, classes: Sequence[Any]) -> None:
        """Count answers by what was said, to labels of these classes; the first ones stay."""
        if classes and not self._classes:
            self._classes = tuple(classes)
            self._record.begin({"classes": list(self._classes)}, self.guardrails)

    def use_buckets(self) -> None:
        """Judge latency in the buckets that its source has, as soon as it is known which. They do not change after."""
        edges = self._cluster.telemetry.latency_edges
        if edges is None or all(g.metric.table != "latency" or g.metric.cells == edges for g in self.guardrails):
            return
        self.guardrails = tuple(
            replace(g, metric=replace(g.metric, cells=edges)) if g.metric.table == "latency" else g for g in self.guardrails
        )
        self._judge = Judge(self.guardrails, alpha=self._alpha)
        self.judgement = self._judge.judgement
        self._record.begin({}, self.guardrails)

    def take(self, load: Traffic | None, *, since: float, judged: bool) -> Window:
        """Take in everything since the last time.

        Parameters
        ----------
        load : Traffic, optional
            The kit's own, whose answers have labels.
        since : float
            When the weight was in force. Answers to requests of an earlier one are left out.
        judged : bool
            Whether the window says something about the versions.
        """
        said = [] if load is None else [answer for answer in load.answers() if answer.right is not None]
        if load is not None:
            self._cluster.telemetry.label(said)
        window = replace(self._cluster.telemetry.read(self._cluster.clock.now()), judged=judged)
        if load is not None and said and self._classes == tuple(load.classes):
            window = self._with_confusion(window, said, since)
        self.use_buckets()
        if judged:
            self._judge.update(window)
            self._split_check.update(window, self._requests_take(window))
            self.judgement = self._judge.judgement
            self.needed = tuple(seconds for _, seconds in self._judge.still_needed)
        return window

    def _requests_take(self, window: Window) -> float:
        """Seconds within which almost all requests so far have ended; those that never did count as the slowest that did."""
        edges = self._cluster.telemetry.latency_edges or metrics.LATENCY_EDGES
        if (table := window.counts.get("latency")) is not None:
            self._latency = self._latency + table.sum(axis=0)
        slow = quantile_of(np.atleast_1d(self._latency), edges, _ALMOST_ALL)
        slowest = max((edge for edge in edges if math.isfinite(edge)), default=0.0)
        return 0.0 if math.isnan(slow) else min(slow, slowest)

    def _with_confusion(self, window: Window, said: Sequence[Answered], since: float) -> Window:
        labelled = ((answer.role, answer.label, answer.said) for answer in said if answer.sent >= since)
        cells = metrics.confusion_cells(labelled, self._classes)
        return replace(window, counts={**window.counts, metrics.CONFUSION: cells})
