"""The Deployments of both versions: what each runs, and how many pods of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from canarykit.clusters.kube import manifests
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.diagnose import progress
from canarykit.clusters.kube.manifests import Model, Workload
from canarykit.clusters.kube.pods import Pods
from canarykit.errors import ClusterError, ConflictError, UnrestoredError
from canarykit.model import Role, Service

__all__ = ["Versions"]

_CAPACITY_WITHIN = 60.0
_ROUNDING = 1e-9
"""Of a share: 7 % of 100 pods are no eight."""


class Versions:
    """Both versions of a service that is deployed.

    Parameters
    ----------
    client : Client
        The namespace.
    service : Service
        As deployed.
    workload : Workload
        What its pods have.
    models : mapping of Role to Model
        Files of those versions that are models.
    pods : Pods
        Waited for.
    adopt : bool
        Take over what someone else has changed.
    tell : callable
        Takes one line of progress.
    """

    def __init__(
        self,
        client: Client,
        service: Service,
        workload: Workload,
        models: Mapping[Role, Model],
        pods: Pods,
        *,
        adopt: bool,
        tell: Callable[[str], object],
    ) -> None:
        self._client, self._workload, self._pods = client, workload, pods
        self._models, self._adopt, self._tell = dict(models), adopt, tell
        self.service = service
        """What runs: after a promotion stable is the canary's version."""

    def warm(self, role: Role, share: float) -> None:
        """Check that a version has as many pods ready as a share of the traffic needs, one at least.

        Where it was scaled down it is scaled up first, stable to all its pods; a version without any was taken out of use.
        """
        replicas = self.service.replicas
        needed = max(1, math.ceil(share * replicas - _ROUNDING))
        ready, asked, _ = progress(self._pods.deployment(role))
        ask_for = replicas if role == "stable" else needed if asked else 0
        if asked < ask_for:
            self.scale(role, ask_for)
        if ready < needed:
            self._tell(f"{role} has {ready} of the {needed} pods that its share needs: waiting for the others first")
            self._pods.wait_ready(role, needed, _CAPACITY_WITHIN, whole=False)

    def promote(self, within: float) -> None:
        """Let stable take the canary's version by a rolling update, within so many seconds, or keep the old one.

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
            self._pods.wait_ready("stable", before.replicas, within)
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
            raise UnrestoredError(
                f"{error}; {service.name}-stable could not be given back {service.stable.name} ({failed}), and may be on its "
                f"way to {service.canary.name}: see `kubectl rollout status deployment {service.name}-stable`"
            ) from error

    def scale(self, role: Role, replicas: int) -> None:
        """Have so many pods of a version; all else of it stays as it is, also what someone else has changed meanwhile."""
        self._client.patch("Deployment", f"{self.service.name}-{role}", {"spec": {"replicas": replicas}})
