"""What a plan costs before it is carried out: time for a good version, and users hurt by bad ones. Simulated."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.errors import PlanError
from canarykit.model import Counts, Guardrail, TrafficSplit, Window
from canarykit.plan import RolloutPlan
from canarykit.rollout import RolloutState, Signals, advance, begin, decide, enter, observe

__all__ = ["Forecast", "forecast", "simulate"]

_FAILS = (0.01, 0.05, 1.0)
"""Shares of requests that the bad canaries fail beyond stable."""

_MOST_WINDOWS = 7200


@dataclass(frozen=True, slots=True)
class Forecast:
    """How rollouts of one kind of canary end.

    Parameters
    ----------
    canary : str
        Behaviour of the canary, in words.
    promoted, rolled_back : float
        Shares of the rollouts.
    seconds : float
        Median time.
    hurt : float
        Median of the requests that it fails and stable would not have.
    hurt_most : float
        The same in nine of ten rollouts, at most.
    """

    canary: str
    promoted: float
    rolled_back: float
    seconds: float
    hurt: float
    hurt_most: float

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.canary:<24} promoted {self.promoted:4.0%}  rolled back {self.rolled_back:4.0%}  in {self.seconds:,.0f} s; "
            f"hurts {self.hurt:,.0f} requests (in nine of ten rollouts {self.hurt_most:,.0f} at most)"
        )


def forecast(plan: RolloutPlan, rate: float, base: float, *, runs: int = 21, delay: float = 0.0) -> list[Forecast]:
    """Carry out a plan again and again on random numbers, judged by the error rate.

    Parameters
    ----------
    plan : RolloutPlan
        Plan that is carried out.
    rate : float
        Requests per second to both versions together.
    base : float
        Stable's share of failed requests.
    runs : int
        Rollouts of each kind of canary.
    delay : float
        Seconds until counts arrive.

    Returns
    -------
    list of Forecast
        Forecasts of an equal canary, and of ones that fail 1, 5 and 100 % of requests more.

    Raises
    ------
    PlanError
        Numbers that are no rates; or a plan that an equal canary does not finish in its budget, with the time that it takes.
    """
    if not rate > 0:
        raise PlanError("without traffic nothing can be found out")
    if not 0 <= base < 1:
        raise PlanError(f"base must be a share from 0 to 1, not {base:g}")
    found = []
    for number, fails in enumerate((0.0, *_FAILS)):
        ended = [_once(plan, rate, base, min(base + fails, 1.0), seed=(number, run), delay=delay) for run in range(runs)]
        outcomes, seconds, hurt = (np.array(part) for part in zip(*ended, strict=True))
        name = f"fails {100 * fails:g} % more" if fails else "as good as stable"
        promoted, back = float(np.mean(outcomes == "promoted")), float(np.mean(outcomes == "rolled back"))
        middle, most = float(np.median(hurt)), float(np.quantile(hurt, 0.9))
        found.append(Forecast(name, promoted, back, float(np.median(seconds)), middle, most))
    if found[0].promoted < 0.5:
        patient = plan.model_copy(update={"budget": 1e9, "no_data_after": 1e9})
        needs = float(np.median([_once(patient, rate, base, base, seed=(9, run), delay=delay)[1] for run in range(5)]))
        raise PlanError(
            f"at {rate:g} requests/s an equal canary takes about {needs:,.0f} s, longer than this plan lasts: give it a longer "
            f"budget (it has {plan.budget:g} s), more harm, or more traffic"
        )
    return found


def simulate(
    plan: RolloutPlan,
    guardrails: Sequence[Guardrail],
    draw: Callable[[float, float], Mapping[str, Counts]],
    *,
    delay: float = 0.0,
    longest: int = _MOST_WINDOWS,
) -> tuple[str, float, RolloutState]:
    """Carry out one rollout by the kit's own decisions; return its outcome, its seconds, and the state at its end.

    Parameters
    ----------
    plan : RolloutPlan
        Plan that is carried out.
    guardrails : sequence of Guardrail
        Guardrails that judge it.
    draw : callable
        Takes the beginning of a window in seconds and the canary's share, and returns what is counted in it.
    delay : float
        Seconds until counts arrive.
    longest : int
        Windows after which it is inconclusive.
    """
    state = enter(begin(plan, Judge(guardrails)), TrafficSplit(0), now=0.0)
    waiting: deque[Window] = deque()
    for number in range(longest):
        start, now = number * plan.interval, (number + 1) * plan.interval
        waiting.append(Window(start, now, state.split, draw(start, state.split.share)))
        while waiting and waiting[0].end <= now - delay:
            state = observe(state, waiting.popleft())
        decision = decide(state, Signals(delay=delay), now=now)
        if decision.weight is not None:
            state = enter(advance(state, decision), TrafficSplit(decision.weight), now=now)
        elif decision.outcome is not None:
            return decision.outcome, now, state
    return "inconclusive", longest * plan.interval, state


def _once(
    plan: RolloutPlan, rate: float, stable: float, canary: float, *, seed: tuple[int, ...], delay: float
) -> tuple[str, float, float]:
    """Carry out one rollout on steady traffic; return its outcome, its seconds, and the requests that were hurt."""
    rng, hurt = np.random.default_rng(seed), 0.0

    def draw(_start: float, share: float) -> Mapping[str, Counts]:
        nonlocal hurt
        table = _drawn(rng, rate * plan.interval, share, stable, canary)
        hurt += float(table[1, 1] - table[1].sum() * stable)
        return {"outcome": table}

    outcome, seconds, _ = simulate(plan, (metrics.error_rate(),), draw, delay=delay)
    return outcome, seconds, max(hurt, 0.0)


def _drawn(rng: np.random.Generator, requests: float, share: float, stable: float, canary: float) -> Counts:
    total = rng.poisson(requests)
    hers = rng.binomial(total, share)
    served = np.array([total - hers, hers])
    bad = rng.binomial(served, [stable, canary])
    return np.stack([served - bad, bad], axis=1)
