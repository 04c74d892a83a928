"""Draw how answers are spread: over durations, over classes, over labels. Nothing here makes a figure or asks for data."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from canarykit.charts.style import COLOURS, GREY, INK, LINES, SMALL, clean, say_nothing, scale
from canarykit.charts.tables import OTHER
from canarykit.formatting import level
from canarykit.model import ROLES, Metric, Role

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_confusion", "draw_distribution", "draw_shares"]

_LEAST, _MOST = 0.002, 0.998
_SHOWN = 0.005
_FULL_COLOUR, _DARK = 0.2, 0.7
"""Share of a label's answers that went wrong in one way, from which a cell has its full colour."""


def draw_distribution(ax: Axes, table: pd.DataFrame, *, metric: Metric) -> Axes:
    """Draw the share of requests that took at most so long, of both versions, and where each reaches the quantile.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns metric, version, seconds, share.
    metric : Metric
        A quantile of durations.
    """
    factor, unit = scale(metric)
    clean(ax, f"requests that took at most so many {unit}, %")
    rows = table[table["metric"] == metric.name]
    if not len(rows):
        _empty(ax, "the versions had no traffic side by side")
        return ax
    quantile = metric.quantile or 0.5
    ax.set_xscale("log")
    ax.set_ylim(0, 104)
    ax.axhline(100 * quantile, color=GREY, linewidth=0.8, linestyle=":")
    marks = []
    for role in ROLES:
        line = rows[rows["version"] == role]
        if len(line):
            shares, edges = line["share"].to_numpy(dtype=float), line["seconds"].to_numpy(dtype=float)
            ax.plot(factor * edges, 100 * shares, color=COLOURS[role], linestyle=LINES[role], linewidth=1.8, label=role)
            marks.append((_reaches(edges, shares, quantile), role))
    seen = rows[(rows["share"] > _LEAST) & (rows["share"] < _MOST)]["seconds"]
    if len(seen):
        ax.set_xlim(factor * seen.min() / 1.05, factor * seen.max() * 1.05)
    _name_marks(ax, marks, factor, metric)
    _plain_ticks(ax)
    return ax


def draw_shares(ax: Axes, table: pd.DataFrame, *, metric: str = "answers that say so") -> Axes:
    """Draw the share of each class among the answers of both versions, side by side.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns version, said, requests, share.
    metric : str
        Name of the metric, for the title.
    """
    clean(ax, f"{metric}, %")
    if not len(table):
        _empty(ax, "no answers were counted by class")
        return ax
    names = [name for name in dict.fromkeys(table["said"]) if name != OTHER or table[table["said"] == OTHER]["requests"].any()]
    hatches: dict[Role, str] = {"stable": "", "canary": "////"}
    for offset, role in zip((-0.2, 0.2), ROLES, strict=True):
        rows = table[table["version"] == role].set_index("said")
        if not len(rows):
            continue
        shares = 100 * rows["share"].reindex(names).to_numpy(dtype=float)
        style: dict[str, Any] = {"color": COLOURS[role], "edgecolor": "white", "linewidth": 0, "hatch": hatches[role]}
        ax.bar(np.arange(len(names)) + offset, shares, width=0.38, label=role, **style)
        text = f"{role}, {rows['requests'].sum():,} answers"
        at = 1.0 if role == "canary" else 0.76
        ax.text(at, 1.04, text, transform=ax.transAxes, color=COLOURS[role], fontsize=SMALL + 0.5, ha="right")
    ax.set_xticks(np.arange(len(names)), [str(name) for name in names])
    ax.set_ylim(bottom=0)
    return ax


def draw_confusion(ax: Axes, table: pd.DataFrame, *, version: Role) -> Axes:
    """Draw which label was answered by what, as shares of each label; wrong answers have the version's colour.

    Parameters
    ----------
    ax : Axes
        Where.
    table : DataFrame
        Columns version, label, said, requests, share.
    version : {"stable", "canary"}
        Whose answers.
    """
    from matplotlib.colors import LinearSegmentedColormap

    rows = table[table["version"] == version]
    if not len(rows):
        clean(ax, version)
        _empty(ax, "no answers with labels were counted")
        return ax
    labels, said = list(dict.fromkeys(rows["label"])), list(dict.fromkeys(rows["said"]))
    if not table[table["said"] == OTHER]["requests"].any():
        said.remove(OTHER)
    shares = rows.pivot(index="label", columns="said", values="share").loc[labels, said].to_numpy(dtype=float)
    wrong = rows[rows["label"] != rows["said"]]["requests"].sum()
    clean(ax, f"{version}: {100 * wrong / rows['requests'].sum():.3g} % of {rows['requests'].sum():,} answers wrong")
    right = np.equal.outer(np.arange(len(labels)), np.arange(len(said)))
    colours = LinearSegmentedColormap.from_list(version, ["white", COLOURS[version]])
    ax.imshow(np.where(right, np.nan, shares), cmap=colours, vmin=0, vmax=_FULL_COLOUR, aspect="equal")
    for (row, column), share in np.ndenumerate(shares):
        if share >= _SHOWN:
            dark = share > _DARK * _FULL_COLOUR and not right[row, column]
            style: dict[str, Any] = {"color": "white" if dark else GREY if right[row, column] else INK, "fontsize": 7.5}
            ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", **style)
    ax.set_xticks(range(len(said)), [str(name) for name in said])
    ax.set_yticks(range(len(labels)), [str(name) for name in labels])
    ax.set_xlabel("answer", fontsize=SMALL, color=INK)
    ax.set_ylabel("label", fontsize=SMALL, color=INK)
    return ax


def _reaches(edges: np.ndarray, shares: np.ndarray, quantile: float) -> float:
    """Duration at which a share is reached, log-linear between edges; NaN when it never is."""
    if not shares[-1] >= quantile:
        return math.nan
    at = int(np.searchsorted(shares, quantile))
    if at == 0:
        return float(edges[0])
    inside = (quantile - shares[at - 1]) / (shares[at] - shares[at - 1])
    return float(edges[at - 1] * (edges[at] / edges[at - 1]) ** inside)


def _name_marks(ax: Axes, marks: list[tuple[float, Role]], factor: float, metric: Metric) -> None:
    """Mark where each line reaches the quantile; names stand at the upper left, where no share has risen yet."""
    quantile = 100 * (metric.quantile or 0.5)
    for number, (value, role) in enumerate(marks):
        ax.plot([factor * value], [quantile], "o", color=COLOURS[role], markersize=4.5)
        text = f"{role}: {quantile:g} % took at most {level(value, metric)}"
        if math.isnan(value):
            text = f"{role}: fewer than {quantile:g} % ever ended"
        style: dict[str, Any] = {"transform": ax.transAxes, "color": COLOURS[role], "fontsize": SMALL + 0.5, "va": "top"}
        ax.text(0.02, 0.87 - 0.1 * number, text, **style)


def _empty(ax: Axes, text: str) -> None:
    say_nothing(ax, text)
    ax.set_xticks([])
    ax.set_yticks([])


def _plain_ticks(ax: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
