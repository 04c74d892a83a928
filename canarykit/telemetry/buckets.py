"""Buckets of latency histograms: which edges all sources have, and whether a histogram can be compared on them. Pure.

Prometheus' buckets are cumulative: each counts all requests up to its edge. Leaving an edge out is therefore exact: its
requests stay in the next bucket.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from canarykit.errors import TelemetryError

if TYPE_CHECKING:
    from canarykit.telemetry.counters import Series

__all__ = ["check", "common", "histograms", "unlike"]

_TORN = 0.01
"""Part of the requests by which buckets may disagree because a page was written while requests ended."""

Histograms = Mapping[tuple[str, tuple[tuple[str, str], ...]], frozenset[float]]
"""Per source and labels of a histogram: its edges in seconds that can hold anything, so those above 0."""


def histograms(totals: Iterable[Series]) -> Histograms:
    """Find the histograms of answered requests, and their edges.

    An edge at 0 or below holds nothing that lasts, so it is left out.

    Raises
    ------
    TelemetryError
        An edge is no number.
    """
    found: dict[tuple[str, tuple[tuple[str, str], ...]], set[float]] = {}
    for series in totals:
        if series.what != "latency":
            continue
        if math.isnan(series.edge):
            raise TelemetryError(
                f"{series.instance} has a latency bucket whose edge (le) is NaN: an edge is a number of seconds, or +Inf"
            )
        rest = tuple(label for label in series.rest if label[0] != "le")
        edges = found.setdefault((series.instance, rest), set())
        if series.edge > 0:
            edges.add(series.edge)
    return {key: frozenset(edges) for key, edges in found.items()}


def common(found: Histograms) -> tuple[tuple[float, ...] | None, str]:
    """Return the edges that all histograms have, or why there are too few to compare.

    Returns
    -------
    tuple of (tuple of float or None, str)
        Edges that rise to infinity, at least half of those of the histogram that has the fewest, and an empty reason; or None
        and the reason.
    """
    shared = frozenset.intersection(*found.values())
    fewest = min(len(edges) for edges in found.values())
    # What few edges of many have in common says little: a canary that is four times as slow may be in the same bucket.
    if math.inf in shared and len(shared) > 1 and len(shared) - 1 >= (fewest - 1) / 2:
        return tuple(sorted(shared)), ""
    for (instance, _), edges in sorted(found.items()):
        if math.inf not in edges:
            return None, f"latency is not compared: {instance} has no latency bucket +Inf to count slow requests"
    said = {edges: f"{instance} has {_described(edges)}" for (instance, _), edges in sorted(found.items())}
    few = "no edge" if len(shared) < 2 else "too few edges"
    why = f"they have {few} in common" if len(said) > 1 else "that says nothing about durations"
    return None, f"latency is not compared: {', '.join(said.values())}; {why}"


def unlike(found: Histograms, edges: tuple[float, ...]) -> str:
    """Say which histogram cannot be counted on these edges, because it lacks one; empty when all can."""
    for (instance, _), ladder in sorted(found.items()):
        if not ladder.issuperset(edges):
            lacking = min(set(edges) - ladder)
            return (
                f"latency is not compared: {instance} has {_described(ladder)}, and so far there were "
                f"{_described(frozenset(edges))}; it has no edge at {_edge(lacking)}"
            )
    return ""


def check(totals: Mapping[Series, float]) -> None:
    """Refuse histograms whose buckets do not count all requests up to their edge.

    Raises
    ------
    TelemetryError
        A bucket counts less than the one before.
    """
    ladders: dict[tuple[str, tuple[tuple[str, str], ...]], list[tuple[float, float]]] = {}
    for series, total in totals.items():
        if series.what == "latency" and not math.isnan(series.edge):
            rest = tuple(label for label in series.rest if label[0] != "le")
            ladders.setdefault((series.instance, rest), []).append((series.edge, total))
    for (instance, _), ladder in ladders.items():
        ladder.sort()
        most = max(total for _, total in ladder)
        for (low, before), (high, after) in pairwise(ladder):
            if before - after > max(2.0, _TORN * most):
                raise TelemetryError(
                    f"the latency buckets of {instance} are not cumulative: {before:,.0f} requests up to {_edge(low)}, but "
                    f"{after:,.0f} up to {_edge(high)}; each bucket has to count all requests up to its edge, as Prometheus' do"
                )


def _described(edges: frozenset[float]) -> str:
    finite = sorted(edge for edge in edges if math.isfinite(edge))
    buckets = f"{len(edges)} latency bucket{'s' if len(edges) != 1 else ''}"
    return buckets + (f" ({finite[0]:g} to {finite[-1]:g} s)" if finite else "")


def _edge(edge: float) -> str:
    return f"{edge:g} s" if math.isfinite(edge) else "+Inf"
