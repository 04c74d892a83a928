"""TrafficControl: the changes of weight, and the way to a promotion."""

from __future__ import annotations

from canarykit.clusters.base import Cluster
from canarykit.errors import CanaryError, EditedError, PlanError, RoutingError, UnrestoredError
from canarykit.interrupts import uninterrupted
from canarykit.model import Ending, Service, TrafficSplit
from canarykit.rollout import Decision
from canarykit.session.events import Events
from canarykit.session.journal_writer import thoroughly
from canarykit.session.lifecycle import Lifecycle, Overtaken
from canarykit.session.returning import Returning
from canarykit.session.tracker import Tracker

__all__ = ["TrafficControl"]


class TrafficControl:
    """Moves the weight.

    It holds the experiment's lock while the weight changes, and not while a version warms up for more traffic: a canary that
    does not answer must not keep an abort waiting. An abort cancels the wait for a weight to be served, where the router can;
    only a promotion that has begun to replace stable is finished first.

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
        self._service, self._cluster, self._lifecycle, self._tracker, self._events = (
            service,
            cluster,
            lifecycle,
            tracker,
            events,
        )
        self.returning = Returning(cluster, lifecycle, tracker, events)
        """The way back."""

    def shift(self, split: TrafficSplit) -> TrafficSplit:
        """Change the weight by hand, but never to a higher one after an alarm; return what is served."""
        ending = self._lifecycle.ending
        with self._events.busy(f"giving {split} to the canary"):
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
            self._ensure_capacity(TrafficSplit(100))
            # One hold of the lock: nobody gives stable traffic before its replicas are replaced.
            with self._lifecycle.lock, uninterrupted():
                self._lifecycle.need_no_end_since(None)
                self._need_no_alarm()
                over = over if step is None else self._tracker.split
                self._tracker.promoting()
                self._tracker.in_force(TrafficSplit(100), self._write(TrafficSplit(100), over))
                if (
                    self._lifecycle.hurried()
                ):  # stable may still get requests: the wait for the canary to have all was cancelled
                    raise Overtaken("nothing was promoted: an abort or a signal came before stable's replicas were replaced")
                return self._replace_stable()

    def need_promotable(self) -> None:
        """Check that a promotion would reach what serves."""
        self._lifecycle.need_deployment()
        self._cluster.check_promotable()

    def abort(self, reason: str) -> Ending:
        """Return all traffic to stable, from any state."""
        with self._lifecycle.urgently(), uninterrupted():
            if self._lifecycle.ending is None:
                self._lifecycle.need_deployment()
                self.returning.to_stable("rolled back", reason)
            elif self._lifecycle.deployed and self._canary_is_served():
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
        with self._lifecycle.lock, uninterrupted():
            self._lifecycle.need_no_end_since(ending)
            self._need_leave_for(split, step)
            took = self._write(split, over if step is None else self._tracker.split)
            if step is not None:
                self._tracker.stepped(step)
            else:
                self._tracker.moved(split)
            self._tracker.in_force(split, took)
            if self._lifecycle.hurried():
                self._tracker.mixed()  # it was not seen to be served
            return self._cluster.router.observed()

    def resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with evidence of its own. Needs the lock."""
        if self._tracker.found(found):
            self._events.note("resume", f"found {found} on the canary: goes on from there, and the evidence begins anew")
        else:
            self.returning.to_stable()
            self._events.note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")

    def _ensure_capacity(self, split: TrafficSplit) -> None:
        """Have those versions answer that get more than before; nobody else may conduct the rollout when the canary does."""
        if self._rises(split):
            self._cluster.ensure_capacity("canary", split.share)
            self._cluster.check_held()  # last: to warm up may take minutes
        if split.stable and not self._tracker.split.stable:
            self._cluster.ensure_capacity("stable", 1 - split.share)

    def _rises(self, split: TrafficSplit) -> bool:
        """Whether the canary gets more than it is known to have: what it has, it may keep, also when it does not answer."""
        known = (self._tracker.split, self._tracker.in_place)
        return any(split.canary > (0 if each is None else each.canary) for each in known)

    def _need_leave_for(self, split: TrafficSplit, step: Decision | None) -> None:
        """Check, with the lock, that nothing speaks against a weight: what has come up since it was decided counts."""
        if step is None and self._tracker.running:
            raise PlanError(f"the plan is being carried out: wait for it, or abort(), before {split} is given by hand")
        ahead = self._tracker.rollout.ahead
        if step is not None and (ahead is None or ahead.weight != split.canary):
            raise Overtaken(f"the plan stands elsewhere by now, and {split} is not its next step")
        judgement, before = self._tracker.evidence.judgement, self._tracker.split
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
        judgement = self._tracker.evidence.judgement
        if judgement.alarm is not None:
            raise Overtaken(f"nothing to promote: {judgement.sentence}")

    def _known(self) -> TrafficSplit | None:
        """Return the split that whoever asks knows of; None for the disorder that they were told of. Needs the lock."""
        told = self._tracker.edit
        if self._tracker.in_place is None:
            self._tracker.read_back()
            if self._tracker.edit not in (None, told):
                raise self._edited(self._tracker.edit)
        return self._tracker.in_place

    def _edited(self, said: object) -> EditedError:
        return EditedError(f"{said}; nothing was changed: ask again to have it all the same, or abort()")

    def _write(self, split: TrafficSplit, over: TrafficSplit | None) -> float:
        """Have a weight served; when it is not, have the canary get no more than it had. Needs the lock.

        Parameters
        ----------
        split : TrafficSplit
            Asked for.
        over : TrafficSplit, optional
            The split that it replaces; any by default. What someone else wrote since is told, and stays.
        """
        start = self._cluster.clock.now()
        try:
            with self._lifecycle.cancels(self._cluster.router, split):
                took = self._cluster.router.apply(split, instead_of=over)
        except EditedError as error:
            self._tracker.read_back()
            raise self._edited(self._tracker.edit or error) from error
        except Exception as error:
            # Whoever carries out the plan returns all traffic to stable now.
            said = None if self._tracker.running else self._settle(start, split, over)
            if said is None:
                raise
            if not isinstance(error, CanaryError):
                error.add_note(said)
                raise
            raise type(error)(f"{error}; {said}") from error
        seen = (
            "written; nobody waits until it is served" if self._lifecycle.hurried() else f"in force after {1000 * took:.0f} ms"
        )
        self._events.say(f"{split} to the canary, {seen}")
        return took

    def _settle(self, start: float, split: TrafficSplit, over: TrafficSplit | None) -> str | None:
        """After a change that failed: keep what is written when it is less than was in force, write that again otherwise.

        Returns
        -------
        str or None
            Description of the split that is written now; None when nothing changed.
        """
        router, before = self._cluster.router, self._tracker.split
        try:
            self._tracker.in_place = written = router.observed()
            if any(written.is_near(known) for known in (before, over) if known is not None):
                return None
            if written.canary > before.canary:
                self._tracker.mixed()
                router.apply(before)
                self._tracker.in_place = before
        except Exception as error:
            return f"{self._written()} is written now, and {before}, which was in force, could not be put back: {error}"
        if written.canary > before.canary:
            instead = "" if written.is_near(split) else f", over {written}"
            return f"{before}, which was in force, is written again{instead}"
        self._tracker.moved(written)
        self._tracker.in_force(written, self._cluster.clock.now() - start)
        return f"{written} is written, and stays: it is less than the {before} that was in force"

    def _written(self) -> str:
        try:
            self._tracker.in_place = self._cluster.router.observed()
            return str(self._tracker.in_place)
        except Exception:
            return "nobody can say what"

    def _canary_is_served(self) -> bool:
        try:
            return self._cluster.router.observed().canary > 0
        except RoutingError:
            return True  # someone else left the route in disorder

    def _replace_stable(self) -> Ending:
        """Replace stable's replicas while the canary has all traffic, and retire the canary's."""
        why = self._tracker.evidence.judgement.sentence
        try:
            self._cluster.promote()
        except Exception as error:
            as_before = "" if isinstance(error, UnrestoredError) else f", stable is {self._service.stable.name} as before"
            self.returning.to_stable("failed", f"promotion failed{as_before}: {error}")
            raise
        thoroughly(self._tracker.take_in, lambda: self._leave_the_canary(why))
        assert self._lifecycle.ending is not None
        return self._lifecycle.ending

    def _leave_the_canary(self, why: str) -> None:
        """Return traffic to a stable that is of the canary's version by now."""
        try:
            took = self.returning.all_to_stable()
        except Exception as error:
            self._end_short(
                f"but traffic was not seen to return to it from the canary's replicas, abort() tries again: {error}"
            )
            raise
        thoroughly(lambda: self._tracker.in_force(TrafficSplit(0), took), lambda: self._retire_the_canary(why))

    def _retire_the_canary(self, why: str) -> None:
        try:
            self._cluster.retire_canary()
        except Exception as error:
            self._end_short(f"and has all traffic, but the canary's replicas were not retired: {error}")
            raise
        self._tracker.end(Ending("promoted", f"{self._service.canary.name} is stable now: {why}"))

    def _end_short(self, so_far: str) -> None:
        self._tracker.end(Ending("failed", f"{self._service.canary.name} is stable now, {so_far}"))
