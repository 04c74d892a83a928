"""Preview: what a deployment would write."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.api.writes import kept, resumable, split_by_pods
from canarykit.clusters.kube.binding import bind, target_of
from canarykit.clusters.kube.namespace import Namespace
from canarykit.clusters.kube.telemetry import Counting
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.changes import Changes, difference
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.clusters.kube.workloads.model_files import model_files
from canarykit.clusters.kube.workloads.neighbours import find_neighbours
from canarykit.clusters.kube.workloads.own import prepare_own
from canarykit.clusters.kube.workloads.prepared import Prepared, managed
from canarykit.errors import PlanError
from canarykit.model import Service
from canarykit.routers.base import KubeRouter
from canarykit.routers.gateway_api import GatewayApiRouter
from canarykit.routers.objects import Api, Target

__all__ = ["Preview"]


class Preview:
    """The objects of a service on a cluster, before they are written.

    Parameters
    ----------
    client : Client
        The namespace.
    workload : Workload
        Settings of the pods.
    asked : mapping
        Options of the router.
    counting : Counting
        Who counts.
    adopt : bool
        Take over objects of these names that someone else made.
    """

    _notify: Callable[[str], object]

    def __init__(
        self, client: Client, workload: Workload, asked: Mapping[str, Any], counting: Counting, *, adopt: bool
    ) -> None:
        self.client, self.workload, self._asked, self._counting, self._adopt = client, workload, dict(asked), counting, adopt
        self._namespace = Namespace(client, lambda line: self._notify(line))

    def plan(self, service: Service) -> Changes:
        """Ask the server what `deploy` would change; nothing is written.

        Raises
        ------
        ClusterError, PlanError
            As `deploy` would.
        """
        there, (prepared, router) = self._namespace.is_there(), self._wanted(service)
        bodies = prepared.bodies
        router.check()
        self._counting.check(self.client.namespace, self._target(prepared), self._route(router))
        routed, same = resumable(self.client, prepared.canary, router)
        split, changes = split_by_pods(self.client, router, same=same), []
        for body in [*bodies, *(routes := router.objects())]:
            before = self.client.get(body["kind"], body["metadata"]["name"])
            if routed and body in routes:
                after = before  # the weights that are in force stay
            elif there:
                after = self.client.apply(kept(body, before, split), dry_run=True, force=self._adopt)
            else:
                after = dict(body)
            changes.append(difference(before, after or body))
        notes = list(find_neighbours(self.client, [*bodies, *routes]).notes) if there else []
        if not there:
            notes.append(f"namespace {self.client.namespace} is not there: deploy() makes it")
        if router.own is not None:
            route = " ".join(router.own)
            notes.append(f"{route} is yours: a rollout changes its weights, and teardown() gives back those of before")
        return Changes(changes, notes)

    def export(self, service: Service, path: str | Path | None = None) -> str:
        """Return the objects as YAML for ``kubectl apply``; write them to a file when a path is given."""
        prepared, router = self._wanted(service)
        place = {"namespace": self.client.namespace}
        inside = [{**body, "metadata": {**body["metadata"], **place}} for body in (*prepared.bodies, *router.objects())]
        made = [manifests.namespace(self.client.namespace), *inside]
        text = yaml.safe_dump_all(made, sort_keys=False)
        if path is not None:
            Path(path).write_text(text)
        return text

    def _prepare(self, service: Service) -> Prepared:
        """Find out where both versions are, and what is to be written for them."""
        if service.stable.deployment is not None:
            if self._asked["router"] == "replicas":
                raise PlanError("the router replicas scales both versions, and Deployments of your own have their own numbers")
            return prepare_own(self.client, service)
        return managed(service, self.workload, model_files(service))

    def _target(self, prepared: Prepared) -> Target:
        return target_of(prepared.service.name, prepared.service_port, prepared.places)

    def _bind(self, prepared: Prepared, client: Api) -> KubeRouter:
        """Router of this service."""
        return bind(client, prepared.service.name, **self._binding(prepared), notify=lambda line: self._notify(line))

    def _route(self, router: KubeRouter) -> dict[str, Any] | None:
        """HTTPRoute that splits the traffic; None when there is none yet, or something else does."""
        return self.client.get("HTTPRoute", router.name) if isinstance(router, GatewayApiRouter) else None

    def _binding(self, prepared: Prepared) -> dict[str, Any]:
        ports = {"port": prepared.service_port, "pod_port": prepared.port}
        places = {role: asdict(place) for role, place in prepared.places.items()}
        return {"asked": self._asked, **ports, "replicas": prepared.replicas, "ready": dict(prepared.ready), "places": places}

    def _wanted(self, service: Service) -> tuple[Prepared, KubeRouter]:
        """Objects of a service that `deploy` would write, and its router, which has more."""
        prepared = self._prepare(service)
        return prepared, self._bind(prepared, self.client)
