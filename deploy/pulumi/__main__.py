"""Two versions of an AI service on Kubernetes, by the configuration of the stack.

========================================  ==================================================================
``stable_image``, ``canary_image``        what runs; the only two that have no default
``stable_version``, ``canary_version``    what people call it; the image without its registry by default
``name``, ``namespace``                   ai-service, ai-services
``make_namespace``                        false where the namespace is there already
``replicas``                              pods per version
``port``, ``service_port``                where the pods listen and where the Services do: 8080, 80
``service_type``                          LoadBalancer, ClusterIP or NodePort
``ready``                                 path that answers 200 when a pod can serve
``env``, ``resources``                    of the containers, as in a manifest of Kubernetes
``grace``                                 seconds that a pod has to finish what it has begun: 40
``gateway``, ``hostname``                 which Gateway serves the route, "namespace/name", and by which name
``weight``                                percent of the requests that the canary gets
========================================  ==================================================================
"""

from typing import Any

import pulumi

import canarykit as ck
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.model import Role
from canarykit.pulumi import CanaryService

config = pulumi.Config()


def given(**settings: Any) -> dict[str, Any]:
    """Only what the stack says; the kit knows the rest."""
    return {name: value for name, value in settings.items() if value is not None}


def mapping(key: str, inner: type) -> dict[str, Any] | None:
    """Setting that is a mapping, with values of that type."""
    value = config.get_object(key)
    if value is not None and not (isinstance(value, dict) and all(isinstance(part, inner) for part in value.values())):
        kind = "a mapping of mappings" if inner is dict else "a mapping of names to values"
        raise pulumi.RunError(f"{key} must be {kind}, not {value!r}: pulumi config set --path '{key}.…' …")
    return value


def version(role: Role) -> ck.Version:
    """Version in a role."""
    image = config.require(f"{role}_image")
    name = config.get(f"{role}_version") or image.rpartition("/")[2]
    return ck.Version(name, image=image, **given(ready=config.get("ready")))


def declare() -> CanaryService:
    """Declare everything that the stack has."""
    service = ck.Service(
        config.get("name") or "ai-service",
        version("stable"),
        version("canary"),
        **given(replicas=config.get_int("replicas"), env=mapping("env", object)),
    )
    workload = Workload(
        **given(
            port=config.get_int("port"),
            service_port=config.get_int("service_port"),
            service_type=config.get("service_type"),
            resources=mapping("resources", dict),
            grace=config.get_int("grace"),
        )
    )
    return CanaryService(
        service.name,
        service,
        workload=workload,
        gateway=config.get("gateway") or None,
        hostname=config.get("hostname") or None,
        **given(
            namespace=config.get("namespace"),
            make_namespace=config.get_bool("make_namespace"),
            weight=config.get_float("weight"),
        ),
    )


try:
    declared = declare()
except ck.errors.CanaryError as error:
    raise pulumi.RunError(str(error)) from error
pulumi.export("stable_service_url", declared.stable_service_url)
pulumi.export("canary_service_url", declared.canary_service_url)
