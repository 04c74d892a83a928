"""Where versions run."""

from __future__ import annotations

import re

from canarykit.clusters.base import Cluster
from canarykit.clusters.options import options_of, read_options
from canarykit.errors import CanaryError, PlanError
from canarykit.extras import extra
from canarykit.masking import masked, secrets_of

__all__ = ["Cluster", "connect"]


def connect(where: str = "local", *, scenario: str = "good") -> Cluster:
    """Return the cluster that a notebook's parameter names.

    Parameters
    ----------
    where : str
        ``"local"``: processes of this machine behind an Envoy; ``"local?ready_within=300"`` gives options of
        `canarykit.clusters.local.LocalCluster`. ``"simulated"``, ``"simulated:slow"`` or
        ``"simulated:slow?seed=3"``: random numbers, in seconds, for teaching (`canarykit.clusters.simulated.SCENARIOS`).
        ``"kube:CONTEXT/NAMESPACE"``: a Kubernetes cluster; context and namespace may be left out. Options
        follow a question mark, ``"kube:prod/ai-services?gateway=infra/web&adopt=true&lease=30"``: those of `KubeCluster` and of
        its `Workload` that are text, numbers, or true and false. Of several names each is written: ``select.stable=…``,
        ``node_selector.disk=ssd``. An = or & within a value is written %3D or %26.
    scenario : str
        Scenario of a simulated cluster, when `where` names none. A simulation does not know how a model behaves.

    Raises
    ------
    PlanError
        Nothing is known by that name, or an option is none.
    ClusterError
        The kubeconfig has no such context.
    """
    try:
        return _connected(where, scenario)
    except CanaryError as error:
        # An address may hold a password, and errors end up in logs.
        said = masked(str(error), secrets_of(where))
        if said == str(error):
            raise
        raise type(error)(said) from None


def _connected(where: str, scenario: str) -> Cluster:
    if re.match(r"local(?![^?])", where):
        from canarykit.clusters.local.cluster import LocalCluster

        return LocalCluster(**read_options(where.partition("?")[2], options_of(LocalCluster), "the local cluster"))
    if re.match(r"simulated(?![^:?])", where):
        from canarykit.clusters.simulated import from_address as simulated

        return simulated(where, scenario)
    if where.partition(":")[0] == "kube":
        with extra("kube"):
            from canarykit.clusters.kube.address import from_address

            return from_address(where)
    name = where.partition("?")[0]
    raise PlanError(f'no cluster is known as {name!r}: use "local", "simulated" or "kube:CONTEXT/NAMESPACE"')
