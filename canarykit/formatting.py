"""Numbers as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from canarykit.model import Comparison, Counts, Metric

__all__ = [
    "EXPLAINED",
    "NO_WORSE",
    "WORSE",
    "all_passed",
    "at_limit",
    "cells",
    "duration",
    "effect",
    "elapsed",
    "failed",
    "level",
    "levels",
    "odds",
    "passed",
    "rounded",
    "suspected",
    "undecided",
]

WORSE, NO_WORSE = "odds: worse", "odds: no worse"
"""What the columns of the evidence in a table of verdicts begin with."""

EXPLAINED = {
    WORSE: "How many times better the counts so far fit a canary that is worse than tolerated. At the number in brackets the "
    "guardrail fails. You may look as often as you like.",
    NO_WORSE: "How many times better the counts so far fit a canary that is no worse than its margin. At the number in "
    "brackets the guardrail passes. You may look as often as you like.",
}
"""What these columns mean, for whoever reads them for the first time."""


_LONG = 100.0
"""Seconds after which nobody waits any more: what lies above a bucket that ends later never ended."""

_MANY = 0.1
"""Share of a version's failed requests from which on their common cause is told."""

_TOO_MANY = 1_000_000
"""Further requests beyond which a number does not help: what would decide sooner is said instead."""


def _always(comparison: Comparison) -> str:
    until = "" if comparison.alarm_at > 0.999 / comparison.alpha else ", up to the declared horizon"
    return f"{_confidence(comparison)}, however often you look{until}"


def _confidence(comparison: Comparison) -> str:
    return f"{100 * (1 - comparison.alpha):.3g} %"


def level(value: float, metric: Metric) -> str:
    """Level of a metric: ``1.2 %``, ``41 ms``; a dash when unknown."""
    if math.isnan(value):
        return "–"
    if metric.kind == "quantile" and not metric.unit and math.isinf(value):
        return f"over {max((edge for edge in metric.cells if math.isfinite(edge)), default=0.0):.3g}"
    if metric.kind == "score" or (metric.kind == "quantile" and not metric.unit):
        return f"{value:.3g}"
    if metric.unit != "s":
        return f"{100 * value:.3g} %"
    if math.isinf(value):
        largest = max((edge for edge in metric.cells if math.isfinite(edge)), default=0.0)
        return "never" if largest >= _LONG or not largest else f"over {level(largest, metric)}"
    scaled, unit = (value, "s") if value >= 1 else (1e3 * value, "ms") if value >= 1e-3 else (1e6 * value, "µs")
    return f"{scaled:.3g} {unit}"


def levels(comparison: Comparison, metric: Metric) -> str:
    """Levels of both versions: ``41 ms → 44 ms``."""
    stable, canary = (level(value, metric) for value in comparison.levels)
    return f"{stable} → {canary}"


def effect(comparison: Comparison, metric: Metric) -> str:
    """Interval of the effect: ``1.3 to 2.1 times``, or ``−3 % to +18 %`` for a quantile; ``unknown`` without one."""
    low, high = comparison.interval
    if math.isinf(high) and (low <= 0 or math.isnan(low)):
        return "unknown"
    if metric.kind in ("score", "classes"):
        unit, factor = ("", 1.0) if metric.kind == "score" else (" points", 100.0)
        return f"{factor * low:+.2g} to {factor * high:+.2g}{unit}".replace("-", "−")
    if metric.kind == "quantile":
        low_text, high_text = (f"{100 * (ratio - 1):+.0f} %".replace("-", "−") for ratio in (low, high))
        low_text = "just over 0 %" if low > 1 and low_text == "+0 %" else low_text
        if math.isinf(high):
            return f"at least {low_text}"
        return f"at most {high_text}" if low <= 0 else f"{low_text} to {high_text}"
    low_text = "just over 1" if low > 1 and _two_digits(low) == "1" else _two_digits(low)
    if math.isinf(high):
        return f"at least {low_text} times"
    return f"at most {_two_digits(high)} times" if low <= 0 else f"{low_text} to {_two_digits(high)} times"


def _two_digits(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


def odds(log_e: float, alarm_at: float) -> str:
    """Evidence as odds, beside those that decide: ``3.2 : 1 (needs 20)``."""
    return f"{_to_one(log_e)} (needs {alarm_at:g})"


def _to_one(log_e: float) -> str:
    e = math.exp(min(log_e, 50.0))
    return f"{'over 10,000' if e >= 1e4 else f'{e:,.1f}'} : 1"


def cells(comparison: Comparison, metric: Metric) -> dict[str, str]:
    """Columns of a table of verdicts."""
    stable, canary = (level(value, metric) for value in comparison.levels)
    return {
        "stable": f"{stable} of {comparison.requests[0]:,}",
        "canary": f"{canary} of {comparison.requests[1]:,}",
        f"effect, {_confidence(comparison)}": effect(comparison, metric).replace("unknown", "too few events"),
        f"{WORSE} (fails at {comparison.alarm_at:g})": _to_one(comparison.log_e),
        f"{NO_WORSE} (passes at {comparison.alarm_at:g})": _to_one(comparison.log_e_safe),
    }


def failed(comparison: Comparison, metric: Metric) -> str:
    """Sentence of a guardrail that alarmed."""
    stable, canary = comparison.requests
    found = (
        f"{metric.name} {levels(comparison, metric)}, shown after {stable + canary:,} requests, "
        f"{canary:,} of them to the canary"
    )
    if metric.kind in ("quantile", "score") and effect(comparison, metric) == "unknown":
        what = "durations are distributed worse" if metric.kind == "quantile" else f"{metric.name} is distributed worse"
        return f"the canary's {what} than stable's ({_always(comparison)}); {found}"
    return f"{_against(comparison, metric)} ({_always(comparison)}); {found}"


def suspected(comparison: Comparison, metric: Metric, guardrails: int) -> str:
    """Sentence of a guardrail that is past its own line, but not past that of all guardrails together."""
    evidence = odds(comparison.log_e, comparison.alarm_at)
    return (
        f"{metric.name} {levels(comparison, metric)}: evidence that the canary is worse is {evidence}, enough for one "
        f"guardrail but not yet for {guardrails} together"
    )


def passed(comparison: Comparison, metric: Metric, margin: float, ceiling: float | None) -> str:
    """Sentence of a guardrail that is cleared."""
    if metric.kind in ("score", "classes"):
        what = "mean lower by no more than" if metric.kind == "score" else "no share differs by more than"
        return f"{metric.name} {levels(comparison, metric)}: {what} {margin:g} ({_always(comparison)})"
    bound = f"{_bad(metric)} no more than ×{margin:g} of stable's"
    if ceiling is not None:
        bound += f", or under {100 * ceiling:g} % anyway"
    return f"{metric.name} {levels(comparison, metric)}: {bound} ({_always(comparison)})"


def all_passed(found: Sequence[tuple[Comparison, Metric]]) -> str:
    """Sentence of guardrails that are all cleared."""
    stable, canary = max((comparison.requests for comparison, _ in found), key=sum)
    # That nothing was refused or denied goes without saying.
    said = [pair for pair in found if pair[1].table not in ("refused", "denied") or any(pair[0].events)] or found
    changes = ", ".join(f"{metric.name} {levels(comparison, metric)}" for comparison, metric in said)
    return (
        f"no guardrail worse than its margin ({_always(found[0][0])}) after {stable + canary:,} requests, "
        f"{canary:,} of them to the canary: {changes}"
    )


def at_limit(ended: Counts, failed: Counts) -> str:
    """Say how many failed requests the gateway ended at its own time limit; empty when they are few.

    Parameters
    ----------
    ended, failed : (2,) int array
        Requests that it ended, and all that failed; stable first.
    """
    if not (ended.any() and (ended >= _MANY * failed).any()):
        return ""
    stable, canary = (f"{few:,} of the {many:,} failed requests" for few, many in zip(ended, failed, strict=True))
    return f"the gateway's own time limit ended {stable} of stable and {canary} of the canary"


def undecided(
    comparison: Comparison, metric: Metric, margin: float, requests: float = math.nan, seconds: float = math.nan
) -> str:
    """Sentence of a guardrail that is neither, with what it probably still takes."""
    if effect(comparison, metric) == "unknown":
        stable, canary = comparison.requests
        found = f"{stable + canary:,} requests, {canary:,} of them to the canary"
    else:
        found = f"{_against(comparison, metric)} ({_always(comparison)})"
    still = ""
    if math.isfinite(requests) and requests > _TOO_MANY:
        still = (
            f"; bad requests are too rare to tell ×{margin:g} soon: a wider margin, a ceiling above the canary's level, or "
            "more weight for the canary would decide sooner"
        )
    elif math.isfinite(requests) and requests >= 1:
        when = f" ({duration(seconds)} at this traffic)" if math.isfinite(seconds) else ""
        still = f"; ×{margin:g} should show, or be ruled out, after about {rounded(requests)} more requests{when}"
    return f"{metric.name}: not enough data yet: {found}{still}"


def duration(seconds: float) -> str:
    """Time as people say it: ``45 s``, ``12 min``, ``2.5 h``, ``3 days``."""
    for limit, unit, size in ((90, "s", 1), (90 * 60, "min", 60), (36 * 3600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.2g} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} days"


def elapsed(seconds: float) -> str:
    """Time as a clock says it: ``45 s``, ``1 min 12 s``, ``2 h 5 min``."""
    whole = max(int(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def rounded(number: float) -> str:
    """Number to two digits: ``14,000``."""
    if not math.isfinite(number):
        return "endless"
    digits = max(0, math.floor(math.log10(max(number, 1))) - 1)
    return f"{round(number, -digits):,.0f}"


def _bad(metric: Metric) -> str:
    return "wrong answers" if metric.shown == "good" else metric.name


def _against(comparison: Comparison, metric: Metric) -> str:
    text = effect(comparison, metric)
    if metric.kind == "quantile":
        if comparison.interval[0] >= 1 or 0 < comparison.interval[1] <= 1:
            worse = "slower" if comparison.interval[0] >= 1 else "faster"
            return f"the canary's {metric.name} is {text.replace('+', '').replace('−', '')} {worse} than stable's"
        return f"the canary's {metric.name} is {text} against stable's"
    if metric.kind == "classes" and text == "unknown":
        return "the canary predicts differently"
    if metric.kind == "score":
        return f"the canary's mean {metric.name} is {text} against stable's"
    if metric.kind == "classes":
        return f"the canary predicts differently: the class that moved most by {text}"
    if metric.shown == "good":
        return f"the canary gives {text} as many wrong answers as stable"
    verb = "are" if metric.name.endswith("requests") else "is"
    return f"the canary's {metric.name} {verb} {text} stable's"
