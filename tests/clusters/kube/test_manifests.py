"""The objects that are written, as plain data."""

import base64

import pytest

import canarykit as ck
from canarykit.clusters.kube.workloads.manifests import (
    MAX_MODEL_BYTES,
    Model,
    Workload,
    deployment,
    namespace,
    objects,
    service_object,
)
from canarykit.errors import PlanError

SERVICE = ck.Service("ai-service", ck.Version("v1", image="repo/ai:1"), ck.Version("v2", image="repo/ai:2"), replicas=3)


def of_kind(found, kind):
    """Objects of a kind by name."""
    return {thing["metadata"]["name"]: thing for thing in found if thing["kind"] == kind}


def test_the_starting_point():
    """
    Two Deployments and two Services of the names, labels, ports and type that people begin with.
    """
    found = objects(SERVICE, Workload())
    deployments, services = of_kind(found, "Deployment"), of_kind(found, "Service")
    assert set(deployments) == set(services) == {"ai-service-stable", "ai-service-canary"}
    assert len(found) == 4
    for role, image in (("stable", "repo/ai:1"), ("canary", "repo/ai:2")):
        spec = deployments[f"ai-service-{role}"]["spec"]
        pod = spec["template"]
        assert spec["selector"]["matchLabels"] == {"app": "ai-service", "version": role}
        assert pod["metadata"]["labels"].items() >= {"app": "ai-service", "version": role}.items()
        assert pod["spec"]["containers"][0]["image"] == image
        assert pod["spec"]["containers"][0]["ports"][0]["containerPort"] == 8080
        front = services[f"ai-service-{role}"]["spec"]
        assert front["type"] == "LoadBalancer"
        assert front["selector"] == {"app": "ai-service", "version": role}
        assert (front["ports"][0]["port"], front["ports"][0]["targetPort"]) == (80, 8080)
    assert namespace("ai-services")["metadata"]["name"] == "ai-services"


def test_recommended_labels_name_the_model_version():
    """
    The role selects; the model's version is told beside it.
    """
    named = deployment(SERVICE, "canary", Workload())["metadata"]["labels"]
    assert named["app.kubernetes.io/version"] == "v2"
    assert named["app.kubernetes.io/instance"] == "ai-service-canary"
    assert named["app.kubernetes.io/managed-by"] == "canarykit"


def test_parameters_reach_the_pod():
    """
    Resources, GPUs, nodes, environment, ports and types.
    """
    service = ck.Service(
        "ai-service",
        ck.Version("v1", image="a:1"),
        ck.Version("v2", image="a:2", env={"MODE": "fast"}),
        env={"MODE": "slow", "A": "1"},
        replicas=4,
    )
    workload = Workload(
        port=9000,
        service_port=8000,
        service_type="ClusterIP",
        resources={"requests": {"cpu": "2"}},
        gpus=1,
        node_selector={"pool": "gpu"},
        pull_policy="Never",
    )
    pod = deployment(service, "canary", workload)
    assert pod["spec"]["replicas"] == 4
    inside = pod["spec"]["template"]["spec"]
    (container,) = inside["containers"]
    env = {entry["name"]: entry["value"] for entry in container["env"]}
    assert env.items() >= {"MODE": "fast", "A": "1", "PORT": "9000", "CANARYKIT_ROLE": "canary"}.items()
    assert container["resources"] == {"requests": {"cpu": "2"}, "limits": {"nvidia.com/gpu": "1"}}
    assert inside["nodeSelector"] == {"pool": "gpu"}
    assert container["imagePullPolicy"] == "Never"
    assert service_object(service, "canary", workload)["spec"]["ports"][0] == {
        "name": "http", "port": 8000, "targetPort": 9000, "protocol": "TCP"
    }  # fmt: skip


def test_pods_end_gracefully_and_start_ready():
    """
    A pod leaves the gateway's lists before it ends, and gets traffic only when it answers.
    """
    inside = deployment(SERVICE, "stable", Workload())["spec"]["template"]["spec"]
    (container,) = inside["containers"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] < inside["terminationGracePeriodSeconds"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert deployment(SERVICE, "stable", Workload())["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@pytest.mark.parametrize(("workload", "grace"), [(Workload(), 40), (Workload(grace=300), 300)])
def test_a_pod_has_the_time_that_its_longest_answer_takes(workload, grace):
    """
    The kit's own server uses all of it, but for the seconds in which it is still on a gateway's lists or clients keep to it.
    """
    service = ck.Service("digits", ck.Version("v1", model="a.skops"), ck.Version("v2", image="b:2"))
    stable = deployment(service, "stable", workload, Model(b"one"))["spec"]["template"]["spec"]
    canary = deployment(service, "canary", workload)["spec"]["template"]["spec"]
    assert stable["terminationGracePeriodSeconds"] == canary["terminationGracePeriodSeconds"] == grace
    (container,) = stable["containers"]
    options = dict(zip(container["args"][::2], container["args"][1::2], strict=True))
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] + int(options["--linger"]) + int(options["--drain"]) == grace
    assert "args" not in canary["containers"][0]


def test_a_model_is_mounted_beside_the_kits_own_server():
    """
    The file is in a ConfigMap named after its content; the pod has no right that it does not need.
    """
    service = ck.Service("digits", ck.Version("v1", model="a.skops"), ck.Version("v2", model="b.skops"))
    models = {"stable": Model(b"one"), "canary": Model(b"two", ("a.B",))}
    found = objects(service, Workload(server_image="server:9"), models)
    maps = of_kind(found, "ConfigMap")
    assert {base64.b64decode(thing["binaryData"]["model.skops"]) for thing in maps.values()} == {b"one", b"two"}
    inside = of_kind(found, "Deployment")["digits-canary"]["spec"]["template"]["spec"]
    (container,) = inside["containers"]
    assert inside["volumes"][0]["configMap"]["name"] in maps
    assert container["image"] == "server:9"
    assert container["args"][-2:] == ["--trusted", "a.B"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert inside["securityContext"]["runAsNonRoot"] is True


def test_the_same_model_twice_is_one_map():
    """
    A rehearsal needs one file.
    """
    service = ck.Service("digits", ck.Version("v1", model="a"), ck.Version("v1", model="a"))
    assert len(of_kind(objects(service, Workload(), {"stable": Model(b"x"), "canary": Model(b"x")}), "ConfigMap")) == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Model(b"x" * (MAX_MODEL_BYTES + 1)), "ConfigMap takes"),
        (lambda: objects(ck.Service("Digits", SERVICE.stable, SERVICE.canary), Workload()), "lower-case"),
        (lambda: objects(ck.Service("d", ck.Version("a", command=["x", "{port}"]), SERVICE.canary), Workload()), "runs images"),
        (
            lambda: objects(ck.Service("d", ck.Version("a", image="not an image"), SERVICE.canary), Workload()),
            "no name of an image",
        ),
        (lambda: Workload(service_type="Odd"), "service_type"),
        (lambda: Workload(port=0), "port must be"),
        (lambda: Workload(gpus=-1), "gpus"),
        (lambda: Workload(grace=10), "grace must be a whole number of seconds above 10, not 10"),
        (lambda: Workload(grace=62.5), "grace"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_first(make, says):
    """
    Each with a sentence, before anything is written.
    """
    with pytest.raises(PlanError, match=says):
        make()


@pytest.mark.parametrize(
    "image", ["nginx", "nginx:1.27", "ghcr.io/org/team/app:v1.2-rc.1", "localhost:5000/a/b@sha256:" + "0" * 64]
)
def test_names_of_images_in_use_are_accepted(image):
    """
    With and without registry, tag and digest.
    """
    objects(ck.Service("d", ck.Version("a", image=image), SERVICE.canary), Workload())


def test_a_server_of_http_2_is_named_as_gateways_read_it():
    """
    The Service's port has the name of the standard, which gateways read; with HTTP/1.1 nothing is added.
    """
    service = ck.Service("ai", *(ck.Version(name, image=f"ai:{name}", protocol="h2c") for name in ("v1", "v2")))
    for role in ("stable", "canary"):
        (port,) = service_object(service, role, Workload())["spec"]["ports"]
        assert port["appProtocol"] == "kubernetes.io/h2c"


def test_a_version_has_arguments_and_resources_of_its_own():
    """
    The other version has those of its image and of the workload.
    """
    asked = {"requests": {"cpu": "2"}}
    service = ck.Service("ai", ck.Version("v1", image="a:1"), ck.Version("v2", image="a:2", args=["--fast"], resources=asked))
    plain, own = (
        deployment(service, role, Workload())["spec"]["template"]["spec"]["containers"][0] for role in ("stable", "canary")
    )
    assert (own["args"], own["resources"]) == (["--fast"], asked)
    assert "args" not in plain
    assert plain["resources"]["limits"] == {"memory": "1Gi"}
