"""Draw one thing on given axes. Nothing here makes a figure or asks for data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from canarykit.charts.style import BAND, COLOURS, GREY, INK, LINES, SAFE, clean, label_ends, say_nothing, scale
from canarykit.formatting import level
from canarykit.model import ROLES, Guardrail, Metric

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_effect", "draw_evidence", "draw_levels", "draw_weight"]

_ALARM = 20.0
_LEAST_E, _MOST_E = 1e-3, 1e6
_RATIO_TICKS = {True: (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0), False: (0.5, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0)}
_WIDE = 4.0


def draw_levels(ax: Axes, table: pd.DataFrame, *, metric: Metric) -> Axes:
    """Draw the level of both versions over time.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns seconds, metric, version, level (as `History.levels` gives them); gaps (NaN) stay gaps.
    metric : Metric
        Which one; its levels are drawn in ms or percent.
    """
    factor, unit = scale(metric)
    clean(ax, f"{metric.name}, {unit}")
    rows = table[table["metric"] == metric.name]
    ends = []
    for role in ROLES:
        line = rows[rows["version"] == role]
        values = line["level"].to_numpy(dtype=float) * factor
        ax.plot(line["seconds"], values, color=COLOURS[role], linestyle=LINES[role], linewidth=1.8, label=role)
        known = np.flatnonzero(np.isfinite(values))
        if len(known):
            end = line.iloc[known[-1]]
            ends.append((end["seconds"], values[known[-1]], f"{role} {level(end['level'], metric)}", COLOURS[role]))
    if not ends:
        say_nothing(ax, "nothing was counted")
        return ax
    if metric.shown == "good":
        ax.set_ylim(top=100 + 0.02 * (100 - ax.get_ylim()[0]))  # a share of good ones is read from the top
    else:
        ax.set_ylim(bottom=0, top=None if ax.dataLim.y1 > 0 else 1.0)
    label_ends(ax, ends)
    return ax


def draw_effect(ax: Axes, table: pd.DataFrame, *, guardrail: Guardrail) -> Axes:
    """Draw the ratio canary / stable with its interval, the tolerated ratio and the margin.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns seconds, metric, effect, low, high (as `History.effects` gives them).
    guardrail : Guardrail
        Which one.
    """
    metric = guardrail.metric
    what = "wrong answers" if metric.shown == "good" else metric.name
    clean(ax, f"{what}, canary / stable")
    rows = table[table["metric"] == metric.name]
    low, high = rows["low"].to_numpy(dtype=float), rows["high"].to_numpy(dtype=float)
    ax.set_yscale("log")
    bottom, top = _ratio_limits(low, high, guardrail)
    ax.set_ylim(bottom, top)
    ticks = [tick for tick in _RATIO_TICKS[top / bottom > _WIDE] if bottom <= tick <= top]
    ax.set_yticks(ticks, [f"×{tick:g}" for tick in ticks])
    ax.minorticks_off()
    known = np.isfinite(high) | (low > 0)
    if not known.any():
        say_nothing(ax, "too few events for a ratio")
    else:
        ax.fill_between(
            rows["seconds"], np.clip(low, bottom, top), np.clip(high, bottom, top), where=known, color=COLOURS["canary"], **BAND
        )  # fmt: skip
        effect = rows["effect"].to_numpy(dtype=float)
        ax.plot(rows["seconds"], np.where(known, effect, np.nan), color=COLOURS["canary"], linewidth=1.6)
    ax.axhline(1, color=INK, linewidth=0.8)
    ax.axhline(guardrail.margin, color=GREY, linewidth=0.8, linestyle=":")
    ends = [(0.0, 1.0, "no difference", INK), (0.0, guardrail.margin, "margin", GREY)]
    if guardrail.tolerate != 1:
        ax.axhline(guardrail.tolerate, color=GREY, linewidth=0.8, linestyle="--")
        ends.append((0.0, guardrail.tolerate, "tolerated", GREY))
    label_ends(ax, ends)
    return ax


def draw_evidence(ax: Axes, table: pd.DataFrame, *, metric: Metric, alarm_at: float = _ALARM) -> Axes:
    """Draw the evidence E for "worse than tolerated" and for "no worse than the margin", with the line at which each decides.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns seconds, metric, log_e, log_e_safe (natural logarithms).
    metric : Metric
        Which one.
    alarm_at : float
        Value of E that decides.
    """
    clean(ax, "evidence E")
    rows = table[table["metric"] == metric.name]
    ax.set_yscale("log")
    ax.set_ylim(_LEAST_E, _MOST_E)
    ax.set_yticks([1e-3, 1, 1e3, 1e6], ["0.001", "1", "1,000", "10⁶"])
    ax.minorticks_off()
    ax.axhline(alarm_at, color=INK, linewidth=0.8, linestyle="--")
    ends = [(0.0, alarm_at, f"decides at {alarm_at:g}", INK)]
    for column, text, colour, style in (
        ("log_e", "worse", COLOURS["canary"], "-"),
        ("log_e_safe", "no worse", SAFE, ":"),
    ):
        if len(rows):
            values = np.exp(np.clip(rows[column].to_numpy(dtype=float), math.log(_LEAST_E), math.log(_MOST_E)))
            ax.plot(rows["seconds"], values, color=colour, linestyle=style, linewidth=1.8, label=text)
            ends.append((0.0, float(values[-1]), text, colour))
    label_ends(ax, ends)
    return ax


def draw_weight(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw the canary's weight as steps, and the share of requests that it was served as dots.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns seconds, weight, served (percent; as `History.steps` gives them).
    """
    clean(ax, "canary weight, %: allowed, and served (dots)")
    ax.set_ylim(0, 108)
    ax.set_yticks([0, 50, 100])
    if len(table):
        ax.step(table["seconds"], table["weight"], where="post", color=COLOURS["canary"], linewidth=1.4)
        ax.fill_between(table["seconds"], table["weight"], step="post", color=COLOURS["canary"], **BAND)
        middle = (table["seconds"] + table["seconds"].shift(-1)) / 2
        ax.plot(middle, table["served"], color=INK, linestyle="none", marker=".", markersize=3, label="served")
    return ax


def _ratio_limits(low: np.ndarray, high: np.ndarray, guardrail: Guardrail) -> tuple[float, float]:
    """Limits that hold what is known, the margin, and no more than a factor of ten."""
    known_low = low[low > 0]
    known_high = high[np.isfinite(high)]
    bottom = min([0.8, *known_low[-1:]]) / 1.1
    top = max([guardrail.margin * 1.2, *known_high[-1:], *known_low[-1:]]) * 1.1
    return max(bottom, 0.1), min(top, 10.0)
