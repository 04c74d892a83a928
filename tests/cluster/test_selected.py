"""Services and policies of a team that would select a rollout's pods: real traffic through them, and what the kit says."""

import accounts
import cluster_parts as parts
import pytest

from canarykit.errors import ClusterError

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]


@pytest.fixture
def their_service(admin):
    """A Service of the team, which selects by the name of the service alone."""
    ports = [{"port": 80, "targetPort": 8080}]
    meta, spec = {"name": "web"}, {"selector": {"app": "digits"}, "ports": ports}
    return admin.create({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})


def test_a_service_of_others_never_reaches_the_canary(connect, service_of, admin, their_service):
    """
    It is named in the plan and refused by `deploy` before anything is written; its users keep what they had.
    """
    assert "deploy() refuses: Service web in namespace" in str(connect().plan(service_of()))
    with pytest.raises(
        ClusterError, match=r"Service web .* selects app=digits, which the pods of digits-stable and the pods of"
    ):
        connect().deploy(service_of())
    assert parts.left_behind(admin) == []
    admin.patch("Service", "web", {"metadata": {"annotations": {"canarykit.dev/selects-canary": "true"}}})
    connect().deploy(service_of())


def test_policies_of_others_are_told(connect, service_of, admin):
    """
    A policy for all pods, and a budget, may be meant so: both are in the plan and among the lines of `deploy`.
    """
    for kind, version, spec in (
        ("NetworkPolicy", "networking.k8s.io/v1", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}),
        ("PodDisruptionBudget", "policy/v1", {"minAvailable": 1, "selector": {"matchLabels": {"app": "digits"}}}),
    ):
        admin.create({"apiVersion": version, "kind": kind, "metadata": {"name": "theirs"}, "spec": spec})
    told = []
    cluster = connect(notify=told.append)
    plan = cluster.plan(service_of())
    cluster.deploy(service_of())
    for kind in ("NetworkPolicy", "PodDisruptionBudget"):
        assert f"{kind} theirs selects the pods of digits-stable and the pods of digits-canary" in str(plan)
        assert any(line.startswith(f"{kind} theirs selects") for line in told)


def test_a_role_that_may_not_list_them_deploys(admin, service_of, connect):
    """
    Without these rights, as with an older role, it is said what nobody knows.
    """
    kinds = ("networkpolicies", "poddisruptionbudgets", "horizontalpodautoscalers")
    told = []
    # `connect` acts as the whole role; a Role of the same name without these rights takes its place.
    for body in accounts.role_objects([(kind, "list") for kind in kinds]):
        if body["kind"] == "Role":
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{admin.namespace}/roles/canarykit"
            admin._exchange("PATCH", path, {"rules": body["rules"]}, {"content-type": "application/merge-patch+json"})
    cluster = connect(notify=told.append)
    parts.wait_for(lambda: "not known" in str(cluster.plan(service_of())), within=10)
    cluster.deploy(service_of())
    said = next(line for line in told if "not known" in line)
    assert "NetworkPolicy or PodDisruptionBudget or HorizontalPodAutoscaler" in said
