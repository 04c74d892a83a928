"""What a service is on a cluster: where both versions are, and what the kit writes for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.copied import Original
from canarykit.clusters.kube.workloads.manifests import Model, Workload
from canarykit.model import ROLES, Role, Service
from canarykit.places import Places, managed_places

__all__ = ["Prepared", "managed"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A service on a cluster, before anything is written.

    Parameters
    ----------
    service : Service
        Both versions.
    places : mapping of role to Place
        Objects of both versions.
    bodies : sequence of mappings
        Objects that the kit writes.
    port, service_port : int
        Ports on which pods and Services listen.
    replicas : int
        Pods that each version has, at least.
    ready : mapping of role to str
        Path that each version answers when it can serve.
    models : mapping of role to Model
        Files of those versions that are models.
    originals : mapping of role to Original
        A team's own objects, and the copy of them, where the versions are such.
    """

    service: Service
    places: Places
    bodies: Sequence[Mapping[str, Any]]
    port: int
    service_port: int
    replicas: int
    ready: Mapping[Role, str]
    models: Mapping[Role, Model] = field(default_factory=dict)
    originals: Mapping[Role, Original] = field(default_factory=dict)

    @property
    def about(self) -> Sequence[Mapping[str, Any]]:
        """Objects that say which pods the evidence of a rollout is about."""
        return [dict(original.deployment) for original in self.originals.values()] or self.bodies

    @property
    def own(self) -> bool:
        """Whether stable is a Deployment of the team's own."""
        return bool(self.originals)

    @property
    def leaves_canary(self) -> bool:
        """Whether both versions are Deployments of the team's own, so that a promotion replaces neither."""
        return self.own and not self.bodies

    @property
    def canary(self) -> Mapping[str, Any] | None:
        """The canary's Deployment, where the kit writes it."""
        name = self.places["canary"].deployment
        return next((body for body in self.bodies if (body["kind"], body["metadata"]["name"]) == ("Deployment", name)), None)


def managed(service: Service, workload: Workload, models: Mapping[Role, Model]) -> Prepared:
    """Prepare a service of which the kit makes all objects.

    Parameters
    ----------
    service : Service
        Both versions.
    workload : Workload
        Settings of their pods.
    models : mapping of role to Model
        Files of the versions given as ``model=``.

    Raises
    ------
    PlanError
        Kubernetes would refuse it.
    """
    manifests.check(service)
    ready: dict[Role, str] = {role: service.version(role).ready for role in ROLES}
    bodies = manifests.objects(service, workload, models)
    ports = workload.port, workload.service_port
    return Prepared(service, managed_places(service.name), bodies, *ports, service.replicas, ready, models)
