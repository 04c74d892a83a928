"""The catalogue of guardrails: each function names a metric and what is tolerated of it."""

from canarykit.metrics.http import (
    DENIED_CELLS,
    LATENCY_EDGES,
    OUTCOME_CELLS,
    REFUSED_CELLS,
    default,
    denied,
    error_rate,
    latency,
    latency_cells,
    refused,
)
from canarykit.metrics.quality import ANSWER_CELLS, CONFUSION, accuracy, classes, confusion_cells, score

__all__ = [
    "ANSWER_CELLS",
    "CONFUSION",
    "DENIED_CELLS",
    "LATENCY_EDGES",
    "OUTCOME_CELLS",
    "REFUSED_CELLS",
    "accuracy",
    "classes",
    "confusion_cells",
    "default",
    "denied",
    "error_rate",
    "latency",
    "latency_cells",
    "refused",
    "score",
]
