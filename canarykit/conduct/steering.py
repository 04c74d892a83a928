"""Steering: the changes of weight, the way to a promotion, and the way back."""

from __future__ import annotations

from canarykit.clusters.base import Cluster
from canarykit.conduct.course import Course
from canarykit.conduct.lifetime import Lifetime
from canarykit.conduct.record import thoroughly
from canarykit.conduct.voice import Voice
from canarykit.errors import PlanError, RoutingError
from canarykit.interrupts import uninterrupted
from canarykit.model import Ending, Outcome, Service, TrafficSplit
from canarykit.rollout import Decision

__all__ = ["Steering"]


class Steering:
    """Moves the weight.

    It holds the experiment's lock while the weight changes, and not while a version warms up: a canary that does not answer
    must not keep an abort waiting. Only a promotion that has begun is finished first.

    Parameters
    ----------
    service : Service
        Both versions.
    cluster : Cluster
        Its router splits.
    life : Lifetime
        Says whether it goes on, and has the lock.
    course : Course
        Told what is in force.
    voice : Voice
        Told what happens.
    """

    def __init__(self, service: Service, cluster: Cluster, life: Lifetime, course: Course, voice: Voice) -> None:
        self._service, self._cluster, self._life, self._course, self._voice = service, cluster, life, course, voice

    def shift(self, split: TrafficSplit) -> TrafficSplit:
        """Change the weight, but never to a higher one after an alarm; return what is served."""
        with self._voice.busy(f"giving {split} to the canary"):
            with self._life.lock:
                self._life.need_deployment()
                ending = self._life.ending
                # A look reads the counts, which on a cluster is a fifth of what a change takes. Less than an interval of
                # traffic is left out instead, as it is between a step of the plan and the look before it.
                if self._course.due:
                    self._course.look()
                alarm, before = self._course.evidence.judgement.alarm, self._course.split
                if alarm is not None and split.canary > before.canary:
                    raise PlanError(
                        f"{alarm.guardrail} has alarmed, so the canary's weight does not rise from {before} to {split}: "
                        "abort(), or begin a new experiment"
                    )
            return self.apply(split, ending)

    def promote(self) -> Ending:
        """Make the canary's version the stable one, unless a guardrail has alarmed."""
        self._life.need_deployment()
        if self._life.ending is not None:
            if self._life.ending.outcome == "promoted":
                return self._life.ending
            raise PlanError(f"nothing to promote: the rollout has ended, {self._life.ending}")
        judgement = self._course.evidence.judgement
        if judgement.alarm is not None:
            raise PlanError(f"nothing to promote: {judgement.sentence}")
        canary = self._service.canary.name
        with self._voice.busy(f"promoting {canary}"):
            self.apply(TrafficSplit(100), None)
            with self._life.lock, uninterrupted():
                self._life.need_no_end_since(None)
                self._replace_stable()
                ending = Ending("promoted", f"{canary} is stable now: {judgement.sentence}")
                self._course.end(ending)
        return ending

    def abort(self, reason: str) -> Ending:
        """Return all traffic to stable, from any state."""
        with self._life.lock, uninterrupted():
            if self._life.ending is None:
                self._life.need_deployment()
                self.return_to_stable("rolled back", reason)
            elif self._life.deployed and self._canary_is_served():
                self.return_to_stable()
            assert self._life.ending is not None
            return self._life.ending

    def apply(self, split: TrafficSplit, ending: Ending | None, step: Decision | None = None) -> TrafficSplit:
        """Change the weight; what was not looked at before is left out, so that no window holds two weights.

        Parameters
        ----------
        split : TrafficSplit
            Asked for.
        ending : Ending, optional
            How the rollout had ended when this was decided: when it has ended since, nothing is changed.
        step : Decision, optional
            Of the plan, which is a step further then.
        """
        if split.canary:
            self._cluster.warm("canary")
        if split.stable and not self._course.split.stable:
            self._cluster.warm("stable")
        with self._life.lock, uninterrupted():
            self._life.need_no_end_since(ending)
            took = self._cluster.router.apply(split)
            self._course.in_force(split, took)
            if step is not None:
                self._course.stepped(step)
            self._voice.say(f"{split} to the canary, in force after {1000 * took:.0f} ms")
            return self._cluster.router.observed()

    def return_to_stable(self, outcome: Outcome | None = None, why: str = "") -> None:
        """Give stable all traffic, also when it is in trouble: the weight first, then the record. Needs the lock.

        Parameters
        ----------
        outcome : str, optional
            How the rollout ends by that; by default it does not.
        why : str
            Of the ending.

        Raises
        ------
        RoutingError
            Traffic could not be returned; the rollout has not ended then. Any other error is of what came after.
        """
        with uninterrupted():
            start = self._cluster.clock.now()
            trouble = self._trouble_of_stable()
            took = self._cluster.router.apply(TrafficSplit(0))
            where = f"all traffic was back on stable after {1000 * (self._cluster.clock.now() - start):.0f} ms"
            steps = [lambda: self._course.in_force(TrafficSplit(0), took)]
            if outcome is not None:
                ending = Ending(outcome, f"{why}; {where}")
                steps.append(lambda: self._course.end(ending))
            if trouble is not None:
                said = f"traffic was returned to stable although it is in trouble: {trouble}"
                steps.append(lambda: self._voice.note("problem", said))
            thoroughly(*steps)

    def resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with evidence of its own. Needs the lock."""
        if self._course.found(found):
            self._voice.note("resume", f"found {found} on the canary: goes on from there, and the evidence begins anew")
        else:
            self.return_to_stable()
            self._voice.note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")

    def _trouble_of_stable(self) -> str | None:
        """Bring up what stable lacks; say what it lacks all the same."""
        try:
            self._cluster.warm("stable")
        except Exception as error:  # whatever it is, traffic has to return
            return str(error)
        return None

    def _canary_is_served(self) -> bool:
        try:
            return self._cluster.router.observed().canary > 0
        except RoutingError:
            return True  # someone else left the route in disorder

    def _replace_stable(self) -> None:
        """Replace stable's replicas while the canary has all traffic, and retire the canary's."""
        try:
            self._cluster.promote()
        except Exception as error:
            self.return_to_stable("failed", f"promotion failed, stable is {self._service.stable.name} as before: {error}")
            raise
        self._course.look()
        self._course.in_force(TrafficSplit(0), self._cluster.router.apply(TrafficSplit(0)))
        self._cluster.retire_canary()
