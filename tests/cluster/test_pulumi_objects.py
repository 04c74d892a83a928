"""What the Pulumi program registers, as a real API server sees it."""

import cluster_parts as parts
import pulumi_mocks
import pytest

import canarykit as ck
from canarykit.clusters.kube.api import client
from canarykit.clusters.kube.binding import target_of
from canarykit.clusters.kube.workloads import manifests
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.routers.gateway_api import route, split_of

# Given anew by each dry run.
FLEETING = {"uid", "creationTimestamp", "managedFields", "resourceVersion", "clusterIP", "clusterIPs", "nodePort"}


def lasting(value):
    """An object without what differs between two dry runs of the same."""
    if isinstance(value, dict):
        return {key: lasting(inner) for key, inner in value.items() if key not in FLEETING}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def named(bodies):
    """Objects by kind and name."""
    return {(body["kind"], body["metadata"]["name"]): body for body in bodies}


def check(registered, own, api):
    """Both are accepted, and become the same objects with the same defaults."""
    theirs, ours = named(registered), named(own)
    assert theirs.keys() == ours.keys()
    for key, body in theirs.items():
        seen = lasting(api.apply(body, dry_run=True))
        assert seen == lasting(api.apply(ours[key], dry_run=True))
        assert seen["metadata"].get("namespace", api.namespace) == api.namespace
    assert api.list("Deployment") == api.list("HTTPRoute") == []


def service():
    """As the program makes it from two images."""
    stable, canary = pulumi_mocks.IMAGES.values()
    return ck.Service("ai-service", ck.Version("ai:1", image=stable), ck.Version("ai:2", image=canary))


@pytest.mark.real("pulumi")
@pytest.mark.real("cluster")
@pytest.mark.parametrize("service_type", ["LoadBalancer", "ClusterIP", "NodePort"])
def test_the_server_makes_the_same_of_both(admin, service_type):
    """
    The namespace, Deployments and Services of the program are the kit's own to the API server too.
    """
    made = pulumi_mocks.up(config={**pulumi_mocks.IMAGES, "namespace": admin.namespace, "service_type": service_type})
    own = [manifests.namespace(admin.namespace), *manifests.objects(service(), Workload(service_type=service_type))]
    check(made.objects, own, admin)


@pytest.mark.real("pulumi")
@pytest.mark.real("gateway")
def test_the_server_makes_the_same_of_the_route(admin):
    """
    The route of the program is the kit's own to the API server too.
    """
    settings = {"namespace": admin.namespace, "gateway": "web/front", "hostname": "ai.example", "weight": "0"}
    made = pulumi_mocks.up(config={**pulumi_mocks.IMAGES, **settings})
    own = route(target_of("ai-service", 80), gateway="web/front", hostname="ai.example")
    check(made.of("HTTPRoute").values(), [own], admin)


@pytest.mark.real("pulumi")
@pytest.mark.real("gateway")
def test_the_kit_finds_a_stack_as_it_would_make_it(admin, connect, monkeypatch):
    """
    On what the program has written under Pulumi's own name, a cluster has nothing to change, and sees the stack's weight.
    """
    settings = {"namespace": admin.namespace, "gateway": parts.gateway()[0], "weight": "25"}
    made = pulumi_mocks.up(config={**pulumi_mocks.IMAGES, **settings})
    with monkeypatch.context() as patched:
        patched.setattr(client, "FIELD_MANAGER", "pulumi-kubernetes-test")
        for body in made.objects:
            admin.apply(body)
    cluster = connect(route="ai-service")
    assert {change.action for change in cluster.plan(service())} == {"leave"}
    assert split_of(admin.get("HTTPRoute", "ai-service"), target_of("ai-service", 80)).canary == 25
