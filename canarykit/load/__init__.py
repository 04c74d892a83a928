"""Open-loop traffic, sent by a process of its own."""

from canarykit.load.load import Answer, Load, Summary

__all__ = ["Answer", "Load", "Summary"]
