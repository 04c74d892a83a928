"""Returning: all traffic back to stable, and a stable version that is gone brought back before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from canarykit.clusters.base import Cluster
from canarykit.interrupts import interrupted, never, uninterrupted
from canarykit.model import Ending, Outcome, TrafficSplit
from canarykit.routers.base import Change
from canarykit.session.events import Events
from canarykit.session.journal_writer import thoroughly
from canarykit.session.lifecycle import Lifecycle, Overtaken
from canarykit.session.promotion import Promotion
from canarykit.session.tracker import Tracker

__all__ = ["Returning"]

_ALL = TrafficSplit(0)


class Returning:
    """Returns all traffic to stable.

    It waits for nobody who is changing the weight or replaces stable's replicas: it writes, and they find out. Nothing here
    waits with the experiment's lock.

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
        self.alone = threading.RLock()
        """Held, before the experiment's lock, by whoever returns the traffic: one at a time."""
        self.promotion: Promotion | None = None
        """The one under way, which a return of the traffic ends."""
        self._awaited = False
        """Whether `restore_stable` has asked for all of stable's replicas, and waits for them."""

    def to_stable(self, outcome: Outcome | None = None, why: str = "") -> None:
        """Give stable all traffic, also when it is in trouble: the weight first, then what stable lacks, then the record.

        Only a stable version that serves nothing is waited for before, with a bound.

        Parameters
        ----------
        outcome : str, optional
            How the rollout ends by that; by default it does not.
        why : str
            Reason, for the ending.

        Raises
        ------
        Overtaken
            The rollout is to end by that, and has ended meanwhile.
        RoutingError
            Traffic could not be returned, and is left to the guard; the rollout has not ended then. Any other error is of
            what came after.
        """
        with self.alone, uninterrupted():
            start, awaited = self._cluster.clock.now(), self._awaited
            self._awaited = False
            shares = [split.share for split in (self._tracker.state.split, self._tracker.gateway.in_place) if split is not None]
            problem = self._problem_of_none(awaited=awaited)
            known = awaited or problem is not None
            lacking = (lambda: problem) if known else partial(self._problem_of_stable, max(shares))
            check = never if outcome is None else partial(self._lifecycle.need_no_end_since, None)
            self._return(start, outcome, why, lacking, check=check)

    def end_promotion(self) -> None:
        """End a promotion that is under way, and wait until it is undone, or done: nobody needs it any more."""
        if self.promotion is not None:
            self.promotion.cancel()
            self.promotion.outcome()

    def _problem_of_none(self, *, awaited: bool) -> str | None:
        """Bring up a stable version that serves nothing; say what it lacks all the same, None when it serves.

        Where all its replicas are `awaited` already, it is waited for only as long as nothing else of it would serve.
        """
        try:
            stable = self._cluster.health("stable")
        except Exception as error:  # whatever it is, traffic has to return
            return str(error)
        if stable.serves or (awaited and self._tracker.state.split.stable):
            return stable.problem or None if awaited else None
        # Not for all traffic: a canary that fails must not keep its share meanwhile.
        return self._problem_of_stable(0.0)

    def _return(
        self,
        start: float,
        outcome: Outcome | None,
        why: str,
        lacking: Callable[[], str | None],
        *,
        check: Callable[[], object],
        also: Callable[[], object] = never,
    ) -> None:
        """Give stable all traffic; a promotion that is under way ends by that.

        `lacking` is that of `all_to_stable`. `also` is part of the record, and done with the lock.
        """
        promotion: Promotion | None = None

        def last() -> None:
            nonlocal promotion
            check()
            promotion = self.promotion
            if promotion is not None:
                promotion.cancel()

        took, problem = self.all_to_stable(last, lacking)
        where = f"all traffic was back on stable after {1000 * (self._cluster.clock.now() - start):.0f} ms"
        steps: list[Callable[[], object]] = [lambda: self._tracker.in_force(_ALL, took)]
        if outcome is not None:
            became = "" if promotion is None else f"; {promotion.outcome()}"
            replaced = promotion is not None and promotion.replaced
            ending = Ending("failed" if replaced else outcome, f"{why}; {where}{became}")
            steps.append(lambda: self._tracker.end(ending))
        if problem is not None:
            said = f"traffic was returned to stable although it is in trouble: {problem}"
            steps.append(lambda: self._events.note("problem", said))
        with self._lifecycle.urgently():
            thoroughly(*steps, also)

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
            before, self._awaited = self._tracker.state.split, True
        problem = self._problem_of_stable(1.0)

        def check() -> None:
            self._lifecycle.need_no_end_since(None)
            if self._tracker.state.split != before or self._tracker.gateway.pending is not None:
                raise Overtaken(f"the weight was changed to {self._tracker.state.split} while stable was brought back")

        with self.alone, uninterrupted():
            self._awaited = False  # an interruption leaves it set: whoever returns traffic then does not wait as long again
            if problem is not None and stands_in:
                with self._lifecycle.lock:
                    check()
                    ended = Ending("failed", f"{why}; {problem}; the canary has all traffic until abort() returns it")
                    thoroughly(lambda: self._tracker.end(ended), lambda: self._events.note("restore", why))
                return
            came_back = "stable serves again" if problem is None else f"stable did not come back: {problem}"
            meanwhile = ", and the canary had all traffic meanwhile" if stands_in else ""
            start, said = self._cluster.clock.now(), f"{why}; {came_back}{meanwhile}"
            noted = partial(self._events.note, "restore", why)
            self._return(start, "inconclusive", said, lambda: problem, check=check, also=noted)

    def _let_canary_stand_in(self) -> bool:
        """Give the canary all traffic, where that is better than none; return whether it has it."""
        if not self._tracker.canary_may_stand_in:
            return False
        everything = TrafficSplit(100)
        try:
            share = self._tracker.state.split.share
            self._cluster.ensure_capacity("canary", share)  # of all it needs, it has what serves its share
            self._cluster.holding.check()  # last: to warm up may take a minute
        except Exception as error:  # whatever it is, stable is to be brought back
            return self._cannot_stand_in(error)
        with self._lifecycle.changing, uninterrupted():
            with self._lifecycle.lock:
                self._lifecycle.need_no_end_since(None)
                if not self._tracker.canary_may_stand_in:
                    return self._cannot_stand_in("something speaks against it by now")
                self._tracker.gateway.need_no_return(everything)
                start = self._cluster.clock.now()
                try:
                    self._tracker.written(change := self._cluster.router.write(everything))
                except Exception as error:
                    return self._cannot_stand_in(error)
            try:
                self._cluster.router.confirm(change, cancelled=self.cancels(change))
            except Exception as error:
                with self._lifecycle.lock:
                    self._tracker.gateway.drop(change)
                return self._cannot_stand_in(error)
            with self._lifecycle.lock:
                if self._tracker.gateway.pending is not change:
                    return False
                self._tracker.in_force(everything, self._cluster.clock.now() - start)
        self._events.note("restore", "the canary has all traffic until stable serves again")
        return True

    def cancels(self, change: Change) -> Callable[[], bool]:
        """Return what says that nobody waits for a change any more: another one was written, or a signal is deferred."""
        return lambda: self._tracker.gateway.pending is not change or not self._lifecycle.deployed or interrupted()

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

    def all_to_stable(
        self, check: Callable[[], object] = never, lacking: Callable[[], str | None] = lambda: None
    ) -> tuple[float, str | None]:
        """Return all traffic to stable; where that fails, a guard is to go on trying, whatever becomes of this process.

        Parameters
        ----------
        check : callable
            Called with the lock before anything is written; raises an error when it is not to be.
        lacking : callable
            Brings up what stable lacks, and says what it lacks all the same. Called without the lock once the weight is
            written, before it is seen to be served: a gateway takes up no route to a Service that somebody deleted.

        Returns
        -------
        tuple of (float, str or None)
            Seconds until it was served, and what stable lacks all the same.
        """
        start, change = self._cluster.clock.now(), None
        with self._lifecycle.urgently():
            check()
            try:
                self._tracker.written(change := self._cluster.router.write(_ALL))
            except Exception:
                self._cluster.holding.leave_to_guard()
                raise
        try:
            problem = lacking()
            self._cluster.router.confirm(change, cancelled=lambda: not self._lifecycle.deployed)
        except Exception:
            with self._lifecycle.urgently():
                self._tracker.gateway.drop(change)
                self._cluster.holding.leave_to_guard()
            raise
        return self._cluster.clock.now() - start, problem
