"""Arrays in, evidence out: no clock, no input or output."""

from canarykit.analysis.judge import Judge, quantile_of

__all__ = ["Judge", "quantile_of"]
