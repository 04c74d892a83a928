"""What is written when a service is deployed: nothing before the server has agreed to all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.binding import end_testers
from canarykit.clusters.kube.fallback import check_may_return
from canarykit.clusters.kube.workloads.manifests import BUILD, SETTINGS
from canarykit.clusters.kube.workloads.ownership import adoption, mine, put_back, restore
from canarykit.clusters.kube.workloads.prepared import Prepared
from canarykit.clusters.kube.workloads.removal import remove_unused
from canarykit.errors import ClusterError, ConflictError
from canarykit.routers.base import KubeRouter
from canarykit.routers.objects import to_stable

__all__ = ["Written", "build_in", "kept", "refuse", "resumable", "split_by_pods", "write"]

Objects = Sequence[Mapping[str, Any]]


def build_in(deployment: Mapping[str, Any] | None) -> str:
    """Build that a Deployment runs; empty when there is none."""
    if deployment is None:
        return ""
    return str(deployment["metadata"].get("annotations", {}).get(BUILD, "an unknown build"))


def refuse(client: Client, bodies: Objects, *, adopt: bool) -> None:
    """Have the server check everything, and see whose it is, before any of it is written.

    Raises
    ------
    ClusterError
        An object is someone else's, stable would become another version, or the server refuses.
    """
    for body in bodies:
        kind, name = body["kind"], body["metadata"]["name"]
        found = client.get(kind, name)
        if found is not None and not mine(found) and not adopt:
            split = f'; or have your own route split with route="{name}"' if kind == "HTTPRoute" else ""
            raise ClusterError(
                f"{kind} {name} in namespace {client.namespace} is someone else's: choose another name or namespace, "
                f"or take it over with adopt=True{split}"
            )
        if found is not None and kind == "Deployment" and name.endswith("-stable") and mine(found):
            runs, asked = build_in(found), build_in(body)
            if runs != asked:
                raise ClusterError(
                    f"{name} runs {runs!r}, and stable is to be {asked!r}: name as stable what serves now, "
                    "or tear the deployment down first"
                )
        try:
            client.apply(body, dry_run=True, force=adopt)
        except ConflictError as error:
            raise ClusterError(f"{error}; take these fields over with adopt=True") from error


def resumable(client: Client, canary: Mapping[str, Any] | None, router: KubeRouter) -> tuple[bool, bool]:
    """Look for a rollout that is under way.

    Parameters
    ----------
    client : Client
        The namespace.
    canary : mapping or None
        The canary's Deployment, as it is to be; None where the kit does not write it.
    router : Router
        Router of this service.

    Returns
    -------
    tuple of (bool, bool)
        Whether there is a route with both versions behind it, and whether the canary there is this one.
    """
    found = canary and client.get("Deployment", canary["metadata"]["name"])
    routes = [client.get(body["kind"], body["metadata"]["name"]) for body in router.objects()]
    routed = (found is not None or canary is None) and all(route is not None for route in routes)
    if not found:
        return routed, False
    same = routed and build_in(found) == build_in(canary) and bool(found["spec"].get("replicas"))
    return routed, same and _settings_in(found) in ("", _settings_in(canary))  # an older kit did not write them


def kept(body: Mapping[str, Any], found: Mapping[str, Any] | None, split: Literal["none", "new", "same"]) -> Mapping[str, Any]:
    """Return an object with the number of pods that it keeps, where the numbers of pods are the split.

    Parameters
    ----------
    body : mapping
        The object, as it is to be.
    found : mapping, optional
        The object, as it is.
    split : {"none", "new", "same"}
        As `split_by_pods` says. A new canary begins with no pods: the Service in front of both versions would send users to
        them before it has any weight.
    """
    if split == "none" or body["kind"] != "Deployment":
        return body
    if split == "new" and body["metadata"]["name"].endswith("-canary"):
        return {**body, "spec": {**body["spec"], "replicas": 0}}
    return body if found is None else {**body, "spec": {**body["spec"], "replicas": found["spec"]["replicas"]}}


def split_by_pods(client: Client, router: KubeRouter, *, same: bool) -> Literal["none", "new", "same"]:
    """Whether the numbers of pods are a split in force, and whether it is one of the same versions.

    Parameters
    ----------
    client : Client
        The namespace.
    router : Router
        Router of the service.
    same : bool
        Whether a rollout of the same versions is under way.
    """
    if not router.capabilities.scales or any(
        client.get(body["kind"], body["metadata"]["name"]) is None for body in router.objects()
    ):
        return "none"
    return "same" if same else "new"


def _settings_in(deployment: Mapping[str, Any] | None) -> str:
    return "" if deployment is None else str(deployment["metadata"].get("annotations", {}).get(SETTINGS, ""))


@dataclass(slots=True)
class Written:
    """What a deployment has written so far.

    Parameters
    ----------
    made, taken : list of (str, str)
        Kind and name of each object that was not there before, and of each that was someone else's.
    changed : list of mapping
        The kit's own Deployments and Services that were there before, as they were.
    noted : bool
        Whether a team's own route notes weights from before an earlier rollout; taken to be so until somebody has looked.
    resumed : bool
        Whether a rollout of the same versions was under way.
    """

    made: list[tuple[str, str]] = field(default_factory=list)
    taken: list[tuple[str, str]] = field(default_factory=list)
    changed: list[Mapping[str, Any]] = field(default_factory=list)
    noted: bool = True
    resumed: bool = False

    def take_back(self, client: Client, router: KubeRouter, notify: Callable[[str], object]) -> None:
        """Give back what was taken, put back what was changed, and remove what was made, but for what a live route leads to.

        A team's own route gets its weights back. The canary gets its share back only where its Deployment was there before
        and no rollout had changed the weights yet. Where an earlier rollout noted them, they say nothing about now: the canary
        stays at 0, and so does the note.
        """
        new = any(kind == "Deployment" and name.endswith("-canary") for kind, name in self.made)
        if any((body["kind"], body["metadata"]["name"]) not in self.made for body in router.objects()):
            end_testers(router, notify)  # the route stays, and no rollout is under way
        if new:
            router.give_back(exact=False)
        for kind, name in self.taken:
            restore(client, kind, name)
        for before in self.changed:
            put_back(client, before, pods_stay=router.capabilities.scales and before["kind"] == "Deployment")
        remove_unused(client, list(reversed(self.made)), notify)
        if not new and not self.noted:
            router.give_back(exact=not self.resumed)


def write(client: Client, prepared: Prepared, router: KubeRouter, *, done: Written, adopt: bool) -> bool:
    """Write all objects; return whether a rollout of the same versions is under way, whose weights then stay.

    Parameters
    ----------
    client : Client
        The namespace.
    prepared : Prepared
        The service on this cluster.
    router : Router
        Has objects of its own.
    done : Written
        Is told of each object before it is written.
    adopt : bool
        Take over what is someone else's.

    Raises
    ------
    ClusterError
        The canary there is another one, and serves alone: it cannot be replaced now.
    """
    routed, same = resumable(client, prepared.canary, router)
    done.noted, done.resumed = router.is_changed(), same
    if routed and not same:
        check_may_return(client, prepared.places, router)
        to_stable(router)  # another version: weight and evidence of the old one say nothing about it
    elif not same:
        router.hold_back()  # there is no pod of the canary yet
    split = split_by_pods(client, router, same=same)
    for body in [*prepared.bodies, *([] if routed else router.objects())]:
        kind, name = body["kind"], body["metadata"]["name"]
        found = client.get(kind, name)
        if found is None:
            done.made.append((kind, name))
        elif not mine(found):
            done.taken.append((kind, name))
            adoption(client, found)
        elif kind in ("Deployment", "Service"):
            done.changed.append(found)
        client.apply(kept(body, found, split), force=adopt)
    return same
