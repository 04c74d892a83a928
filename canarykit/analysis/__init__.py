"""Arrays in, evidence out: no clock, no input or output."""

from canarykit.analysis.histogram import quantile_of
from canarykit.analysis.judge import Judge

__all__ = ["Judge", "quantile_of"]
