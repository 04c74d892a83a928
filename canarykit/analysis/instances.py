"""Instances are not versions: how far the replicas of one version differ, and how much each carried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from canarykit.analysis.histogram import quantile_of
from canarykit.model import ROLES, Counts, Role

__all__ = ["load_ratio", "remarks", "spread"]

ENOUGH = 100
"""Requests per replica below which its quantile is not compared."""

UNEVEN = 1.5
"""A difference in load per replica that is said."""


def _of(role: Role, instances: Mapping[str, Counts]) -> list[Counts]:
    return [cells for name, cells in instances.items() if name.startswith(f"{role}-")]


def spread(role: Role, instances: Mapping[str, Counts], edges: Sequence[float], quantile: float) -> float:
    """Ratio of the slowest to the fastest replica of one version, at a quantile.

    Parameters
    ----------
    role : {"stable", "canary"}
        Which version.
    instances : mapping of str to (cells,) int array
        Latency counts per replica.
    edges : sequence of float
        Upper edges of the cells.
    quantile : float
        0 to 1.

    Returns
    -------
    float
        1 or more; NaN with fewer than two replicas of `ENOUGH` requests.

    Notes
    -----
    Section 6 of docs/statistics.md, "Instances are not versions".
    """
    levels = [quantile_of(cells, edges, quantile) for cells in _of(role, instances) if cells.sum() >= ENOUGH]
    return max(levels) / min(levels) if len(levels) > 1 else float("nan")


def load_ratio(instances: Mapping[str, Counts]) -> float:
    """Requests per replica of the canary, as a multiple of stable's; NaN when one had none.

    Notes
    -----
    Section 6 of docs/statistics.md, "Instances are not versions".
    """
    means = [np.mean([cells.sum() for cells in _of(role, instances)] or [0.0]) for role in ROLES]
    return float(means[1] / means[0]) if min(means) > 0 else float("nan")


def remarks(instances: Mapping[str, Counts], edges: Sequence[float], quantile: float) -> list[str]:
    """Say, in sentences, what must be known before a difference in latency is believed.

    Parameters
    ----------
    instances, edges, quantile
        See `spread`.

    Notes
    -----
    Section 6 of docs/statistics.md: one process may be slower than its twin, and a version that carries less
    traffic per replica queues less and looks faster.
    """
    said = []
    for role in ROLES:
        ratio = spread(role, instances, edges, quantile)
        if not np.isnan(ratio):
            said.append(f"Replicas of {role} differ by {100 * (ratio - 1):.0f} % in p{100 * quantile:g} latency.")
    ratio = load_ratio(instances)
    if ratio <= 1 / UNEVEN:
        said.append(
            f"Each canary replica carried {ratio:.2g} times the requests of a stable one: its latency looks better than it is."
        )
    elif ratio >= UNEVEN:
        said.append(
            f"Each canary replica carried {ratio:.2g} times the requests of a stable one: its latency looks worse than it is."
        )
    return said
