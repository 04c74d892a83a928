"""Replicas: how those of both versions are, and what is told of it. Effects: asks the cluster, and notes what is new."""

from __future__ import annotations

import math
from collections.abc import Iterable

from canarykit.clusters.base import Cluster
from canarykit.health import Health
from canarykit.model import ROLES, Role
from canarykit.session.events import Events

__all__ = ["Replicas"]

_PASSES = 0.9
"""Seconds for which a version may be without a replica that serves, or lack one, as while it is replaced."""


class Replicas:
    """Looks after the replicas of both versions.

    Parameters
    ----------
    cluster : Cluster
        Asked.
    events : Events
        Told what is new.
    """

    def __init__(self, cluster: Cluster, events: Events) -> None:
        self._cluster, self._events = cluster, events
        self._health: dict[Role, Health] = dict.fromkeys(ROLES, Health())
        self._since: dict[Role, float] = {}
        self._told: dict[Role, str] = {}
        self._routed = True
        self.causes: tuple[str, ...] = ()
        """What was wrong since the weight in force began to be counted, and explains requests that one version lacks."""

    def poll(self) -> bool:
        """See how both are, and tell what is new; return whether the router had somewhere to send requests since last time."""
        for role in ROLES:
            self._see(role, self._cluster.health(role))
        serve = all(health.serves for health in self._health.values())
        routed, self._routed = self._routed and serve, serve
        return routed

    def begin(self) -> None:
        """Another weight is in force: what is wrong still explains what is counted from now on."""
        self.causes = tuple(self._told.values())

    def why_off(self, role: Role) -> str | None:
        """Say why a version is to get no traffic; None when it may have some.

        What does not pass by itself counts at once, and a version that merely does not serve when that lasts.
        """
        health = self._health[role]
        if health.final or (not health.serves and self._lasts(role)):
            return f"{role}: {health.problem}"
        return None

    def well(self, role: Role) -> bool:
        """Whether a version serves, and nothing is wrong with it that will not pass."""
        health = self._health[role]
        return health.serves and not health.final

    def why_gone(self, role: Role) -> str | None:
        """Say why nothing of a version serves; None when something does, or the gap is a short one so far."""
        return None if self._health[role].serves else self.why_off(role)

    def gap(self, roles: Iterable[Role]) -> str | None:
        """Say which of these versions has nothing that serves at this moment; None when none is without."""
        gaps = (f"{role}: {self._health[role].problem}" for role in roles if not self._health[role].serves)
        return next(gaps, None)

    def _see(self, role: Role, health: Health) -> None:
        now = self._cluster.clock.now()
        self._health[role] = health
        if not health.problem:
            self._since.pop(role, None)
            if self._told.pop(role, None) is not None:
                self._events.say(f"{role} has all its replicas ready again")
            return
        self._since.setdefault(role, now)
        problem = f"{role}: {health.problem}"
        head = problem.partition("\n")[0]
        if self._told.get(role) != head and (health.final or not health.serves or self._lasts(role)):
            self._told[role] = head
            self.causes = (*self.causes, head)
            self._events.note("problem", problem)

    def _lasts(self, role: Role) -> bool:
        return self._cluster.clock.now() - self._since.get(role, math.inf) >= _PASSES
