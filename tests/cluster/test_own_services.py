"""A team's own service, as it is: rolled out as a copy or beside it, and found afterwards as it was."""

import copy
from pathlib import Path

import accounts
import cluster_parts as parts
import pytest
import yaml

import canarykit as ck
from canarykit.clusters.kube.api.client import Client, path_of
from canarykit.clusters.kube.workloads.pods import Pods
from canarykit.errors import ForbiddenError, PlanError
from canarykit.places import Place

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]

EXAMPLE = Path(__file__).parents[2] / "deploy/examples/recommender.yaml"
PLAN = ck.RolloutPlan.of(10, 50, hold="5s", budget="3min")
_PATHS = {"Secret": "/api/v1/namespaces/{}/secrets", "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts"}
_NOT_THE_TEAMS = ("resourceVersion", "managedFields", "generation")


def put(admin, body):
    """Create an object of the team's, as `kubectl apply` does."""
    path = _PATHS.get(body["kind"], "").format(admin.namespace) or path_of(body["kind"], admin.namespace)
    status, text = admin._exchange("POST", path, body, {"content-type": "application/json"})
    assert status == 201, text


def team_objects(namespace, colours=("recommender",)):
    """Objects of the example behind the gateway under test; Deployment and Service once for each colour."""
    name, _ = parts.gateway()
    gateway_namespace, _, gateway = name.rpartition("/")
    for body in yaml.safe_load_all(EXAMPLE.read_text()):
        if body["kind"] == "HTTPRoute":
            body["spec"]["parentRefs"] = [{"name": gateway, "namespace": gateway_namespace}]
            body["spec"]["hostnames"] = [f"{namespace}.test"]
            if len(colours) > 1:
                for rule in body["spec"]["rules"]:
                    rule["backendRefs"] = [
                        {"name": each, "port": 80, "weight": 100 - 100 * n} for n, each in enumerate(colours)
                    ]
        for colour in colours if body["kind"] in ("Deployment", "Service") else ("recommender",):
            each = copy.deepcopy(body)
            each["metadata"]["name"] = colour if body["kind"] in ("Deployment", "Service") else body["metadata"]["name"]
            if each["kind"] == "Deployment":
                each["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"] = colour
                each["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/name"] = colour
                for container in each["spec"]["template"]["spec"]["containers"]:
                    container["image"] = parts.WORKLOAD.image
                each["spec"]["template"]["spec"]["initContainers"][0]["image"] = parts.WORKLOAD.image
            if each["kind"] == "Service":
                each["spec"]["selector"]["app.kubernetes.io/name"] = colour
            yield each


@pytest.fixture
def shop(admin, tmp_path, monkeypatch):
    """Bring up the team's application in a restricted namespace, and become a service account of deploy/."""

    def make(*colours, role="rbac.yaml"):
        admin.patch(
            "Namespace", admin.namespace, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        )
        for body in team_objects(admin.namespace, colours):
            put(admin, body)
        places = {colour: Place(colour, colour, {"app.kubernetes.io/name": colour}) for colour in colours}
        for colour in colours:
            Pods(admin, places, print).wait_ready(colour, 2, 90.0)
        monkeypatch.setattr(accounts, "RBAC", accounts.RBAC.parent / role)
        for body in accounts.role_objects():
            accounts.create(admin, body)
        monkeypatch.setenv("KUBECONFIG", str(accounts.kubeconfig(admin, tmp_path / "kubeconfig")))
        return admin.namespace

    return make


@pytest.fixture
def rolled_out(experiment):
    """Roll out, under traffic; return the ending, what became of the requests, and what was told."""

    def run(namespace, service, *, plan=PLAN):
        name, url = parts.gateway()
        told = []
        cluster = ck.KubeCluster(
            None, namespace, gateway=name, url=url, route="recommender", metrics="fastapi", port=9100, notify=told.append
        )
        exp = experiment(service, cluster, guardrails=[ck.metrics.error_rate()])
        exp.deploy()
        with pytest.raises(PlanError, match="path= is missing"):
            exp.send(200)
        exp.send(200, path="/recommend", payloads=[{"body": {"user": 1}}])
        ending = exp.run(plan)
        lost = exp.stop_sending()
        exp.teardown()
        return ending, lost, told

    return run


def snapshot(admin):
    """All of the team's objects, without what the server counts."""
    found = {}
    kinds = ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "HTTPRoute", "ConfigMap")
    for kind in kinds:
        for body in admin.list(kind):
            body = copy.deepcopy(body)
            body.pop("status", None)
            body["metadata"] = {key: value for key, value in body["metadata"].items() if key not in _NOT_THE_TEAMS}
            notes = body["metadata"].get("annotations") or {}
            body["metadata"]["annotations"] = {key: value for key, value in notes.items() if "revision" not in key}
            found[kind, body["metadata"]["name"]] = body
    return found


def serving(body):
    """The container that serves."""
    return body["spec"]["template"]["spec"]["containers"][1]


@pytest.mark.slow
def test_a_copy_is_promoted_and_the_namespace_is_as_before(admin, shop, rolled_out):
    """
    Secrets, sidecar, probes, policy, autoscaler, budget and a route of two rules with a filter: no request is lost, and of all
    objects only the promoted variable differs.
    """
    namespace = shop("recommender")
    before = snapshot(admin)
    canary = ck.Version("v2", like="recommender", env={"MODEL": "2026-11"})
    ending, lost, _ = rolled_out(namespace, ck.Service("recommender", ck.Version("v1", deployment="recommender"), canary))
    assert ending.outcome == "promoted", ending
    assert lost.lost_total == 0, lost
    after = snapshot(admin)
    assert set(after) == set(before)
    promoted = serving(after["Deployment", "recommender"])
    assert {"name": "MODEL", "value": "2026-11"} in promoted["env"]
    promoted["env"] = serving(before["Deployment", "recommender"])["env"]
    assert after == before


@pytest.mark.slow
def test_a_bad_copy_is_rolled_back_and_leaves_nothing(admin, shop, rolled_out):
    """
    It fails one request in twenty: found within seconds, and everything is as before.
    """
    namespace = shop("recommender")
    before = snapshot(admin)
    canary = ck.Version("v2", like="recommender", env={"FAILS": "0.05"})
    service = ck.Service("recommender", ck.Version("v1", deployment="recommender"), canary)
    ending, lost, _ = rolled_out(namespace, service)
    assert ending.outcome == "rolled back", ending
    assert lost.lost_total == 0, lost
    failed = sum(times for statuses in lost.statuses.values() for status, times in statuses.items() if status >= 500)
    print(f"{failed} requests of users failed")
    assert 0 < failed < 60
    assert snapshot(admin) == before


@pytest.mark.slow
def test_two_deployments_are_rolled_out_by_weights_alone(admin, shop, rolled_out):
    """
    As an account that may write no Deployment: the canary ends with all traffic, and both stay, which the route says.
    """
    namespace = shop("blue", "green", role="rbac-existing.yaml")
    with pytest.raises(ForbiddenError):
        Client(None, namespace).patch("Deployment", "blue", {"spec": {"replicas": 3}})
    before = snapshot(admin)
    service = ck.Service("recommender", ck.Version("v1", deployment="blue"), ck.Version("v2", deployment="green"))
    ending, lost, _ = rolled_out(namespace, service)
    assert ending.outcome == "promoted", ending
    assert "v2 has all traffic, and v1 stays beside it" in str(ending)
    assert lost.lost_total == 0, lost
    after = snapshot(admin)
    assert set(after) == set(before)
    route = after["HTTPRoute", "recommender"]["spec"]["rules"][0]["backendRefs"]
    assert {ref["name"]: ref["weight"] for ref in route} == {"blue": 0, "green": 100}
    for rules in (after["HTTPRoute", "recommender"], before["HTTPRoute", "recommender"]):
        for rule in rules["spec"]["rules"]:
            for ref in rule["backendRefs"]:
                ref.pop("weight")
    assert after == before


def test_a_template_of_the_teams_is_taken_by_the_api_server(admin):
    """
    Everything that the example's pods have, over the kit's own template: the server checks all of it, and writes nothing.
    """
    deployment = next(body for body in team_objects(admin.namespace) if body["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    del pod["containers"][1]["command"]
    template = {"metadata": {"annotations": {"example.com/owner": "shop"}}, "spec": pod}
    name, url = parts.gateway()
    cluster = ck.KubeCluster(None, admin.namespace, gateway=name, url=url, workload=ck.Workload(template=template))
    versions = (
        ck.Version("v1", image="registry.example/recommender:1"),
        ck.Version("v2", image="registry.example/recommender:2"),
    )
    changes = cluster.plan(ck.Service("recommender", *versions))
    assert [change.action for change in changes if change.kind == "Deployment"] == ["create", "create"]
    assert admin.list("Deployment") == []
