"""Handover: the state of a rollout, written down for whoever goes on with it when this process has ended."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace

from canarykit.clusters.base import Cluster, NotShared
from canarykit.errors import PlanError
from canarykit.model import Guardrail
from canarykit.rollout import RolloutState
from canarykit.session.events import Events

__all__ = ["SAVED_EVERY", "Handover"]

SAVED_EVERY = 10.0
"""Seconds between two writes while the weight stays: of so much traffic the evidence is lost when a process is killed."""

_LAST = 10.0
"""Seconds that the last write may take when this process lets go."""


class Handover:
    """Writes the state down where it outlives this process, and reads what another one wrote.

    A thread writes, and the newest state alone: nobody who holds the experiment's lock waits for an API server.

    Parameters
    ----------
    cluster : Cluster
        Keeps it.
    events : Events
        Told what cannot be written.
    """

    def __init__(self, cluster: Cluster, events: Events) -> None:
        self._cluster, self._events = cluster, events
        self._due, self._told, self._kept = -math.inf, False, False
        self._news = threading.Lock()
        self._newest: RolloutState | None = None
        self._thread: threading.Thread | None = None

    def save(self, state: RolloutState, *, at_once: bool = False) -> None:
        """Have a state written down, unless that was done a moment ago.

        Once the rollout has ended, or without a canary that has traffic, what was written down is removed. An error is told
        once and stops nothing: whoever goes on with the rollout then has older evidence, or none.
        """
        now = self._cluster.clock.now()
        if isinstance(self._cluster.holding, NotShared) or (now < self._due and not at_once):
            return
        self._due = now + SAVED_EVERY
        with self._news:
            self._newest = state
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_newest, name="canarykit-handover", daemon=True)
                self._thread.start()

    def finish(self) -> None:
        """Wait, with a bound, until all is written."""
        thread = self._thread
        if thread is not None:
            thread.join(_LAST)

    def saved(self, guardrails: Sequence[Guardrail]) -> RolloutState:
        """Return the state that another process wrote down about the same versions.

        Parameters
        ----------
        guardrails : sequence of Guardrail
            Guardrails of this process. Evidence of other ones is of no use; buckets of latency are those of the source.

        Raises
        ------
        CanaryError
            There is none, or it cannot be read or used.
        """
        written = self._cluster.holding.saved_rollout()
        if written is None:
            raise PlanError("none was written down about these versions")
        self._kept = True
        state = RolloutState.of(written)
        if list(map(_without_buckets, state.evidence.guardrails)) != list(map(_without_buckets, guardrails)):
            raise PlanError("what was written down is of other guardrails")
        return state

    def _write_newest(self) -> None:
        while True:
            with self._news:
                state, self._newest = self._newest, None
                if state is None:
                    self._thread = None
                    return
            try:
                self._write(state)
            except Exception as error:  # whatever it is, the rollout goes on
                if not self._told:
                    self._told = True
                    self._events.say(f"the evidence cannot be written down for another process: {error}")

    def _write(self, state: RolloutState) -> None:
        if state.split.canary > 0 and not state.finished:
            self._kept = True
            self._cluster.holding.save_rollout(state.dump())
        elif self._kept:
            self._cluster.holding.save_rollout(None)
            self._kept = False


def _without_buckets(guardrail: Guardrail) -> Guardrail:
    if guardrail.metric.table != "latency":
        return guardrail
    return replace(guardrail, metric=replace(guardrail.metric, cells=()))
