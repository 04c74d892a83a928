"""Where versions run."""

from __future__ import annotations

from canarykit.clusters.base import Cluster
from canarykit.errors import PlanError

__all__ = ["Cluster", "connect"]


def connect(where: str = "local") -> Cluster:
    """Return the cluster that a notebook's parameter names.

    Parameters
    ----------
    where : str
        ``"local"``: processes of this machine behind an Envoy. ``"simulated"`` or ``"simulated:slow"``: random
        numbers, in seconds, for teaching (scenarios in `canarykit.testing`).

    Raises
    ------
    PlanError
        Nothing is known by that name.
    """
    if where == "local":
        from canarykit.clusters.local.cluster import LocalCluster

        return LocalCluster()
    if where.partition(":")[0] == "simulated":
        from canarykit.testing import SimulatedCluster

        return SimulatedCluster(where.partition(":")[2] or "good")
    raise PlanError(f'no cluster is known as {where!r}: use "local" or "simulated"')
