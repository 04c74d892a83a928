"""Wait for replicas that were started, and say why one does not come up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from canarykit.clusters.local.descendants import busy_seconds, descendants
from canarykit.clusters.local.gateway import Endpoint
from canarykit.clusters.local.listening import listening
from canarykit.clusters.local.probe import probe, serves
from canarykit.clusters.local.processes import Processes
from canarykit.clusters.local.readiness import Observation, Steadiness, patience
from canarykit.clusters.local.taken import taken_port
from canarykit.errors import CancelledError, ClusterError
from canarykit.interrupts import never
from canarykit.model import Protocol, Version

__all__ = ["CRASHES", "Replica", "ended_after_ready", "last_words", "wait_ready"]

CRASHES = 3
"""A version whose replicas ended this often by themselves is in trouble."""

_SHORTEST, _LONGEST = 0.02, 0.25
_EXAMINE_EVERY = 0.5
_LINES, _LINES_READ = 12, 60


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that serves a version."""

    endpoint: Endpoint
    version: Version

    @property
    def ready(self) -> str:
        """Path that answers 200 when it can serve."""
        return self.version.ready

    def __str__(self) -> str:
        return f"{self.endpoint.instance} (version {self.endpoint.version!r})"


class _Watch:
    """What is seen of one replica over time."""

    def __init__(self, replica: Replica, protocol: Protocol, patience: float) -> None:
        self.replica = replica
        self.look = Observation(time.monotonic(), None)
        self.steady = False
        self.restarts = 0
        self._protocol = protocol
        self._steadiness = Steadiness(patience)
        self._examined = time.monotonic()

    def take(self, facts: Mapping[str, Any]) -> None:
        endpoint = self.replica.endpoint
        self.restarts = facts["restarts"]
        answer = probe(endpoint.port, self.replica.ready, self._protocol)
        now = time.monotonic()
        self.look = Observation(now, answer, port=endpoint.port, named=frozenset(facts["ports"].values()))
        if not self.look.ready and now - self._examined >= _EXAMINE_EVERY:
            self.examine(facts)
            self.steady = self._steadiness.take(self.look)
            if self.steady:
                self.ask_elsewhere()
                self.steady = not self.look.guessed

    def examine(self, facts: Mapping[str, Any]) -> None:
        """Find out where the server listens and how much it works: both take a while."""
        pids = [facts["keeper"], *descendants(facts["keeper"])] if facts["keeper"] else []
        self._examined = self.look.at
        self.look = replace(self.look, listens=tuple(listening(pids)), busy=busy_seconds(pids))

    def ask_elsewhere(self) -> None:
        """Find out whether a server that listens only on other ports serves there."""
        if self.look.guessed:
            answers = (serves(address, self.replica.ready, self._protocol) for address in self.look.elsewhere)
            self.look = replace(self.look, serves=any(answers))


def wait_ready(
    processes: Processes,
    replicas: Iterable[Replica],
    protocol: Protocol,
    within: float,
    cancelled: Callable[[], bool] = never,
) -> dict[str, int]:
    """Wait until each replica answers 200 on its ready path.

    Parameters
    ----------
    processes : Processes
        Runs them.
    replicas : iterable of Replica
        They were started.
    protocol : {"http", "h2c"}
        Protocol of the replicas.
    within : float
        Seconds.
    cancelled : callable
        Asked again and again; once it says True, the wait ends.

    Returns
    -------
    dict of str to int
        How often each replica had been started again before it was ready.

    Raises
    ------
    CancelledError
        It was cancelled.
    ClusterError
        One crashes, is not ready within the limit, or is steadily wrong before (`canarykit.clusters.local.readiness`).
    """
    begun = time.monotonic()
    waiting = watches = [_Watch(replica, protocol, patience(within)) for replica in replicas]
    while waiting:
        # Looked at before they are asked: an answer that arrives as the limit ends counts.
        over = time.monotonic() - begun >= within
        if cancelled():
            raise CancelledError(f"nobody waits any more until {waiting[0].replica} is ready")
        for watch in waiting:
            watch.take(processes.status()[watch.replica.endpoint.instance])
        waiting = [watch for watch in waiting if not watch.look.ready]
        status = processes.status()
        for watch in waiting:
            facts = status[watch.replica.endpoint.instance]
            if over or watch.steady or facts["restarts"] >= CRASHES:
                watch.examine(facts)
                watch.ask_elsewhere()
                seconds = within if over else time.monotonic() - begun
                raise ClusterError(_not_ready(processes, watch, status, seconds))
        if waiting:
            time.sleep(min(_LONGEST, max(_SHORTEST, (time.monotonic() - begun) / 50)))
    return {watch.replica.endpoint.instance: watch.restarts for watch in watches}


def ended_after_ready(processes: Processes, replicas: Iterable[Replica], before: Mapping[str, int]) -> str | None:
    """Say which replica was ready and has ended by itself since: some servers answer 200 before they load their model.

    Parameters
    ----------
    processes : Processes
        Runs them.
    replicas : iterable of Replica
        They were ready.
    before : mapping of str to int
        How often each had been started again by then, as `wait_ready` returns it.
    """
    status = processes.status()
    for replica in replicas:
        facts = status[replica.endpoint.instance]
        if times := facts["restarts"] - before.get(replica.endpoint.instance, 0):
            return (
                f"{replica} answered 200 to {replica.ready} and then ended by itself, {times} times so far, last "
                f"{_ending(facts)}; its log ends with:\n{last_words(processes, replica)}"
            )
    return None


def _not_ready(processes: Processes, watch: _Watch, status: Mapping[str, Mapping[str, Any]], seconds: float) -> str:
    replica, facts = watch.replica, status[watch.replica.endpoint.instance]
    if facts["restarts"] >= CRASHES:
        what = f"ended {facts['restarts']} times by itself, last {_ending(facts)}"
    else:
        what = f"{watch.look.said(replica.ready)} (after {seconds:.0f} s)"
    log = _own_words(processes, replica)
    words = [*(replica.version.command or ()), *replica.version.env.values()]
    cause = taken_port(log, words, replica.endpoint.instance, status)
    return f"{replica} {what}{cause}; its log ends with:\n{_last(log)}\nCheck its command=, model= or ready=."


def last_words(processes: Processes, replica: Replica) -> str:
    """What a replica's log ends with, without lines about questions on its ready path."""
    return _last(_own_words(processes, replica))


def _own_words(processes: Processes, replica: Replica) -> list[str]:
    return processes.own_words(replica.endpoint.instance, replica.ready, _LINES_READ)


def _last(log: list[str]) -> str:
    return "\n".join(log[-_LINES:]) or "(nothing of its own)"


def _ending(facts: Mapping[str, Any]) -> str:
    code = facts["last_code"]
    if facts["failure"]:
        return f"when it could not be started again ({facts['failure']})"
    if code == 0:
        return "with exit code 0: a command must stay in the foreground"
    return f"with exit code {code}" + (" (killed: is there memory left?)" if code == -9 else "")
