"""Why a pod does not come up: from what the cluster says of it to one sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CRASHES", "Finding", "diagnose", "is_ready", "progress", "refused", "sentence", "serving"]

CRASHES = 3
"""A container that ended this often by itself is in trouble."""

_HOPELESS = {
    "ErrImageNeverPull": "the image is not on the node, and its pull policy is Never",
    "ImagePullBackOff": "the image cannot be pulled",
    "ErrImagePull": "the image cannot be pulled",
    "InvalidImageName": "the image's name is not valid",
    "CreateContainerConfigError": "its configuration names something that is not there",
    "CreateContainerError": "the container cannot be made",
    "RunContainerError": "the container cannot be started",
}
_PULLS = ("ImagePullBackOff", "ErrImagePull")
_FINAL = re.compile(
    r"not ?found|no such host|denied|unauthorized|forbidden|(?:manifest|name|blob) unknown|does not exist|no match"
    r"|invalid reference|no basic auth",
    re.I,
)
_PASSING = re.compile(
    r"too ?many ?requests|\bqps exceeded|\bstatus\b.*[ :]5\d\d\b|internal server error|bad gateway|unavailable"
    r"|time-?out|timed out|deadline ?exceeded|connection (?:reset|refused)|\beof\b|unreachable|no route to host"
    r"|server misbehaving|temporary failure|context canceled",
    re.I,
)
"""What a registry says that may say otherwise ten seconds later, when the kubelet asks again."""

_ADVICE = {
    "image": "Check the name and tag of image=, and that the nodes may pull it.",
    "crash": "Check what it needs at its start: environment, model file, memory.",
    "probe": "Check ready=, the port, and how long it takes to load.",
    "unschedulable": "Check resources=, gpus= and node_selector= against the nodes.",
    "quota": "Check the namespace's quota against resources= and replicas=.",
}

Finding = tuple[str, str, str | None, bool]
"""Kind of trouble, what the cluster says, the pod whose log tells more, and whether waiting cannot help."""


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod gets traffic: ready, and not on its way out."""
    conditions = {entry["type"]: entry["status"] for entry in pod.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def serving(pod: Mapping[str, Any]) -> bool:
    """Whether a pod may be answering requests: it is, or was, ready, and its server has not ended."""
    started = any(container.get("started") and "running" in container.get("state", {}) for container in _containers(pod))
    return started and pod.get("status", {}).get("phase") == "Running"


def progress(deployment: Mapping[str, Any]) -> tuple[int, int, bool]:
    """Pods ready with the present template, pods asked for, and whether the rollout is over: nothing old is left."""
    asked = int(deployment["spec"].get("replicas", 1))
    status = deployment.get("status", {})
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    updated, total = status.get("updatedReplicas", 0), status.get("replicas", 0)
    ready = min(status.get("availableReplicas", 0), updated) if seen else 0
    return ready, asked, bool(seen and ready >= asked and total == asked and updated == asked)


def refused(deployment: Mapping[str, Any]) -> bool:
    """Whether pods of a Deployment are refused now; events tell of it for an hour after."""
    conditions = deployment.get("status", {}).get("conditions", [])
    return any(entry["type"] == "ReplicaFailure" and entry["status"] == "True" for entry in conditions)


def diagnose(pods: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], *, served: bool = False) -> Finding | None:
    """Return what stands in the way of a version, the worst first; None when nothing is known to.

    Parameters
    ----------
    pods : sequence of mappings
        Of the version.
    events : sequence of mappings
        Of the namespace, oldest first.
    served : bool
        Whether others of the version serve: one that lacks its image on another node then says nothing about the version.
    """
    for find in (_crash, _unschedulable) if served else (_image, _crash, _unschedulable):
        for pod in pods:
            found = find(pod, events)
            if found is not None:
                return found
    if failed := [event for event in events if event.get("reason") == "FailedCreate"]:
        return "quota", _said(failed[-1]), None, "quota" in _said(failed[-1])
    for pod in pods:
        if not is_ready(pod) and pod.get("status", {}).get("phase") == "Running":
            unready = [event for event in _of(pod, events) if event.get("reason") == "Unhealthy"]
            if unready:
                return "probe", _said(unready[-1]), pod["metadata"]["name"], False
    return None


def sentence(finding: Finding | None, log: str) -> str:
    """Return a finding in words, with the last log lines."""
    if finding is None:
        return f"the cluster does not say why{_quoted(log)}"
    kind, said, pod, _ = finding
    return f"{said}{_quoted(log, pod)}\n{_ADVICE[kind]}"


def _image(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    for container in _all_containers(pod):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason")
        if reason in _HOPELESS:
            said = waiting.get("message", reason)
            passing = reason in _PULLS and _passes(f"{said} {_failed_pull(pod, events)}")
            what = f"{_HOPELESS[reason]} ({container['image']}): {said}"
            return "image", f"pod {pod['metadata']['name']}: {what}", None, not passing
    return None


def _passes(why: str) -> bool:
    """Whether a pull that failed may succeed when it is tried again: only what is known to."""
    return bool(_PASSING.search(why)) and not _FINAL.search(why)


def _failed_pull(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> str:
    """Why a pull failed last: a pod that waits for the next one does not say it on every cluster."""
    told = [str(event.get("message", "")) for event in _of(pod, events) if event.get("reason") == "Failed"]
    return next((message for message in reversed(told) if message.startswith("Failed to pull image")), "")


def _crash(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    for container in _all_containers(pod):
        restarts = int(container.get("restartCount", 0))
        if not restarts:
            continue
        if "running" in container.get("state", {}) and is_ready(pod) and restarts < CRASHES:
            continue  # it came back
        last = container.get("lastState", {}).get("terminated") or container.get("state", {}).get("terminated") or {}
        why = f"exit code {last.get('exitCode', '?')}" + (
            f", {last['reason']}" if last.get("reason") not in (None, "Error") else ""
        )
        times = "once" if restarts == 1 else f"{restarts} times"
        said = f"pod {pod['metadata']['name']} ended {times} by itself, last with {why}"
        return "crash", said, pod["metadata"]["name"], restarts >= CRASHES
    return None


def _unschedulable(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            said = f"pod {pod['metadata']['name']} finds no node: {condition.get('message', condition.get('reason', ''))}"
            return "unschedulable", said, None, False
    return None


def _containers(pod: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = pod.get("status", {}).get("containerStatuses", [])
    return found


def _all_containers(pod: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Also those that have to end before the others start."""
    return [*pod.get("status", {}).get("initContainerStatuses", []), *_containers(pod)]


def _of(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("involvedObject", {}).get("name") == pod["metadata"]["name"]]


def _said(event: Mapping[str, Any]) -> str:
    thing = event.get("involvedObject", {})
    return f"{thing.get('kind', '')} {thing.get('name', '')}: {event.get('message', '')}"


def _quoted(log: str, pod: str | None = None) -> str:
    if not log.strip():
        return ""
    return f"; the log{f' of {pod}' if pod else ''} ends with:\n{log.strip()}"
