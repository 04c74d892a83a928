"""What the role of deploy/rbac.yaml is for: each right that is missing is named, and nothing is left behind."""

import accounts
import cluster_parts as parts
import pytest

from canarykit.clusters.kube.api.client import Client
from canarykit.errors import ClusterError

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway")]


@pytest.fixture
def restricted(admin, tmp_path, monkeypatch):
    """Make this process the service account, with a role that lacks some rights."""

    def make(*without):
        for body in accounts.role_objects(without):
            accounts.create(admin, body)
        monkeypatch.setenv("KUBECONFIG", str(accounts.kubeconfig(admin, tmp_path / "kubeconfig")))

    return make


def cluster_in(namespace):
    """A cluster of that namespace."""
    import canarykit as ck

    gateway, url = parts.gateway()
    return ck.KubeCluster(None, namespace, gateway=gateway, url=url, hostname=f"{namespace}.test", workload=parts.WORKLOAD)


@pytest.mark.parametrize(
    ("resource", "verb", "says"),
    [
        ("leases", "create", "cannot create Lease digits-rollout"),
        ("configmaps", "patch", "cannot patch ConfigMap digits-model-"),
        ("deployments", "patch", "cannot patch Deployment digits-stable"),
        ("services", "patch", "cannot patch Service digits-stable"),
        ("httproutes", "patch", "cannot patch HTTPRoute digits"),
        ("pods", "list", "cannot get Pod"),
    ],
)
def test_a_right_that_is_missing_is_named(restricted, admin, service_of, resource, verb, says):
    """
    Which verb on which object, and where the role is that suffices; nothing stays.
    """
    restricted((resource, verb))
    cluster = cluster_in(admin.namespace)
    with pytest.raises(ClusterError, match=rf"{says}.*no permission: .*cannot {verb} resource.*deploy/rbac.yaml"):
        cluster.deploy(service_of())
    assert parts.left_behind(admin) == []


def test_the_role_reaches_no_secret_and_no_other_namespace(namespace):
    """
    Neither a Secret of its own namespace, nor anything of another one, nor the making of namespaces.
    """
    client = Client(None, namespace)
    assert client._exchange("GET", f"/api/v1/namespaces/{namespace}/secrets", None, {})[0] == 403
    assert client._exchange("GET", "/api/v1/namespaces/default/pods", None, {})[0] == 403
    with pytest.raises(ClusterError, match="no permission"):
        client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "canarykit-test-none"}})


def test_no_role_verb_is_more_than_is_used():
    """
    No wildcard, no Secret, and nothing for the whole cluster.
    """
    for body in accounts.role_objects():
        assert not body["kind"].startswith("Cluster")
        for rule in body.get("rules", []):
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            assert "secrets" not in rule["resources"]
