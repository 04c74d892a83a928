"""Whose an object is: made, adopted, given back."""

import json

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube.api.writes import build_in, refuse
from canarykit.clusters.kube.workloads.manifests import Workload, objects
from canarykit.clusters.kube.workloads.ownership import adoption, mine, put_back, remove, restored
from canarykit.errors import ClusterError, ForbiddenError
from canarykit.routers.objects import BEFORE

SERVICE = ck.Service("digits", ck.Version("v1", image="a:1"), ck.Version("v2", image="a:2"))
MADE = objects(SERVICE, Workload())
THEIRS = {
    "kind": "Service",
    "metadata": {"name": "digits-stable", "labels": {"team": "search"}, "annotations": {"note": "ours"}},
    "spec": {"selector": {"app": "old"}, "ports": [{"port": 80}]},
}


class Cluster(Namespace):
    """A namespace where an apply writes over what is there, as the same field manager would."""

    def apply(self, body, *, dry_run=False, force=False):
        """Merge our fields into the object."""
        found = self.get(body["kind"], body["metadata"]["name"]) or {"metadata": {}}
        if dry_run:
            return body
        meta = {**found["metadata"], **body["metadata"]}
        for field in ("labels", "annotations"):
            meta[field] = {**found["metadata"].get(field, {}), **body["metadata"].get(field, {})}
        return self._store({**found, **body, "metadata": meta})


def test_whose_an_object_is():
    """
    The label of who manages it says so.
    """
    assert all(mine(body) for body in MADE)
    assert not mine(THEIRS)
    assert not mine({"metadata": {"name": "bare"}})


def test_what_was_adopted_is_given_back_as_it_was():
    """
    Labels, annotations and spec of before; what the kit made is removed, what others made stays.
    """
    other = {"kind": "Service", "metadata": {"name": "other", "labels": {}}, "spec": {}}
    cluster = Cluster(THEIRS, other)
    (ours,) = [body for body in MADE if (body["kind"], body["metadata"]["name"]) == ("Service", "digits-stable")]
    adoption(cluster, cluster.get("Service", "digits-stable"))
    for body in MADE:
        cluster.apply(body)
    taken = cluster.get("Service", "digits-stable")
    assert mine(taken)
    assert taken["spec"]["selector"] == ours["spec"]["selector"]
    assert json.loads(taken["metadata"]["annotations"][BEFORE])["labels"] == {"team": "search"}
    told = []
    remove(cluster, SERVICE, told.append)
    assert told == ["given back as before: Service digits-stable"]
    back = cluster.get("Service", "digits-stable")
    for field in ("labels", "annotations"):
        assert back["metadata"][field] == THEIRS["metadata"][field]
    assert back["spec"] == THEIRS["spec"]
    assert {body["metadata"]["name"] for body in cluster.list("Service")} == {"digits-stable", "other"}
    assert cluster.list("Deployment") == []
    assert restored(cluster, SERVICE, told.append) == []


def test_adopted_twice_is_still_given_back_as_it_was():
    """
    A deployment that was cut short and begun again does not take its own note for what was before.
    """
    cluster = Cluster(THEIRS)
    for _ in range(2):
        adoption(cluster, cluster.get("Service", "digits-stable"))
    before = json.loads(cluster.get("Service", "digits-stable")["metadata"]["annotations"][BEFORE])
    assert before["annotations"] == {"note": "ours"}


def test_kinds_that_a_role_leaves_out_hold_nothing_of_the_kit():
    """
    A role keeps the route that its router writes; nothing is touched unless Deployments, Services and ConfigMaps are seen.
    """

    class Narrow(Cluster):
        hidden = frozenset({"Ingress", "VirtualService", "InferenceService", "Job"})

        def list(self, kind, selector="", **options):
            if kind in self.hidden:
                raise ForbiddenError(f"no permission to list {kind}")
            return super().list(kind, selector, **options)

    cluster = Narrow(*MADE)
    cluster.hidden = frozenset({"ConfigMap"})
    with pytest.raises(ForbiddenError, match="ConfigMap"):
        remove(cluster, SERVICE, print)
    assert len(cluster._objects) == len(MADE)
    del cluster.hidden
    remove(cluster, SERVICE, print)
    assert cluster._objects == {}


@pytest.mark.parametrize("pods_stay", [False, True])
def test_what_a_failed_deployment_changed_is_put_back(pods_stay):
    """
    Also the owners of its fields, in a request of their own; the number of pods stays where it is the split.
    """
    owners = [{"manager": "canarykit", "operation": "Apply"}]
    before = {
        "kind": "Deployment",
        "metadata": {"name": "d", "labels": {"a": "1"}, "managedFields": owners},
        "spec": {"replicas": 1, "template": "old"},
    }
    cluster = Cluster(before)
    read = cluster.get("Deployment", "d")
    cluster.edit("Deployment", "d", replicas=3, template="new")
    put_back(cluster, read, pods_stay=pods_stay)
    now = cluster.get("Deployment", "d")
    assert now["spec"] == {"replicas": 3 if pods_stay else 1, "template": "old"}
    assert now["metadata"]["labels"] == {"a": "1"}
    assert now["metadata"]["managedFields"] == owners
    cluster.delete("Deployment", "d")
    put_back(cluster, {**read, "metadata": {"name": "d"}}, pods_stay=pods_stay)
    assert cluster.get("Deployment", "d") is None


def test_others_objects_are_refused_before_anything_is_written():
    """
    Unless they are to be taken over; a route may be split where it is.
    """
    cluster = Cluster(THEIRS)
    with pytest.raises(ClusterError, match=r"Service digits-stable in namespace ns is someone else's: .*adopt=True$"):
        refuse(cluster, MADE, adopt=False)
    refuse(cluster, MADE, adopt=True)
    route = {"kind": "HTTPRoute", "metadata": {"name": "digits"}, "spec": {}}
    with pytest.raises(ClusterError, match=r'have your own route split with route="digits"'):
        refuse(Cluster(route), [route], adopt=False)
    assert [name for _, name in cluster.writes] == ["digits-stable"]


def test_stable_is_not_replaced_by_a_deployment():
    """
    What serves now has to be named as stable; a new stable comes by promotion.
    """
    cluster = Cluster(*MADE)
    other = ck.Service("digits", ck.Version("v3", image="a:3"), SERVICE.canary)
    refuse(cluster, MADE, adopt=False)
    with pytest.raises(ClusterError, match=r"digits-stable runs 'v1 a:1', and stable is to be 'v3 a:3': name as stable what"):
        refuse(cluster, objects(other, Workload()), adopt=True)
    assert build_in(None) == ""
    assert build_in({"metadata": {}}) == "an unknown build"
