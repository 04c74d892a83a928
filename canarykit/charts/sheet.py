"""The sheet that every picture of a rollout is drawn on: white, a finding on top, "simulated" across where it is."""

from __future__ import annotations

import textwrap
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from canarykit.charts.chart import Chart
from canarykit.charts.style import GREY, INK
from canarykit.extras import extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from canarykit.history import History

__all__ = ["finished", "sheet", "title_of"]

_LETTERS_PER_INCH = 9.2


def sheet(width: float, height: float, *, arranged: bool = True) -> Figure:
    """Return an empty figure, in inches; matplotlib arranges what is on it, unless the caller does, which is twice as fast."""
    with extra("notebook"):
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not arranged:
        return Figure(figsize=(width, height), facecolor="white")
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06), facecolor="white")


def title_of(finding: str, width: float) -> str:
    """Return a finding in lines that fit a figure of so many inches."""
    return textwrap.fill(finding, int(width * _LETTERS_PER_INCH))


def finished(figure: Figure, history: History, finding: str, shows: str, **more: Any) -> Chart:
    """Say on top what was found, and across it when it is simulated.

    Parameters
    ----------
    figure : Figure
        With everything drawn.
    history : History
        That it shows.
    finding : str
        Title of the whole.
    shows : str
        Alternative text: it describes the picture, and follows the finding.
    **more
        See `Chart`: where it may be cut.
    """
    title = title_of(finding, figure.get_figwidth())
    figure.suptitle(title, x=0.01, ha="left", fontsize=12.5, fontweight="bold", color=INK)
    if history.simulated:
        edges = [0.0, *more.get("cuts", ()), 1.0]
        for left, right in pairwise(edges):  # on each part of it
            style = {"fontsize": 4 + 4.6 * figure.get_figwidth() * (right - left), "color": GREY, "alpha": 0.15}
            place = ((left + right) / 2, 0.5)
            figure.text(*place, "simulated", ha="center", va="center", rotation=20, **style)
    return Chart(figure, f"{finding}. {'Simulated: ' if history.simulated else ''}{shows}", title=finding, **more)
