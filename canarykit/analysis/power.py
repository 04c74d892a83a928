"""How many requests a question costs: before a rollout, and during it.

Source: section 5 of docs/statistics.md. No method that errs with probability α at most can find an effect in fewer
requests, in expectation, than log(1/α) over the Jensen-Shannon divergence of the versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import numpy as np

from canarykit.errors import PlanError
from canarykit.formatting import duration, rounded

__all__ = ["Need", "Plan", "bound", "needs", "plan", "still_needed", "still_needed_below"]

RATE_FACTOR, HISTOGRAM_FACTOR = 1.2, 2.0
"""What the kit's evidence needs, as multiples of the bound: for rates, and for histograms."""


def bound(stable: Sequence[float], canary: Sequence[float], share: float, *, alpha: float = 0.05) -> float:
    """Fewest requests, in expectation, from which the versions can be told apart.

    Parameters
    ----------
    stable, canary : sequence of float
        Probability of each outcome cell.
    share : float
        The canary's share of the requests, 0 to 1.
    alpha : float
        Chance of a false alarm.

    Returns
    -------
    float
        Requests of both versions together; infinity when there is no difference or one version is idle.

    Raises
    ------
    PlanError
        Not distributions over the same cells, or not a share.

    Notes
    -----
    Section 5 of docs/statistics.md: Wald's inequality with the Jensen-Shannon divergence of the label.
    """
    p, q = np.asarray(stable, dtype=float), np.asarray(canary, dtype=float)
    if p.shape != q.shape or (p < 0).any() or (q < 0).any() or not np.allclose([p.sum(), q.sum()], 1):
        raise PlanError("stable and canary must be probabilities of the same cells, each summing to 1")
    if not 0 <= share <= 1:
        raise PlanError(f"the canary's share must be between 0 and 1, not {share}")
    middle = share * q + (1 - share) * p
    divergence = share * _divergence(q, middle) + (1 - share) * _divergence(p, middle)
    return math.log(1 / alpha) / divergence if divergence > 0 else float("inf")


def _divergence(p: np.ndarray, q: np.ndarray) -> float:
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / q[seen])).sum())


@dataclass(frozen=True, slots=True)
class Need:
    """What it takes to find a ratio of two rates at one weight.

    Parameters
    ----------
    weight : float
        Weight of the canary, percent.
    requests : float
        Expected requests to both versions together.
    canary_requests : float
        Expected requests to the canary.
    seconds : float
        At the stated traffic.
    mirrored : bool
        Whether both versions answer the same requests.
    """

    weight: float
    requests: float
    canary_requests: float
    seconds: float
    mirrored: bool = False

    def __str__(self) -> str:
        how = "mirrored" if self.mirrored else f"{self.weight:g} %"
        return f"{how}: about {rounded(self.requests)} requests, {duration(self.seconds)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(str(self))}</p>"


def needs(
    rate: float,
    weights: Sequence[float],
    base: float,
    effect: float,
    *,
    alpha: float = 0.05,
    both: float | None = None,
    interval: float = 0.0,
) -> list[Need]:
    """Requests and time at each weight, and with mirrored traffic.

    Parameters
    ----------
    rate : float
        Requests per second to both versions together.
    weights : sequence of float
        Percent to the canary.
    base : float
        Stable's share of bad requests.
    effect : float
        Ratio canary / stable that is to be found.
    alpha : float
        Chance of a false alarm.
    both : float, optional
        Share of requests that both versions fail when they are mirrored; independent failures by default.
    interval : float
        Seconds between two readings of the counts, such as Prometheus' scrapes: the time is rounded up to whole ones, and
        the first only says where counting begins.

    Returns
    -------
    list of Need
        One for each weight, and one for mirroring.

    Raises
    ------
    PlanError
        Numbers that are no rates, or no difference to find.

    Notes
    -----
    Section 5 of docs/statistics.md.
    """
    bad = base * effect
    _check_question(rate, weights, base, effect, interval)

    def time_for(requests: float) -> float:
        seconds = requests / rate
        return seconds if not interval else interval * (math.ceil(seconds / interval) + 1)

    found = []
    for weight in weights:
        total = RATE_FACTOR * bound([base, 1 - base], [bad, 1 - bad], weight / 100, alpha=alpha)
        found.append(Need(weight, total, total * weight / 100, time_for(total)))
    mirrored = _mirrored(base, bad, base * bad if both is None else both, alpha)
    if mirrored is not None:
        found.append(Need(100.0, mirrored, mirrored, time_for(mirrored), mirrored=True))
    return found


def _check_question(rate: float, weights: Sequence[float], base: float, effect: float, interval: float) -> None:
    for weight in weights:
        if not 0 < weight < 100:
            raise PlanError(f"a weight must be above 0 and below 100 percent to compare two versions, not {weight:g}")
    if not (0 < base < 1 and 0 < base * effect < 1):
        raise PlanError(f"base and base × effect must be shares between 0 and 1, not {base:g} and {base * effect:g}")
    if effect == 1 or not rate > 0:
        raise PlanError("an effect of 1 cannot be found, and without traffic nothing can")
    if not 0 <= interval < math.inf:
        raise PlanError(f"the interval of scrapes must be a number of seconds, 0 or more, not {interval}")


def _mirrored(base: float, bad: float, both: float, alpha: float) -> float | None:
    """Requests where both versions answer each; None when one version fails only what the other fails, too."""
    only_canary, only_stable = bad - both, base - both
    if min(only_canary, only_stable) <= 0:
        return None
    discordant = only_canary + only_stable
    share = only_canary / discordant
    per_event = share * math.log(2 * share) + (1 - share) * math.log(2 * (1 - share))
    return float(RATE_FACTOR * math.log(1 / alpha) / per_event / discordant)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a question costs, and the cheaper ways to ask it.

    Parameters
    ----------
    question : str
        The effect that is to be found, in words.
    asked : tuple of Need
        At the weights that were asked about.
    soonest : Need
        At the weight that gets there soonest.
    mirrored : Need or None
        With both versions answering the same requests.
    """

    question: str
    asked: tuple[Need, ...]
    soonest: Need
    mirrored: Need | None

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "question": self.question,
            "steps": [asdict(need) for need in self.asked],
            "soonest": asdict(self.soonest),
            "mirrored": asdict(self.mirrored) if self.mirrored else None,
        }

    def __str__(self) -> str:
        lines = [self.question, *(f"  at {need}" for need in self.asked)]
        if len(self.asked) > 1:
            total = sum(need.seconds for need in self.asked)
            lines.append(f"  all {len(self.asked)} steps, if each is to find it by itself: {duration(total)}")
        lines.append(f"  soonest at {self.soonest}")
        if self.mirrored is not None:
            better = self.mirrored.seconds < self.soonest.seconds
            said = "sooner still" if better else "no sooner"
            lines.append(f"  {said} {self.mirrored}, both versions answering each request")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def plan(
    rate: float, weights: Sequence[float], base: float, effect: float, *, alpha: float = 0.05, interval: float = 0.0
) -> Plan:
    """Requests and time to find an effect at each weight, at the best one, and with mirrored traffic.

    Parameters
    ----------
    rate, weights, base, effect, alpha, interval
        See `needs`.

    Raises
    ------
    PlanError
        See `needs`.

    Notes
    -----
    Section 5 of docs/statistics.md.
    """
    found = needs(rate, weights, base, effect, alpha=alpha, interval=interval)
    every = needs(rate, range(1, 100), base, effect, alpha=alpha, interval=interval)
    soonest = min((need for need in every if not need.mirrored), key=lambda need: (need.seconds, need.requests))
    scraped = f", with counts that come every {duration(interval)}" if interval else ""
    question = (
        f"to show that the canary's bad requests are ×{effect:g} of stable's {100 * base:g} %, at {rate:g} requests/s "
        f"and a chance of {100 * alpha:g} % of a false alarm{scraped}:"
    )
    asked = tuple(need for need in found if not need.mirrored)
    return Plan(question, asked, soonest, next((need for need in found if need.mirrored), None))


def still_needed(levels: tuple[float, float], requests: tuple[int, int], margin: float, *, log_e_safe: float = 0.0) -> float:
    """Further requests until a regression by the margin would show, or be ruled out.

    Parameters
    ----------
    levels : tuple of float
        Share of bad requests of stable and of the canary so far.
    requests : tuple of int
        Requests to stable and to the canary so far.
    margin : float
        The ratio in question.
    log_e_safe : float
        Evidence against it so far, natural log; counts towards what is needed.

    Returns
    -------
    float
        NaN when it cannot be said: one version idle, no bad request yet, or a rate that the margin takes above one.

    Notes
    -----
    Section 5 of docs/statistics.md.
    """
    stable, canary = requests
    base = levels[0]
    if not stable or not canary or not 0 < base * margin < 1:
        return float("nan")
    share = canary / (stable + canary)
    total = RATE_FACTOR * bound([base, 1 - base], [base * margin, 1 - base * margin], share)
    return max(0.0, total * (1 - max(log_e_safe, 0.0) / math.log(20)))


def still_needed_below(
    level: float, requests: tuple[int, int], ceiling: float, *, mass: float = 1.0, log_e_safe: float = 0.0
) -> float:
    """Further requests until the canary's rate would be shown to be below a ceiling.

    Parameters
    ----------
    level : float
        Share of bad requests of the canary so far.
    requests : tuple of int
        Requests to stable and to the canary so far.
    ceiling : float
        Share of requests.
    mass : float
        Share of the evidence that goes by the ceiling.
    log_e_safe : float
        Evidence for it so far, natural log.

    Returns
    -------
    float
        NaN when it cannot be said: no canary requests, or a level that is not below the ceiling.

    Notes
    -----
    Section 5 of docs/statistics.md: Wald's inequality with the divergence of the two rates.
    """
    stable, canary = requests
    if not canary or not 0 <= level < ceiling:
        return float("nan")
    per_request = _divergence(np.array([level, 1 - level]), np.array([ceiling, 1 - ceiling]))
    line = math.log(20 / mass)
    gained = min(max(log_e_safe, 0.0) / line, 1.0)
    return RATE_FACTOR * line / per_request * (1 - gained) * (stable + canary) / canary
