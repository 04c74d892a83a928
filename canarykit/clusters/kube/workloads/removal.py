"""What is removed, and what stays: nothing is taken away that a live route leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.workloads.diagnose import is_ready
from canarykit.clusters.kube.workloads.selectors import equal
from canarykit.routers.references import References, references

__all__ = ["Staying", "carried_by", "leads_to", "remove_unused", "selects", "staying"]

_LAST = ("Service", "Deployment", "ConfigMap")
"""Kinds that something else may lead to, in the order in which they lead to each other; all others go first."""


@dataclass(frozen=True, slots=True)
class Staying:
    """What must not be removed, and why.

    Parameters
    ----------
    services, deployments, maps : frozenset of str
        Names.
    because : tuple of str
        Routes that lead to them.
    allowed : str
        Routes that may lead to them and could not be seen; empty when there is none.
    doubt : str
        Objects that do not stay although a route may lead to them; empty when that is known.
    """

    services: frozenset[str] = frozenset()
    deployments: frozenset[str] = frozenset()
    maps: frozenset[str] = frozenset()
    because: tuple[str, ...] = ()
    allowed: str = ""
    doubt: str = ""

    def holds(self, kind: str, name: str) -> bool:
        """Whether an object stays."""
        held = {"Service": self.services, "Deployment": self.deployments, "ConfigMap": self.maps}
        return name in held.get(kind, ())

    def told(self, namespace: str) -> str:
        """Say what stays, why, and what to do; empty when nothing does."""
        held = {"Service": sorted(self.services), "Deployment": sorted(self.deployments)}
        several = len(self.services) + len(self.deployments) > 1
        if not any(held.values()):
            return ""
        what = " and ".join(f"{kind}{'s' * (len(names) > 1)} {_listed(names)}" for kind, names in held.items() if names)
        named = " ".join(f"{kind.lower()}/{name}" for kind, names in held.items() for name in names)
        lead = "lead" if len(self.because) > 1 else "leads"
        seen = f"{_listed(self.because)} still {lead} to {'them' if several else 'it'}" if self.because else ""
        because = ", and because ".join(words for words in (seen, self.allowed) if words)
        return (
            f"{what} {'stay' if several else 'stays'}, because {because}: without, users would get errors. "
            f"When no route does any more: kubectl -n {namespace} delete {named}"
        )


def staying(client: Client, services: Iterable[Mapping[str, Any]], deployments: Sequence[Mapping[str, Any]]) -> Staying:
    """Find out what of these objects a live route leads to.

    Parameters
    ----------
    client : Client
        The namespace.
    services, deployments : of mappings
        Objects that are to be removed. Deployments stay, too, where a route leads to them through a Service that is not
        among these.
    """
    mine = {body["metadata"]["name"] for body in services}
    fronting = [body for body in client.list("Service") if any(selects(body, deployment) for deployment in deployments)]
    asked = mine | {body["metadata"]["name"] for body in fronting}
    seen: References = references(client, asked)
    fronts = [body for body in fronting if seen.held(body["metadata"]["name"])]
    held = [deployment for deployment in deployments if any(selects(front, deployment) for front in fronts)]
    because = dict.fromkeys(route for routes in seen.by.values() for route in routes)
    return Staying(
        frozenset(name for name in mine if seen.held(name)),
        frozenset(deployment["metadata"]["name"] for deployment in held),
        frozenset(name for deployment in held for name in _maps(deployment)),
        tuple(because),
        seen.allowed(asked),
        seen.doubt(asked),
    )


def remove_unused(client: Client, made: Sequence[tuple[str, str]], notify: Callable[[str], object]) -> bool:
    """Delete objects, but none that a live route leads to; return whether all are deleted.

    Parameters
    ----------
    client : Client
        The namespace.
    made : sequence of (str, str)
        Kind and name of each.
    notify : callable
        Is told what stays, and why.
    """
    for kind, name in made:
        if kind not in _LAST:  # routes above all: what the kit made itself leads nowhere then
            client.delete(kind, name)
    left = [(kind, name) for kind in _LAST for known, name in made if known == kind]
    bodies = [(kind, found) for kind, name in left if kind != "ConfigMap" and (found := client.get(kind, name)) is not None]
    stays = staying(
        client, [body for kind, body in bodies if kind == "Service"], [body for kind, body in bodies if kind == "Deployment"]
    )
    if stays.doubt:  # before anything is gone
        notify(stays.doubt)
    for kind, name in left:
        if not stays.holds(kind, name):
            client.delete(kind, name)
    if said := stays.told(client.namespace):
        notify(said)
    return not said


def carried_by(client: Client, app: str, service: str, notify: Callable[[str], object] = lambda line: None) -> str | None:
    """Routes that still send requests to a Service, in words: other ones than the kit's, with a weight; None when none does.

    A route that somebody has allowed to do so, and that may not be seen, counts as one that does.

    Parameters
    ----------
    client : Client
        The namespace.
    app : str
        The kit's routes of this service are left out.
    service : str
        Name of the Service.
    notify : callable, optional
        Takes one line where nobody knows whether a route does.
    """
    seen = references(client, {service}, carrying=True, beside=app)
    if doubt := seen.doubt({service}):
        notify(doubt)
    if service in seen.by:
        return _listed(seen.by[service])
    allowed = seen.allowed({service})
    return f"perhaps a route of another namespace ({allowed})" if allowed else None


def selects(service: Mapping[str, Any], deployment: Mapping[str, Any]) -> bool:
    """Whether a Service leads to the pods of a Deployment."""
    labels = deployment.get("spec", {}).get("template", {}).get("metadata", {}).get("labels") or {}
    return equal(service.get("spec", {}).get("selector"), labels)


def leads_to(client: Client, selector: Mapping[str, str]) -> bool:
    """Whether a pod gets traffic that these labels pick: ready, and not on its way out."""
    if not selector:
        return True  # a Service without a selector has endpoints that somebody else writes
    found = client.list("Pod", ",".join(f"{key}={value}" for key, value in selector.items()))
    return any(map(is_ready, found))


def _maps(deployment: Mapping[str, Any]) -> list[str]:
    """ConfigMaps that a Deployment's pods mount."""
    volumes = deployment["spec"]["template"].get("spec", {}).get("volumes") or []
    return [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
