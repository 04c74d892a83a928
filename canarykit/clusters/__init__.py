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
        numbers, in seconds, for teaching (scenarios in `canarykit.testing`). ``"kube:CONTEXT/NAMESPACE"``: a Kubernetes
        cluster; context and namespace may be left out. Options of `KubeCluster` follow a question mark:
        ``"kube:prod/ai-services?gateway=infra/web&hostname=ai.example.com"``.

    Raises
    ------
    PlanError
        Nothing is known by that name, or an option is none.
    ClusterError
        The kubeconfig has no such context.
    """
    if where == "local":
        from canarykit.clusters.local.cluster import LocalCluster

        return LocalCluster()
    if where.partition(":")[0] == "simulated":
        from canarykit.testing import SimulatedCluster

        return SimulatedCluster(where.partition(":")[2] or "good")
    if where.partition(":")[0] == "kube":
        from canarykit.clusters.kube.cluster import from_address

        return from_address(where)
    raise PlanError(f'no cluster is known as {where!r}: use "local", "simulated" or "kube:CONTEXT/NAMESPACE"')
