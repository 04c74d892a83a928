"""Pictures for lessons: what looking often does, and how methods compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from canarykit.charts.chart import Chart
from canarykit.charts.style import COLOURS, GREY, INK, clean

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw_looks", "draw_race"]

_P_LINE, _E_LINE = 0.05, 20.0


def draw_looks(table: pd.DataFrame) -> Chart:
    """Lines of p-values on the left, of evidence on the right; those that ever crossed are strong.

    Parameters
    ----------
    table : DataFrame
        Columns run, requests, p and e.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    runs = table["run"].nunique()
    crossed = []
    for ax, column, line, below, title in (
        (left, "p", _P_LINE, True, "p-value: alarm below 0.05"),
        (right, "e", _E_LINE, False, "evidence E: alarm at 20"),
    ):
        crossed.append(_lines(ax, table, column, line, below))
        ax.axhline(line, color=INK, linewidth=1, linestyle="--")
        ax.set(yscale="log", xlabel="requests", xlim=(0, table["requests"].max()))
        clean(ax, f"{title}; {crossed[-1]} of {runs} did")
    left.set_ylim(1e-4, 1.3)
    right.set_ylim(1e-3, max(200.0, float(table["e"].max()) * 1.5))
    alt = (
        f"{runs} rollouts, looked at after every 100 requests: the p-value fell below 0.05 at some look in {crossed[0]}, "
        f"the evidence reached 20 in {crossed[1]}."
    )
    return Chart(figure, alt)


def _lines(ax: Axes, table: pd.DataFrame, column: str, line: float, below: bool) -> int:
    crossed = 0
    for _, run in table.groupby("run"):
        values = run[column].to_numpy()
        hits = bool((values < line).any() if below else (values >= line).any())
        crossed += hits
        colour = COLOURS["canary"] if hits else GREY
        ax.plot(run["requests"], values, color=colour, linewidth=1.0 if hits else 0.6, alpha=0.9 if hits else 0.5)
    return crossed


def draw_race(table: pd.DataFrame) -> Chart:
    """Bars per method: good canaries blamed, and requests until a bad one is found.

    Parameters
    ----------
    table : DataFrame
        Indexed by method; columns blamed, found and median.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.42 * len(table) + 1.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(table))[::-1]
    ours = [COLOURS["canary"] if i == 0 else GREY for i in range(len(table))]
    left.barh(at, 100 * table["blamed"], color=ours, height=0.6)
    left.axvline(5, color=INK, linewidth=1, linestyle="--")
    left.set_yticks(at, table.index)
    finite = table["median"].where(np.isfinite(table["median"]))
    right.barh(at, finite.fillna(0), color=ours, height=0.6)
    for y, median, blamed in zip(at, table["median"], table["blamed"], strict=True):
        right.text(
            median if np.isfinite(median) else 0, y, f" {median:,.0f}" if np.isfinite(median) else " not in most", va="center"
        )
        left.text(100 * blamed, y, f" {100 * blamed:.0f} %", va="center")
    left.set_xlim(0, max(20.0, 118 * float(table["blamed"].max())))
    right.set_xlim(0, 1.25 * float(np.nanmax(finite)) if finite.notna().any() else 1)
    clean(left, "good canaries blamed (asked for: 5 %)")
    clean(right, "requests until a bad one is found, median")
    first = table.iloc[0]
    alt = (
        f"{table.index[0]} blames {100 * first['blamed']:.0f} % of good canaries and finds a bad one after "
        f"{first['median']:,.0f} requests; the other methods blame up to {100 * table['blamed'].max():.0f} %."
    )
    return Chart(figure, alt)
