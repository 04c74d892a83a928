"""Lifecycle: whether an experiment goes on, and waiting that ends with it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from canarykit.clusters.base import Clock, SystemClock
from canarykit.errors import ClusterError, PlanError
from canarykit.model import Ending
from canarykit.session.snapshot import Stage

__all__ = ["Lifecycle", "Overtaken"]


_GIVES_WAY = 1.0
"""Seconds at most: the lock is free, so that it takes a moment."""


class Overtaken(PlanError):
    """What was decided no longer holds: the rollout has ended meanwhile, a guardrail has alarmed, or the plan is further."""


class Lifecycle:
    """From the deployment to the end of the rollout, and of the experiment.

    Changes need `lock`, under which evidence and weights change, too: its holder sees and leaves them whole. It may be read
    without.

    Parameters
    ----------
    clock : Clock
        Waits.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._news = threading.Condition()  # told when the rollout ends, or the experiment is closed
        self.lock = threading.RLock()
        self.changing = threading.RLock()
        """Held, before `lock`, while a weight is written and waited for; a return of all traffic to stable waits for nobody."""
        self._urgent = 0
        self.stage: Stage = "new"
        self.ending: Ending | None = None

    @property
    def deployed(self) -> bool:
        """Whether both versions are up, and ours."""
        return self.stage == "deployed"

    @contextmanager
    def urgently(self) -> Iterator[None]:
        """Hold the lock, before those who would take it again at once."""
        with self._news:
            self._urgent += 1
        try:
            self.lock.acquire()
        finally:
            with self._news:
                self._urgent -= 1
                self._news.notify_all()
        try:
            yield
        finally:
            self.lock.release()

    def give_way(self) -> None:
        """Let those who want the lock urgently have it first; for whoever would take it again at once, and has not got it."""
        with self._news:
            self._news.wait_for(lambda: not self._urgent, _GIVES_WAY)

    def need_deployment(self) -> None:
        """Check that there is something to work with."""
        if not self.deployed:
            raise ClusterError("nothing is deployed: call deploy() first")

    def need_no_end_since(self, ending: Ending | None) -> None:
        """Check, with the lock, that the rollout has not ended since."""
        self.need_deployment()
        if (self.ending is None) != (ending is None):  # an ending stays, and only what it tells may be amended
            raise Overtaken(f"the rollout has ended meanwhile, so nothing was changed: {self.ending}")

    def goes_on(self, ending: Ending | None) -> bool:
        """Whether neither the rollout has ended since, nor the experiment."""
        return (self.ending is None) == (ending is None) and self.deployed

    def wait(self, seconds: float, ending: Ending | None) -> None:
        """Let time pass, without the lock, but not beyond the end of the rollout."""
        if not isinstance(self.clock, SystemClock):
            self.clock.sleep(seconds)
            return
        with self._news:
            self._news.wait_for(lambda: not self.goes_on(ending), seconds)

    def wake(self) -> None:
        """Tell whoever waits that the rollout has ended, or the experiment."""
        with self._news:
            self._news.notify_all()
