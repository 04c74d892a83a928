"""How the pods of a version are, and why it lacks some: from what the cluster says of it to one sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from canarykit.clusters.kube.api.client import FIELD_MANAGER
from canarykit.clusters.kube.workloads.diagnose import diagnose, is_ready, refusal, sentence
from canarykit.health import Health

__all__ = ["AUTOSCALERS", "health_of", "lacking", "scaled_by", "wanted"]

AUTOSCALERS = ("kube-controller-manager", "keda-operator")
"""Who may choose the number of pods, but not take all of them."""

Objects = Sequence[Mapping[str, Any]]


def health_of(
    name: str,
    expected: int | None,
    deployment: Mapping[str, Any] | None,
    pods: Objects,
    *,
    unreached: str = "",
    events: Objects = (),
    log: str = "",
) -> Health:
    """Say how a version is that was up.

    Parameters
    ----------
    name : str
        Name of its Deployment.
    expected : int, optional
        Pods that the kit gave it; None when its Deployment alone says how many.
    deployment : mapping, optional
        None when it is gone.
    pods : sequence of mappings
        Pods of the version.
    unreached : str
        Why its Service leads to none of those that are ready; empty when it does.
    events : sequence of mappings
        Events of those that are not ready, oldest first.
    log : str
        Last lines of the pod that tells more.
    """
    ready, want = sum(map(is_ready, pods)), wanted(deployment, expected)
    done, refused = _done_to(deployment, want), refusal(deployment or {})
    ours = deployment is not None and scaled_by(deployment) == FIELD_MANAGER  # on its way: the watch is a moment behind
    serves = ready > 0 and not unreached
    crashes = diagnose(pods, events, refused="", served=True)
    hopeless = crashes is not None and crashes[3]
    if ready >= want and not done and not (want and unreached):
        return Health(problem=f"{name}: {sentence(crashes, log)}", final=True) if hopeless else Health()
    why = diagnose(pods, events, refused=refused)
    cause = done or unreached or (sentence(why, log) if why else _leaving(pods) or sentence(None, log))
    gone = bool(done) and not ours and not (serves and deployment)
    final = gone or hopeless or (not serves and why is not None and why[3])
    return Health(serves, f"{name} has {ready} of {want} pods ready: {cause}", final)


def lacking(expected: int | None, deployment: Mapping[str, Any] | None, pods: Objects) -> bool:
    """Whether a version has fewer pods ready than it is to have, so that its events may say why."""
    return deployment is None or sum(map(is_ready, pods)) < wanted(deployment, expected)


def wanted(deployment: Mapping[str, Any] | None, expected: int | None) -> int:
    """How many pods a version is to have: what the kit gave it, unless an autoscaler says otherwise."""
    if deployment is None:
        return expected or 0
    asked = int(deployment["spec"].get("replicas", 1))
    scaled = asked > 0 and scaled_by(deployment) in AUTOSCALERS
    return asked if expected is None or scaled else expected


def _done_to(deployment: Mapping[str, Any] | None, want: int) -> str:
    """Say what somebody did that takes pods from a version; empty when nobody did anything."""
    if deployment is None:
        return "its Deployment was deleted"
    if "deletionTimestamp" in deployment["metadata"]:
        return "its Deployment is being deleted"
    asked, who = int(deployment["spec"].get("replicas", 1)), scaled_by(deployment)
    return f"it was scaled to {asked} by {who or 'somebody'}" if asked < want else ""


def scaled_by(deployment: Mapping[str, Any]) -> str:
    """Who wrote a Deployment's number of pods last, as the API server noted it; empty when it did not."""
    owners: list[Mapping[str, Any]] = [
        entry
        for entry in deployment["metadata"].get("managedFields") or ()
        if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
    ]
    last = max(owners, key=lambda entry: str(entry.get("time", "")), default=None)
    return str(last.get("manager", "")) if last else ""


def _leaving(pods: Objects) -> str:
    """Say why a pod is on its way out, when nothing else explains what is lacking; empty when none is."""
    for pod in pods:
        if "deletionTimestamp" in pod["metadata"]:
            return f"pod {pod['metadata']['name']} was deleted, and what replaces it is not ready yet"
    return ""
