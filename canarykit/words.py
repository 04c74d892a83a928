"""Numbers as people read them."""

from __future__ import annotations

import math

from canarykit.model import Comparison, Metric

__all__ = ["level", "odds", "ratio_range"]


def level(value: float, metric: Metric) -> str:
    """Level of a metric: ``1.2 %``, ``41 ms``; a dash when unknown."""
    if math.isnan(value):
        return "–"
    if metric.unit != "s":
        return f"{100 * value:.3g} %"
    if math.isinf(value):
        return "never"
    scaled, unit = (value, "s") if value >= 1 else (1e3 * value, "ms") if value >= 1e-3 else (1e6 * value, "µs")
    return f"{scaled:.3g} {unit}"


def ratio_range(comparison: Comparison, metric: Metric) -> str:
    """Interval of the effect: ``1.3 to 2.1 times``, or ``3 % to 18 % slower`` for a quantile."""
    low, high = comparison.interval
    if low <= 0 and math.isinf(high):
        return "unknown"
    if metric.kind == "quantile":
        if math.isinf(high):
            return f"at least {100 * (low - 1):+.0f} %"
        if low <= 0:
            return f"at most {100 * (high - 1):+.0f} %"
        return f"{100 * (low - 1):+.0f} % to {100 * (high - 1):+.0f} %"
    if math.isinf(high):
        return f"at least {low:.2g} times"
    return f"at most {high:.2g} times" if low <= 0 else f"{low:.2g} to {high:.2g} times"


def odds(log_e: float, alarm_at: float) -> str:
    """Evidence beside its alarm line: ``3.2 of 20``."""
    e = math.exp(min(log_e, 50.0))
    return f"{e:,.1f} of {alarm_at:g}" if e < 1e4 else f"over 10,000 of {alarm_at:g}"
