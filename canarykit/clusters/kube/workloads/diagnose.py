"""Why a pod does not come up: from what the cluster says of it to one sentence. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CRASHES", "Finding", "diagnose", "is_ready", "progress", "refusal", "sentence", "serving", "unready"]

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

_NOT_STARTED = ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedMapVolume")

_ADVICE = {
    "image": "Check the name and tag of image=, and that the nodes may pull it.",
    "crash": "Check what it needs at its start: environment, model file, memory.",
    "probe": "Check ready=, the port, and how long it takes to load.",
    "unschedulable": "Check resources=, gpus= and node_selector= against the nodes.",
    "quota": "Check the namespace's quota against resources= and replicas=.",
    "policy": "Check the Pod Security level of the namespace against what export() writes.",
    "webhook": "Ask who runs that webhook what it wants; export() writes what it was asked to admit.",
    "refused": "Check what export() writes against the rules of the namespace.",
    "evicted": "Check resources= against what the pods use and what the node has.",
    "node": "Check that node: kubectl describe node.",
    "start": "Check what the pod mounts, and the node.",
}

Finding = tuple[str, str, str | None, bool]
"""Kind of trouble, what the cluster says, the pod whose log tells more, and whether waiting cannot help."""


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod gets traffic: ready, and not on its way out."""
    conditions = {entry["type"]: entry["status"] for entry in pod.get("status", {}).get("conditions") or []}
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


def refusal(deployment: Mapping[str, Any]) -> str:
    """Why the API server refuses pods of a Deployment now, in its own words; empty when it does not."""
    for entry in deployment.get("status", {}).get("conditions", []):
        if entry["type"] == "ReplicaFailure" and entry["status"] == "True":
            return str(entry.get("message") or entry.get("reason") or "its pods are refused")
    return ""


def unready(pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the pods whose events may say why they are not ready."""
    return [pod["metadata"]["name"] for pod in pods if not is_ready(pod) and "deletionTimestamp" not in pod["metadata"]]


def diagnose(
    pods: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    *,
    refused: str = "",
    served: bool = False,
) -> Finding | None:
    """Return what stands in the way of a version, the worst first; None when nothing is known to.

    Parameters
    ----------
    pods : sequence of mappings
        Pods of the version.
    events : sequence of mappings
        Events of those pods that are not ready, oldest first.
    refused : str
        Why the API server makes no pods, in its own words.
    served : bool
        Whether others of the version serve: one that lacks its image on another node then says nothing about the version,
        and one that has crashed twice may still come back.
    """
    for find in (_keeps_crashing, _unschedulable) if served else (_image, _crash, _unschedulable):
        for pod in pods:
            found = find(pod, events)
            if found is not None:
                return found
    if refused:
        return _refused(refused)
    for find in (_evicted, _node, _not_started, _probe):
        for pod in pods:
            found = find(pod, events)
            if found is not None:
                return found
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
    for container in _all_containers(pod) if "deletionTimestamp" not in pod["metadata"] else ():
        restarts, state = int(container.get("restartCount", 0)), container.get("state", {})
        loops = state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
        if not restarts and not loops:
            continue
        if "running" in state and is_ready(pod) and restarts < CRASHES:
            continue  # it came back
        last = container.get("lastState", {}).get("terminated") or state.get("terminated") or {}
        why = f"exit code {last.get('exitCode', '?')}" + (
            f", {last['reason']}" if last.get("reason") not in (None, "Error") else ""
        )
        ends = restarts + loops  # while it waits for the next start, the last end is not counted yet
        times = {1: "once", 2: "twice"}.get(ends, f"{ends} times")
        said = f"pod {pod['metadata']['name']} ended {times} by itself, last with {why}"
        return "crash", said, pod["metadata"]["name"], restarts >= CRASHES or (loops and ends > 1)
    return None


def _keeps_crashing(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    """As `_crash`, beside pods that serve: only what ended often will not come back."""
    found = _crash(pod, events)
    often = any(int(container.get("restartCount", 0)) >= CRASHES for container in _all_containers(pod))
    return found and (*found[:3], often)


def _refused(said: str) -> Finding:
    """Pods that the API server does not make; that a webhook did not answer may pass."""
    lower = said.lower()
    kind = "refused"
    for known, word in (("quota", "quota"), ("policy", "podsecurity"), ("webhook", "webhook")):
        if word in lower:
            kind = known
            break
    passing = "failed calling webhook" in lower or _passes(said)
    return kind, f"its pods are refused: {said}", None, not passing


def _evicted(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    status, name = pod.get("status", {}), pod["metadata"]["name"]
    if status.get("phase") == "Failed" and status.get("reason"):
        return "evicted", f"pod {name} was ended by its node ({status['reason']}): {status.get('message', '')}", None, False
    for condition in status.get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            said = f"pod {name} was evicted ({condition.get('reason', '')}): {condition.get('message', '')}"
            return "evicted", said, None, False
    return None


def _node(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    """A node that reports no more: the pod is taken off the lists while its containers were ready the last time."""
    containers = _containers(pod)
    if is_ready(pod) or "deletionTimestamp" in pod["metadata"] or not containers:
        return None
    gates = [entry["conditionType"] for entry in pod.get("spec", {}).get("readinessGates", [])]
    if not all(container.get("ready") for container in containers) or pod.get("status", {}).get("phase") != "Running":
        return None
    if gates:
        said = f"pod {pod['metadata']['name']} waits for its readiness gate {', '.join(gates)}"
        return "probe", said, pod["metadata"]["name"], False
    node = pod.get("spec", {}).get("nodeName", "?")
    return "node", f"pod {pod['metadata']['name']} is off the lists because node {node} reports no more", None, False


def _not_started(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    """A volume, or the pod's network, that the node cannot give it."""
    if pod.get("status", {}).get("phase") != "Pending":
        return None
    failed = [event for event in _of(pod, events) if event.get("reason") in _NOT_STARTED]
    return ("start", _said(failed[-1]), None, False) if failed else None


def _probe(pod: Mapping[str, Any], events: Sequence[Mapping[str, Any]]) -> Finding | None:
    if is_ready(pod) or pod.get("status", {}).get("phase") != "Running":
        return None
    failed = [event for event in _of(pod, events) if event.get("reason") == "Unhealthy"]
    return ("probe", _said(failed[-1]), pod["metadata"]["name"], False) if failed else None


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
