"""Steering: the changes of weight, the way to a promotion, and the way back."""

from __future__ import annotations

from canarykit.clusters.base import Cluster
from canarykit.conduct.course import Course
from canarykit.conduct.lifetime import Lifetime
from canarykit.conduct.voice import Voice
from canarykit.errors import ClusterError, PlanError
from canarykit.interrupts import uninterrupted
from canarykit.model import Ending, Service, TrafficSplit
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
                took = self.return_to_stable()
                self._course.end(Ending("rolled back", f"{reason}; all traffic was back on stable after {1000 * took:.0f} ms"))
            elif self._life.deployed and self._cluster.router.observed().canary:
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

    def return_to_stable(self) -> float:
        """Give stable all traffic, also when it is in trouble; return the seconds it took. Needs the lock."""
        start = self._cluster.clock.now()
        try:
            self._cluster.warm("stable")
        except ClusterError as error:
            self._voice.note("problem", f"returning traffic to stable although it is in trouble: {error}")
        took = self._cluster.router.apply(TrafficSplit(0))
        self._course.in_force(TrafficSplit(0), took)
        return self._cluster.clock.now() - start

    def resume(self, found: TrafficSplit) -> None:
        """Go on with a rollout that was found under way: at its weight, with evidence of its own. Needs the lock."""
        if self._course.found(found):
            self._voice.note("resume", f"found {found} on the canary: goes on from there, and the evidence begins anew")
        else:
            self._voice.note("resume", f"found {found} on the canary, which is no step of this plan: back to stable first")
            self.return_to_stable()

    def _replace_stable(self) -> None:
        """Replace stable's replicas while the canary has all traffic, and retire the canary's."""
        try:
            self._cluster.promote()
        except ClusterError as error:
            self.return_to_stable()
            stable = self._service.stable.name
            self._course.end(Ending("failed", f"promotion failed, traffic is back on {stable}: {error}"))
            raise
        self._course.look()
        self._course.in_force(TrafficSplit(0), self._cluster.router.apply(TrafficSplit(0)))
        self._cluster.retire_canary()
