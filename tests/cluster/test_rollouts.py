"""Whole rollouts on a real cluster under real traffic, as a service account that may do no more than deploy/rbac.yaml."""

import json
import os
import secrets
import urllib.request
from dataclasses import replace

import cluster_parts as parts
import pytest
import yaml

import canarykit as ck
from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.inventory import contents
from canarykit.errors import ClusterError
from canarykit.history import replay

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]

QUICK = ck.RolloutPlan.of(5, 25, 50, hold="4s", min_requests=20, budget="4min")


def lost(exp):
    """Requests that the kit's own traffic lost."""
    return sum(load["lost_total"] for load in exp.history().loads)


def test_a_good_canary_is_promoted_with_nothing_lost(connect, experiment, service_of, admin):
    """
    0 → 5 → 25 → 50 → 100 through a real gateway: served as asked at each step, and nothing of it is left behind.
    """
    exp = experiment(service_of(replicas=2), connect())
    exp.deploy()
    exp.send(150)
    ending = exp.run(QUICK)
    assert ending.outcome == "promoted", str(ending)
    assert lost(exp) == 0
    assert [change["asked"] for change in exp.journal.weights()] == [5, 25, 50, 100, 0]
    assert exp._tracker.assessment.split_check.alarm is None
    stable = admin.get("Deployment", "digits-stable")
    assert stable["metadata"]["labels"]["app.kubernetes.io/version"] == "v2"
    assert admin.get("Deployment", "digits-canary")["spec"]["replicas"] == 0
    exp.teardown()
    assert parts.left_behind(admin) == []


def test_a_failing_canary_is_rolled_back_with_nothing_lost(connect, experiment, service_of):
    """
    Traffic is back on stable within the time that the sentence says.
    """
    # Errors alone: on a busy machine a cold canary's latency may be what is found first.
    exp = experiment(service_of("failing"), connect(), guardrails=[ck.metrics.error_rate()])
    exp.deploy()
    exp.send(100)
    ending = exp.run(QUICK)
    assert ending.outcome == "rolled back", str(ending)
    assert "error rate" in ending.sentence
    assert "back on stable after" in ending.sentence
    assert lost(exp) == 0
    assert exp.cluster.router.observed() == ck.TrafficSplit(0)


def test_pods_as_a_router_roll_out_too(connect, experiment, service_of):
    """
    No gateway at all: the share of pods is the split, traffic comes from two pods of the cluster, nothing is lost.
    """
    exp = experiment(service_of(replicas=2), connect(router="replicas"), guardrails=[ck.metrics.error_rate()])
    exp.deploy()
    parts.wait_for(lambda: exp.cluster.router.url)
    load = exp.send(100, inside=2)
    ending = exp.run(ck.RolloutPlan.of(25, 50, hold="4s", min_requests=20, budget="4min"))
    assert ending.outcome == "promoted", str(ending)
    assert load.asked["pods"] == 2
    assert sum(exp.history().requests) > 500
    assert lost(exp) == 0, exp.history().loads


def test_plan_and_export_write_nothing(connect, service_of, admin, tmp_path):
    """
    The difference is shown before anything is there, and none is left after; kubectl would take the YAML.
    """
    cluster, service = connect(), service_of()
    planned = cluster.plan(service)
    assert {change.action for change in planned} == {"create"}
    assert "nothing is written" in str(planned)
    text = cluster.export(service, tmp_path / "objects.yaml")
    assert (tmp_path / "objects.yaml").read_text() == text
    assert parts.left_behind(admin) == []
    for body in yaml.safe_load_all(text):
        admin.apply(body, dry_run=True)
    cluster.deploy(service)
    again = connect()
    assert {change.action for change in again.plan(service)} == {"leave"}
    more = again.plan(service_of(replicas=2))
    assert any("spec.replicas: 1 → 2" in change.fields for change in more)
    cluster.teardown()
    assert parts.left_behind(admin) == []


def test_a_namespace_of_its_own_is_made_and_removed(service_of):
    """
    An administrator who has no namespace yet gets one; where there was none there is none afterwards.
    """
    name = f"canarykit-test-made-{os.getpid()}"
    gateway, url = parts.gateway()
    cluster = ck.KubeCluster(None, name, gateway=gateway, url=url, hostname=f"{name}.test", workload=parts.WORKLOAD)
    cluster.deploy(service_of())
    assert cluster.urls().keys() == {"stable", "canary"}
    cluster.teardown()
    client = Client(None, name)
    parts.wait_for(lambda: client.get("Namespace", name) is None)


def test_a_namespace_that_holds_more_stays(service_of):
    """
    The kit made it, and somebody keeps a Secret there by now: its name is told, and nothing else of it is read.
    """
    name = f"canarykit-test-made-{secrets.token_hex(3)}"
    gateway, url = parts.gateway()
    told = []
    cluster = ck.KubeCluster(
        None, name, gateway=gateway, url=url, hostname=f"{name}.test", workload=parts.WORKLOAD, notify=told.append
    )
    client = Client(None, name)
    try:
        cluster.deploy(service_of())
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"}, "stringData": {"a": "hush"}}
        client._ask("POST", f"/api/v1/namespaces/{name}/secrets", kind="Secret", body=secret)
        cluster.teardown()
        assert told[-1] == f"namespace {name} stays: it holds secrets/registry"
        assert client.get("Namespace", name)["status"]["phase"] == "Active"
    finally:
        client.delete("Namespace", name)


def test_a_failed_deployment_leaves_what_was_there(connect, service_of, admin):
    """
    Stable with a probe that never passes: it runs as before, each field owned as before.
    """
    service, cluster = service_of(), connect()
    cluster.deploy(service)
    cluster.release()
    before = admin.get("Deployment", "digits-stable")
    broken = replace(service, stable=replace(service.stable, ready="/never"))
    with pytest.raises(ClusterError, match="pods ready after 8 s"):
        connect(ready_within=8.0).deploy(broken)
    after = admin.get("Deployment", "digits-stable")
    assert after["spec"] == before["spec"]
    owners = [
        sorted((entry["manager"], entry["operation"], json.dumps(entry["fieldsV1"]))
               for entry in found["metadata"]["managedFields"] if entry["manager"] == "canarykit")
        for found in (before, after)
    ]  # fmt: skip
    assert owners[0] == owners[1]


def test_an_adopted_route_is_given_back(connect, service_of, admin):
    """
    Somebody's route of the service's name: taken over, and after `teardown` it is as it was.
    """
    first = connect()
    first.deploy(service_of())
    route = admin.get("HTTPRoute", "digits")
    first.teardown()
    spec = {**route["spec"], "rules": [{"backendRefs": [{"name": "old", "port": 80}]}]}
    theirs = {"apiVersion": route["apiVersion"], "kind": "HTTPRoute", "metadata": {"name": "digits"}, "spec": spec}
    before = admin.create(theirs)
    cluster = connect(adopt=True)
    cluster.deploy(service_of())
    assert admin.get("HTTPRoute", "digits")["spec"] != before["spec"]
    cluster.teardown()
    assert admin.get("HTTPRoute", "digits")["spec"] == before["spec"]
    assert parts.left_behind(admin) == []


@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort", "LoadBalancer"])
def test_service_urls_answer(connect, service_of, kind):
    """
    A port of this machine that leads to a pod, a port of the nodes, or the address of a load balancer, once it listens.
    """
    workload = ck.Workload(server_image=parts.WORKLOAD.server_image, service_type=kind)
    cluster = connect(workload=workload)
    cluster.deploy(service_of())
    if kind == "LoadBalancer":
        parts.wait_for(lambda: not any("127.0.0.1" in url for url in cluster.urls().values()))
    for role, version in (("stable", "v1"), ("canary", "v2")):
        with urllib.request.urlopen(f"{cluster.urls()[role]}/v2", timeout=10) as answer:
            assert json.load(answer)["version"] == version
    cluster.teardown()


def test_objects_of_others_are_refused_or_given_back(connect, service_of, admin):
    """
    A Service of that name that someone else made stops the deployment; adopted, it is afterwards as it was.
    """
    foreign = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "digits-stable", "labels": {"team": "search"}},
        "spec": {"selector": {"app": "other"}, "ports": [{"name": "http", "port": 80, "targetPort": 9999}]},
    }
    before = admin.create(foreign)
    with pytest.raises(ClusterError, match=r"someone else's.*adopt=True"):
        connect().deploy(service_of())
    assert parts.left_behind(admin) == []
    assert admin.get("Service", "digits-stable")["spec"] == before["spec"]
    cluster = connect(adopt=True)
    cluster.deploy(service_of())
    assert admin.get("Service", "digits-stable")["spec"]["selector"]["version"] == "stable"
    cluster.teardown()
    after = admin.get("Service", "digits-stable")
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert after["metadata"]["labels"] == {"team": "search"}
    assert parts.left_behind(admin) == []


def test_what_is_not_the_kits_survives(connect, service_of, admin):
    """
    After `teardown` foreign objects are as they were, and none of the kit is left.
    """
    foreign = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits-notes"}, "data": {"a": "b"}}
    before = admin.create(foreign)
    cluster = connect()
    cluster.deploy(service_of())
    assert "configmaps/digits-notes" in contents(admin)
    cluster.teardown()
    assert parts.left_behind(admin) == []
    assert admin.get("ConfigMap", "digits-notes") == before


def test_letting_go_leaves_what_serves(connect, experiment, service_of):
    """
    `close` ends the notebook's part; both versions stay with their weight, and the next notebook goes on from it.
    """
    exp = experiment(service_of(), connect())
    exp.deploy()
    exp.shift(25)
    exp.close()
    exp = experiment(service_of(), connect())
    exp.deploy()
    assert exp.snapshot().state.split == ck.TrafficSplit(25)


def test_a_version_that_is_new_midway_begins_at_nothing(connect, experiment, service_of):
    """
    Weight and evidence of a canary say nothing about the next one.
    """
    exp = experiment(service_of("slow"), connect())
    exp.deploy()
    exp.shift(25)
    exp.close()
    other = experiment(service_of("good"), connect())
    other.deploy()
    assert other.snapshot().state.split == ck.TrafficSplit(0)
    assert other.cluster.router.observed() == ck.TrafficSplit(0)


def test_stable_is_not_replaced_by_deploying(connect, service_of):
    """
    What serves now must be named as stable.
    """
    cluster = connect()
    cluster.deploy(service_of())
    cluster.release()
    with pytest.raises(ClusterError, match="name as stable what serves now"):
        connect().deploy(service_of(stable="good"))


def test_what_was_counted_can_be_judged_again(connect, experiment, service_of, tmp_path):
    """
    The journal of a rollout on a cluster replays as one of a laptop does, and says where its counts came from.
    """
    exp = experiment(service_of(), connect(), journal=tmp_path / "journal.sqlite")
    exp.deploy()
    exp.send(60)
    exp.shift(50)
    exp.observe("3s")
    exp.stop_sending()
    said = str(exp.judge())
    exp.teardown()
    journal = ck.Journal.read(tmp_path / "journal.sqlite")
    assert "canarykit_requests_total" in str(journal.facts["sources"])
    assert str(replay(journal).judgement) == said
