"""Tracker: the one writer of the state of a rollout."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from canarykit.analysis import Judge
from canarykit.clusters.base import Cluster, Limited
from canarykit.errors import CanaryError, PlanError
from canarykit.model import ROLES, Ending, Guardrail, TrafficSplit
from canarykit.plan import RolloutPlan
from canarykit.rollout import Decision, RolloutState, Signals, advance, decide, enter, judged_by, observe, planned, resume
from canarykit.routers.base import Change
from canarykit.session.assessment import Assessment
from canarykit.session.events import Events
from canarykit.session.gateway_state import GatewayState
from canarykit.session.handover import Handover
from canarykit.session.journal_writer import JournalWriter, thoroughly
from canarykit.session.lifecycle import Lifecycle
from canarykit.session.losses import Losses
from canarykit.session.replicas import Replicas
from canarykit.session.traffic import OwnTraffic

__all__ = ["Tracker"]


class Tracker:
    """Keeps the state of a rollout: what is counted and what is done changes it here, and nowhere else.

    Changes need the experiment's lock; `state` and `running` are values, replaced whole, and may be read without.

    Parameters
    ----------
    cluster : Cluster
        Where the versions run.
    state : RolloutState
        State before the deployment.
    lifecycle : Lifecycle
        Says whether it goes on, and has the lock.
    writer, events : JournalWriter, Events
        Told what happens.
    """

    def __init__(
        self, cluster: Cluster, state: RolloutState, lifecycle: Lifecycle, writer: JournalWriter, events: Events
    ) -> None:
        self._cluster, self._lifecycle, self.writer, self._events = cluster, lifecycle, writer, events
        self.assessment = Assessment(cluster, writer.journal, alpha=state.evidence.alpha)
        self.traffic = OwnTraffic(cluster, lifecycle, self.assessment, self.take_in, writer, events)
        self.state = state
        self.gateway = GatewayState(cluster, events)
        self.handover = Handover(cluster, events)
        self._found = False
        """Whether the weight in force was found there, and nobody has changed it since."""
        self.running = False
        """Whether the plan is being carried out; set and cleared with the lock, so that it is carried out once."""
        self._looked = -math.inf
        self._counting = True
        self._useless: str | None = None
        self.losses = Losses(cluster.timeout if isinstance(cluster, Limited) else None)
        self._replicas = Replicas(cluster, events)
        self._routed = True
        self._verdict: Ending | None = None

    @property
    def due(self) -> bool:
        """Whether the last look, or change of weight, is as long ago as the plan's interval."""
        return self._cluster.clock.now() - self._looked >= self.state.plan.interval

    def begin(self, optional: frozenset[str]) -> tuple[str, ...]:
        """Begin to count, with all traffic on stable; return the names of the guardrails that the source cannot count for.

        Parameters
        ----------
        optional : frozenset of str
            Names of guardrails that nobody asked for: they are left out then.
        """
        asked = self.state.evidence.guardrails
        self.assessment.begin()
        self._judge_by(self.assessment.countable(asked, optional))
        self.state = enter(self.state, TrafficSplit(0), now=self._cluster.clock.now())
        self.gateway.in_place = self.state.split
        self._count(self.state.since)
        self._judge_by(self.assessment.countable(self.state.evidence.guardrails))
        self.assessment.record_sources()
        counted = {guardrail.name for guardrail in self.state.evidence.guardrails}
        return tuple(guardrail.name for guardrail in asked if guardrail.name not in counted)

    def _judge_by(self, guardrails: tuple[Guardrail, ...]) -> None:
        """Judge by these from now on; when they are others than before, what was counted so far is not judged again."""
        if guardrails != self.state.evidence.guardrails:
            self.state = judged_by(self.state, Judge(guardrails, **self.state.evidence.options))
            self.writer.judged_by(guardrails)

    def follow(self, plan: RolloutPlan) -> None:
        """Stand before the first step of another plan, or at the one whose weight was found."""
        other = planned(self.state, plan)
        self.state = (resume(other, self.state.split.canary) if self._found else None) or other

    def carry_out(self) -> None:
        """Write down, once, that the plan is carried out: whoever goes on with the rollout goes on with this plan."""
        with self._lifecycle.lock:
            if self._lifecycle.ending is None and not self.state.carried_out:
                self.state = replace(self.state, carried_out=True, begun=self._cluster.clock.now())
                self._cluster.holding.save_state(plan=self._plan_written())

    def found(self, split: TrafficSplit) -> str | None:
        """Begin at a weight that was found in force; say whose evidence it goes on with, or None when it cannot go on.

        It goes on when the weight is a step of the plan. The plan that was being carried out is gone on with, in place of the
        experiment's own, and with the evidence that was written down about these versions.
        """
        self._recall_plan()
        resumed = resume(self.state, split.canary)
        self.gateway.in_place = split
        if resumed is None:
            self.state = enter(self.state, split, now=self._cluster.clock.now())
            return None
        self.state = resumed
        evidence = self._recall_evidence()
        self.in_force(split, 0.0)
        self._found = True
        return evidence

    def _recall_plan(self) -> None:
        written = self._cluster.holding.saved_state().get("plan")
        if written is None:
            return
        try:
            plan = RolloutPlan.from_dump(written)
            state = planned(self.state, plan)
        except PlanError as error:
            self._events.note("problem", f"{error}: the experiment's own is used")
            return
        if plan != self.state.plan:
            weights = ", ".join(f"{step.weight:g}" for step in plan.steps)
            paced = "" if plan.pace is None else f"a harm budget of {plan.pace.harm:g}, up to "
            self._events.note("plan", f"goes on with the plan that was being carried out: {paced}{weights} %")
        self.state = replace(state, carried_out=True, begun=self._cluster.clock.now())

    def _recall_evidence(self) -> str:
        """Take over the evidence of whoever conducted the rollout; say so, or why it begins anew."""
        try:
            saved = self.handover.saved(self.state.evidence.guardrails)
            guardrails = saved.evidence.guardrails
            if self.assessment.countable(guardrails) != guardrails or saved.evidence.options != self.state.evidence.options:
                raise PlanError("what was written down was judged in another way")
        except CanaryError as error:
            return f"the evidence begins anew, because {error}"
        self._judge_by(guardrails)
        harm = saved.harm if saved.harm.weights == self.state.harm.weights else self.state.harm
        self.state = replace(self.state, evidence=saved.evidence, harm=harm)
        self.writer.brought(saved.evidence)
        return f"the evidence goes on, with {sum(saved.judgement.requests):,} requests so far"

    def poll(self) -> None:
        """See how the replicas are, take in everything since the last look, and read the split back; after a close do nothing.

        Takes the lock itself.
        """
        with self._lifecycle.lock:
            if not self._lifecycle.deployed:
                return
            if self._lifecycle.ending is None:
                self._routed = self._replicas.poll()
            self.take_in()
            self.gateway.read_back(self.state.split)

    def take_in(self) -> None:
        """Take in everything since the last look; nothing while a change of weight is under way."""
        if self.gateway.pending is not None:
            return
        if not self._counting:
            self._count(self._cluster.clock.now())
        # After the end the roles may have changed hands: such a window is kept, and says nothing about the canary.
        judged = self._lifecycle.ending is None
        window = self.assessment.take(self.traffic.load, since=self.state.since, judged=judged, routed=self._routed)
        self._looked = window.end
        self._judge_by(self.assessment.countable(self.state.evidence.guardrails))
        self.state = observe(self.state, window)
        self.losses.take(window)
        if not window.waiting:
            self.writer.window(window, self.state.evidence)
        self.traffic.write_down()
        self._tell_of_own_traffic()
        self._amend()
        self.handover.save(self.state)

    def _tell_of_own_traffic(self) -> None:
        """Say once that nothing can be learned from the kit's own traffic, that answers cannot be read, or are cut off."""
        before, self._useless = self._useless, self.assessment.own.useless
        useless = self._useless if before is None else None
        for problem in [useless, *self.assessment.own.news(), self.losses.news()]:
            if problem is not None:
                self._events.note("problem", problem)

    def decide(self) -> Decision:
        """Say what the plan wants done now."""
        signals = Signals(
            canary_problem=self._replicas.why_off("canary") if self.state.split.canary else None,
            stable_problem=self._replicas.why_gone("stable") if self.state.split.stable else None,
            gap=self._replicas.gap([role for role in ROLES if getattr(self.state.split, role)]),
            doubt=self.doubt(),
            unusable=self.assessment.own.useless,
            delay=self._cluster.telemetry.delay,
            waiting=self.assessment.waiting,
        )
        return decide(self.state, signals, now=self._cluster.clock.now())

    def doubt(self) -> str | None:
        """Say why the numbers must not be believed, as of the last look; None when nothing speaks against them."""
        return self.gateway.edit or self.assessment.split_check.because(self._replicas.causes)

    @property
    def canary_may_stand_in(self) -> bool:
        """Whether the canary may serve everything while stable cannot: it has had traffic, and nothing speaks against it."""
        judgement = self.state.judgement
        suspected = judgement.alarm is not None or bool(judgement.suspects)
        return bool(self.state.split.canary) and not suspected and self._replicas.well("canary")

    def in_force(
        self,
        split: TrafficSplit,
        took: float,
        stands: Callable[[RolloutState], RolloutState] | None = None,
        *,
        seen: bool = True,
    ) -> None:
        """Count under another weight from now on, which took so many seconds to be in force.

        It is in force whatever can be counted or written down: an error of those is raised when all of it is done.

        Parameters
        ----------
        split : TrafficSplit
            The weight.
        took : float
            Seconds.
        stands : callable, optional
            Returns the position in the plan by that; it stays by default.
        seen : bool
            Whether it was seen to be served; else what is counted until the next look is left out.
        """
        now, replaced = self._cluster.clock.now(), self.state.split
        state = self.state if stands is None else stands(self.state)
        self.state, self._looked = enter(state, split, now=now, took=took), now
        self._found = False
        self.gateway.in_force(split)
        self._replicas.begin()
        thoroughly(
            lambda: self._count(now, replaced, seen=seen),
            lambda: self.writer.weight(now, split.canary, took, replaced.canary),
            lambda: self._cluster.holding.save_state(phase=state.phase, weight=split.canary, plan=self._plan_written()),
            lambda: self.handover.save(self.state, at_once=True),
        )

    def _plan_written(self) -> dict[str, Any] | None:
        return self.state.plan.model_dump(mode="json") if self.state.carried_out else None

    def written(self, change: Change) -> None:
        """Wait until a change is served. What was counted since the last look is left out: it may be of either weight."""
        self.gateway.wait_for(change)
        self._counting = False

    def _count(self, now: float, replaced: TrafficSplit | None = None, *, seen: bool = True) -> None:
        """Begin to count under the weight in force; the next look does so anew when it fails, or the weight was not seen."""
        self._counting = False
        self.assessment.count_anew(now, replaced)
        self._cluster.telemetry.begin(self.state.split, now)
        self._counting = seen

    def stop_traffic(self) -> object:
        """End the kit's own traffic, with a last look; return what became of it. Takes the locks itself."""
        try:
            return self.traffic.stop()
        finally:
            with self._lifecycle.lock:
                self._amend()

    def why_end_promotion(self) -> str | None:
        """Say what speaks against the canary while it has all traffic, and stable is replaced; None when nothing does."""
        return self._replicas.why_off("canary") or self.losses.over_limit(self.state.evidence.guardrails)

    def _harm(self) -> dict[str, float | None]:
        """What a bad version may have hurt, and what this one has hurt as far as is seen, in requests."""
        pace, harm = self.state.plan.pace, self.state.harm
        return {"budget": None if pace is None else pace.harm, "seen": harm.seen, "most": harm.most}

    def _amend(self) -> None:
        """Add to the ending what was lost since it was written. Needs the lock."""
        if self._verdict is None:
            return
        after = self._with_losses(self._verdict)
        if after != self._lifecycle.ending:
            self._lifecycle.ending = after
            self.writer.end(after, self._cluster.clock.now(), self._harm())

    def _with_losses(self, ending: Ending) -> Ending:
        """Ending that tells what was hurt and lost, and what failed where nothing was compared any more."""
        compared, harm = {guardrail.metric.table for guardrail in self.state.evidence.guardrails}, self.state.harm
        told = self.losses.told(self.traffic.causes, compared)
        if self.state.plan.pace is not None and self.state.carried_out:
            told.insert(0, f"the canary hurt about {harm.seen:,.0f} requests, and no more than {harm.most:,.0f} (95 %)")
        return replace(ending, sentence="; ".join([ending.sentence, *told]))

    def end(self, ending: Ending) -> None:
        """End the rollout, and wake whoever waits for that; it has ended whatever can be written down."""
        now = self._cluster.clock.now()
        self._verdict, ending = ending, self._with_losses(ending)
        self._lifecycle.ending = ending
        self.state = advance(self.state, Decision("stop", ending.sentence, outcome=ending.outcome))
        self._lifecycle.wake()
        thoroughly(
            lambda: self.writer.end(ending, now, self._harm()),
            lambda: self._cluster.holding.save_state(phase=ending.outcome, plan=None),
            lambda: self.handover.save(self.state, at_once=True),
        )
