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
        ``"local"``: processes of this machine behind an Envoy.

    Raises
    ------
    PlanError
        Nothing is known by that name.
    """
    if where == "local":
        from canarykit.clusters.local.cluster import LocalCluster

        return LocalCluster()
    raise PlanError(f'no cluster is known as {where!r}: use "local"')
