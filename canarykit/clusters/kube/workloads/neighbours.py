"""Objects of a namespace that would select the kit's pods by their labels, though they were made for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.workloads.selectors import equal, matches
from canarykit.errors import ClusterError, ForbiddenError

__all__ = ["ALLOWED", "Neighbours", "check_neighbours", "find_neighbours"]

ALLOWED = "canarykit.dev/selects-canary"
"""Annotation of a Service that is meant to select the canary's pods too, such as one that only leads to their metrics."""

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What selects the kit's pods beside the kit's own objects.

    Parameters
    ----------
    refused : tuple of str
        Sentences about Services that would send users to the canary, whatever its weight.
    told : tuple of str
        Sentences about what may be meant so: network policies, disruption budgets, autoscalers; and what could not be listed.
    """

    refused: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """All of it, as a plan shows it."""
        return (*(f"deploy() refuses: {line}" for line in self.refused), *self.told)


def check_neighbours(client: Client, bodies: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Refuse Services that would send users to the canary; return what else is to be told.

    Raises
    ------
    ClusterError
        Names each of them, and what to do.
    """
    found = find_neighbours(client, bodies)
    if found.refused:
        raise ClusterError("; ".join(found.refused))
    return found.told


def find_neighbours(client: Client, bodies: Sequence[Mapping[str, Any]]) -> Neighbours:
    """Find what selects the pods of these objects; nothing is written.

    Parameters
    ----------
    client : Client
        The namespace.
    bodies : sequence of mappings
        All objects that are to be written. Among them are the Deployments and Jobs whose pods are looked at, and the Services
        which are meant to select them.
    """
    pods = _pods_of(bodies)
    ours = {(body["kind"], body["metadata"]["name"]) for body in bodies}
    refused, told, unknown = [], [], []
    for kind, selects in _SELECTING.items():
        try:
            found = client.list(kind)
        except ForbiddenError:
            unknown.append(kind)
            continue
        for each in found:
            if (kind, each["metadata"]["name"]) in ours or _target(each) in ours:
                continue
            try:
                selected = [name for name, labels in pods.items() if selects(client, each, labels)]
            except ForbiddenError:
                scaled = " ".join(_target(each))
                told.append(
                    f"not known, for lack of permission to get {scaled}: whether {kind} {each['metadata']['name']}, which "
                    "scales it, takes the load of pods of this rollout into its average"
                )
                continue
            if not selected:
                continue
            if kind != "Service":
                told.append(f"{kind} {each['metadata']['name']} selects {_listed(selected)}: {_EFFECT[kind]}")
            elif set(selected) <= {name for name in pods if name.endswith("-stable")}:
                told.append(f"Service {each['metadata']['name']} sends requests to {_listed(selected)} as well")
            elif ALLOWED not in each["metadata"].get("annotations", {}):
                refused.append(_refusal(client.namespace, each, selected))
    if unknown:
        told.append(
            f"not known, for lack of permission to list them: whether a {' or '.join(unknown)} of namespace {client.namespace} "
            "selects pods of this rollout by accident"
        )
    return Neighbours(tuple(refused), tuple(told))


def _pods_of(bodies: Iterable[Mapping[str, Any]]) -> dict[str, Labels]:
    """Labels of the pods of each Deployment and Job, by its name."""
    return {
        body["metadata"]["name"]: body["spec"]["template"]["metadata"]["labels"]
        for body in bodies
        if body["kind"] in ("Deployment", "Job")
    }


def _service(client: Client, found: Mapping[str, Any], labels: Labels) -> bool:
    spec = found.get("spec", {})
    return spec.get("type") != "ExternalName" and equal(spec.get("selector"), labels)


def _policy(client: Client, found: Mapping[str, Any], labels: Labels) -> bool:
    return matches(found["spec"].get("podSelector") or {}, labels)


def _budget(client: Client, found: Mapping[str, Any], labels: Labels) -> bool:
    return matches(found["spec"].get("selector"), labels)


def _autoscaler(client: Client, found: Mapping[str, Any], labels: Labels) -> bool:
    """Whether it measures these pods: it takes the average over all that its target's selector selects."""
    kind, name = _target(found)
    scaled = client.get(kind, name) if kind in ("Deployment", "StatefulSet") else None
    return scaled is not None and matches(scaled["spec"].get("selector"), labels)


def _target(found: Mapping[str, Any]) -> tuple[str, str]:
    """What an autoscaler scales; nothing of other objects."""
    target = found.get("spec", {}).get("scaleTargetRef", {})
    return target.get("kind", ""), target.get("name", "")


_SELECTING: Mapping[str, Callable[[Client, Mapping[str, Any], Labels], bool]] = {
    "Service": _service,
    "NetworkPolicy": _policy,
    "PodDisruptionBudget": _budget,
    "HorizontalPodAutoscaler": _autoscaler,
}
_EFFECT = {
    "NetworkPolicy": "it decides who reaches these pods and whom they reach, so check that the gateway may",
    "PodDisruptionBudget": "these pods count among those that must stay when a node is drained",
    "HorizontalPodAutoscaler": "the load of these pods is in the average by which it scales its target",
}


def _refusal(namespace: str, found: Mapping[str, Any], selected: Sequence[str]) -> str:
    name = found["metadata"]["name"]
    pairs = ",".join(f"{key}={value}" for key, value in found["spec"]["selector"].items())
    return (
        f"Service {name} in namespace {namespace} is not part of this rollout and selects {pairs}, which {_listed(selected)} "
        f"have as well: its users would reach them whatever the weight is. Give the service another name, or narrow the "
        f"selector; if it is meant to select them: kubectl annotate -n {namespace} service {name} {ALLOWED}=true"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"the pods of {name}" for name in names)
