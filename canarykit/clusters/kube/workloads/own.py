"""Versions of a team: Deployments of its own, and perhaps a copy of one. A promotion alone writes what is the team's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.workloads.copied import Original, copy_of, find_original, merge_patch, replacing, runs
from canarykit.clusters.kube.workloads.diagnose import progress
from canarykit.clusters.kube.workloads.manifests import BUILD, SETTINGS, check_name, labels, settings_of
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.clusters.kube.workloads.prepared import Prepared
from canarykit.clusters.kube.workloads.selectors import equal, matches
from canarykit.errors import CancelledError, ClusterError, PlanError, UnrestoredError
from canarykit.model import READY, ROLES, Role, Service, Version
from canarykit.places import Place
from canarykit.polling import poll

__all__ = ["OwnVersions", "prepare_own"]

_CAPACITY_WITHIN = 60.0
_ROUNDING = 1e-9
"""Of a share: 7 % of 100 pods are no eight."""


def prepare_own(client: Client, service: Service) -> Prepared:
    """Find a team's Deployments and Services, and the canary's where that is to be copied; nothing is written.

    Parameters
    ----------
    client : Client
        The namespace.
    service : Service
        Versions with ``deployment=``, and perhaps a canary with ``like=``.

    Raises
    ------
    ClusterError
        There is no such Deployment.
    PlanError
        It is not known what serves, or the versions cannot be told apart.
    """
    check_name(service.name)
    services = client.list("Service")
    stable = _original(client, services, service.stable)
    bodies: list[dict[str, Any]] = []
    if service.canary.like is None:
        canary = _original(client, services, service.canary)
    else:
        copies = copy_of(stable, service.canary, env=service.env, labels=labels(service), claims=_claims(client, stable))
        bodies, canary = copies, replace(stable, deployment=copies[0], service=copies[1])
        _note_build(copies[0], service.canary, canary)
    originals: dict[Role, Original] = {"stable": stable, "canary": canary}
    _check_apart(originals)
    places = {role: _place(original) for role, original in originals.items()}
    ready = {role: _ready(service.version(role), original) for role, original in originals.items()}
    port = int(stable.service["spec"]["ports"][0]["port"])
    if port != int(canary.service["spec"]["ports"][0]["port"]):
        raise PlanError("the Services of both versions listen on different ports, and a route names one: give them the same")
    return Prepared(service, places, bodies, stable.port, port, 1, ready, originals=originals)


def _original(client: Client, services: Sequence[Mapping[str, Any]], version: Version) -> Original:
    name = version.deployment or version.like or ""
    found = client.get("Deployment", name)
    if found is None:
        raise ClusterError(f"there is no Deployment {name} in namespace {client.namespace}: name the one that serves")
    return find_original(found, services, container=version.container, service=version.service)


def _claims(client: Client, original: Original) -> dict[str, list[str]]:
    """Access modes of the claims of the namespace; not asked for where no volume is a claim."""
    volumes = original.deployment["spec"]["template"]["spec"].get("volumes") or ()
    if not any("persistentVolumeClaim" in volume for volume in volumes):
        return {}
    return {claim["metadata"]["name"]: claim["spec"]["accessModes"] for claim in client.list("PersistentVolumeClaim")}


def _note_build(deployment: dict[str, Any], version: Version, canary: Original) -> None:
    """Note which version a copy is, so that another process knows whether the rollout under way is one of it."""
    container = canary.serving
    build = {BUILD: f"{version.name} {container['image']}", SETTINGS: settings_of(container)}
    deployment["metadata"]["annotations"] = {**deployment["metadata"].get("annotations", {}), **build}


def _check_apart(originals: Mapping[Role, Original]) -> None:
    """Refuse versions of which one's Service or Deployment selects the other's pods."""
    for role, other in (ROLES, ROLES[::-1]):
        original, pods = originals[role], originals[other].deployment["spec"]["template"]["metadata"]["labels"]
        what = ""
        if equal(original.service["spec"].get("selector"), pods):
            what = f"Service {original.service['metadata']['name']}"
        elif matches(original.deployment["spec"]["selector"], pods):
            what = f"Deployment {original.name}"
        if what:
            raise PlanError(
                f"{what} of {role} selects the pods of {other} as well: give the versions labels that tell them apart"
            )


def _place(original: Original) -> Place:
    selector = original.deployment["spec"]["selector"].get("matchLabels") or {}
    return Place(original.name, str(original.service["metadata"]["name"]), selector, original.container)


def _ready(version: Version, original: Original) -> str:
    """Path that says whether a version is ready: the one given, or else that of the container's own probe."""
    return version.ready if version.ready != READY else original.ready or READY


def _asked(deployment: Mapping[str, Any]) -> int:
    return int(deployment["spec"].get("replicas", 1))


class OwnVersions:
    """Both versions of a service, of which the kit wrote the canary's copy at most.

    Parameters
    ----------
    client : Client
        The namespace.
    prepared : Prepared
        The service, as it was deployed.
    pods : Pods
        Waited for.
    notify : callable
        Takes one line of progress.
    say : callable
        Takes a line that stays.
    hand_over : float, optional
        Seconds in which somebody else is to change stable's Deployment in a promotion; by default the kit changes it.
    """

    def __init__(
        self,
        client: Client,
        prepared: Prepared,
        pods: Pods,
        *,
        notify: Callable[[str], object],
        say: Callable[[str], object],
        hand_over: float | None = None,
    ) -> None:
        self._hand_over = hand_over
        self._client, self._prepared, self._pods, self._notify, self._say = client, prepared, pods, notify, say
        self.service = prepared.service
        self.wanted: dict[Role, int] = {"canary": 1} if prepared.bodies else {}

    def ensure_capacity(self, role: Role, share: float) -> None:
        """Wait until a version has as many pods ready as a share of the traffic needs, one at least.

        The copy is scaled to what stable has for that share now. What belongs to the team is waited for and never scaled.
        """
        ready, asked, _ = progress(self._pods.deployment(role))
        needed = asked
        if role in self.wanted:
            needed = max(1, math.ceil(share * _asked(self.stable(0)) - _ROUNDING))
            if asked < needed:
                self.scale(role, needed)
        if ready < needed or not ready:
            self._notify(f"{role} has {ready} of the {needed} pods that its share needs: waiting for the others first")
            self._pods.wait_ready(role, max(needed, 1), _CAPACITY_WITHIN, whole=False)

    def stable(self, replicas: int) -> Mapping[str, Any]:
        """Return stable's Deployment, which is the team's, whatever number of pods it has."""
        return self._pods.deployment("stable")

    def mend(self, service: str) -> None:
        """Make the copy's Service again when somebody deleted it, which is said; the team's own Services are theirs."""
        bodies = {body["metadata"]["name"]: body for body in self._prepared.bodies if body["kind"] == "Service"}
        if service in bodies and self._client.get("Service", service) is None:
            self._client.apply(bodies[service])
            self._say(f"Service {service} was deleted: it was made again")

    def promote(self, within: float, cancelled: Callable[[], bool]) -> None:
        """Give the team's Deployment the canary's image, arguments, environment and resources, and nothing else.

        Raises
        ------
        UnrestoredError
            That failed, and what was written could not be taken back.
        ClusterError
            That failed, or was cancelled; the Deployment has what it had.
        """
        wanted = self._serving("canary")  # what was tried, as the API server has it
        if self._hand_over is None:
            self._replace(wanted, within, cancelled)
        else:
            self._wait_for_others(wanted, self._hand_over, cancelled)
        self.service = replace(self.service, stable=replace(self.service.stable, name=self.service.canary.name))

    def _wait_for_others(self, wanted: Mapping[str, Any], within: float, cancelled: Callable[[], bool]) -> None:
        """Write the change as a file, and wait until whoever has the Deployment under control has applied it."""
        name = self._prepared.places["stable"].deployment
        path = Path(f"{name}-promotion.yaml")
        path.touch(0o600)
        path.write_text(yaml.safe_dump(merge_patch(self._prepared.originals["stable"], wanted), sort_keys=False))
        self._say(f"commit what is in {path.resolve()}: Deployment {name} has {within:g} s to run it")
        if not poll(lambda: runs(self._serving("stable"), wanted), within=within, every=1.0, cancelled=cancelled):
            if cancelled():
                raise CancelledError(f"nobody waits any more for Deployment {name} to run what is in {path}")
            raise ClusterError(f"Deployment {name} did not run what is in {path} within {within:g} s")
        try:
            self._pods.wait_ready("stable", 1, within, cancelled=cancelled)
        except ClusterError as error:
            raise UnrestoredError(f"{error}; Deployment {name} runs the change of {path} by now: revert it there") from error

    def _replace(self, wanted: Mapping[str, Any], within: float, cancelled: Callable[[], bool]) -> None:
        """Have the team's container be like the canary's; on an error, give back what it had."""
        name, old = self._prepared.places["stable"].deployment, self._serving("stable")
        try:
            self._give(wanted)
            self._pods.wait_ready("stable", 1, within, cancelled=cancelled)
        except Exception as error:  # a write whose answer was lost may have been done
            try:
                self._give(old)
            except ClusterError as failed:
                raise UnrestoredError(
                    f"{error}; Deployment {name} could not be given back what it had ({failed}): see "
                    f"`kubectl rollout status deployment {name}`"
                ) from error
            raise

    def _give(self, container: Mapping[str, Any]) -> None:
        """Have stable's container be like another one, by a patch of just the fields that differ."""
        place = self._prepared.places["stable"]
        if changes := replacing(self._pods.deployment("stable"), str(place.container), container):
            self._client.patch("Deployment", place.deployment, changes, how="json")

    def _serving(self, role: Role) -> Mapping[str, Any]:
        """Container of a version that serves, as it is now."""
        return Original(self._pods.deployment(role), {}, str(self._prepared.places[role].container), 0).serving

    def scale(self, role: Role, replicas: int) -> None:
        """Have so many pods of the copy; what belongs to the team keeps its own number."""
        if role in self.wanted:
            self.wanted[role] = replicas
            self._client.patch("Deployment", self._prepared.places[role].deployment, {"spec": {"replicas": replicas}})
