"""A rollout that this process conducts: the lease of it, and the guard that watches the lease."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from canarykit.clusters.kube.api.lease import Lease
from canarykit.clusters.kube.guard import Guard
from canarykit.clusters.kube.saved_rollout import SavedRollout
from canarykit.errors import ClusterError

__all__ = ["LeaseHolding"]


class LeaseHolding:
    """Keeps lease and guard together: as long as the lease is held, the guard has to watch it.

    Parameters
    ----------
    lease : Lease
        Not taken yet.
    saved : SavedRollout
        Keeps the whole state.
    notify : callable
        Takes one line.
    entered : callable
        Takes the phase whenever it is written down.
    """

    def __init__(
        self, lease: Lease, saved: SavedRollout, notify: Callable[[str], object], entered: Callable[[object], object]
    ) -> None:
        self.lease, self._saved, self._notify, self._entered = lease, saved, notify, entered
        self._found: Mapping[str, Any] = {}
        self._guard: Guard | None = None

    def begin(self, guard: Callable[[], Guard]) -> None:
        """Take the lease, and have it guarded.

        Raises
        ------
        ClusterError
            Somebody else conducts the rollout.
        """
        self._found = self.lease.acquire()
        self._guard = guard()

    def check(self) -> None:
        """Check that the lease is held, and have it guarded: the canary is about to get more traffic.

        Raises
        ------
        ClusterError
            Somebody else conducts the rollout, or may have done so meanwhile; or the lease cannot be written.
        """
        self.lease.renew()
        self._watch_again()

    def save_state(self, **facts: Any) -> None:
        """Write down where the rollout stands.

        Raises
        ------
        ClusterError
            Somebody else conducts it by now; or it cannot be written down, and the canary has a share of the traffic.
        """
        self._entered(facts.get("phase"))
        try:
            self.lease.save_state(**facts)
        except ClusterError as error:
            if self.lease.lost is not None or self.lease.state.get("weight", 0):
                raise
            self._notify(f"all traffic is on stable, and where the rollout stands could not be written down: {error}")
            return
        if "weight" in facts:  # it is in force: what was left to the guard is conducted from here again
            self.lease.keep()
        if not self.lease.left:
            try:
                self._watch_again()
            except ClusterError as error:  # what is in force is written down all the same
                self._notify(str(error))

    def saved_state(self) -> Mapping[str, Any]:
        """Return what was written down before `deploy` by whoever conducted the rollout; empty when nobody did."""
        return self._found

    def save_rollout(self, state: Mapping[str, Any] | None) -> None:
        """Write down the whole state with its evidence; None removes it."""
        self._saved.write(state)

    def saved_rollout(self) -> Mapping[str, Any] | None:
        """Return the state that was written down last about the versions that run; None when there is none."""
        return self._saved.read()

    def leave_to_guard(self) -> None:
        """Keep the lease without renewing it, so that the guard goes on trying to return traffic. May be called again."""
        if self.lease.held and not self.lease.left:
            self.lease.leave()
            self._notify(
                "traffic could not be returned to stable from here: the lease is renewed no more, and the guard returns it as "
                f"soon as that is over ({self.lease.seconds} s) and the API server answers; abort() tries at once"
            )

    def is_left(self) -> bool:
        """Whether the guard has to go on when this process ends."""
        return self.lease.left and self.lease.lost is None

    def reclaim(self) -> bool:
        """Have the lease once more to remove all; return whether it is held.

        Where it cannot be written that is told, and it is renewed no more. It is lost where somebody else conducts the rollout.
        """
        try:
            self.lease.reclaim()
        except ClusterError as error:
            self.lease.stop()
            if self.lease.lost is None:
                self._notify(f"traffic returns to stable, and all is removed, without Lease {self.lease.name}: {error}")
            return False
        return True

    def end_removed(self) -> None:
        """Remove the lease, and end its guard: nothing is left to be guarded, also where the lease cannot be removed."""
        try:
            self.end(self.lease.remove)
        except ClusterError as error:
            self._notify(f"Lease {self.lease.name} stays, and says nothing any more: {error}")
            self._stop_guard()

    def end(self, end: Callable[[], None]) -> None:
        """End the lease, and then its guard; say so where the lease was lost."""
        end()
        if self.lease.lost is not None:
            self._notify(self.lease.lost)
        self._stop_guard()

    def _stop_guard(self) -> None:
        if self._guard is not None:
            self._guard.stop()
            self._guard = None

    def _watch_again(self) -> None:
        if self._guard is not None:
            self._guard.watch_again()
