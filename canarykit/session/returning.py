"""Returning: all traffic back to stable, and a stable version that is gone brought back before."""

from __future__ import annotations

from functools import partial

from canarykit.clusters.base import Cluster
from canarykit.interrupts import uninterrupted
from canarykit.model import Ending, Outcome, TrafficSplit
from canarykit.session.events import Events
from canarykit.session.journal_writer import thoroughly
from canarykit.session.lifecycle import Lifecycle, Overtaken
from canarykit.session.tracker import Tracker

__all__ = ["Returning"]


class Returning:
    """Returns all traffic to stable.

    Parameters
    ----------
    cluster : Cluster
        Its router splits, and it brings up what stable lacks.
    lifecycle : Lifecycle
        Says whether the rollout goes on, and has the lock.
    tracker : Tracker
        Told what is in force.
    events : Events
        Told what happens.
    """

    def __init__(self, cluster: Cluster, lifecycle: Lifecycle, tracker: Tracker, events: Events) -> None:
        self._cluster, self._lifecycle, self._tracker, self._events = cluster, lifecycle, tracker, events
        self._awaited = False
        """Whether `restore_stable` has asked for all of stable's replicas, and waits for them."""

    def to_stable(self, outcome: Outcome | None = None, why: str = "") -> None:
        """Give stable all traffic, also when it is in trouble: the weight first, then the record. Needs the lock.

        Stable is asked to serve what it gets, and is waited for, with a bound. Where `restore_stable` was waiting for it, only
        as long as nothing else would serve.

        Parameters
        ----------
        outcome : str, optional
            How the rollout ends by that; by default it does not.
        why : str
            Reason, for the ending.

        Raises
        ------
        RoutingError
            Traffic could not be returned, and is left to the guard; the rollout has not ended then. Any other error is of
            what came after.
        """
        with uninterrupted():
            start = self._cluster.clock.now()
            self._return(self._problem_on_return(), start, outcome, why)

    def _problem_on_return(self) -> str | None:
        """Have stable ready for what returns to it; say what it lacks all the same. Needs the lock."""
        awaited, self._awaited = self._awaited, False
        if awaited:
            return self._problem_of_awaited()
        # Not for all traffic: what it has it serves already, and a canary that fails must not keep its share meanwhile.
        known = (self._tracker.split, self._tracker.in_place)
        return self._problem_of_stable(max(split.share for split in known if split is not None))

    def _problem_of_awaited(self) -> str | None:
        """Say what stable lacks, of whose replicas all are asked for; wait for the first where the canary has all traffic."""
        try:
            stable = self._cluster.health("stable")
        except Exception as error:  # whatever it is, traffic has to return
            return str(error)
        if stable.serves or self._tracker.split.stable:
            return stable.problem or None
        return self._problem_of_stable(0.0)

    def _return(self, problem: str | None, start: float, outcome: Outcome | None, why: str) -> None:
        """Give stable all traffic, with what it is known to lack. Needs the lock."""
        took = self.all_to_stable()
        where = f"all traffic was back on stable after {1000 * (self._cluster.clock.now() - start):.0f} ms"
        steps = [lambda: self._tracker.in_force(TrafficSplit(0), took)]
        if outcome is not None:
            ending = Ending(outcome, f"{why}; {where}")
            steps.append(lambda: self._tracker.end(ending))
        if problem is not None:
            said = f"traffic was returned to stable although it is in trouble: {problem}"
            steps.append(lambda: self._events.note("problem", said))
        thoroughly(*steps)

    def restore_stable(self, why: str) -> None:
        """End a rollout whose stable version serves nothing: bring it back, and return traffic to it.

        Meanwhile the canary serves everything, when it may; it goes on to where stable does not come back. Both versions are
        waited for without the lock.

        Parameters
        ----------
        why : str
            Problem of stable, for the ending.

        Raises
        ------
        Overtaken
            The rollout has ended meanwhile, or someone has changed the weight.
        """
        stands_in = self._let_canary_stand_in()
        self._lifecycle.give_way()
        with self._lifecycle.lock:
            self._lifecycle.need_no_end_since(None)
            before, self._awaited = self._tracker.split, True
        problem = self._problem_of_stable(1.0)
        with self._lifecycle.lock, uninterrupted():
            self._awaited = False  # an interruption leaves it set: whoever returns traffic then does not wait as long again
            self._lifecycle.need_no_end_since(None)
            if self._tracker.split != before:
                raise Overtaken(f"the weight was changed to {self._tracker.split} while stable was brought back")
            if problem is not None and stands_in:
                ended = Ending("failed", f"{why}; {problem}; the canary has all traffic until abort() returns it")
                thoroughly(lambda: self._tracker.end(ended), lambda: self._events.note("restore", why))
                return
            came_back = "stable serves again" if problem is None else f"stable did not come back: {problem}"
            meanwhile = ", and the canary had all traffic meanwhile" if stands_in else ""
            start, said = self._cluster.clock.now(), f"{why}; {came_back}{meanwhile}"
            back = partial(self._return, problem, start, "inconclusive", said)
            thoroughly(back, lambda: self._events.note("restore", why))

    def _let_canary_stand_in(self) -> bool:
        """Give the canary all traffic, where that is better than none; return whether it has it."""
        if not self._tracker.canary_may_stand_in:
            return False
        everything = TrafficSplit(100)
        try:
            self._cluster.ensure_capacity("canary", self._tracker.split.share)  # of all it needs, it has what serves its share
            self._cluster.check_held()  # last: to warm up may take a minute
        except Exception as error:  # whatever it is, stable is to be brought back
            return self._cannot_stand_in(error)
        with self._lifecycle.lock, uninterrupted():
            self._lifecycle.need_no_end_since(None)
            if not self._tracker.canary_may_stand_in:
                return self._cannot_stand_in("something speaks against it by now")
            try:
                with self._lifecycle.cancels(self._cluster.router, everything):
                    self._tracker.in_force(everything, self._cluster.router.apply(everything))
            except Exception as error:
                return self._cannot_stand_in(error)
        self._events.note("restore", "the canary has all traffic until stable serves again")
        return True

    def _cannot_stand_in(self, why: object) -> bool:
        self._events.note("problem", f"the canary could not stand in for stable: {why}")
        return False

    def _problem_of_stable(self, share: float) -> str | None:
        """Bring up what stable lacks for a share of the traffic; say what it lacks all the same."""
        try:
            self._cluster.ensure_capacity("stable", share)
        except Exception as error:  # whatever it is, traffic has to return
            return str(error)
        return None

    def all_to_stable(self) -> float:
        """Return all traffic to stable; where that fails, a guard is to go on trying, whatever becomes of this process."""
        try:
            return self._cluster.router.apply(TrafficSplit(0))
        except Exception:
            self._cluster.leave_to_guard()
            raise
