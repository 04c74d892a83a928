"""TrafficControl: the changes of weight, and the way to a promotion."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from canarykit.clusters.base import Cluster
from canarykit.errors import CanaryError, CancelledError, EditedError, PlanError, RoutingError, UnrestoredError
from canarykit.interrupts import uninterrupted
from canarykit.model import Ending, Outcome, Service, TrafficSplit
from canarykit.plan import RolloutPlan
from canarykit.rollout import Decision, RolloutState, advance, moved
from canarykit.routers import able
from canarykit.routers.base import Change
from canarykit.session.events import Events
from canarykit.session.journal_writer import thoroughly
from canarykit.session.lifecycle import Lifecycle, Overtaken
from canarykit.session.promotion import Promotion
from canarykit.session.returning import Returning
from canarykit.session.tracker import Tracker

__all__ = ["TrafficControl"]


class TrafficControl:
    """Moves the weight.

    It holds the experiment's lock while a weight is written, and never while something is waited for: a version that warms up,
    a gateway that takes up a weight, replicas of stable that are replaced. A return of all traffic to stable waits for none of
    these: it writes its weight, which cancels them.

    Parameters
    ----------
    service : Service
        Both versions.
    cluster : Cluster
        Its router splits.
    lifecycle : Lifecycle
        Says whether it goes on, and has the lock.
    tracker : Tracker
        Told what is in force.
    events : Events
        Told what happens.
    """

    def __init__(self, service: Service, cluster: Cluster, lifecycle: Lifecycle, tracker: Tracker, events: Events) -> None:
        self._service, self._cluster = service, cluster
        self._lifecycle, self._tracker, self._events = lifecycle, tracker, events
        self.returning = Returning(cluster, lifecycle, tracker, events)
        """The way back."""

    def shift(self, split: TrafficSplit) -> TrafficSplit:
        """Change the weight by hand, but never to a higher one after an alarm; return what is served."""
        ending = self._lifecycle.ending
        with self._events.busy(f"giving {split} to the canary"), self._lifecycle.changing:
            with self._lifecycle.lock:
                self._lifecycle.need_no_end_since(ending)
                over = self._known() if split.canary else None
                # To read the counts is a fifth of what a change takes on a cluster. Less than an interval of traffic is
                # left out instead, as it is between a step of the plan and the look before it. What someone else did is
                # found by the write, but not by that of 0 %, which goes over it: there a look has to tell.
                if self._tracker.due:
                    look = self._tracker.take_in if split.canary else self._tracker.poll
                    look()
                self._need_leave_for(split, None)
            return self.apply(split, ending, over=over)

    def promote(self, step: Decision | None = None) -> Ending:
        """Make the canary's version the stable one, unless a guardrail has alarmed.

        Parameters
        ----------
        step : Decision, optional
            The plan's step; it never goes over a split that someone else wrote.
        """
        everything = TrafficSplit(100)
        with self._events.busy(f"promoting {self._service.canary.name}"):
            with self._lifecycle.lock:
                self.need_promotable()
                if self._lifecycle.ending is not None:
                    if self._lifecycle.ending.outcome == "promoted":
                        return self._lifecycle.ending
                    raise Overtaken(f"nothing to promote: the rollout has ended, {self._lifecycle.ending}")
                over = self._known()
                if self._tracker.due:
                    self._tracker.take_in()
                self._need_no_alarm()
            self._ensure_capacity(everything)
            # Nobody else changes the weight meanwhile, but to return all traffic to stable.
            with self._lifecycle.changing, uninterrupted():

                def check() -> None:
                    self._lifecycle.need_no_end_since(None)
                    self._need_no_alarm()
                    self._tracker.losses.promoting()

                over = over if step is None else self._tracker.state.split
                served = self._change(everything, over, check)
                if not served:  # stable may still get requests
                    raise Overtaken("nothing was promoted: an abort or a signal came before stable's replicas were replaced")
                return self._replace_stable()

    def need_promotable(self) -> None:
        """Check that a promotion would reach what serves."""
        self._lifecycle.need_deployment()
        if (advice := self._cluster.router.capabilities.promoted_by) is not None:
            raise PlanError(advice)

    def need_served(self, plan: RolloutPlan) -> None:
        """Check that the router can serve the weights of a plan."""
        if plan.pace is not None and "fractions" not in self._cluster.router.capabilities.features:
            raise PlanError(
                "a budget of harm takes weights such as 0.9 %, which this router cannot serve: give the plan steps, or choose "
                f"another router ({able('fractions')})"
            )

    def abort(self, reason: str) -> Ending:
        """Return all traffic to stable, from any state."""
        with uninterrupted():
            if self._lifecycle.ending is None:
                self._lifecycle.need_deployment()
                with suppress(Overtaken):  # somebody else has ended it
                    self.returning.to_stable("rolled back", reason)
                    reason = ""
            if reason and self._lifecycle.deployed and (self._tracker.state.split.canary or self._canary_is_served()):
                self.returning.to_stable()
            assert self._lifecycle.ending is not None
            return self._lifecycle.ending

    def apply(
        self, split: TrafficSplit, ending: Ending | None, *, over: TrafficSplit | None = None, step: Decision | None = None
    ) -> TrafficSplit:
        """Change the weight; what was not looked at before is left out, so that no window holds two weights.

        Parameters
        ----------
        split : TrafficSplit
            Asked for.
        ending : Ending, optional
            How the rollout had ended when this was decided: when it has ended since, nothing is changed.
        over : TrafficSplit, optional
            The split that is to be replaced; any by default.
        step : Decision, optional
            The plan's step, which is taken then. It replaces the weight in force, and nothing that someone else wrote.
        """
        self._ensure_capacity(split)
        with self._lifecycle.changing, uninterrupted():

            def check() -> None:
                self._lifecycle.need_no_end_since(ending)
                self._need_leave_for(split, step)

            stands = partial(moved, weight=split.canary) if step is None else partial(advance, decision=step)
            self._change(split, over if step is None else self._tracker.state.split, check, stands)
            return self._cluster.router.observed() if self._lifecycle.deployed else self._tracker.state.split

    def resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with the evidence that was written down."""
        with self._lifecycle.lock:
            evidence = self._tracker.found(found)
        if evidence is not None:
            self._events.note("resume", f"found {found} on the canary: goes on from there; {evidence}")
        else:
            self.returning.to_stable()
            self._events.note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")

    def _ensure_capacity(self, split: TrafficSplit) -> None:
        """Have those versions answer that get more than before; nobody else may conduct the rollout when the canary does."""
        known = (self._tracker.state.split, self._tracker.gateway.in_place)
        # What the canary is known to have, it may keep, also when it does not answer.
        if any(split.canary > (0 if each is None else each.canary) for each in known):
            self._cluster.ensure_capacity("canary", split.share)
            self._cluster.holding.check()  # last: to warm up may take minutes
        if split.stable and not self._tracker.state.split.stable:
            self._cluster.ensure_capacity("stable", 1 - split.share)

    def _need_leave_for(self, split: TrafficSplit, step: Decision | None) -> None:
        """Check, with the lock, that nothing speaks against a weight: what has come up since it was decided counts."""
        if step is None and self._tracker.running:
            raise PlanError(f"the plan is being carried out: wait for it, or abort(), before {split} is given by hand")
        self._tracker.gateway.need_no_return(split)
        ahead, paced = self._tracker.state.ahead, step is not None and step.action == "pace"
        if step is not None and not paced and (ahead is None or ahead.weight != split.canary):
            raise Overtaken(f"the plan stands elsewhere by now, and {split} is not its next step")
        judgement, before = self._tracker.state.judgement, self._tracker.state.split
        if split.canary <= before.canary:
            return
        if judgement.alarm is not None:
            raise Overtaken(
                f"{judgement.alarm.guardrail} has alarmed, so the canary's weight does not rise from {before} to {split}: "
                "abort(), or begin a new experiment"
            )
        if judgement.suspects and step is not None:
            raise Overtaken(f"the weight does not rise from {before} to {split}: {judgement.suspects[0].sentence}")
        if judgement.suspects:
            self._events.note("problem", f"{split} is given by hand although {judgement.suspects[0].sentence}")

    def _need_no_alarm(self) -> None:
        """Check, with the lock, that no guardrail has alarmed."""
        judgement = self._tracker.state.judgement
        if judgement.alarm is not None:
            raise Overtaken(f"nothing to promote: {judgement.sentence}")

    def _known(self) -> TrafficSplit | None:
        """Return the split that whoever asks knows of; None for the disorder that they were told of. Needs the lock."""
        told = self._tracker.gateway.edit
        if self._tracker.gateway.in_place is None:
            self._tracker.gateway.read_back(self._tracker.state.split)
            if self._tracker.gateway.edit not in (None, told):
                raise self._edited(self._tracker.gateway.edit)
        return self._tracker.gateway.in_place

    def _edited(self, said: object) -> EditedError:
        return EditedError(f"{said}; nothing was changed: ask again to have it all the same, or abort()")

    def _change(
        self,
        split: TrafficSplit,
        over: TrafficSplit | None,
        check: Callable[[], None],
        stands: Callable[[RolloutState], RolloutState] | None = None,
    ) -> bool:
        """Have a weight served; when it is not, have the canary get no more than it had.

        Parameters
        ----------
        split : TrafficSplit
            Asked for.
        over : TrafficSplit, optional
            The split that it replaces; any by default. What someone else wrote since is told, and stays.
        check : callable
            Called with the lock before anything is written; raises an error when it is not to be.
        stands : callable, optional
            Returns the position in the plan by that; it stays by default.

        Returns
        -------
        bool
            Whether it was seen to be served; False when the wait was cancelled.
        """
        router, start = self._cluster.router, self._cluster.clock.now()
        change, failed, served = None, None, False
        with self._lifecycle.lock:
            check()
            self._tracker.gateway.need_no_return(split)
            try:
                self._tracker.written(change := router.write(split, expected=over))
            except EditedError as error:
                self._tracker.gateway.read_back(self._tracker.state.split)
                raise self._edited(self._tracker.gateway.edit or error) from error
            except Exception as error:
                failed = error
        if change is not None:
            try:
                served = router.confirm(change, cancelled=self.returning.cancels(change))
            except Exception as error:
                failed = error
        if failed is not None:
            self._put_right(failed, change, start, split, over)
        with self._lifecycle.lock:
            if self._tracker.gateway.pending is not change:
                return False  # all traffic was returned to stable meanwhile
            took = self._cluster.clock.now() - start
            seen = f"in force after {1000 * took:.0f} ms" if served else "written; nobody waits until it is served"
            self._events.say(f"{split} to the canary, {seen}")
            self._tracker.in_force(split, took, stands, seen=served)
        return served

    def _put_right(
        self, error: Exception, change: Change | None, start: float, split: TrafficSplit, over: TrafficSplit | None
    ) -> NoReturn:
        """After a change that failed: have the canary get no more than it had, and raise the error with what was done."""
        with self._lifecycle.lock:
            if change is not None and self._tracker.gateway.pending is not change:
                raise Overtaken(f"all traffic was returned to stable before {split} was served ({error})") from error
            self._tracker.gateway.pending = None
            if self._tracker.running:
                raise error  # whoever carries out the plan returns all traffic to stable now
            said, back = self._settle(start, split, over)
        if back is not None:
            try:
                self._cluster.router.confirm(back, cancelled=self.returning.cancels(back))
            except Exception as failed:
                said = self._not_put_back(failed)
            with self._lifecycle.lock:
                self._tracker.gateway.drop(back)
        if said is not None and isinstance(error, CanaryError):
            raise type(error)(f"{error}; {said}") from error
        if said is not None:
            error.add_note(said)
        raise error

    def _settle(self, start: float, split: TrafficSplit, over: TrafficSplit | None) -> tuple[str | None, Change | None]:
        """Keep what is written when it is less than was in force, write that again otherwise. Needs the lock.

        Returns
        -------
        tuple of (str or None, Change or None)
            Description of the split that is written now, None when nothing changed; and what was written again.
        """
        router, before = self._cluster.router, self._tracker.state.split
        try:
            self._tracker.gateway.in_place = written = router.observed()
            if any(written.is_near(known) for known in (before, over) if known is not None):
                return None, None
            if written.canary > before.canary:
                self._tracker.written(back := router.write(before))
                instead = "" if written.is_near(split) else f", over {written}"
                return f"{before}, which was in force, is written again{instead}", back
        except Exception as error:
            return self._not_put_back(error), None
        took = self._cluster.clock.now() - start
        self._tracker.in_force(written, took, lambda state: moved(state, written.canary))
        return f"{written} is written, and stays: it is less than the {before} that was in force", None

    def _not_put_back(self, error: Exception) -> str:
        before, written = self._tracker.state.split, "nobody can say what"
        with suppress(Exception):
            self._tracker.gateway.in_place = self._cluster.router.observed()
            written = str(self._tracker.gateway.in_place)
        return f"{written} is written now, and {before}, which was in force, could not be put back: {error}"

    def _canary_is_served(self) -> bool:
        try:
            return self._cluster.router.observed().canary > 0
        except RoutingError:
            return True  # someone else left the route in disorder

    def _replace_stable(self) -> Ending:
        """Replace stable's replicas while the canary has all traffic, and retire the canary's."""
        why, promotion = self._tracker.state.judgement.sentence, Promotion()
        with self._lifecycle.lock:
            if self._lifecycle.ending is not None or self._tracker.gateway.pending is not None:
                raise Overtaken("nothing was promoted: all traffic was returned to stable before its replicas were replaced")
            self.returning.promotion = promotion
        try:
            replaced = self._have_replaced(promotion)
        except Exception as error:
            self.returning.promotion = None
            self._after_failed_promotion(promotion, error)
            raise
        self.returning.promotion = None
        with self.returning.alone:
            if self._lifecycle.ending is not None:
                raise Overtaken(f"the promotion was overtaken: {self._lifecycle.ending}")
            end = self._leave_the_canary if replaced else self._leave_stable
            thoroughly(self._tracker.poll, lambda: end(why))
        assert self._lifecycle.ending is not None
        return self._lifecycle.ending

    def _have_replaced(self, promotion: Promotion) -> bool:
        """Have the cluster replace stable's replicas, with an eye on the canary, and say what became of that.

        Returns
        -------
        bool
            Whether they are replaced.
        """
        stable, canary = self._service.stable.name, self._service.canary.name
        watcher = threading.Thread(target=self._watch, args=(promotion,), name="canarykit-promotion", daemon=True)
        watcher.start()
        try:
            replaced = self._cluster.promote(promotion.cancelled)
            said = f"stable is {canary} by now: its replicas had been replaced" if replaced else f"stable is {stable} as before"
            promotion.finish(said, replaced=replaced)
            return replaced
        except Exception as error:
            promotion.finish(str(error) if isinstance(error, UnrestoredError) else f"stable is {stable} as before")
            raise
        finally:
            watcher.join()

    def _after_failed_promotion(self, promotion: Promotion, error: Exception) -> None:
        """Return traffic to a stable that was not replaced, unless somebody else has done so."""
        with self.returning.alone:  # by whoever cancelled it, until the end is written down
            if self._lifecycle.ending is not None:
                raise Overtaken(f"the promotion was ended: {self._lifecycle.ending}") from error
        said = promotion.outcome()
        if promotion.why:
            self.returning.to_stable("rolled back", f"{promotion.why}; {said}")
        elif isinstance(error, CancelledError):
            self.returning.to_stable("inconclusive", f"interrupted while stable's replicas were replaced; {said}")
        else:
            as_before = "" if isinstance(error, UnrestoredError) else f", {said}"
            self.returning.to_stable("failed", f"promotion failed{as_before}: {error}")

    def _watch(self, promotion: Promotion) -> None:
        """Look after the canary, which has all traffic, while another thread replaces stable's replicas."""
        with self._events.quietly():
            while not promotion.wait(self._tracker.state.plan.interval):
                self._tracker.poll()
                if (why := self._tracker.why_end_promotion()) is not None:
                    promotion.cancel(why)
                    with suppress(Exception):  # whoever promotes tries again
                        self.returning.to_stable("rolled back", why)
                    return

    def _leave_stable(self, why: str) -> None:
        """End with all traffic on the canary: both versions are somebody else's, and stay."""
        stable, canary = self._service.stable.name, self._service.canary.name
        ending = Ending("promoted", f"{canary} has all traffic, and {stable} stays beside it without any: {why}")
        with self._lifecycle.lock:
            self._tracker.end(ending)

    def _leave_the_canary(self, why: str) -> None:
        """Return traffic to a stable that is of the canary's version by now."""
        try:
            took, _ = self.returning.all_to_stable()
        except Exception as error:
            not_seen = "traffic was not seen to return to it from the canary's replicas, abort() tries again"
            self._end("failed", f", but {not_seen}: {error}")
            raise

        def in_force() -> None:
            with self._lifecycle.lock:
                self._tracker.in_force(TrafficSplit(0), took)

        thoroughly(in_force, lambda: self._retire_the_canary(why))

    def _retire_the_canary(self, why: str) -> None:
        try:
            self._cluster.retire_canary()
        except Exception as error:
            self._end("failed", f", and has all traffic, but the canary's replicas were not retired: {error}")
            raise
        self._end("promoted", f": {why}")

    def _end(self, outcome: Outcome, more: str) -> None:
        with self._lifecycle.lock:
            self._tracker.end(Ending(outcome, f"{self._service.canary.name} is stable now{more}"))
