"""Lay out both versions side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from canarykit.charts.chart import Chart
from canarykit.charts.draw import draw_effect, draw_evidence, draw_levels, draw_weight
from canarykit.charts.sheet import finished, sheet, title_of
from canarykit.charts.style import GREY, INK
from canarykit.formatting import effect, levels

if TYPE_CHECKING:
    from canarykit.history import History
    from canarykit.model import Guardrail

__all__ = ["compare", "finding"]

_WIDTH, _ROW, _HEAD = 12.0, 1.75, 1.9

# Inches around and between the charts: numbers stand on their left, the names of lines on their right, titles above.
_LEFT, _RIGHT, _BOTTOM, _LINE, _ABOVE = 0.55, 1.15, 0.5, 0.22, 0.42
_BESIDE, _BETWEEN, _TITLE = 1.65, 0.4, 0.25
_HEIGHTS, _WIDTHS = 0.45, (1.5, 1.1, 0.9)


def finding(history: History) -> str:
    """Say in a few words what was found."""
    names = history.facts.get("versions", {})
    canary = names.get("canary", "canary")
    judgement, ending = history.judgement, history.ending
    so_far = f" {ending.outcome}" if ending is not None else f", {judgement.status} so far"
    if judgement.alarm is not None:
        number = [guardrail.name for guardrail in history.guardrails].index(judgement.alarm.guardrail)
        metric, verdict = history.guardrails[number].metric, judgement.verdicts[number]
        counted = _counted(verdict.comparison.requests)
        return f"{canary}{so_far}: {metric.name} {levels(verdict.comparison, metric)} after {counted}"
    return f"{canary}{so_far}: no guardrail alarmed in {_counted(history.requests)}"


def _counted(requests: tuple[int, int]) -> str:
    return f"{sum(requests):,} requests, {requests[1]:,} of them to the canary"


def compare(history: History) -> Chart:
    """Draw levels, effect and evidence of the guardrails, with the canary's weight on top.

    Refused and denied requests are left out where there were none: the table of guardrails says so in fewer words.

    Parameters
    ----------
    history : History
        The rollout to draw; it may be empty.
    """
    drawn = _drawn(history)
    rows = len(drawn)
    height, lines = _HEAD + _ROW * rows, title_of(finding(history), _WIDTH).count("\n") + 1
    figure = sheet(_WIDTH, height, arranged=False)
    axes = figure.subplots(
        rows + 1,
        3,
        sharex=True,
        squeeze=False,
        height_ratios=[_HEIGHTS] + [1] * rows,
        width_ratios=_WIDTHS,
        gridspec_kw=_places(rows, height, lines),
    )
    draw_weight(axes[0, 0], history.steps())
    notes = (
        "Effect with its 95 % interval,\nvalid at every look",
        "Odds against “no difference”;\nabove the line it is shown",
    )
    for ax, note in zip(axes[0, 1:], notes, strict=True):
        ax.axis("off")
        ax.text(0, 0, note, transform=ax.transAxes, fontsize=9, color=GREY, va="bottom")
    table, effects = history.levels(), history.effects()
    for row, guardrail in zip(axes[1:], drawn, strict=True):
        draw_levels(row[0], table, metric=guardrail.metric)
        draw_effect(row[1], effects, guardrail=guardrail)
        draw_evidence(row[2], effects, metric=guardrail.metric, alarm_at=1 / float(history.facts.get("alpha", 0.05)))
        for ax in row:
            for change in history.weights:
                ax.axvline(change["time"] - history.began, color=GREY, linewidth=0.5, alpha=0.35)
    from matplotlib.ticker import MaxNLocator

    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    for ax in axes[-1]:
        ax.set_xlabel("seconds", fontsize=8.5, color=INK)
    cuts = [ax.get_position().x0 - _LEFT / _WIDTH for ax in axes[0, 1:]]
    return finished(
        figure, history, finding(history), _shows(history), cuts=cuts, head=(_LINE * lines + _ABOVE - _TITLE) / height
    )


def _places(rows: int, height: float, lines: int) -> dict[str, float]:
    """Where the charts are on the sheet, and how far apart, as shares, below a title of so many lines."""
    above = _ABOVE + _LINE * lines
    between = (height - above - _BOTTOM - _BETWEEN * rows) / (rows + 1)
    beside = (_WIDTH - _LEFT - _RIGHT - 2 * _BESIDE) / 3
    return {
        "left": _LEFT / _WIDTH,
        "right": 1 - _RIGHT / _WIDTH,
        "bottom": _BOTTOM / height,
        "top": 1 - above / height,
        "hspace": _BETWEEN / between,
        "wspace": _BESIDE / beside,
    }


def _drawn(history: History) -> list[Guardrail]:
    """Guardrails that have something to draw."""
    pairs = zip(history.guardrails, history.judgement.verdicts, strict=True)
    drawn = [g for g, verdict in pairs if g.metric.table not in ("refused", "denied") or any(verdict.comparison.events)]
    return drawn or list(history.guardrails)


def _shows(history: History) -> str:
    lines = [
        f"{verdict.guardrail} {levels(verdict.comparison, guardrail.metric)}, effect "
        f"{effect(verdict.comparison, guardrail.metric)}, {verdict.status}"
        for guardrail, verdict in zip(history.guardrails, history.judgement.verdicts, strict=True)
    ]
    return f"stable and canary over time: {'; '.join(lines)}."
