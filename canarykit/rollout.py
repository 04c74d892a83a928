"""The pure state machine of a rollout: where it is, and what to do next. No clock, no effects."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

from canarykit.model import Judgement, Outcome
from canarykit.plan import RolloutPlan, Step

__all__ = ["Action", "Decision", "Phase", "Rollout", "advance", "decide", "moved", "observe", "resume"]

Phase = Literal["pending", "progressing", "promoted", "rolled back", "inconclusive", "no data", "failed"]
Action = Literal["hold", "advance", "promote", "roll back", "restore", "stop"]

_FINAL: tuple[Phase, ...] = ("promoted", "rolled back", "inconclusive", "no data", "failed")


@dataclass(frozen=True, slots=True)
class Rollout:
    """A position in a plan.

    Parameters
    ----------
    plan : RolloutPlan
        The plan that is carried out.
    phase : str
        Where it is.
    step : int
        Index of the present step; -1 before the first.
    since : float
        Time at which the present weight was in force, seconds on any clock.
    data_since : float
        Time at which every guardrail last had data.
    requests : int
        Finished canary requests at the present weight.
    without_data : frozenset of str
        Guardrails for which nothing of the canary was counted yet at the present weight, whatever was at earlier ones.
    """

    plan: RolloutPlan
    phase: Phase = "pending"
    step: int = -1
    since: float = 0.0
    data_since: float = 0.0
    requests: int = 0
    without_data: frozenset[str] = frozenset()

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.phase in _FINAL

    @property
    def present(self) -> Step | None:
        """The step that it is at."""
        return self.plan.steps[self.step] if 0 <= self.step < len(self.plan.steps) else None

    @property
    def ahead(self) -> Step | None:
        """The step after that; None at the last."""
        return self.plan.steps[self.step + 1] if self.step + 1 < len(self.plan.steps) else None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next, and why.

    Parameters
    ----------
    action : {"hold", "advance", "promote", "roll back", "restore", "stop"}
        "stop" ends the rollout without a verdict about the canary; "restore" does, too, and stable is brought back first.
    reason : str
        A sentence.
    weight : float, optional
        The canary's weight after an advance, percent.
    outcome : str, optional
        How the rollout ends, when it does.
    """

    action: Action
    reason: str
    weight: float | None = None
    outcome: Outcome | None = None


def decide(
    rollout: Rollout,
    judgement: Judgement | None,
    *,
    now: float,
    canary_problem: str | None = None,
    stable_problem: str | None = None,
    gap: str | None = None,
    doubt: str | None = None,
    unusable: str | None = None,
    delay: float = 0.0,
    waiting: str = "",
) -> Decision:
    """Say what to do at this look.

    Parameters
    ----------
    rollout : Rollout
        Where it is.
    judgement : Judgement or None
        Judgement of the evidence so far; None before the first window.
    now : float
        On the same clock as the rollout's times, seconds.
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

    Returns
    -------
    Decision
        The weight never rises after an alarm, while a guardrail is past its own line, without data at the present weight,
        or on doubt.
    """
    if rollout.finished:
        return Decision("hold", f"the rollout has ended: {rollout.phase}")
    if judgement is not None and judgement.alarm is not None:
        return Decision("roll back", judgement.sentence, outcome="rolled back")
    if canary_problem:
        return Decision("roll back", canary_problem, outcome="rolled back")
    if stable_problem:
        return Decision("restore", stable_problem, outcome="inconclusive")
    if gap:
        return Decision("hold", gap)
    if doubt:
        return Decision("stop", doubt, outcome="inconclusive")
    if unusable:
        return Decision("stop", unusable, outcome="no data")
    step = rollout.present
    if step is None:
        first = rollout.plan.steps[0].weight
        return Decision("advance", f"first step: {first:g} % to the canary", weight=first)
    return _at_step(rollout, step, judgement, now, delay, waiting)


def _at_step(rollout: Rollout, step: Step, judgement: Judgement | None, now: float, delay: float, waiting: str) -> Decision:
    missing = _missing(rollout, judgement)
    silence = now - rollout.data_since
    if silence >= rollout.plan.no_data_after + 2 * delay:
        cause = waiting or missing or "no request reached the canary"
        return Decision("stop", f"no data for {silence:.0f} s: {cause}", outcome="no data")
    if judgement is None or missing is not None:
        return Decision("hold", f"waiting for data: {missing}")
    held = max(now - rollout.since - delay, 0.0)
    too_long = held >= max(rollout.plan.budget, step.hold)
    if too_long and (judgement.suspects or (rollout.ahead is None and judgement.status != "pass")):
        return Decision("stop", f"not shown to be safe within {held:.0f} s: {judgement.sentence}", outcome="inconclusive")
    if judgement.suspects:
        suspicion = "; ".join(verdict.sentence for verdict in judgement.suspects)
        return Decision("hold", f"the weight does not rise from {step.weight:g} %: {suspicion}")
    if rollout.requests < step.min_requests:
        if too_long:
            reason = f"only {rollout.requests} of {step.min_requests} canary requests in {held:.0f} s at {step.weight:g} %"
            return Decision("stop", reason, outcome="inconclusive")
        return Decision("hold", f"{rollout.requests} of {step.min_requests} canary requests at {step.weight:g} %")
    if held < step.hold:
        return Decision("hold", f"{held:.0f} of {step.hold:g} s at {step.weight:g} %")
    if rollout.ahead is not None:
        reason = f"no alarm after {rollout.requests} canary requests at {step.weight:g} %"
        return Decision("advance", reason, weight=rollout.ahead.weight)
    if judgement.status == "pass":
        return Decision("promote", judgement.sentence, outcome="promoted")
    return Decision("hold", judgement.sentence)


def _missing(rollout: Rollout, judgement: Judgement | None) -> str | None:
    """Say which guardrail has no data, or none at the present weight; None when all have."""
    if judgement is None:
        return "nothing was counted yet"
    here = "nothing of the canary was counted at this weight"
    silent = [
        f"{verdict.guardrail}: {verdict.sentence if verdict.status == 'no data' else here}"
        for verdict in judgement.verdicts
        if verdict.status == "no data" or verdict.guardrail in rollout.without_data
    ]
    return "; ".join(silent) or None


def advance(rollout: Rollout, decision: Decision, *, now: float, guardrails: Collection[str] = ()) -> Rollout:
    """Position after a decision was carried out.

    Parameters
    ----------
    rollout : Rollout
        Position before.
    decision : Decision
        The decision that was carried out.
    now : float
        Time at which it was in force, on the same clock.
    guardrails : collection of str
        Names of those that must have data at the new weight.
    """
    if decision.action == "advance":
        return _anew(rollout, rollout.step + 1, now, guardrails)
    if decision.action == "hold":
        return rollout
    assert decision.outcome is not None
    return replace(rollout, phase=decision.outcome)


def _anew(rollout: Rollout, step: int, now: float, guardrails: Collection[str]) -> Rollout:
    """At a step, with nothing counted."""
    return Rollout(rollout.plan, "progressing", step, since=now, data_since=now, without_data=frozenset(guardrails))


def observe(
    rollout: Rollout, judgement: Judgement | None, *, canary_requests: int, now: float, with_data: Collection[str] = ()
) -> Rollout:
    """Position after a window: requests are added, and it is noted whether there was data.

    Parameters
    ----------
    rollout : Rollout
        Position before.
    judgement : Judgement or None
        Judgement of the evidence after that window.
    canary_requests : int
        Finished canary requests in that window.
    now : float
        End of the window, on the same clock.
    with_data : collection of str
        Guardrails for which that window counted something of the canary.
    """
    after = replace(
        rollout, requests=rollout.requests + canary_requests, without_data=rollout.without_data - frozenset(with_data)
    )
    return replace(after, data_since=now) if canary_requests and _missing(after, judgement) is None else after


def resume(rollout: Rollout, weight: float, *, now: float, guardrails: Collection[str] = ()) -> Rollout | None:
    """Position in a rollout that was found under way: at the step of the weight that is in force, its time begun anew.

    Parameters
    ----------
    rollout : Rollout
        Before its first step.
    weight : float
        Percent that the canary was found to have.
    now : float
        On the clock of the rollout.
    guardrails : collection of str
        See `advance`.

    Returns
    -------
    Rollout or None
        None when no step has that weight. Never a later step: a restart does not advance.
    """
    for number, step in enumerate(rollout.plan.steps):
        if abs(step.weight - weight) < 1e-9:
            return _anew(rollout, number, now, guardrails)
    return None


def moved(rollout: Rollout, weight: float, *, now: float, guardrails: Collection[str] = ()) -> Rollout:
    """Position after someone changed the weight by hand: no further than before, and nothing counted yet.

    Parameters
    ----------
    rollout : Rollout
        Position before.
    weight : float
        Percent, in force now.
    now : float
        On the clock of the rollout.
    guardrails : collection of str
        See `advance`.

    Returns
    -------
    Rollout
        At the step of that weight when it has come so far, before the first step otherwise.
    """
    if rollout.finished:
        return rollout
    found = resume(rollout, weight, now=now, guardrails=guardrails)
    return found if found is not None and found.step <= rollout.step else Rollout(rollout.plan)
