"""The canary as a copy of a team's own Deployment and Service: what is copied, what differs, what cannot be. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from canarykit.clusters.kube.workloads.selectors import equal
from canarykit.errors import PlanError
from canarykit.model import Version

__all__ = ["SUFFIX", "Original", "copy_of", "find_original", "label_of", "merge_patch", "replacing", "runs"]

SUFFIX = "-canary"

_TRACKING = (
    "argocd.argoproj.io/", "helm.sh/", "meta.helm.sh/", "kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/",
    "deployment.kubernetes.io/revision", "kubectl.kubernetes.io/last-applied-configuration",
    "autoscaling.alpha.kubernetes.io/",
)  # fmt: skip
"""How the names of labels and annotations begin by which tools know what they made: they would take the copy for theirs."""

_PREFERRED = ("app.kubernetes.io/name", "app", "app.kubernetes.io/instance", "name")
_LONGEST = 63
_KEPT = ("strategy", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit")
_REPLACED = ("image", "command", "args", "env", "envFrom", "resources")
"""Fields of the container that serves which a promotion writes."""


@dataclass(frozen=True, slots=True)
class Original:
    """A team's own Deployment and Service, as they were read.

    Parameters
    ----------
    deployment, service : mapping
        Whole objects.
    container : str
        Name of the container that serves the Service's port.
    port : int
        Port on which that container listens.
    """

    deployment: Mapping[str, Any]
    service: Mapping[str, Any]
    container: str
    port: int

    @property
    def name(self) -> str:
        """Name of the Deployment."""
        return str(self.deployment["metadata"]["name"])

    @property
    def ready(self) -> str | None:
        """Path of the container's own readiness probe; None where it has none over HTTP."""
        path: str | None = self.serving.get("readinessProbe", {}).get("httpGet", {}).get("path")
        return path

    @property
    def serving(self) -> Mapping[str, Any]:
        """Container that serves."""
        return _container(self.deployment, self.container)


def find_original(
    deployment: Mapping[str, Any],
    services: Sequence[Mapping[str, Any]],
    *,
    container: str | None = None,
    service: str | None = None,
) -> Original:
    """Find what belongs to a team's Deployment: its Service, and the container that serves.

    Parameters
    ----------
    deployment : mapping
        The Deployment.
    services : sequence of mappings
        All Services of its namespace.
    container, service : str, optional
        Names, where more than one could be meant.

    Raises
    ------
    PlanError
        There is no such Service or container, or more than one.
    """
    name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
    labels = template["metadata"].get("labels") or {}
    leading = [each for each in services if equal(each["spec"].get("selector"), labels)]
    if service is not None:
        leading = [each for each in leading if each["metadata"]["name"] == service]
    named = [each["metadata"]["name"] for each in leading]
    if not leading:
        which = f"Service {service} does not select" if service else "no Service selects"
        raise PlanError(f"{which} the pods of Deployment {name}, so that no route leads to them: give service=, or add one")
    if len(leading) > 1:
        own = [each for each in leading if each["metadata"]["name"] == name]
        if len(own) != 1:
            raise PlanError(f"Services {', '.join(named)} all select the pods of Deployment {name}: say which with service=")
        leading = own
    (found,) = leading
    chosen, port = _serving(name, template["spec"]["containers"], found, container)
    return Original(deployment, found, chosen, port)


def _serving(
    name: str, containers: Sequence[Mapping[str, Any]], service: Mapping[str, Any], given: str | None
) -> tuple[str, int]:
    """Return the container that serves the first port of a Service, and its port."""
    first = service["spec"]["ports"][0]
    target = first.get("targetPort", first["port"])
    if given is not None:
        containers = [each for each in containers if each["name"] == given]
        if not containers:
            raise PlanError(f"Deployment {name} has no container {given!r}")
    for each in containers:
        for port in each.get("ports") or ():
            if target in (port.get("name"), port["containerPort"]):
                return str(each["name"]), int(port["containerPort"])
    if len(containers) == 1 and isinstance(target, int):  # a container need not say its ports
        return str(containers[0]["name"]), target
    raise PlanError(
        f"no container of Deployment {name} says that it serves port {target!r} of Service {service['metadata']['name']} "
        f"(there are {', '.join(str(each['name']) for each in containers)}): say which with container="
    )


def label_of(original: Original) -> str:
    """Return the label that both objects select on by its value, and that has another value in the copy.

    Raises
    ------
    PlanError
        There is none, so that the copy's pods could not be told apart.
    """
    service, selector = original.service, original.deployment["spec"]["selector"]
    expressed = {expression["key"] for expression in selector.get("matchExpressions") or ()}
    both = [
        key
        for key in selector.get("matchLabels") or {}
        if key in (service["spec"].get("selector") or {}) and key not in expressed
    ]
    if not both:
        raise PlanError(
            f"Deployment {original.name} and Service {service['metadata']['name']} have no label in common that both select on "
            "by its value, so that a copy of the pods could not be told apart: bring up the canary yourself, and name both "
            "Deployments"
        )
    chosen: str = min(both, key=lambda key: (_PREFERRED.index(key) if key in _PREFERRED else len(_PREFERRED), key))
    return chosen


def copy_of(
    original: Original,
    version: Version,
    *,
    env: Mapping[str, str],
    labels: Mapping[str, str],
    claims: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """Return the canary's Deployment, with one pod, and its Service.

    Parameters
    ----------
    original : Original
        The team's objects; they stay as they are.
    version : Version
        Image, environment, arguments and resources that differ in the container that serves.
    env : mapping of str to str
        Environment of both versions, added before that of the version.
    labels : mapping of str to str
        Labels by which the kit finds what it made.
    claims : mapping of str to sequence of str
        Access modes of the PersistentVolumeClaims of the namespace, by name.

    Raises
    ------
    PlanError
        Two pods cannot share a volume, a port of the node or a node; or the copy cannot be told apart.
    """
    label = label_of(original)
    source, matched = original.deployment["spec"], original.deployment["spec"]["selector"]["matchLabels"]
    _check_shareable(original.name, source["template"]["spec"], claims)
    before, after = matched[label], suffixed(matched[label])
    template = deepcopy(dict(source["template"]))
    meta = _without_tracking(template["metadata"])
    template["metadata"] = {**meta, "labels": {**meta["labels"], label: after}}
    _point_to_copies(template["spec"], label, before, after)
    template["spec"]["containers"] = [
        _changed(each, version, env) if each["name"] == original.container else each for each in template["spec"]["containers"]
    ]
    named = _without_tracking(original.deployment["metadata"])
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**named, "name": suffixed(original.name), "labels": {**named.get("labels", {}), **labels}},
        "spec": {
            **{key: source[key] for key in _KEPT if key in source},
            "replicas": 1,
            "selector": {**source["selector"], "matchLabels": {**matched, label: after}},
            "template": template,
        },
    }
    return [deployment, _service_of(original, label, after, labels)]


def _service_of(original: Original, label: str, value: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return the Service of the copy: the same ports, reached from inside the cluster."""
    spec, meta = original.service["spec"], _without_tracking(original.service["metadata"])
    kept = ("name", "port", "targetPort", "protocol", "appProtocol")
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": suffixed(original.service["metadata"]["name"]), "labels": {**meta.get("labels", {}), **labels}},
        "spec": {
            "type": "ClusterIP",
            "selector": {**spec["selector"], label: value},
            "ports": [{key: port[key] for key in kept if key in port} for port in spec["ports"]],
        },
    }


def replacing(deployment: Mapping[str, Any], container: str, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a JSON patch that gives a Deployment's container what another one has of image, command, environment, resources.

    Parameters
    ----------
    deployment : mapping
        The Deployment, as it was read.
    container : str
        Name of its container.
    wanted : mapping
        A container that has what it is to have.

    Returns
    -------
    list
        Empty when there is nothing to change; it fails where somebody has meanwhile put other containers in.
    """
    names = [each["name"] for each in deployment["spec"]["template"]["spec"]["containers"]]
    now, path = _container(deployment, container), f"/spec/template/spec/containers/{names.index(container)}"
    changes: list[dict[str, Any]] = []
    for key in _REPLACED:
        if wanted.get(key) == now.get(key):
            continue
        change = {"op": "add", "value": wanted[key]} if key in wanted else {"op": "remove"}
        changes.append({**change, "path": f"{path}/{key}"})
    return [{"op": "test", "path": f"{path}/name", "value": container}, *changes] if changes else []


def runs(container: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether a container has what another one has of the fields that a promotion changes, in whatever order of variables."""
    return all(_unordered(container.get(key)) == _unordered(wanted.get(key)) for key in _REPLACED)


def merge_patch(original: Original, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return a strategic merge patch, as Kustomize takes it, that gives the team's container what the canary's has.

    Parameters
    ----------
    original : Original
        The team's objects.
    wanted : mapping
        The canary's container.
    """
    now = original.serving
    fields = {key: wanted[key] for key in _REPLACED if key != "env" and key in wanted and wanted[key] != now.get(key)}
    variables = [each for each in wanted.get("env") or () if each not in (now.get("env") or ())]
    changed = {"name": original.container, **fields, **({"env": variables} if variables else {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": original.name},
        "spec": {"template": {"spec": {"containers": [changed]}}},
    }


def _unordered(value: Any) -> Any:
    return {each["name"]: each for each in value} if isinstance(value, list) and value and "name" in value[0] else value or None


def suffixed(name: str) -> str:
    """Return the name, or the value of a label, that the copy has.

    Raises
    ------
    PlanError
        It would be too long for a name.
    """
    if len(name) + len(SUFFIX) > _LONGEST:
        raise PlanError(f"{name}{SUFFIX} is longer than the {_LONGEST} letters of a name: {name!r} cannot be copied")
    return name + SUFFIX


def _container(deployment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(
        each for each in deployment["spec"]["template"]["spec"]["containers"] if each["name"] == name
    )
    return found


def _changed(container: Mapping[str, Any], version: Version, env: Mapping[str, str]) -> dict[str, Any]:
    """Return a container with what a version says of it; all else stays."""
    given = {**env, **version.env}
    variables = [each for each in container.get("env") or () if each["name"] not in given]
    variables += [{"name": name, "value": value} for name, value in given.items()]
    changed = {
        "image": version.image,
        "args": list(version.args) if version.args is not None else None,
        "resources": version.resources,
        "env": variables or None,
    }
    return {**container, **{key: value for key, value in changed.items() if value is not None}}


def _without_tracking(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Labels and annotations that are people's own; a tool that finds its mark on the copy would take it for its own."""
    fields = {field: metadata.get(field) or {} for field in ("labels", "annotations")}
    kept = {
        field: {key: text for key, text in pairs.items() if not key.startswith(_TRACKING)} for field, pairs in fields.items()
    }
    return {field: pairs for field, pairs in kept.items() if pairs}


def _point_to_copies(pod: dict[str, Any], label: str, before: str, after: str) -> None:
    """Have rules that spread the pods apart, or keep them together, mean the copy's pods where they meant the original's."""
    affinity = pod.get("affinity") or {}
    terms = [
        term.get("podAffinityTerm", term)
        for kind in ("podAffinity", "podAntiAffinity")
        for terms in (affinity.get(kind) or {}).values()
        for term in terms
    ]
    for rule in (*terms, *(pod.get("topologySpreadConstraints") or ())):
        matched = (rule.get("labelSelector") or {}).get("matchLabels") or {}
        if matched.get(label) == before:
            matched[label] = after


def _check_shareable(name: str, pod: Mapping[str, Any], claims: Mapping[str, Sequence[str]]) -> None:
    """Refuse what two pods cannot both have."""
    why = []
    if pod.get("nodeName"):
        why.append("its pods name a node (nodeName)")
    ports = [port["hostPort"] for each in pod["containers"] for port in each.get("ports") or () if port.get("hostPort")]
    if ports:
        why.append(f"its pods take port {', '.join(map(str, ports))} of their node (hostPort)")
    for volume in pod.get("volumes") or ():
        claim = volume.get("persistentVolumeClaim", {})
        modes = claims.get(claim.get("claimName", ""), ())
        if claim and not claim.get("readOnly") and not {"ReadWriteMany", "ReadOnlyMany"} & set(modes):
            why.append(
                f"claim {claim['claimName']} of volume {volume['name']} is for one node ({', '.join(modes) or 'not found'})"
            )
    if why:
        raise PlanError(
            f"Deployment {name} cannot be copied: {'; '.join(why)}. Bring up the canary yourself, and name both Deployments"
        )
