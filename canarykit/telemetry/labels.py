"""LabelledAnswers: right and wrong answers, a source of its own beside whatever counts the requests."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from canarykit.load.tally import Answer
from canarykit.model import ROLES, Counts, Window

__all__ = ["LabelledAnswers"]


class LabelledAnswers:
    """Counts answers whose label is known, by the version that the answer's headers name."""

    def __init__(self) -> None:
        self._counts: Counts | None = None
        self._since = -math.inf

    def begin(self, since: float) -> None:
        """Count from now on only answers to requests that were sent after this time, seconds since the epoch."""
        self._since = since
        if self._counts is not None:
            self._counts = np.zeros_like(self._counts)

    def take(self, answers: Iterable[Answer]) -> None:
        """Count answers; those without a label or a version are left out."""
        for answer in answers:
            if answer.right is not None and answer.sent >= self._since and answer.role in ROLES:
                if self._counts is None:
                    self._counts = np.zeros((2, 2), dtype=np.int64)
                self._counts[ROLES.index(answer.role), int(not answer.right)] += 1

    def added_to(self, window: Window) -> Window:
        """Return a window with what was counted since the last one, as its table ``"answers"``.

        One that waits, or holds no counts, gets none: it is in the next one. Before the first label there is no such table,
        which is not the same as one of zeros, and the window's note says so.
        """
        if window.waiting or not window.counts or "answers" in window.counts:
            return window
        if self._counts is None:
            return replace(window, note="; ".join(filter(None, (window.note, "no labels have arrived"))))
        counts, self._counts = self._counts, np.zeros_like(self._counts)
        return replace(window, counts={**window.counts, "answers": counts})
