"""What an address such as ``"kube:CONTEXT/NAMESPACE?router=istio"`` says."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from canarykit.clusters.kube.cluster import KubeCluster
from canarykit.clusters.kube.manifests import Workload
from canarykit.errors import PlanError

__all__ = ["from_address"]

_OPTIONS = ("router", "url", "gateway", "hostname", "route", "prometheus", "metrics", "server_image", "service_type")


def from_address(where: str) -> KubeCluster:
    """Return the cluster of ``"kube:CONTEXT/NAMESPACE?option=value"``.

    Raises
    ------
    PlanError
        An option is not known, or has no value.
    """
    place, _, query = where.removeprefix("kube").removeprefix(":").partition("?")
    context, _, namespace = place.rpartition("/") if "/" in place else (place, "", "")
    # Errors name options alone: a value may hold a password, and errors end up in logs.
    options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
    if strange := sorted(set(options) - set(_OPTIONS)):
        raise PlanError(f"the address of a cluster has no option {', '.join(strange)}: there are {', '.join(_OPTIONS)}")
    if empty := sorted(name for name, value in options.items() if not value):
        raise PlanError(f"the address of the cluster says no value of {', '.join(empty)}: write {empty[0]}=…, or leave it out")
    workload = Workload(**{name: options.pop(name) for name in ("server_image", "service_type") if name in options})
    return KubeCluster(context or None, namespace or "ai-services", workload=workload, **options)
