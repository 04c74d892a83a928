"""What every cluster can do."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from canarykit.health import Health
from canarykit.interrupts import never
from canarykit.load.tally import Answer
from canarykit.model import Role, Service
from canarykit.routers.base import Router
from canarykit.telemetry.base import Telemetry

__all__ = [
    "Breakable", "Clock", "Cluster", "Holding", "InProcess", "Limited", "NotShared", "ReportsProgress", "SystemClock",
    "Traffic",
]  # fmt: skip


class Clock(Protocol):
    """What time it is where the versions run."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class SystemClock:
    """The real time."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Traffic(Protocol):
    """Requests that the kit sends itself."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """What was asked for, to be written down."""
        ...

    @property
    def classes(self) -> Sequence[Any]:
        """The labels of what is sent, when they are a few classes; empty otherwise."""
        ...

    def answers(self) -> Sequence[Answer]:
        """Answers since the last call."""
        ...

    def record(self) -> Mapping[str, Any]:
        """What became of all requests so far, to be written down; `lost`, by cause, and `lost_total` among it."""
        ...

    def stop(self) -> object:
        """Send no more, wait for what is under way, say what became of all. May be called again."""
        ...


class Holding(Protocol):
    """Keeps others from conducting a rollout, and its state for whoever goes on with it when this process has ended."""

    def check(self) -> None:
        """Check that nobody else conducts the rollout, before the canary's weight rises.

        Raises
        ------
        ClusterError
            Somebody does, or may have done so meanwhile. Its weight may fall all the same, unless somebody else is there.
        """
        ...

    def save_state(self, **facts: Any) -> None:
        """Write down what a guard, and whoever comes next, must know at once: phase, weight and plan.

        Raises
        ------
        ClusterError
            Someone else conducts it by now.
        """
        ...

    def saved_state(self) -> Mapping[str, Any]:
        """Facts that were written down before `deploy` by whoever conducted the rollout; empty when nobody did."""
        ...

    def save_rollout(self, state: Mapping[str, Any] | None) -> None:
        """Write down the whole state with its evidence; None removes it.

        Raises
        ------
        ClusterError
            It cannot be written; what was written before stays.
        """
        ...

    def saved_rollout(self) -> Mapping[str, Any] | None:
        """Return the state that was written down last about the versions that run; None when there is none.

        Raises
        ------
        ClusterError
            It cannot be read.
        """
        ...

    def leave_to_guard(self) -> None:
        """Traffic could not be returned to stable: let the guard do it, where there is one. May be called again.

        That ends when a weight that is in force is written down by `save_state`.
        """
        ...


class NotShared:
    """Holding of a cluster that only this process reaches, and that ends with it: nobody else holds or guards it."""

    def check(self) -> None:
        """Do nothing: nobody else reaches it."""

    def save_state(self, **facts: Any) -> None:
        """Do nothing: nothing of it outlives this process."""

    def saved_state(self) -> Mapping[str, Any]:
        """Return nothing: nothing was written down."""
        return {}

    def save_rollout(self, state: Mapping[str, Any] | None) -> None:
        """Do nothing: nothing of it outlives this process."""

    def saved_rollout(self) -> Mapping[str, Any] | None:
        """Return nothing: nothing was written down."""
        return None

    def leave_to_guard(self) -> None:
        """Do nothing: all ends with this process."""


class Cluster(Protocol):
    """Runs both versions of a service behind one address."""

    @property
    def url(self) -> str:
        """Address of the gateway; traffic for the service goes here."""
        ...

    @property
    def router(self) -> Router:
        """Splits the traffic."""
        ...

    @property
    def telemetry(self) -> Telemetry:
        """Counts it."""
        ...

    @property
    def clock(self) -> Clock:
        """What time it is there."""
        ...

    @property
    def holding(self) -> Holding:
        """Who conducts the rollout, and what is written down about it."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether nothing here is measured."""
        ...

    def send(self, rate: float | str, **options: Any) -> Traffic:
        """Begin to send traffic to the service.

        Raises
        ------
        PlanError
            A rate or an option that it cannot send.
        """
        ...

    def deploy(self, service: Service) -> None:
        """Bring up both versions, all traffic on stable; return when both are ready.

        Raises
        ------
        ClusterError
            A version does not come up; quotes its last log lines.
        """
        ...

    def undeploy(self) -> None:
        """Take back what the last `deploy` did, because something failed after it. May be called again.

        What it made is removed, and what was there before stays as it was; but a canary that was found with a share of the
        traffic, and that nobody would conduct now, gets none.
        """
        ...

    def ensure_capacity(self, role: Role, share: float = 1.0) -> None:
        """Make sure that a version can answer before it gets weight.

        Parameters
        ----------
        role : {"stable", "canary"}
            Which version.
        share : float
            Share of all traffic, 0 to 1, for which it needs replicas that are ready.

        Raises
        ------
        ClusterError
            It cannot.
        """
        ...

    def health(self, role: Role) -> Health:
        """How a version's replicas are; asked at every look, so that it costs next to nothing while all is well."""
        ...

    def promote(self, cancelled: Callable[[], bool] = never) -> bool:
        """Replace stable's replicas by ones of the canary's version, behind the canary's back, which has all traffic.

        Parameters
        ----------
        cancelled : callable
            Asked again and again; once it says True, what was done so far is undone, and `CancelledError` raised.

        Returns
        -------
        bool
            Whether stable is of the canary's version; False where both are somebody else's: then the canary keeps the traffic.

        Raises
        ------
        UnrestoredError
            That failed, and stable may not be what it was. After any other error it is.
        """
        ...

    def retire_canary(self) -> None:
        """Let the canary's replicas finish what they have, and end them. They have no weight any more."""
        ...

    def release(self) -> None:
        """Let go: what outlives this process stays as it is, all else ends. May be called again."""
        ...

    def teardown(self) -> None:
        """Remove all that was made. May be called again."""
        ...


class InProcess:
    """Members of a cluster that only this process reaches, and that ends with it."""

    holding = NotShared()

    def teardown(self) -> None:
        """Remove all that was made. May be called again."""

    def undeploy(self) -> None:
        """End all that was started."""
        self.teardown()

    def release(self) -> None:
        """End all that was started: nothing of it may outlive this process."""
        self.teardown()


@runtime_checkable
class Breakable(Protocol):
    """A cluster that can break the canary on purpose, for teaching."""

    @property
    def faults(self) -> tuple[str, ...]:
        """What can be broken; nothing when the canary is no model on the kit's own server."""
        ...

    def inject(self, fault: str | None) -> None:
        """Break the canary; None mends it."""
        ...


@runtime_checkable
class Limited(Protocol):
    """A cluster whose gateway ends requests that take too long."""

    @property
    def timeout(self) -> float:
        """Seconds after which it does."""
        ...


@runtime_checkable
class ReportsProgress(Protocol):
    """A cluster where something may take long, and that says what it waits for."""

    def report_progress(self, notify: Callable[[str], object], passing: Callable[[str], object]) -> None:
        """Tell what happens through the first function, and what passes through the second."""
        ...
