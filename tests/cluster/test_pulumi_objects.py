"""What the Pulumi program registers, as a real API server sees it: a dry run, nothing is written."""

import pulumi_mocks
import pytest

import canarykit as ck
from canarykit.clusters.kube import manifests
from canarykit.clusters.kube.binding import target_of
from canarykit.clusters.kube.client import Client
from canarykit.clusters.kube.manifests import Workload
from canarykit.routers.gateway_api import route

# Given anew by each dry run.
FLEETING = {"uid", "creationTimestamp", "managedFields", "resourceVersion", "clusterIP", "clusterIPs", "nodePort"}


def lasting(value):
    """An object without what differs between two dry runs of the same."""
    if isinstance(value, dict):
        return {key: lasting(inner) for key, inner in value.items() if key not in FLEETING}
    return [lasting(inner) for inner in value] if isinstance(value, list) else value


def check(registered, own, namespace):
    """Both are accepted, and become the same objects with the same defaults."""
    client = Client(None, namespace)
    assert {(body["kind"], body["metadata"]["name"]) for body in registered} == {
        (body["kind"], body["metadata"]["name"]) for body in own
    }
    for body in own:
        (theirs,) = (
            other
            for other in registered
            if other["kind"] == body["kind"] and other["metadata"]["name"] == body["metadata"]["name"]
        )
        ours, seen = client.apply(body, dry_run=True), client.apply(theirs, dry_run=True)
        assert lasting(seen) == lasting(ours)
        assert lasting(seen)["metadata"].get("namespace", namespace) == namespace
    assert client.list("Deployment") == client.list("HTTPRoute") == []


def service():
    """As the program makes it from two images."""
    stable, canary = pulumi_mocks.IMAGES.values()
    return ck.Service("ai-service", ck.Version("ai:1", image=stable), ck.Version("ai:2", image=canary))


@pytest.mark.real("pulumi")
@pytest.mark.real("cluster")
@pytest.mark.parametrize("service_type", ["LoadBalancer", "ClusterIP", "NodePort"])
def test_the_server_makes_the_same_of_both(namespace, service_type):
    """
    The namespace, Deployments and Services of the program are the kit's own to the API server too.
    """
    made = pulumi_mocks.up(config={**pulumi_mocks.IMAGES, "namespace": namespace, "service_type": service_type})
    own = [manifests.namespace(namespace), *manifests.objects(service(), Workload(service_type=service_type))]
    check(made.objects, own, namespace)


@pytest.mark.real("pulumi")
@pytest.mark.real("gateway")
def test_the_server_makes_the_same_of_the_route(namespace):
    """
    The route of the program is the kit's own to the API server too.
    """
    settings = {"namespace": namespace, "gateway": "web/front", "hostname": "ai.example", "weight": "0"}
    made = pulumi_mocks.up(config={**pulumi_mocks.IMAGES, **settings})
    check(
        list(made.of("HTTPRoute").values()),
        [route(target_of("ai-service", 80), gateway="web/front", hostname="ai.example")],
        namespace,
    )
