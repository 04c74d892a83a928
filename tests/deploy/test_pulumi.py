"""The Pulumi program and its component: what they register is what the kit itself writes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pulumi_mocks import IMAGES, Registered, up

import canarykit as ck
from canarykit.clusters.kube.binding import target_of
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.manifests import Model, Workload
from canarykit.errors import PlanError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.gateway_api import route, split_of

pytestmark = pytest.mark.real("pulumi")

PAGE = Path(__file__).parents[2] / "docs" / "pulumi.md"
GATEWAY = {"gateway": "web/front", "hostname": "ai.example"}


def service(**options):
    """The service that the program declares."""
    versions = [
        ck.Version(IMAGES[f"{role}_image"].rpartition("/")[2], image=IMAGES[f"{role}_image"]) for role in ck.model.ROLES
    ]
    return ck.Service("ai-service", *versions, **options)


def placed(bodies, namespace="ai-services"):
    """The kit's own objects, in a namespace."""
    return [{**body, "metadata": {**body["metadata"], "namespace": namespace}} for body in bodies]


def ordered(bodies):
    """In an order of their own: the SDK registers what does not depend on each other at once."""
    return sorted(bodies, key=lambda body: (body["kind"], body["metadata"].get("namespace", ""), body["metadata"]["name"]))


def test_two_images_are_enough_for_the_starting_point():
    """
    A namespace, two Deployments, two Services: the kit's own objects, no field more and none less; and two addresses.
    """
    made = up(config=IMAGES, status={"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}})
    expected = [manifests.namespace("ai-services"), *placed(manifests.objects(service(), Workload()))]
    assert ordered(made.objects) == ordered(expected)
    assert made.exports == {"stable_service_url": "http://192.0.2.7", "canary_service_url": "http://192.0.2.7"}


def test_configuration_reaches_the_objects():
    """
    Names, replicas, ports, type, environment, resources and readiness are settings of the stack.
    """
    settings = {
        "stable_version": "v1", "canary_version": "v2", "name": "digits", "namespace": "team-a", "make_namespace": "false",
        "replicas": "3", "port": "9000", "service_port": "8000", "service_type": "ClusterIP", "ready": "/healthz",
        "grace": "300", "env": json.dumps({"MODE": "fast"}), "resources": json.dumps({"requests": {"cpu": "2"}}),
    }  # fmt: skip
    made = up(config={**IMAGES, **settings})
    versions = [ck.Version(f"v{i}", image=image, ready="/healthz") for i, image in enumerate(IMAGES.values(), 1)]
    asked = ck.Service("digits", *versions, replicas=3, env={"MODE": "fast"})
    workload = Workload(port=9000, service_port=8000, service_type="ClusterIP", resources={"requests": {"cpu": "2"}}, grace=300)
    assert ordered(made.objects) == ordered(placed(manifests.objects(asked, workload), "team-a"))


@pytest.mark.parametrize("weight", [0, 0.1, 5, 50, 99.99, 100])
def test_the_weight_of_the_route_is_a_setting(weight):
    """
    The route is the router's own but for the weights; testers still choose a version by header.
    """
    made = up(config={**IMAGES, **GATEWAY, "weight": str(weight)})
    (found,) = made.of("HTTPRoute").values()
    target = target_of("ai-service", 80)
    (own,) = placed([route(target, gateway="web/front", hostname="ai.example")])
    assert split_of(found, target) == TrafficSplit(weight)
    for rule in (found["spec"]["rules"][0], own["spec"]["rules"][0]):
        for backend in rule["backendRefs"]:
            del backend["weight"]
    assert found == own


def test_what_a_route_needs_is_there_before_it():
    """
    A route to a Service that is missing answers 500; a pod whose model is missing does not start.
    """
    after = up(config={**IMAGES, **GATEWAY}).after
    both = {f"{kind} ai-service-{role}" for kind in ("Deployment", "Service") for role in ("stable", "canary")}
    assert after["HTTPRoute ai-service"] == {"Namespace ai-service"} | both
    assert all(after[name] == {"Namespace ai-service"} for name in both)


PENDING = r"pending: .*ai-service-(stable|canary) has no (address|port).*"


@pytest.mark.parametrize(
    ("settings", "status", "node_port", "url"),
    [
        ({}, None, None, PENDING),
        ({}, {}, None, PENDING),
        ({}, {"loadBalancer": {}}, None, PENDING),
        ({}, {"loadBalancer": {"ingress": []}}, None, PENDING),
        ({}, {"loadBalancer": {"ingress": [{}]}}, None, PENDING),
        ({}, {"loadBalancer": {"ingress": [{"hostname": "lb.example"}]}}, None, r"http://lb\.example"),
        ({}, {"loadBalancer": {"ingress": [{"ip": "2001:db8::1"}]}}, None, r"http://\[2001:db8::1\]"),
        ({"service_port": "8000"}, {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}, None, r"http://192\.0\.2\.7:8000"),
        ({"service_type": "ClusterIP"}, None, None, r"http://ai-service-(stable|canary)\.ai-services\.svc"),
        (
            {"service_type": "ClusterIP", "service_port": "81"},
            None,
            None,
            r"http://ai-service-(stable|canary)\.ai-services\.svc:81",
        ),
        ({"service_type": "NodePort"}, None, 31000, r"http://<any node>:31000"),
        ({"service_type": "NodePort"}, None, None, PENDING),
    ],
)
def test_exports_say_where_a_version_is_or_why_not(settings, status, node_port, url):
    """
    An address that is not there yet is said in words, and breaks nothing.
    """
    exports = up(config={**IMAGES, **settings}, status=status, node_port=node_port).exports
    assert set(exports) == {"stable_service_url", "canary_service_url"}
    assert all(re.fullmatch(url, found) for found in exports.values()), exports


def test_a_preview_shows_the_same_objects_and_no_address():
    """
    Before anything is there, an address is not known, which is no error.
    """
    made = up(config=IMAGES, preview=True)
    assert ordered(made.objects) == ordered(up(config=IMAGES).objects)
    assert made.exports == {}


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({**GATEWAY, "weight": "120"}, "weight must be 0 to 100 percent, not 120"),
        ({**GATEWAY, "weight": "nan"}, "weight must be 0 to 100 percent, not nan"),
        ({**GATEWAY, "weight": "a few"}, "'ai-service:weight' value 'a few' is not a valid 'float'"),
        ({**GATEWAY, "weight": "0.00001"}, "1e-05 % is finer"),
        ({"weight": "5"}, "weight of 5 % needs a gateway"),
        ({"hostname": "ai.example"}, "hostname ai.example needs a gateway"),
        ({"canary_image": "Not An Image"}, "'Not An Image' of version 'Not An Image' is no name of an image"),
        ({"stable_image": None}, "Missing required configuration variable 'ai-service:stable_image'"),
        ({"replicas": "0"}, "at least one replica per version, not 0"),
        ({"replicas": "two"}, "'ai-service:replicas' value 'two' is not a valid 'int'"),
        ({"service_type": "Odd"}, "service_type must be LoadBalancer, ClusterIP or NodePort, not 'Odd'"),
        ({"port": "70000"}, "port must be 1 to 65535"),
        ({"name": "AI"}, "lower-case"),
        ({"ready": "healthz"}, "must be a path"),
        ({"env": '["A"]'}, "env must be a mapping"),
        ({"env": "A=1"}, "'ai-service:env' value 'A=1' is not a valid"),
        ({"resources": '{"cpu": 1}'}, "resources must be a mapping of mappings"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_a_sentence(settings, says):
    """
    Pulumi shows a RunError without a traceback; nothing has been registered by then.
    """
    import pulumi

    made = Registered()
    with pytest.raises(pulumi.RunError, match=re.escape(says)):
        up(config={**IMAGES, **settings}, into=made)
    assert made.objects == []


def test_a_component_in_a_program_of_ones_own():
    """
    Models go into ConfigMaps, which are there before their pods; one service can be in two namespaces.
    """
    from canarykit.pulumi import CanaryService

    digits = ck.Service("digits", ck.Version("v1", model="a.skops"), ck.Version("v2", model="b.skops"))
    models = {"stable": Model(b"one"), "canary": Model(b"two")}

    def program():
        CanaryService("here", digits, namespace="here", models=models)
        CanaryService("there", digits, namespace="there", models=models, make_namespace=False)

    made = up(program)
    own = manifests.objects(digits, Workload(), models)
    expected = [manifests.namespace("here"), *placed(own, "here"), *placed(own, "there")]
    assert ordered(made.objects) == ordered(expected)
    assert {f"ConfigMap there-model-{model.digest}" for model in models.values()} <= made.after["Deployment there-canary"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"weight": 120}, PlanError, "0 to 100"),
        ({"weight": 5}, PlanError, "needs a gateway"),
        ({"weight": 1e-5, "gateway": "web/front"}, RoutingError, "finer"),
        ({"workload": Workload(service_port=8000), "hostname": "a.example"}, PlanError, "needs a gateway"),
    ],
)
def test_a_component_that_cannot_be_registers_nothing(options, error, says):
    """
    Everything is checked before the first object.
    """
    from canarykit.pulumi import CanaryService

    made = Registered()
    with pytest.raises(error, match=says):
        up(lambda: CanaryService("ai-service", service(), **options), into=made)
    assert made.urns == set()


def test_the_example_of_the_readme_runs():
    """
    The lines that people copy declare the starting point and a route.
    """
    (code,) = re.findall(r"```python\n(import canarykit as ck\nimport pulumi\n.*?)```", PAGE.read_text(), re.DOTALL)
    made = up(lambda: exec(code, {}))
    assert {kind: len(made.of(kind)) for kind in ("Namespace", "Deployment", "Service", "HTTPRoute")} == {
        "Namespace": 1, "Deployment": 2, "Service": 2, "HTTPRoute": 1
    }  # fmt: skip
    assert set(made.exports) == {"stable_service_url", "canary_service_url"}


def test_without_pulumi_the_extra_is_named():
    """
    Who imports the component without its packages is told which extra has them.
    """
    code = "import sys; sys.modules['pulumi_kubernetes'] = None; import canarykit.pulumi"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'canarykit[pulumi]'" in done.stderr
