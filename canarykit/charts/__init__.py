"""Pictures: the only room that imports matplotlib."""

from canarykit.charts.chart import Chart
from canarykit.charts.compare import compare
from canarykit.charts.draw import draw_effect, draw_evidence, draw_levels, draw_weight

__all__ = ["Chart", "compare", "draw_effect", "draw_evidence", "draw_levels", "draw_weight"]
