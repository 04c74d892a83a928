"""A service's two versions as a component of Pulumi programs: the same objects that `KubeCluster` writes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from canarykit.clusters.kube.binding import target_of
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.manifests import Model, Workload
from canarykit.errors import PlanError
from canarykit.model import ROLES, Role, Service, TrafficSplit
from canarykit.places import version_name
from canarykit.routers import gateway_api
from canarykit.routers.objects import balancer_url

try:
    import pulumi
    from pulumi_kubernetes.apiextensions import CustomResource
    from pulumi_kubernetes.apps import v1 as apps
    from pulumi_kubernetes.core import v1 as core
except ImportError as error:
    raise ImportError(f"canarykit.pulumi needs Pulumi's packages: pip install 'canarykit[pulumi]' ({error})") from error

__all__ = ["CanaryService"]

_CLASSES: Mapping[str, Any] = {
    "Namespace": core.Namespace,
    "ConfigMap": core.ConfigMap,
    "Deployment": apps.Deployment,
    "Service": core.Service,
}
_AFTER = {"Deployment": ("ConfigMap",), "HTTPRoute": ("Deployment", "Service")}
"""What must be there first: a route answers 500 for the share of a missing backend."""


class CanaryService(pulumi.ComponentResource):
    """Both versions of a service on Kubernetes, and with a gateway the route that splits the traffic between them.

    Parameters
    ----------
    name : str
        Name of the component in the stack; its children are named after it.
    service : Service
        Both versions, given as ``image=``, or as ``model=`` with their files in `models`.
    namespace : str
        Where everything is.
    make_namespace : bool
        Whether the namespace is part of the stack; False where it is there already.
    workload : Workload, optional
        Ports, resources, nodes, the seconds that pods have to end, and the type of the Services: by default ``LoadBalancer``,
        or ``ClusterIP`` behind a gateway.
    models : mapping of role to Model, optional
        Files of the versions given as ``model=``.
    weight : float
        Percent of the requests that the canary gets.
    gateway : str, optional
        ``"namespace/name"`` of the Gateway that serves the route; no route without one.
    hostname : str, optional
        Name that the route answers to; any by default.
    opts : ResourceOptions, optional
        Pulumi's options of the component.

    Attributes
    ----------
    stable_service_url, canary_service_url : Output[str]
        Address of each version's own Service: of its load balancer, or a sentence that begins with "pending" while that has
        none; of a NodePort, the port on any node; of a ClusterIP, its name inside the cluster.

    Raises
    ------
    PlanError
        Kubernetes would refuse it, or nobody serves the weight. Nothing is registered then.
    RoutingError
        The weight is finer than a route can split.
    """

    stable_service_url: pulumi.Output[str]
    canary_service_url: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        service: Service,
        *,
        namespace: str = "ai-services",
        make_namespace: bool = True,
        workload: Workload | None = None,
        models: Mapping[Role, Model] | None = None,
        weight: float = 0.0,
        gateway: str | None = None,
        hostname: str | None = None,
        opts: pulumi.ResourceOptions | None = None,
    ) -> None:
        workload, split = workload or Workload(), TrafficSplit(weight)
        if gateway is not None:
            workload = workload.fronted()
        bodies = manifests.objects(service, workload, models) + _routes(service, workload, split, gateway, hostname)
        super().__init__("canarykit:index:CanaryService", name, None, opts)
        place: pulumi.Input[str] = namespace
        if make_namespace:
            place = self._register(name, manifests.namespace(namespace)).metadata.name
        made: dict[str, list[Any]] = defaultdict(list)
        for body in bodies:
            kind = body["kind"]
            child = name + body["metadata"]["name"].removeprefix(service.name)
            within = {**body, "metadata": {**body["metadata"], "namespace": place}}
            made[kind].append(self._register(child, within, [thing for first in _AFTER.get(kind, ()) for thing in made[first]]))
        self.stable_service_url, self.canary_service_url = (
            _url(front, version_name(service.name, role), workload) for role, front in zip(ROLES, made["Service"], strict=True)
        )
        self.register_outputs({"stable_service_url": self.stable_service_url, "canary_service_url": self.canary_service_url})

    def _register(self, name: str, body: Mapping[str, Any], after: list[pulumi.Resource] | None = None) -> Any:
        """Make an object of the kit a resource of the stack."""
        # Resources take the parts of an object by Python's names; what is inside passes as Kubernetes spells it.
        parts = {re.sub("[A-Z]", lambda found: f"_{found[0].lower()}", part): value for part, value in body.items()}
        options = pulumi.ResourceOptions(parent=self, depends_on=after)
        return _CLASSES.get(body["kind"], CustomResource)(name, opts=options, **parts)


def _url(front: core.Service, name: str, workload: Workload) -> pulumi.Output[str]:
    """Address of a Service as the cluster knows it; a sentence that begins with "pending" while there is none."""
    port = workload.service_port

    def balanced(status: Any) -> str:
        points = status.load_balancer.ingress if status and status.load_balancer else None
        advice = "`pulumi refresh` asks again, and where no cloud gives addresses take ClusterIP or NodePort"
        return balancer_url(points or [], port) or f"pending: the load balancer of Service {name} has no address: {advice}"

    def on_nodes(spec: Any) -> str:
        number = spec.ports[0].node_port
        return f"http://<any node>:{number}" if number else f"pending: Service {name} has no port on the nodes yet"

    def inside(metadata: Any) -> str:
        return f"http://{name}.{metadata.namespace}.svc" + ("" if port == 80 else f":{port}")

    if workload.service_type == "ClusterIP":
        return front.metadata.apply(inside)
    return front.spec.apply(on_nodes) if workload.service_type == "NodePort" else front.status.apply(balanced)


def _routes(
    service: Service, workload: Workload, split: TrafficSplit, gateway: str | None, hostname: str | None
) -> list[dict[str, Any]]:
    """Route that serves the split, when there is a gateway."""
    if gateway is None:
        if split.canary or hostname:
            asked = f"hostname {hostname}" if hostname else f"a weight of {split}"
            raise PlanError(f'{asked} needs a gateway that serves it: give gateway="namespace/name"')
        return []
    target = target_of(service.name, workload.service_port)
    body, parts = gateway_api.route(target, gateway=gateway, hostname=hostname), gateway_api.weights(split)
    for rule, position, role, _ in gateway_api.backends(body, target):
        body["spec"]["rules"][rule]["backendRefs"][position]["weight"] = parts[role]
    return [body]
