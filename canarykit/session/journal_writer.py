"""JournalWriter: what an experiment writes into its journal, and what it does when that fails."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from canarykit.analysis import Judge
from canarykit.clusters.base import Cluster, Traffic
from canarykit.digest import Digest
from canarykit.errors import JournalError
from canarykit.history import History, history_of
from canarykit.journal import Journal
from canarykit.model import Ending, Guardrail, Service, Window
from canarykit.plan import RolloutPlan

__all__ = ["JournalWriter", "facts", "thoroughly"]


class JournalWriter:
    """Writes into the journal, which has a lock of its own, what comes while a rollout goes on.

    Parameters
    ----------
    journal : Journal
        Where to.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal, self.digest = journal, Digest()
        self.giving_up = False
        """From then on a journal that fails no longer stops us."""

    def judged_by(self, guardrails: Sequence[Guardrail]) -> None:
        """Record that other guardrails judge from now on, from no evidence; this must not fail."""
        self.digest.forget_polls()
        self.journal.begin({}, guardrails)

    def brought(self, judge: Judge) -> None:
        """Record evidence that was brought along, before any window."""
        self._write(self.journal.add_judged, 0, self.digest.news(), judge.state())

    def history(self, judge: Judge) -> History:
        """Return all that was counted, and judged by this judge: nothing is read again."""
        digest = self.digest.copy()
        digest.poll(judge)
        return history_of(self.journal, judge, digest)

    def window(self, window: Window, judge: Judge) -> None:
        """Record what was counted, and from time to time how the judge, who knows it, judges all so far."""
        self._write(self._add_window, window, judge)

    def _add_window(self, window: Window, judge: Judge) -> None:
        number = self.journal.add_window(window)
        self.digest.add(window, judge)
        if self.digest.due:
            self.journal.add_judged(number, self.digest.news(), judge.state())

    def load(self, number: int, load: Traffic) -> None:
        """Record what became of the kit's own traffic so far."""
        self._write(self.journal.set_load, number, {**load.record(), "asked": load.asked})

    def weight(self, time: float, asked: float, seconds: float, before: float) -> None:
        """Record a change of weight."""
        self._write(self.journal.add_weight, time, asked, seconds, before)

    def event(self, time: float, kind: str, text: str) -> None:
        """Record something that happened, in words."""
        self._write(self.journal.add_event, time, kind, text)

    def end(self, ending: Ending, time: float, harm: Mapping[str, float | None]) -> None:
        """Record how it ended, and what the canary has hurt."""
        self._write(self.journal.end, ending, time)
        self._write(self.journal.add_facts, {"harm": harm})

    def _write(self, write: Callable[..., None], *values: Any) -> None:
        try:
            write(*values)
        except JournalError:
            if not self.giving_up:
                raise


def thoroughly(*steps: Callable[[], object]) -> None:
    """Do each step, whatever became of those before it.

    Raises
    ------
    Exception
        The error of the first step that failed, after all steps; the others are in its notes.
    """
    errors: list[Exception] = []
    for step in steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    if errors:
        first, *rest = errors
        for later in rest:
            first.add_note(f"and then {type(later).__name__}: {later}")
        raise first


def facts(service: Service, cluster: Cluster, *, plan: RolloutPlan) -> dict[str, Any]:
    """Say what is compared, where, how, and with which software."""
    return {
        "service": service.name,
        "versions": {"stable": service.stable.name, "canary": service.canary.name},
        "replicas": service.replicas,
        "plan": plan.model_dump(),
        "where": type(cluster).__name__,
        "simulated": cluster.simulated,
        "software": {
            "canarykit": version("canarykit"),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
    }
