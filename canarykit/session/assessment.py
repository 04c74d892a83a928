"""Assessment: what is counted, and whether it may be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from canarykit import metrics
from canarykit.analysis import quantile_of
from canarykit.analysis.checks import SplitCheck
from canarykit.clusters.base import Cluster, Traffic
from canarykit.journal import Journal
from canarykit.load.tally import Answer
from canarykit.model import Counts, Guardrail, TrafficSplit, Window
from canarykit.session.own_answers import OwnAnswers
from canarykit.telemetry.labels import LabelledAnswers

__all__ = ["Assessment"]

_ALMOST_ALL = 0.99

_SPLIT_ALPHA = 0.001
"""Chance that a gateway which serves what it was asked is doubted all the same. It is spent beside the guardrails' own, so it
is small; one that serves nine tenths of the weight is found some seconds later for that."""


class Assessment:
    """Takes in windows: with what the answers say, and with the check of the split.

    Changes need the experiment's lock.

    Parameters
    ----------
    cluster : Cluster
        Its telemetry counts.
    journal : Journal
        Told what becomes known about the sources of the counts; this must not fail.
    alpha : float
        Chance of a false alarm over the whole rollout.
    """

    def __init__(self, cluster: Cluster, journal: Journal, *, alpha: float) -> None:
        self._cluster, self._journal = cluster, journal
        self._alpha = min(alpha, _SPLIT_ALPHA)
        self._classes: tuple[Any, ...] = ()
        self.split_check = SplitCheck(alpha=self._alpha)
        """Whether the split that is served is the one that was asked for."""
        self._sender: Traffic | None = None
        self.own = OwnAnswers()
        """What the answers to the kit's own traffic say of that traffic."""
        self._labels = LabelledAnswers()
        self._held: list[Answer] = []
        self._sources: dict[str, str] = {}
        self.waiting = ""
        """What the source waits for, when it had nothing new."""
        self._latency: Counts = np.zeros(1, dtype=np.int64)

    def begin(self) -> None:
        """Begin to count."""
        self.split_check = SplitCheck(alpha=self._alpha, assigned_only=self._cluster.telemetry.assigned_only)

    def countable(self, guardrails: Sequence[Guardrail], optional: frozenset[str] = frozenset()) -> tuple[Guardrail, ...]:
        """Return the guardrails as the source counts for them: latency in its buckets, as soon as it is known which.

        Parameters
        ----------
        guardrails : sequence of Guardrail
            Guardrails that are asked for.
        optional : frozenset of str
            Names of those that nobody asked for: they are left out when the source cannot count for them.
        """
        telemetry = self._cluster.telemetry
        edges = telemetry.latency_edges
        return tuple(
            replace(each, metric=replace(each.metric, cells=edges))
            if edges is not None and each.metric.table == "latency"
            else each
            for each in guardrails
            if each.name not in optional or each.metric.table in telemetry.tables
        )

    def count_anew(self, now: float, before: TrafficSplit | None = None) -> None:
        """Another weight is in force, or the same one again; `before` is what a slow gateway may serve for a while."""
        self.split_check.begin(before)
        self._labels.begin(now)

    def record_sources(self) -> None:
        """Record where counts come from, when that has become known more exactly."""
        sources = dict(self._cluster.telemetry.sources)
        if sources != self._sources:
            self._sources = sources
            self._journal.add_facts({"sources": sources})

    def use_classes(self, classes: Sequence[Any]) -> None:
        """Count answers by what was said, to labels of these classes; the first ones stay."""
        if classes and not self._classes:
            self._classes = tuple(classes)
            self._journal.add_facts({"classes": list(self._classes)})

    def take(self, load: Traffic | None, *, since: float, judged: bool, routed: bool = True) -> Window:
        """Take in everything since the last time.

        Parameters
        ----------
        load : Traffic, optional
            The kit's own, whose answers have labels.
        since : float
            When the weight was in force. Answers to requests of an earlier one are left out.
        judged : bool
            Whether the window says something about the versions.
        routed : bool
            Whether it says something about the router: not when it had no replica of a version to send requests to.
        """
        said = self._answers(load)
        self._labels.take(said)
        window = replace(self._cluster.telemetry.read(self._cluster.clock.now()), judged=judged)
        window = self._without_unread(self._labels.added_to(window))
        said = [*self._held, *said]
        self._held = said if window.waiting else []  # such a window is not kept: its answers are in the next one
        if load is not None and said and not window.waiting and self._classes == tuple(load.classes):
            window = self._with_confusion(window, said, since)
        if window.counts:
            self.record_sources()
        self.waiting = window.note if window.waiting else ""
        if judged and not window.waiting:
            took, slowest = self._durations(window)
            if routed:
                self.split_check.update(window, took, slowest)
        return window

    def _answers(self, load: Traffic | None) -> list[Answer]:
        """Labelled answers since the last time; all of them say whether the traffic is any good."""
        if load is not self._sender:
            self._sender, self.own = load, OwnAnswers({} if load is None else load.asked)
        if load is None:
            return []
        answers = load.answers()
        self.own.take(answers)
        return [answer for answer in answers if answer.right is not None]

    def _without_unread(self, window: Window) -> Window:
        """Leave out answers as long as none could be read: all of them wrong in both versions is no accuracy."""
        reason = self.own.unreadable
        if reason is None or "answers" not in window.counts:
            return window
        counts = {name: table for name, table in window.counts.items() if name != "answers"}
        return replace(window, counts=counts, note="; ".join(filter(None, (window.note, reason))))

    def _durations(self, window: Window) -> tuple[float, float]:
        """Seconds within which almost all requests so far have ended, and those of the slowest one of this window.

        As far as the buckets tell: what is beyond the last edge took as long as that.
        """
        edges = self._cluster.telemetry.latency_edges or metrics.LATENCY_EDGES
        longest = max((edge for edge in edges if math.isfinite(edge)), default=0.0)
        table = window.counts.get("latency", np.zeros((2, 1), dtype=np.int64))
        self._latency = self._latency + table.sum(axis=0)
        slow = quantile_of(self._latency, edges, _ALMOST_ALL)
        slowest = edges[int(np.flatnonzero(table.any(axis=0))[-1])] if table.any() else 0.0
        return 0.0 if math.isnan(slow) else min(slow, longest), min(slowest, longest)

    def _with_confusion(self, window: Window, said: Sequence[Answer], since: float) -> Window:
        labelled = ((answer.role, answer.label, answer.said) for answer in said if answer.sent >= since)
        cells = metrics.confusion_cells(labelled, self._classes)
        return replace(window, counts={**window.counts, metrics.CONFUSION: cells})
