"""The objects of a service on Kubernetes, as plain data: pure functions, the same for KubeCluster, YAML and Pulumi."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any, Literal

from canarykit.clusters.kube.workloads.template import merged, read_template
from canarykit.errors import PlanError
from canarykit.model import ROLES, Role, Service, Version
from canarykit.places import version_name
from canarykit.protocol import METRICS_PORT

__all__ = [
    "BUILD",
    "MANAGER",
    "MAX_MODEL_BYTES",
    "SETTINGS",
    "Model",
    "Workload",
    "build_of",
    "check_name",
    "deployment",
    "labels",
    "model_map",
    "namespace",
    "objects",
    "service_object",
    "settings_of",
]

MANAGER = "canarykit"
BUILD = "canarykit.dev/build"
"""Annotation of a Deployment: which build of the service it runs."""

SETTINGS = "canarykit.dev/settings"
"""Annotation of a Deployment: short name of what its pods are given beside the build."""

MAX_MODEL_BYTES = 1_000_000
"""A ConfigMap holds one mebibyte, its name and labels included."""

SERVER = "server"
"""Name of the container that serves."""

MODEL_FOLDER, MODEL_FILE = "/models", "model.skops"
LEAVE_LISTS = 5
"""Seconds that a pod answers on after it was asked to end, until no gateway sends it anything new."""

LINGER = 5
"""Seconds that the kit's own server answers on after those, and asks clients to leave the connections they keep open."""

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[\w][\w.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)


def _default_resources() -> Mapping[str, Mapping[str, str]]:
    return {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}


@dataclass(frozen=True)
class Workload:
    """What the pods of a service need, beside what their versions say.

    Parameters
    ----------
    port : int
        Where the server listens in its pod.
    service_port : int
        Where the Services listen.
    service_type : {"LoadBalancer", "ClusterIP", "NodePort"}, optional
        Type of both Services; by default ``LoadBalancer``, or ``ClusterIP`` where a router fronts them.
    resources : mapping
        Requests and limits of the server's container.
    gpus : int
        GPUs per pod.
    gpu_resource : str
        The cluster's name for the resource.
    node_selector : mapping of str to str
        Labels that a node must have.
    server_image : str, optional
        Serves versions given as ``model=``; the kit's own, of this version, by default.
    pull_policy : str, optional
        Pull policy of images: ``IfNotPresent``, ``Always``, ``Never``; the cluster's own rule by default.
    grace : int
        Seconds that a pod has to end, when it is replaced or retired: five to leave the gateway's lists, five to take leave
        of its clients' connections, the rest to finish what it has begun. The answer of a language model may take minutes;
        what is not finished then is cut off.
    template : str, path or mapping, optional
        Patch of the pod template that is merged over the kit's own (a strategic merge patch: ``metadata`` and ``spec``), or a
        YAML file with it: secrets, volumes, init and side containers, tolerations. The container ``server`` serves.
    """

    port: int = 8080
    service_port: int = 80
    service_type: Literal["LoadBalancer", "ClusterIP", "NodePort"] | None = None
    resources: Mapping[str, Any] = field(default_factory=_default_resources)
    gpus: int = 0
    gpu_resource: str = "nvidia.com/gpu"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    server_image: str | None = None
    pull_policy: str | None = None
    grace: int = 40
    template: str | Path | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.service_type not in (None, "LoadBalancer", "ClusterIP", "NodePort"):
            raise PlanError(f"service_type must be LoadBalancer, ClusterIP or NodePort, not {self.service_type!r}")
        for name in ("port", "service_port"):
            if not 0 < getattr(self, name) < 65536:
                raise PlanError(f"{name} must be 1 to 65535, not {getattr(self, name)}")
        if self.gpus < 0:
            raise PlanError(f"gpus must be 0 or more, not {self.gpus}")
        if not isinstance(self.grace, int) or self.grace <= LEAVE_LISTS + LINGER:
            raise PlanError(f"grace must be a whole number of seconds above {LEAVE_LISTS + LINGER}, not {self.grace!r}")
        if self.template is not None:
            object.__setattr__(self, "template", read_template(self.template))

    def fronted(self) -> Workload:
        """Return the same behind a router: no load balancer for each version, unless one was asked for."""
        return self if self.service_type else replace(self, service_type="ClusterIP")

    @property
    def image(self) -> str:
        """Image that serves versions given as ``model=``."""
        return self.server_image or f"canarykit-server:{version_of('canarykit')}"


@dataclass(frozen=True, slots=True)
class Model:
    """A model file, to be mounted beside the kit's own server.

    Parameters
    ----------
    content : bytes
        Content of a ``.skops`` file.
    trusted : tuple of str
        Types in it that may be loaded beside scikit-learn's and the kit's own.

    Raises
    ------
    PlanError
        It is too large for a ConfigMap.
    """

    content: bytes
    trusted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.content) > MAX_MODEL_BYTES:
            raise PlanError(
                f"the model file has {len(self.content):,} bytes, and a ConfigMap takes {MAX_MODEL_BYTES:,}: build an image "
                "that holds the model (FROM the kit's server image), and give the version as image="
            )

    @property
    def digest(self) -> str:
        """Short name of the content."""
        return hashlib.sha256(self.content).hexdigest()[:10]


def labels(service: Service, role: Role | None = None) -> dict[str, str]:
    """Recommended labels of an object of the service."""
    common = {
        "app.kubernetes.io/name": service.name,
        "app.kubernetes.io/component": "model-server",
        "app.kubernetes.io/part-of": service.name,
        "app.kubernetes.io/managed-by": MANAGER,
    }
    if role is None:
        return common
    return {
        **common,
        "app.kubernetes.io/instance": version_name(service.name, role),
        "app.kubernetes.io/version": _label(service.version(role).name),
    }


def selector(service: Service, role: Role) -> dict[str, str]:
    """Labels that pick the pods of a role; the role, not the model's version: selectors cannot be changed."""
    return {"app": service.name, "version": role}


def build_of(version: Version, model: Model | None) -> str:
    """Name of the build that a version is: two of the same name are the same code."""
    return f"{version.name} {version.image or (model.digest if model else '')}".strip()


def settings_of(container: Mapping[str, Any]) -> str:
    """Short name of a container's environment and resources: the same code may behave otherwise with others."""
    given = json.dumps([container.get("env"), container.get("resources")], sort_keys=True)
    return hashlib.sha256(given.encode()).hexdigest()[:10]


def namespace(name: str) -> dict[str, Any]:
    """Return the Namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": MANAGER}},
    }


def model_map(service: Service, role: Role, model: Model) -> dict[str, Any]:
    """Return the ConfigMap that holds a model; named after its content, so that a rolling update keeps the old one."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{service.name}-model-{model.digest}", "labels": labels(service)},
        "immutable": True,
        "binaryData": {MODEL_FILE: base64.b64encode(model.content).decode()},
    }


def deployment(service: Service, role: Role, workload: Workload, model: Model | None = None) -> dict[str, Any]:
    """Return the Deployment of a role.

    Parameters
    ----------
    service : Service
        Names, versions, environment, replicas.
    role : {"stable", "canary"}
        Which of its versions.
    workload : Workload
        Settings of its pods.
    model : Model, optional
        Model of a version given as ``model=``.

    Raises
    ------
    PlanError
        A name, an image or a version that Kubernetes cannot run.
    """
    check(service)
    version = service.version(role)
    named = labels(service, role)
    container = _container(service, role, workload, model)
    pod: dict[str, Any] = {
        "terminationGracePeriodSeconds": workload.grace,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    if workload.node_selector:
        pod["nodeSelector"] = dict(workload.node_selector)
    if model is not None:
        pod["securityContext"] = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
        pod["volumes"] = [{"name": "model", "configMap": {"name": f"{service.name}-model-{model.digest}"}}]
    template: dict[str, Any] = {"metadata": {"labels": {**selector(service, role), **named}}, "spec": pod}
    if isinstance(workload.template, Mapping):
        template = _patched(template, workload.template)
        container = next(each for each in template["spec"]["containers"] if each["name"] == SERVER)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": version_name(service.name, role),
            "labels": {**selector(service, role), **named},
            "annotations": {BUILD: build_of(version, model), SETTINGS: settings_of(container)},
        },
        "spec": {
            "replicas": service.replicas,
            "selector": {"matchLabels": selector(service, role)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": template,
        },
    }


def _patched(template: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a team's patch over the kit's pod template, but let it take nothing that a rollout needs.

    Raises
    ------
    PlanError
        It changes the labels that tell the versions apart, or removes the container that serves.
    """
    made, labelled = merged(template, patch), template["metadata"]["labels"]
    for key in ("app", "version"):
        if made["metadata"].get("labels", {}).get(key) != labelled[key]:
            raise PlanError(f"template= changes the label {key}, which tells the versions apart: leave it out")
    if SERVER not in [each["name"] for each in made["spec"]["containers"]]:
        raise PlanError(f"template= removes the container {SERVER}, which serves")
    return made


def service_object(service: Service, role: Role, workload: Workload) -> dict[str, Any]:
    """Return the Service of a role."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": version_name(service.name, role), "labels": {**selector(service, role), **labels(service, role)}},
        "spec": {
            "type": workload.service_type or "LoadBalancer",
            "selector": selector(service, role),
            "ports": [_service_port(service.version(role), workload)],
        },
    }


def _service_port(version: Version, workload: Workload) -> dict[str, Any]:
    port = {"name": "http", "port": workload.service_port, "targetPort": workload.port, "protocol": "TCP"}
    return port if version.protocol == "http" else {**port, "appProtocol": f"kubernetes.io/{version.protocol}"}


def objects(service: Service, workload: Workload, models: Mapping[Role, Model] | None = None) -> list[dict[str, Any]]:
    """Return all objects of a service in a namespace that is there: model files, Deployments, Services.

    Parameters
    ----------
    service : Service
        Both versions.
    workload : Workload
        Settings of their pods.
    models : mapping of role to Model, optional
        Files of the versions given as ``model=``.
    """
    models = models or {}
    maps = {
        model_map(service, role, model)["metadata"]["name"]: model_map(service, role, model) for role, model in models.items()
    }
    return [
        *maps.values(),
        *(deployment(service, role, workload, models.get(role)) for role in ROLES),
        *(service_object(service, role, workload) for role in ROLES),
    ]


def check(service: Service) -> None:
    """Refuse what Kubernetes would refuse, before anything is written.

    Raises
    ------
    PlanError
        Says what, and what to do.
    """
    check_name(service.name)
    for role in ROLES:
        version = service.version(role)
        if version.command is not None:
            raise PlanError(f"version {version.name!r} is a command, and a cluster runs images: give it image= or model=")
        if version.image is not None and not _IMAGE.fullmatch(version.image):
            raise PlanError(f"{version.image!r} of version {version.name!r} is no name of an image, such as registry/name:tag")


def check_name(name: str) -> None:
    """Refuse the name of a service of which no objects can be named.

    Raises
    ------
    PlanError
        Says which names there are.
    """
    if not _NAME.fullmatch(name):
        raise PlanError(f"on Kubernetes a service is named with lower-case letters, digits and '-', 52 at most, not {name!r}")


def _container(service: Service, role: Role, workload: Workload, model: Model | None) -> dict[str, Any]:
    version = service.version(role)
    env = {**service.env, **version.env, "PORT": str(workload.port), "CANARYKIT_ROLE": role}
    probe = {"httpGet": {"path": version.ready, "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 2}
    container: dict[str, Any] = {
        "name": SERVER,
        "image": version.image or workload.image,
        "ports": [{"name": "http", "containerPort": workload.port, "protocol": "TCP"}],
        "env": [{"name": name, "value": str(env[name])} for name in sorted(env)],
        "resources": _resources(workload) if version.resources is None else dict(version.resources),
        # A server may take long to load its model; once it has answered, three missed seconds take it off the lists.
        "startupProbe": {**probe, "failureThreshold": 600},
        "readinessProbe": {**probe, "failureThreshold": 3},
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_LISTS}}},
    }
    if version.args is not None:
        container["args"] = list(version.args)
    if workload.pull_policy or version.image is None:
        container["imagePullPolicy"] = workload.pull_policy or "IfNotPresent"
    if version.image is None:
        if model is None:
            raise PlanError(f"version {version.name!r} is a model, and its file is missing")
        if workload.port == METRICS_PORT:
            raise PlanError(f"at port {METRICS_PORT} the kit's own server shows its metrics: give Workload another port=")
        container["ports"].append({"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"})
        container["args"] = _arguments(service, version, workload, model.trusted)
        container["volumeMounts"] = [{"name": "model", "mountPath": MODEL_FOLDER, "readOnly": True}]
        container["securityContext"] = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    return container


def _arguments(service: Service, version: Version, workload: Workload, trusted: Sequence[str]) -> list[str]:
    words = ["--model", f"{MODEL_FOLDER}/{MODEL_FILE}", "--name", service.name, "--version", version.name]
    words += ["--host", "0.0.0.0", "--port", str(workload.port)]
    words += ["--linger", str(LINGER), "--drain", str(workload.grace - LEAVE_LISTS - LINGER)]
    for name in trusted:
        words += ["--trusted", name]
    return words


def _resources(workload: Workload) -> dict[str, Any]:
    asked = {kind: dict(amounts) for kind, amounts in workload.resources.items()}
    if workload.gpus:
        asked.setdefault("limits", {})[workload.gpu_resource] = str(workload.gpus)
    return asked


def _label(text: str) -> str:
    """Nearest value that a label may have."""
    kept = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63]
    return kept.strip("-_.") or "unnamed"
