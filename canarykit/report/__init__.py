"""Run a notebook through papermill, and leave a folder that a person and a pipeline can read."""

from canarykit.report.report import Report, report

__all__ = ["Report", "report"]
