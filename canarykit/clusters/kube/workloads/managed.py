"""The Deployments of both versions: what each runs, and how many pods of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.diagnose import progress
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.clusters.kube.workloads.prepared import Prepared
from canarykit.clusters.kube.workloads.shortage import AUTOSCALERS, scaled_by
from canarykit.errors import ClusterError, ConflictError, UnrestoredError
from canarykit.model import ROLES, Role, Service

__all__ = ["ManagedVersions"]

_CAPACITY_WITHIN = 60.0
_ROUNDING = 1e-9
"""Of a share: 7 % of 100 pods are no eight."""


class ManagedVersions:
    """Both versions of a service that is deployed.

    Parameters
    ----------
    client : Client
        The namespace.
    prepared : Prepared
        The service, as it was deployed.
    workload : Workload
        Settings of its pods.
    pods : Pods
        Waited for.
    adopt : bool
        Take over what someone else has changed.
    notify : callable
        Takes one line of progress.
    say : callable, optional
        Takes a line that stays: what was done to stable without being asked for.
    """

    def __init__(
        self,
        client: Client,
        prepared: Prepared,
        workload: Workload,
        pods: Pods,
        *,
        adopt: bool,
        notify: Callable[[str], object],
        say: Callable[[str], object] | None = None,
    ) -> None:
        self._client, self._workload, self._pods = client, workload, pods
        self._models, self._adopt, self._notify, self._say = dict(prepared.models), adopt, notify, say or notify
        self._places, self.service = prepared.places, prepared.service
        self.wanted: dict[Role, int] = dict.fromkeys(ROLES, prepared.replicas)

    def ensure_capacity(self, role: Role, share: float) -> None:
        """Check that a version has as many pods ready as a share of the traffic needs, one at least.

        Where it was scaled down it is scaled up first, stable to all its pods; a version without any was taken out of use.
        Stable's Deployment is made again when somebody deleted it. Both are told.
        """
        replicas = self.service.replicas
        needed = max(1, math.ceil(share * replicas - _ROUNDING))
        found = self.stable(replicas) if role == "stable" else self._pods.deployment(role)
        ready, asked, _ = progress(found)
        if role == "stable":
            self._scale_stable_up(found, asked)
        elif 0 < asked < needed:
            self.scale(role, needed)
        if ready < needed:
            self._notify(f"{role} has {ready} of the {needed} pods that its share needs: waiting for the others first")
            self._pods.wait_ready(role, needed, _CAPACITY_WITHIN, whole=False)

    def mend(self, service: str) -> None:
        """Make a version's Service again when somebody deleted it, which is said: a gateway takes up no route without."""
        if self._client.get("Service", service) is None:
            role = next(role for role, place in self._places.items() if place.service == service)
            self._client.apply(manifests.service_object(self.service, role, self._workload))
            self._say(f"Service {service} was deleted: it was made again")

    def stable(self, replicas: int) -> dict[str, Any]:
        """Return stable's Deployment; made again, with so many pods, when somebody deleted it, which is said."""
        name = self._places["stable"].deployment
        found = self._client.get("Deployment", name)
        if found is None:
            body = manifests.deployment(self.service, "stable", self._workload, self._models.get("stable"))
            found = self._client.apply({**body, "spec": {**body["spec"], "replicas": replicas}})
            self._say(f"Deployment {name} was deleted: it was made again, with {replicas} pods")
        return found

    def _scale_stable_up(self, found: Mapping[str, Any], asked: int) -> None:
        """Have stable ask for all its pods again, unless an autoscaler chose fewer, and say so."""
        replicas, who = self.service.replicas, scaled_by(found)
        if asked < replicas and not (asked and who in AUTOSCALERS):
            self.scale("stable", replicas)
            name = found["metadata"]["name"]
            self._say(f"{name} was scaled to {asked} by {who or 'somebody'}: it was scaled up to {replicas} again")

    def promote(self, within: float, cancelled: Callable[[], bool]) -> None:
        """Let stable take the canary's version by a rolling update, within so many seconds, or keep the old one if cancelled.

        Raises
        ------
        UnrestoredError
            Neither: what was written could not be taken back.
        ClusterError
            It keeps the old one.
        """
        before, model = self.service, self._models.get("canary")
        after = replace(before, stable=before.canary)
        try:
            self._client.apply(manifests.deployment(after, "stable", self._workload, model), force=self._adopt)
            self._pods.wait_ready("stable", before.replicas, within, cancelled=cancelled)
        except ConflictError:
            raise  # someone else owns what was to be changed: nothing was
        except Exception as error:  # a write whose answer was lost may have been done
            self._restore(before, error)
            raise
        self.service = after
        if model is not None:
            self._models["stable"] = model
        else:
            self._models.pop("stable", None)

    def _restore(self, service: Service, error: Exception) -> None:
        """Give stable back what it had before a promotion that has failed."""
        old = manifests.deployment(service, "stable", self._workload, self._models.get("stable"))
        try:
            self._client.apply(old, force=self._adopt)
        except ClusterError as failed:
            stable = self._places["stable"].deployment
            raise UnrestoredError(
                f"{error}; {stable} could not be given back {service.stable.name} ({failed}), and may be on its "
                f"way to {service.canary.name}: see `kubectl rollout status deployment {stable}`"
            ) from error

    def scale(self, role: Role, replicas: int) -> None:
        """Have so many pods of a version; all else of it stays as it is, also what someone else has changed meanwhile."""
        self.wanted[role] = replicas
        self._client.patch("Deployment", self._places[role].deployment, {"spec": {"replicas": replicas}})
