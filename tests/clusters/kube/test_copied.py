"""The canary as a copy of a team's own Deployment: what differs, what stays, and what cannot be copied."""

import copy
from pathlib import Path

import pytest
import yaml

import canarykit as ck
from canarykit.clusters.kube.workloads.copied import copy_of, find_original, label_of, replacing
from canarykit.clusters.kube.workloads.selectors import equal, matches
from canarykit.errors import PlanError

EXAMPLE = Path(__file__).parents[3] / "deploy/examples/recommender.yaml"
LABELS = {"app.kubernetes.io/managed-by": "canarykit", "app.kubernetes.io/part-of": "recommender"}
V2 = ck.Version("v2", like="recommender", image="registry.example/recommender:2", env={"MODEL": "2026-11"}, args=["--fast"])


@pytest.fixture
def objects():
    """Objects of the example, by kind; of its Secrets the last one."""
    return {body["kind"]: body for body in yaml.safe_load_all(EXAMPLE.read_text())}


@pytest.fixture
def team(objects):
    """The example's Deployment and Service."""
    return find_original(objects["Deployment"], [objects["Service"]])


def copied(team, version=V2, **given):
    """Deployment and Service of a copy."""
    return copy_of(team, version, **{"env": {}, "labels": LABELS, "claims": {}, **given})


def container(deployment, name="server"):
    """A container of a Deployment."""
    return next(each for each in deployment["spec"]["template"]["spec"]["containers"] if each["name"] == name)


def test_the_container_that_serves_is_found_by_the_port_of_the_service(team):
    """
    It is the second one; its port has a name, and its probe a path.
    """
    assert (team.name, team.container, team.port, team.ready) == ("recommender", "server", 8000, "/healthz")
    assert label_of(team) == "app.kubernetes.io/name"


def test_only_what_the_version_says_differs(team, objects):
    """
    Image, one variable and arguments of one container; names, and one label wherever it means these pods.
    """
    before = copy.deepcopy(objects)
    deployment, _ = copied(team)
    assert objects == before
    changed = container(deployment)
    assert changed["image"] == "registry.example/recommender:2"
    assert changed["args"] == ["--fast"]
    assert changed["env"] == [
        before["Deployment"]["spec"]["template"]["spec"]["containers"][1]["env"][0],
        {"name": "MODEL", "value": "2026-11"},
    ]
    same = copy.deepcopy(deployment["spec"]["template"]["spec"])
    original = copy.deepcopy(before["Deployment"]["spec"]["template"]["spec"])
    for pod in (same, original):
        for name in ("image", "args", "env"):
            pod["containers"][1].pop(name, None)
        pod["topologySpreadConstraints"][0].pop("labelSelector")
    assert same == original


def test_neither_selects_the_pods_of_the_other(team, objects):
    """
    Deployment, Service and the rule that spreads pods mean the copy's pods; the team's Service and budget mean their own.
    """
    deployment, service = copied(team)
    theirs, ours = (each["spec"]["template"]["metadata"]["labels"] for each in (objects["Deployment"], deployment))
    assert (deployment["metadata"]["name"], service["metadata"]["name"]) == ("recommender-canary", "recommender-canary")
    assert matches(deployment["spec"]["selector"], ours)
    assert not matches(deployment["spec"]["selector"], theirs)
    assert equal(service["spec"]["selector"], ours)
    assert not equal(service["spec"]["selector"], theirs)
    for selector in (objects["Deployment"]["spec"]["selector"], objects["PodDisruptionBudget"]["spec"]["selector"]):
        assert not matches(selector, ours)
    assert not equal(objects["Service"]["spec"]["selector"], ours)
    (spread,) = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": "recommender-canary"}}


def test_affinities_mean_the_copy(objects):
    """
    Required and preferred, for and against; those that mean other pods stay.
    """
    mine, other = ({"matchLabels": {"app.kubernetes.io/name": name}} for name in ("recommender", "database"))
    term = {"topologyKey": "zone", "labelSelector": mine}
    objects["Deployment"]["spec"]["template"]["spec"]["affinity"] = {
        "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{**term, "labelSelector": other}]},
        "podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}],
            "requiredDuringSchedulingIgnoredDuringExecution": [copy.deepcopy(term)],
        },
    }
    deployment, _ = copied(find_original(objects["Deployment"], [objects["Service"]]))
    found = deployment["spec"]["template"]["spec"]["affinity"]
    against = found["podAntiAffinity"]
    copies = {"matchLabels": {"app.kubernetes.io/name": "recommender-canary"}}
    assert against["preferredDuringSchedulingIgnoredDuringExecution"][0]["podAffinityTerm"]["labelSelector"] == copies
    assert against["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"] == copies
    assert found["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]["labelSelector"] == other


def test_no_tool_takes_the_copy_for_its_own(objects):
    """
    Marks of Helm, Argo CD, Flux and kubectl stay behind, and so does what the server fills in; people's own labels come along.
    """
    meta = objects["Deployment"]["metadata"]
    meta["labels"] |= {
        "argocd.argoproj.io/instance": "shop",
        "kustomize.toolkit.fluxcd.io/name": "apps",
        "helm.sh/chart": "rec-1",
    }
    meta["annotations"] |= {
        "argocd.argoproj.io/tracking-id": "shop:apps/Deployment:shop/recommender",
        "deployment.kubernetes.io/revision": "7",
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
    }
    meta |= {"uid": "1", "resourceVersion": "2", "generation": 3, "managedFields": [], "ownerReferences": [{"name": "x"}]}
    objects["Deployment"]["status"] = {"replicas": 2}
    deployment, service = copied(find_original(objects["Deployment"], [objects["Service"]]))
    assert deployment["metadata"] == {
        "name": "recommender-canary",
        "labels": {"app.kubernetes.io/name": "recommender", "team": "shop", **LABELS},
    }
    assert set(deployment) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(service["spec"]) == {"type", "selector", "ports"}


def test_the_copy_of_a_load_balancer_is_reached_from_inside_alone(objects):
    """
    No second address, node port or address within the cluster is taken over.
    """
    objects["Service"]["spec"] |= {"type": "LoadBalancer", "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7"]}
    objects["Service"]["spec"]["ports"][0]["nodePort"] = 30080
    _, service = copied(find_original(objects["Deployment"], [objects["Service"]]))
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "web"}]


def test_the_environment_of_both_is_added_before_that_of_the_version(team):
    """
    A variable that came from a Secret can be replaced by text.
    """
    deployment, _ = copied(team, ck.Version("v2", like="recommender", env={"TOKEN": "x"}), env={"TOKEN": "y", "REGION": "eu"})
    assert container(deployment)["env"] == [
        {"name": "MODEL", "value": container(deployment)["env"][0]["value"]},
        {"name": "TOKEN", "value": "x"},
        {"name": "REGION", "value": "eu"},
    ]
    assert container(deployment)["image"] == team.serving["image"]


def service_of(name, target, **selector):
    """A Service that leads to a port of pods with these labels."""
    return {
        "metadata": {"name": name},
        "spec": {
            "selector": selector or {"app.kubernetes.io/name": "recommender"},
            "ports": [{"port": 80, "targetPort": target}],
        },
    }


@pytest.mark.parametrize(
    ("services", "options", "says"),
    [
        ([], {}, "no Service selects the pods of Deployment recommender"),
        ([service_of("other", 80, app="other")], {}, "no Service selects"),
        ([service_of("a", "web"), service_of("b", "web")], {}, r"Services a, b all select .* say which with service="),
        ([service_of("a", "web")], {"service": "b"}, "Service b does not select"),
        ([service_of("a", "grpc")], {}, r"no container .* serves port 'grpc' of Service a .*metrics, server.*container="),
        ([service_of("a", 7777)], {}, "no container .* serves port 7777"),
        ([service_of("a", "web")], {"container": "proxy"}, "has no container 'proxy'"),
        ([service_of("a", "web", tier="serving", team="shop")], {}, None),
        ([service_of("a", "web", team="shop")], {}, "no label in common"),
    ],
)
def test_what_belongs_together_is_found_or_asked_for(objects, services, options, says):
    """
    Nothing is guessed.
    """
    if says is None:
        assert label_of(find_original(objects["Deployment"], services, **options)) == "tier"
        return
    with pytest.raises(PlanError, match=says):
        label_of(find_original(objects["Deployment"], services, **options))


def test_a_named_service_or_container_decides(objects):
    """
    Of two Services, the one of the Deployment's own name, unless another one is named; a container that says no port.
    """
    services = [service_of("internal", "web"), objects["Service"]]
    assert find_original(objects["Deployment"], services).service is objects["Service"]
    assert find_original(objects["Deployment"], services, service="internal").service is services[0]
    container(objects["Deployment"]).pop("ports")
    found = find_original(objects["Deployment"], [service_of("recommender", 8000)], container="server")
    assert (found.container, found.port) == ("server", 8000)


@pytest.mark.parametrize(
    ("spec", "claims", "says"),
    [
        ({"nodeName": "node-7"}, {}, "name a node"),
        (
            {"containers": [{"name": "server", "ports": [{"containerPort": 8000, "hostPort": 80, "name": "web"}]}]},
            {},
            "hostPort",
        ),
        ({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]}, {"d": ["ReadWriteOnce"]}, "claim d"),
        ({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]}, {}, "not found"),
        ({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}]}, {"d": ["ReadWriteMany"]}, None),
        (
            {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "d", "readOnly": True}}]},
            {"d": ["ReadWriteOnce"]},
            None,
        ),
    ],
    ids=["node", "port of the node", "one node", "unknown claim", "shared", "read only"],
)
def test_what_two_pods_cannot_both_have_is_refused(objects, spec, claims, says):
    """
    Before anything is written, and with what to do.
    """
    objects["Deployment"]["spec"]["template"]["spec"] |= spec
    team = find_original(objects["Deployment"], [objects["Service"]])
    if says is None:
        assert copied(team, claims=claims)
        return
    with pytest.raises(PlanError, match=f"cannot be copied: .*{says}.* name both Deployments"):
        copied(team, claims=claims)


def test_names_have_room_for_the_suffix(objects):
    """
    A name of 60 letters has none.
    """
    objects["Deployment"]["metadata"]["name"] = "r" * 60
    with pytest.raises(PlanError, match="longer than the 63 letters"):
        copied(find_original(objects["Deployment"], [objects["Service"]]))


def test_a_promotion_writes_what_differs_and_can_be_undone(team, objects):
    """
    As lines of a patch: image, arguments, variables of one container; the way back removes what was not there.
    """
    deployment, _ = copied(team)
    forth = replacing(objects["Deployment"], "server", container(deployment))
    assert forth == [
        {"op": "test", "path": "/spec/template/spec/containers/1/name", "value": "server"},
        {"op": "add", "value": "registry.example/recommender:2", "path": "/spec/template/spec/containers/1/image"},
        {"op": "add", "value": ["--fast"], "path": "/spec/template/spec/containers/1/args"},
        {"op": "add", "value": container(deployment)["env"], "path": "/spec/template/spec/containers/1/env"},
    ]
    back = replacing(deployment, "server", team.serving)
    assert {"op": "remove", "path": "/spec/template/spec/containers/1/args"} in back
    assert replacing(objects["Deployment"], "server", team.serving) == []
