"""The pure state machine of a rollout: where it stands, and what to do next. No clock, no effects.

One iteration is ``decide(observe(state, window), signals, now=now)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from canarykit.analysis import Judge
from canarykit.analysis.harm import Harm
from canarykit.errors import PlanError
from canarykit.model import Judgement, Outcome, TrafficSplit, Window
from canarykit.pacing import budget, paced_weight
from canarykit.plan import Pace, RolloutPlan, Step

__all__ = [
    "Action",
    "Decision",
    "Phase",
    "RolloutState",
    "Signals",
    "advance",
    "begin",
    "decide",
    "enter",
    "judged_by",
    "moved",
    "observe",
    "planned",
    "resume",
]

Phase = Literal["pending", "progressing", Outcome]
Action = Literal["hold", "advance", "pace", "promote", "roll back", "restore", "stop"]

_PLAIN: Mapping[str, Callable[[Any], object]] = {
    "phase": str, "step": int, "since": float, "took": float, "requests": int, "data_since": float, "carried_out": bool,
    "begun": float,
}  # fmt: skip
"""Fields of a state that are written down as they are, and what reads them."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Where a rollout stands at one moment. A value: it never changes, and goes through JSON without loss.

    Parameters
    ----------
    plan : RolloutPlan
        The plan that is carried out.
    evidence : Judge
        Evidence of the windows so far. It is never updated in place: see `Judge.after`.
    harm : Harm
        Bound of the requests that the canary has hurt.
    phase : str
        Where it is.
    step : int
        Index of the present step; -1 before the first.
    split : TrafficSplit
        The weight in force.
    since : float
        Time at which it was in force, seconds on any clock.
    took : float
        Seconds until it was.
    served : tuple of int
        Requests of stable and canary since then.
    requests : int
        Finished canary requests since then that were judged.
    data_since : float
        Time at which every guardrail last had data.
    without_data : frozenset of str
        Guardrails for which nothing of the canary was counted yet at the present weight, whatever was at earlier ones.
    carried_out : bool
        Whether the plan is, or was, carried out; False while weights are given by hand only.
    begun : float
        Time at which the plan began to be carried out.
    """

    plan: RolloutPlan
    evidence: Judge
    harm: Harm
    phase: Phase = "pending"
    step: int = -1
    split: TrafficSplit = TrafficSplit(0)  # noqa: RUF009 frozen itself
    since: float = 0.0
    took: float = 0.0
    served: tuple[int, int] = (0, 0)
    requests: int = 0
    data_since: float = 0.0
    without_data: frozenset[str] = frozenset()
    carried_out: bool = False
    begun: float = 0.0

    @property
    def judgement(self) -> Judgement:
        """What the evidence shows so far."""
        return self.evidence.judgement

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in get_args(Outcome)

    @property
    def ahead(self) -> Step | None:
        """The step after the present one; None at the last."""
        return self.plan.steps[self.step + 1] if self.step + 1 < len(self.plan.steps) else None

    def dump(self) -> dict[str, Any]:
        """All of it as plain data for strict JSON."""
        return {
            **{_written(name): getattr(self, name) for name in _PLAIN},
            "plan": self.plan.model_dump(mode="json"),
            "evidence": self.evidence.state(),
            "harm": self.harm.state(),
            "weight": self.split.canary,
            "served": list(self.served),
            "without data": sorted(self.without_data),
        }

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> RolloutState:
        """Return the state whose `dump` this is.

        Raises
        ------
        PlanError
            It is not, or one of another version of this package.
        """
        try:
            if written["phase"] not in get_args(Phase):
                raise ValueError(f"no such phase: {written['phase']!r}")
            stable, canary = written["served"]
            plan, evidence = RolloutPlan.from_dump(written["plan"]), Judge.of(written["evidence"])
            values: dict[str, Any] = {name: read(written[_written(name)]) for name, read in _PLAIN.items()}
            return cls(
                plan,
                evidence,
                _harm(plan, evidence).restore(written["harm"]),
                split=TrafficSplit(float(written["weight"])),
                served=(int(stable), int(canary)),
                without_data=frozenset(written["without data"]),
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PlanError(f"the state of the rollout that was written down cannot be read: {error!r}") from error


def _written(name: str) -> str:
    """Name of a field where the state is written down."""
    return name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Signals:
    """What speaks against going on beside the counts; nothing by default.

    Parameters
    ----------
    canary_problem : str, optional
        The canary crashes, is not ready or is gone.
    stable_problem : str, optional
        Nothing of stable serves.
    gap : str, optional
        Nothing of a version that has traffic serves at this moment, which may pass.
    doubt : str, optional
        A reason not to believe the numbers: the gateway serves another split than it was told.
    unusable : str, optional
        A reason why nothing can be learned from the traffic: both versions refuse what the kit sends.
    delay : float
        Seconds until a finished request is counted, at most. Holds begin when the source can have counts of the present
        weight; silence is forgiven for as long as it takes two readings of the source.
    waiting : str
        Reason why the source has nothing new yet; names the cause of a long silence.
    """

    canary_problem: str | None = None
    stable_problem: str | None = None
    gap: str | None = None
    doubt: str | None = None
    unusable: str | None = None
    delay: float = 0.0
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next, and why.

    Parameters
    ----------
    action : {"hold", "advance", "pace", "promote", "roll back", "restore", "stop"}
        "stop" ends the rollout without a verdict about the canary; "restore" does, too, and stable is brought back first.
        "pace" is another weight of a paced plan, higher or lower.
    reason : str
        A sentence.
    weight : float, optional
        The canary's weight after an advance or at another pace, percent.
    outcome : str, optional
        How the rollout ends, when it does.
    """

    action: Action
    reason: str
    weight: float | None = None
    outcome: Outcome | None = None


def decide(state: RolloutState, signals: Signals = Signals(), *, now: float) -> Decision:
    """Say what to do at this moment.

    Parameters
    ----------
    state : RolloutState
        Where it stands.
    signals : Signals
        Signals beside the counts.
    now : float
        On the same clock as the state's times, seconds.

    Returns
    -------
    Decision
        The weight never rises after an alarm, while a guardrail is past its own line, without data at the present weight,
        or on doubt.
    """
    if state.finished:
        return Decision("hold", f"the rollout has ended: {state.phase}")
    against: tuple[tuple[str | None, Action, Outcome | None], ...] = (
        (state.judgement.sentence if state.judgement.alarm is not None else None, "roll back", "rolled back"),
        (signals.canary_problem, "roll back", "rolled back"),
        (signals.stable_problem, "restore", "inconclusive"),
        (signals.gap, "hold", None),
        (_all_failed(state), "roll back", "rolled back"),
        (signals.doubt, "stop", "inconclusive"),
        (signals.unusable, "stop", "no data"),
    )
    for reason, action, outcome in against:
        if reason:
            return Decision(action, reason, outcome=outcome)
    if state.plan.pace is not None:
        return _paced(state, state.plan.pace, signals, now)
    if state.step < 0:
        first = state.plan.steps[0].weight
        return Decision("advance", f"first step: {first:g} % to the canary", weight=first)
    return _at_step(state, state.plan.steps[state.step], signals, now)


_ALL_FAILED, _STABLE_FAILS = 5, 0.1
"""A canary that has failed this many requests and answered none is broken, when stable fails no more than this share."""


def _all_failed(state: RolloutState) -> str | None:
    """Say that the canary has answered nothing so far; None when it has, or stable does not do much better.

    No statistics are needed for that, and they would wait until they know that failures do not come in bursts.
    """
    (good, bad), (answered, failed) = state.harm.outcomes.tolist()
    if answered or failed < _ALL_FAILED or bad > _STABLE_FAILS * (good + bad):
        return None
    return f"the canary failed all of its first {failed:,} requests, and stable {bad:,} of {good + bad:,}"


def _at_step(state: RolloutState, step: Step, signals: Signals, now: float) -> Decision:
    judgement, delay, missing = state.judgement, signals.delay, _missing(state)
    if (silent := _silent(state, signals, now)) is not None:
        return silent
    if missing is not None:
        return Decision("hold", f"waiting for data: {missing}")
    held = max(now - state.since - delay, 0.0)
    too_long = held >= max(state.plan.budget, step.hold)
    if too_long and (judgement.suspects or (state.ahead is None and judgement.status != "pass")):
        return Decision("stop", f"not shown to be safe within {held:.0f} s: {judgement.sentence}", outcome="inconclusive")
    if judgement.suspects:
        suspicion = "; ".join(verdict.sentence for verdict in judgement.suspects)
        return Decision("hold", f"the weight does not rise from {step.weight:g} %: {suspicion}")
    if state.requests < step.min_requests:
        if too_long:
            reason = f"only {state.requests} of {step.min_requests} canary requests in {held:.0f} s at {step.weight:g} %"
            return Decision("stop", reason, outcome="inconclusive")
        return Decision("hold", f"{state.requests} of {step.min_requests} canary requests at {step.weight:g} %")
    if held < step.hold:
        return Decision("hold", f"{held:.0f} of {step.hold:g} s at {step.weight:g} %")
    if state.ahead is not None:
        reason = f"no alarm after {state.requests} canary requests at {step.weight:g} %"
        return Decision("advance", reason, weight=state.ahead.weight)
    if judgement.status == "pass":
        return Decision("promote", judgement.sentence, outcome="promoted")
    return Decision("hold", judgement.sentence)


_SUSPICIOUS = math.log(10.0)
"""Log of the evidence of one guardrail, before it is allowed for bursts, beyond which a paced weight does not rise."""

_RISE, _FALL = 1.1, 0.75
"""A paced weight changes when it may be so many times what it is, or has to be: rates of requests vary by themselves."""


def _paced(state: RolloutState, pace: Pace, signals: Signals, now: float) -> Decision:
    """Say which weight the budget of harm allows, and end the rollout as at the last step once that is the highest."""
    at_most = paced_weight(pace, state.harm, interval=state.plan.interval, now=now, delay=signals.delay)
    if state.step < 0:
        return Decision("pace", f"first weight: {at_most:g} %, {budget(pace, state.harm)}", weight=at_most)
    at = state.split.canary
    decision = _at_step(state, state.plan.steps[0], signals, now) if at >= pace.max_weight else None
    if decision is not None and decision.action != "hold":
        return decision
    if (ended := _ended(state, signals, now)) is not None:
        return ended
    if at_most < _FALL * at:
        return Decision("pace", f"down from {at:g} % to {at_most:g} %: {budget(pace, state.harm)}", weight=at_most)
    if decision is not None:
        return decision
    if (missing := _missing(state)) is not None:
        return Decision("hold", f"waiting for data: {missing}")
    for verdict in state.judgement.verdicts:
        if verdict.comparison.log_e * verdict.comparison.dispersion > _SUSPICIOUS:
            return Decision("hold", f"the weight does not rise from {at:g} %: {verdict.guardrail} looks worse so far")
    if at_most > _RISE * at or at_most == pace.max_weight:
        return Decision("pace", f"up from {at:g} % to {at_most:g} %: {budget(pace, state.harm)}", weight=at_most)
    return Decision("hold", f"{at:g} %: {budget(pace, state.harm)}")


def _ended(state: RolloutState, signals: Signals, now: float) -> Decision | None:
    """End a paced rollout below its highest weight when nothing is heard, or its time is over."""
    if (silent := _silent(state, signals, now)) is not None:
        return silent
    if (lasts := now - state.begun) >= state.plan.budget:
        reason = f"only {state.split.canary:g} % after {lasts:.0f} s: {state.judgement.sentence}"
        return Decision("stop", reason, outcome="inconclusive")
    return None


def _silent(state: RolloutState, signals: Signals, now: float) -> Decision | None:
    """End a rollout that has had no data for too long."""
    silence = now - state.data_since
    if silence < state.plan.no_data_after + 2 * signals.delay:
        return None
    cause = signals.waiting or _missing(state) or "no request reached the canary"
    return Decision("stop", f"no data for {silence:.0f} s: {cause}", outcome="no data")


def _missing(state: RolloutState) -> str | None:
    """Say which guardrail has no data, or none at the present weight; None when all have."""
    here = "nothing of the canary was counted at this weight"
    silent = [
        f"{verdict.guardrail}: {verdict.sentence if verdict.status == 'no data' else here}"
        for verdict in state.judgement.verdicts
        if verdict.status == "no data" or verdict.guardrail in state.without_data
    ]
    return "; ".join(silent) or None


def _harm(plan: RolloutPlan, evidence: Judge) -> Harm:
    return Harm(evidence.guardrails, {} if plan.pace is None else plan.pace.harm_of)


def begin(plan: RolloutPlan, evidence: Judge) -> RolloutState:
    """Return the state of a rollout of which nothing was counted yet.

    Raises
    ------
    PlanError
        The plan says the harm of a guardrail that is not there.
    """
    return RolloutState(plan, evidence, _harm(plan, evidence))


def planned(state: RolloutState, plan: RolloutPlan) -> RolloutState:
    """Return the state before the first step of another plan; what was counted stays.

    Raises
    ------
    PlanError
        See `begin`.
    """
    harm = _harm(plan, state.evidence)
    kept = state.harm if state.harm.weights == harm.weights else harm
    return replace(state, plan=plan, phase="pending", step=-1, carried_out=False, harm=kept)


def judged_by(state: RolloutState, evidence: Judge) -> RolloutState:
    """Return the state with other evidence, such as none by other guardrails; what was counted for the one before is gone."""
    return replace(state, evidence=evidence, harm=_harm(state.plan, evidence))


def advance(state: RolloutState, decision: Decision) -> RolloutState:
    """Return the position after a decision was carried out; the weight that it gives is entered by `enter`."""
    if decision.action in ("advance", "pace"):
        return replace(state, phase="progressing", step=state.step + 1 if decision.action == "advance" else 0)
    if decision.action == "hold":
        return state
    assert decision.outcome is not None
    return replace(state, phase=decision.outcome)


def enter(state: RolloutState, split: TrafficSplit, *, now: float, took: float = 0.0) -> RolloutState:
    """Return the state with another weight in force, or the same one anew: nothing is counted under it yet.

    Parameters
    ----------
    state : RolloutState
        State before.
    split : TrafficSplit
        The weight.
    now : float
        Time at which it was in force.
    took : float
        Seconds until it was.
    """
    names = frozenset(guardrail.name for guardrail in state.evidence.guardrails)
    return replace(state, split=split, since=now, took=took, served=(0, 0), requests=0, data_since=now, without_data=names)


def observe(state: RolloutState, window: Window) -> RolloutState:
    """Return the state after a window: its requests are added, and it is noted whether there was data.

    A window that is `waiting` holds no counts yet, and one that is not `judged` says nothing about the versions.

    Raises
    ------
    TelemetryError
        Counts that are none, or whose cells changed.
    """
    stable, canary = window.requests
    served = replace(state, served=(state.served[0] + stable, state.served[1] + canary))
    if not window.judged:
        return served
    evidence, harm = state.evidence, state.harm
    if not window.waiting:
        evidence, harm = evidence.after(window), harm.after(window)
    tables = {name for name, table in window.counts.items() if table[1].any()}
    without = state.without_data - {each.name for each in evidence.guardrails if each.metric.table in tables}
    after = replace(served, evidence=evidence, harm=harm, requests=state.requests + canary, without_data=without)
    return replace(after, data_since=window.end) if canary and _missing(after) is None else after


def resume(state: RolloutState, weight: float) -> RolloutState | None:
    """Return the position in a rollout that was found under way: at the step of the weight that is in force.

    Parameters
    ----------
    state : RolloutState
        State before the first step.
    weight : float
        Percent that the canary was found to have.

    Returns
    -------
    RolloutState or None
        None when no step has that weight. Never a later step: a restart does not advance.
    """
    if state.plan.pace is not None:  # the next decision says whether it may stay
        return replace(state, phase="progressing", step=0) if 0 < weight <= state.plan.pace.max_weight else None
    for number, step in enumerate(state.plan.steps):
        if abs(step.weight - weight) < 1e-9:
            return replace(state, phase="progressing", step=number)
    return None


def moved(state: RolloutState, weight: float) -> RolloutState:
    """Return the position after someone changed the weight by hand: no further than before.

    It is at the step of that weight when the rollout has come so far, and before the first step otherwise.
    """
    if state.finished:
        return state
    found = resume(state, weight)
    return found if found is not None and found.step <= state.step else replace(state, phase="pending", step=-1)
