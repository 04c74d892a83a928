"""Tracker: where a rollout stands, between its looks and its changes of weight."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from canarykit.clusters.base import Cluster, Limited
from canarykit.errors import PlanError, RoutingError
from canarykit.model import ROLES, SYMBOLS, Ending, TrafficSplit
from canarykit.plan import RolloutPlan
from canarykit.rollout import Decision, Rollout, advance, decide, moved, observe, resume
from canarykit.routers.base import Change
from canarykit.session.assessment import Assessment
from canarykit.session.events import Events
from canarykit.session.journal_writer import JournalWriter, thoroughly
from canarykit.session.lifecycle import Lifecycle, Overtaken
from canarykit.session.losses import Losses
from canarykit.session.replicas import Replicas
from canarykit.session.snapshot import Standing
from canarykit.session.traffic import OwnTraffic

__all__ = ["Tracker"]


class Tracker:
    """The weight in force, what was counted under it, and the position in the plan.

    Changes need the experiment's lock; `standing`, `rollout`, `running` and `edit` are values, replaced whole, and
    may be read without.

    Parameters
    ----------
    cluster : Cluster
        Where the versions run.
    plan : RolloutPlan
        Plan of the rollout.
    lifecycle : Lifecycle
        Says whether it goes on, and has the lock.
    evidence : Assessment
        Judges.
    traffic : OwnTraffic
        Has answers with labels.
    writer, events : JournalWriter, Events
        Told what happens.
    """

    def __init__(
        self,
        cluster: Cluster,
        plan: RolloutPlan,
        lifecycle: Lifecycle,
        evidence: Assessment,
        traffic: OwnTraffic,
        writer: JournalWriter,
        events: Events,
    ) -> None:
        self._cluster, self._lifecycle, self._writer, self._events = cluster, lifecycle, writer, events
        self.evidence, self.traffic = evidence, traffic
        self.rollout = Rollout(plan)
        self.standing = Standing()
        self._carried_out: RolloutPlan | None = None
        """The plan that is, or was, carried out; None while weights are given by hand only."""
        self._found = False
        """Whether the weight in force was found there, and nobody has changed it since."""
        self.running = False
        """Whether the plan is being carried out; set and cleared with the lock, so that it is carried out once."""
        self.edit: str | None = None
        """What someone else did to the split, as it was read back last; None when it is the one in force."""
        self.in_place: TrafficSplit | None = None
        """The split that was read or written last, whoever chose it; None when it could not be read."""
        self.pending: Change | None = None
        """What is written and was not seen to be served yet: until then nothing is counted."""
        self._looked = -math.inf
        self._counting = True
        self._useless: str | None = None
        self._losses = Losses(cluster.timeout if isinstance(cluster, Limited) else None)
        self._replicas = Replicas(cluster, events)
        self._routed = True
        self._verdict: Ending | None = None

    @property
    def split(self) -> TrafficSplit:
        """The weight in force."""
        return self.standing.split

    @property
    def due(self) -> bool:
        """Whether the last look, or change of weight, is as long ago as the plan's interval."""
        return self._cluster.clock.now() - self._looked >= self.rollout.plan.interval

    def begin(self) -> None:
        """Begin to count, with all traffic on stable."""
        self.standing = Standing(since=self._cluster.clock.now())
        self.in_place = self.split
        self._count(self.standing.since)
        self.evidence.use_buckets()

    def follow(self, plan: RolloutPlan) -> None:
        """Stand before the first step of another plan, or at the one whose weight was found."""
        self.rollout = Rollout(plan)
        if self._found:
            self.rollout = self._resumed(self.split) or self.rollout

    def carry_out(self) -> None:
        """Write down, once, that the plan is carried out: whoever goes on with the rollout goes on with this plan."""
        plan = self.rollout.plan
        if self._carried_out != plan:
            self._carried_out = plan
            self._cluster.save_state(plan=self._plan_written())

    def found(self, split: TrafficSplit) -> bool:
        """Begin at a weight that was found in force; return whether it is a step of the plan, which then goes on from it.

        The plan that was being carried out is gone on with, in place of the experiment's own.
        """
        self._recall()
        resumed = self._resumed(split)
        self.standing, self.in_place = Standing(split, since=self._cluster.clock.now()), split
        if resumed is None:
            return False
        self.rollout = resumed
        self.in_force(split, 0.0)
        self._found = True
        return True

    def _recall(self) -> None:
        written = self._cluster.saved_state().get("plan")
        if written is None:
            return
        try:
            plan = RolloutPlan.from_dump(written)
        except PlanError as error:
            self._events.note("problem", f"{error}: the experiment's own is used")
            return
        if plan != self.rollout.plan:
            weights = ", ".join(f"{step.weight:g}" for step in plan.steps)
            self._events.note("plan", f"goes on with the plan that was being carried out: {weights} %")
        self.rollout, self._carried_out = Rollout(plan), plan

    def _resumed(self, split: TrafficSplit) -> Rollout | None:
        """The plan at its step of this weight, from now on; None when it has none."""
        now = self._cluster.clock.now()
        return resume(self.rollout, split.canary, now=now, guardrails=self.evidence.names)

    def poll(self) -> None:
        """See how the replicas are, take in everything since the last look, and read the split back."""
        if self._lifecycle.ending is None:
            self._routed = self._replicas.poll()
        self.take_in()
        self.read_back()

    def read_back(self) -> None:
        """Read the split back, unless a change is under way; what someone else did to it is told once."""
        if self.pending is not None:
            return
        found = self._edit()
        news = found is not None and found != self.edit
        self.edit = found
        if news:
            assert found is not None
            self._events.note("problem", found)

    def take_in(self) -> None:
        """Take in everything since the last look; nothing while a change of weight is under way."""
        if self.pending is not None:
            return
        if not self._counting:
            self._count(self._cluster.clock.now())
        # After the end the roles may have changed hands: such a window is kept, and says nothing about the canary.
        judged = self._lifecycle.ending is None
        window = self.evidence.take(self.traffic.load, since=self.standing.since, judged=judged, routed=self._routed)
        self._looked = window.end
        stable, canary = window.requests
        served = (self.standing.served[0] + stable, self.standing.served[1] + canary)
        self.standing = replace(self.standing, served=served)
        if window.judged:
            with_data = self.evidence.with_data(window)
            self.rollout = observe(
                self.rollout, self.evidence.judgement, canary_requests=canary, now=window.end, with_data=with_data
            )
        self._losses.take(window)
        if not window.waiting:
            self.evidence.record(window)
        self.traffic.write_down()
        self._tell_of_own_traffic()
        self._amend()

    def _tell_of_own_traffic(self) -> None:
        """Say once that nothing can be learned from the kit's own traffic, that answers cannot be read, or are cut off."""
        found, before = self.evidence.useless_traffic, self._useless
        self._useless = found
        news = [found] if found is not None and before is None else []
        for problem in [*news, *self.evidence.unread_answers(), self._losses.news()]:
            if problem is not None:
                self._events.note("problem", problem)

    def decide(self) -> Decision:
        """Say what the plan wants done now."""
        return decide(
            self.rollout,
            self.evidence.judgement,
            now=self._cluster.clock.now(),
            canary_problem=self._replicas.why_off("canary") if self.split.canary else None,
            stable_problem=self._replicas.why_gone("stable") if self.split.stable else None,
            gap=self._replicas.gap([role for role in ROLES if getattr(self.split, role)]),
            doubt=self.doubt(),
            unusable=self.evidence.useless_traffic,
            delay=self._cluster.telemetry.delay,
            waiting=self.evidence.waiting,
        )

    def doubt(self) -> str | None:
        """Say why the numbers must not be believed, as of the last look; None when nothing speaks against them."""
        return self.edit or self.evidence.split_alarm(self._replicas.causes)

    @property
    def canary_may_stand_in(self) -> bool:
        """Whether the canary may serve everything while stable cannot: it has had traffic, and nothing speaks against it."""
        judgement = self.evidence.judgement
        suspected = judgement.alarm is not None or bool(judgement.suspects)
        return bool(self.split.canary) and not suspected and self._replicas.well("canary")

    def _edit(self) -> str | None:
        try:
            self.in_place = seen = self._cluster.router.observed()
        except RoutingError as error:
            self.in_place = None
            return f"the split cannot be read back: {error}"
        if seen.is_near(self.split):
            return None
        return (
            f"the gateway serves {seen} to the canary, not the {self.split} it was told: "
            "someone else changed it, or it was restarted"
        )

    def in_force(self, split: TrafficSplit, took: float) -> None:
        """Count under another weight from now on, which took so many seconds to be in force.

        It is in force whatever can be counted or written down: an error of those is raised when all of it is done.
        """
        now, replaced = self._cluster.clock.now(), self.split
        self.standing, self._looked, self.edit = Standing(split, since=now, took=took), now, None
        self.in_place, self._found, self.pending = split, False, None
        self._replicas.begin()
        thoroughly(
            lambda: self._count(now, replaced),
            lambda: self._writer.weight(now, split.canary, took, replaced.canary),
            lambda: self._cluster.save_state(phase=self.rollout.phase, weight=split.canary, plan=self._plan_written()),
        )

    def _plan_written(self) -> dict[str, Any] | None:
        return None if self._carried_out is None else self._carried_out.model_dump(mode="json")

    def need_no_return(self, split: TrafficSplit) -> None:
        """Check, with the lock, that nobody returns all traffic to stable just now: nothing may be written over that."""
        if self.pending is not None:
            raise Overtaken(f"all traffic is being returned to stable, so {split} is not given")

    def written(self, change: Change) -> None:
        """Wait until a change is served. What was counted since the last look is left out: it may be of either weight."""
        self.pending, self.in_place, self._counting = change, change.split, False

    def dropped(self, change: Change) -> None:
        """Wait for a change no longer: the weight in force is what it was."""
        if self.pending is change:
            self.pending = None

    def mixed(self) -> None:
        """Leave out what was counted since the last look: for a while it was not under the weight in force."""
        self._counting = False

    def _count(self, now: float, replaced: TrafficSplit | None = None) -> None:
        """Begin to count under the weight in force; the next look tries again when it fails."""
        self._counting = False
        self.evidence.count_anew(replaced)
        self._cluster.telemetry.begin(self.split, now)
        self._counting = True

    def stepped(self, step: Decision) -> None:
        """Be a step further: its weight is in force."""
        self.rollout = advance(self.rollout, step, now=self._cluster.clock.now(), guardrails=self.evidence.names)

    def moved(self, split: TrafficSplit) -> None:
        """Stand where the plan does at a weight that someone chose: nothing counted at another one counts for a step."""
        now = self._cluster.clock.now()
        self.rollout = moved(self.rollout, split.canary, now=now, guardrails=self.evidence.names)

    def stop_traffic(self) -> object:
        """End the kit's own traffic, with a last look; return what became of it. Takes the locks itself."""
        try:
            return self.traffic.stop(self.take_in)
        finally:
            with self._lifecycle.lock:
                self._amend()

    def why_end_promotion(self) -> str | None:
        """Say what speaks against the canary while it has all traffic, and stable is replaced; None when nothing does."""
        return self._replicas.why_off("canary") or self._losses.over_limit(self.evidence.guardrails)

    def promoting(self) -> None:
        """A promotion begins: what fails from now on is told in the ending, because no verdict comes after it."""
        self._losses.promoting()

    def _amend(self) -> None:
        """Add to the ending what was lost since it was written. Needs the lock."""
        before = self._lifecycle.ending
        if before is None or self._verdict is None:
            return
        after = self._with_losses(self._verdict)
        if after != before:
            self._lifecycle.ending = after
            self._writer.end(after, self._cluster.clock.now())

    def _with_losses(self, ending: Ending) -> Ending:
        """Ending that tells what was lost, and what failed where nothing was compared any more."""
        compared = {guardrail.metric.table for guardrail in self.evidence.guardrails}
        return replace(ending, sentence="; ".join([ending.sentence, *self._losses.told(self.traffic.causes, compared)]))

    def end(self, ending: Ending) -> None:
        """End the rollout, and wake whoever waits for that; it has ended whatever can be written down."""
        now = self._cluster.clock.now()
        self._verdict, ending = ending, self._with_losses(ending)
        self._lifecycle.ending = ending
        self.rollout = advance(self.rollout, Decision("stop", ending.sentence, outcome=ending.outcome), now=now)
        self._lifecycle.wake()
        thoroughly(
            lambda: self._writer.end(ending, now),
            lambda: self._cluster.save_state(phase=ending.outcome, plan=None),
        )

    def notify(self, where: str) -> None:
        """Say where it stands, in a line that the next one replaces. Needs no lock."""
        stable, canary = self.standing.served
        served = f", {100 * canary / (stable + canary):.1f} % served" if stable + canary else ""
        load = self.traffic.load
        lost = f", {load.record()['lost_total']} lost" if load is not None else ""
        words = ", ".join(f"{verdict.guardrail} {SYMBOLS[verdict.status]}" for verdict in self.evidence.judgement.verdicts)
        self._events.progress(f"{where}: {self.split} asked{served}; {words}; {stable + canary:,} requests{lost}")
