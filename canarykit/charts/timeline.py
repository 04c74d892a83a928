"""Draw the course of a rollout: evidence of all guardrails, weight and decisions. Nothing here makes a figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from canarykit.charts.draw import draw_weight
from canarykit.charts.style import COLOURS, GREY, INK, SMALL, clean, label_ends, say_nothing
from canarykit.charts.tables import FAMILY
from canarykit.model import Metric

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_family", "draw_timeline"]

_LEAST_E, _MOST_E = 1e-2, 1e4
_DASHES: tuple[Any, ...] = ((0, (1, 1.2)), (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)), (0, (3, 1, 1, 1, 1, 1)))
_LETTER = 0.0085
"""Width of a letter as a share of a timeline's width."""


def draw_family(ax: Axes, table: pd.DataFrame, *, metrics: Sequence[Metric], alarm_at: float = 20.0) -> Axes:
    """Draw the evidence that the canary is worse, of each guardrail and of all together, with the line of the alarm.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns seconds, metric, log_e (natural logarithm); those of metric "all together" are what alarms.
    metrics : sequence of Metric
        Metrics of the guardrails.
    alarm_at : float
        Value of E at which the canary is sent back.
    """
    clean(ax, "evidence E that the canary is worse")
    ax.set_yscale("log")
    ax.set_ylim(_LEAST_E, _MOST_E)
    ax.set_yticks([0.01, 1, 100, 10_000], ["0.01", "1", "100", "10,000"])
    ax.minorticks_off()
    ax.axhline(alarm_at, color=INK, linewidth=0.9, linestyle="--")
    ends = [(0.0, alarm_at, f"alarm at {alarm_at:g}", INK)]
    if not len(table):
        say_nothing(ax, "no look yet")
    for number, name in enumerate([*(metric.name for metric in metrics), FAMILY]):
        rows = table[table["metric"] == name]
        if not len(rows):
            continue
        values = np.exp(np.clip(rows["log_e"].to_numpy(dtype=float), math.log(_LEAST_E), math.log(_MOST_E)))
        crossed = bool((values >= alarm_at).any())
        colour = INK if name == FAMILY else COLOURS["canary"] if crossed else GREY
        style = "-" if name == FAMILY else _DASHES[number % len(_DASHES)]
        ax.plot(rows["seconds"], values, color=colour, linestyle=style, linewidth=1.4 if name == FAMILY else 1.8, label=name)
        ends.append((0.0, float(values[-1]), name, colour))
    label_ends(ax, ends)
    return ax


def draw_timeline(ax: Axes, table: pd.DataFrame, *, decisions: pd.DataFrame) -> Axes:
    """Draw the canary's weight as steps, and above it what was decided when.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns seconds, weight (percent).
    decisions : DataFrame
        Columns seconds, text.
    """
    draw_weight(ax, table)
    ax.set_title("", loc="left")
    ax.set_ylabel("canary weight, %", fontsize=SMALL, color=INK)
    if not len(table):
        say_nothing(ax, "no weight was ever set")
        return ax
    first, last = float(table["seconds"].iloc[0]), float(table["seconds"].iloc[-1])
    span = max(last - first, 1e-9)
    ax.set_xlim(first, last)
    ends: list[float] = []
    for seconds, text in zip(decisions["seconds"], decisions["text"], strict=True):
        at, width = (seconds - first) / span, _LETTER * len(text)
        left = min(max(at - 0.004, 0.0), 1 - width)
        row = next((number for number, end in enumerate(ends) if end < left), len(ends))
        ends[row : row + 1] = [left + width + 0.015]
        ax.axvline(seconds, color=GREY, linewidth=0.7, alpha=0.6)
        place = (left, 1.05 + 0.13 * row)
        ax.annotate(text, place, xycoords="axes fraction", fontsize=SMALL, color=INK, annotation_clip=False)
    return ax
