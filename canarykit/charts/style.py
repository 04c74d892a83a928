"""What all pictures share: a role owns a colour, numbers have units, lines have their names at their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from canarykit.model import Metric, Role

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["BAND", "COLOURS", "GREY", "INK", "LINES", "SAFE", "SMALL", "clean", "label_ends", "say_nothing", "scale"]

# From the palette of Okabe and Ito: distinct to nearly all eyes, 5.2:1 and 3.9:1 on white.
COLOURS: dict[Role, str] = {"stable": "#0072B2", "canary": "#D55E00"}
LINES: dict[Role, str] = {"stable": "-", "canary": (0, (4, 1.5))}  # type: ignore[dict-item]
INK, GREY, SAFE = "#222222", "#767676", "#00734C"
BAND: dict[str, Any] = {"alpha": 0.2, "linewidth": 0}
SMALL = 8.5

_CLOSEST = 0.11


def scale(metric: Metric) -> tuple[float, str]:
    """Factor and unit in which a metric's levels are drawn."""
    return (1e3, "ms") if metric.unit == "s" else (1e2, "%")


def clean(ax: Axes, title: str = "") -> None:
    """Leave only the axes that are read."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.tick_params(labelsize=SMALL, colors=INK)
    if title:
        ax.set_title(title, loc="left", fontsize=10, color=INK)


def label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write names at the ends of lines, apart enough to read.

    Parameters
    ----------
    ax : Axes
        With its limits set.
    ends : sequence of (x, y, text, colour)
        In data coordinates.
    """
    transform = ax.transData + ax.transAxes.inverted()
    placed = sorted(((float(transform.transform((x, y))[1]), text, colour) for x, y, text, colour in ends), key=_height)
    last = -1.0
    for height, text, colour in placed:
        last = max(min(max(height, 0.0), 1.0), last + _CLOSEST)
        style: dict[str, Any] = {"color": colour, "fontsize": SMALL, "va": "center", "ha": "left"}
        ax.annotate(text, (1.02, last), xycoords="axes fraction", annotation_clip=False, **style)


def say_nothing(ax: Axes, text: str) -> None:
    """Say in the middle of empty axes why they are."""
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY, fontsize=SMALL)


def _height(end: tuple[float, str, str]) -> float:
    return end[0]
