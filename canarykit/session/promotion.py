"""Promotion: stable's replicas are being replaced while the canary has all traffic. It can be ended from outside."""

from __future__ import annotations

import threading

from canarykit.interrupts import interrupted

__all__ = ["Promotion"]

_UNDONE_WITHIN = 30.0
"""Seconds that whoever ends a promotion waits to learn what became of it; traffic is on stable by then."""


class Promotion:
    """One replacement of stable's replicas, from its begin until it is done or undone."""

    def __init__(self) -> None:
        self._cancelled, self._over = threading.Event(), threading.Event()
        self._said = ""
        self.why = ""
        """Reason for its end, where the canary is to blame."""
        self.replaced = False
        """Whether stable is of the canary's version by now."""

    def cancel(self, why: str = "") -> None:
        """Have it end, and be undone where that is possible."""
        self.why = self.why or why
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Whether it is to end: somebody else wants that, or a signal is deferred in this thread."""
        return self._cancelled.is_set() or interrupted()

    def finish(self, said: str, *, replaced: bool = False) -> None:
        """Say what became of it: nothing changes stable's replicas any more."""
        self._said, self.replaced = said, replaced
        self._over.set()

    def wait(self, seconds: float) -> bool:
        """Wait so many seconds at most; whether nothing changes stable's replicas any more."""
        return self._over.wait(seconds)

    def outcome(self) -> str:
        """Wait, with a bound, until nothing changes stable's replicas any more; say what became of it."""
        return self._said if self._over.wait(_UNDONE_WITHIN) else "stable's replicas are still being changed back"
