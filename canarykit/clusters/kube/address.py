"""What an address such as ``"kube:CONTEXT/NAMESPACE?router=istio"`` says."""

from __future__ import annotations

from canarykit.clusters.kube.cluster import KubeCluster
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.clusters.options import options_of, read_options
from canarykit.errors import PlanError

__all__ = ["from_address"]

_PLACE = ("context", "namespace")


def from_address(where: str) -> KubeCluster:
    """Return the cluster of ``"kube:CONTEXT/NAMESPACE?option=value"``; what has ``&``, ``=`` or ``+`` in it is percent-encoded.

    The options are those of `KubeCluster` and, where that has none of the same name, of `Workload`.

    Raises
    ------
    PlanError
        An option is not known, has no value or one of another type, or is there twice; or testers= has a value of its own.
    """
    place, _, query = where.removeprefix("kube").removeprefix(":").partition("?")
    context, _, namespace = place.rpartition("/") if "/" in place else (place, "", "")
    own = {name: kinds for name, kinds in options_of(KubeCluster).items() if name not in _PLACE}
    pods = {name: kinds for name, kinds in options_of(Workload).items() if name not in own}
    options = read_options(query, own | pods, "a cluster")
    if any(part.startswith("select") and "+" in part for part in query.split("&")):
        raise PlanError("select= in an address: a + is written %2B, and a space %20")
    if isinstance(options.get("testers"), str):
        # A value of one's own is a secret, and an address ends up in reports.
        raise PlanError(
            "testers= in the address of a cluster is true or false: give a value of your own where nobody reads it, as "
            'KubeCluster(testers=os.environ["…"])'
        )
    workload = Workload(**{name: options.pop(name) for name in pods if name in options})
    return KubeCluster(context or None, namespace or "ai-services", workload=workload, **options)
