"""Pictures: the only room that imports matplotlib."""

from canarykit.charts.chart import Chart
from canarykit.charts.compare import compare
from canarykit.charts.draw import draw_effect, draw_evidence, draw_levels, draw_weight
from canarykit.charts.spread import draw_confusion, draw_distribution, draw_shares
from canarykit.charts.timeline import draw_family, draw_timeline
from canarykit.charts.views import confusion, distribution, evidence, shares, timeline

__all__ = [
    "Chart",
    "compare",
    "confusion",
    "distribution",
    "draw_confusion",
    "draw_distribution",
    "draw_effect",
    "draw_evidence",
    "draw_family",
    "draw_levels",
    "draw_shares",
    "draw_timeline",
    "draw_weight",
    "evidence",
    "shares",
    "timeline",
]
