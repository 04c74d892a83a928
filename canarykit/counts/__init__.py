"""Counts from a file: for anyone who has counts and no cluster."""

from canarykit.counts.judge import Findings, judge_counts
from canarykit.counts.read import Table, read_counts, read_series

__all__ = ["Findings", "Table", "judge_counts", "read_counts", "read_series"]
