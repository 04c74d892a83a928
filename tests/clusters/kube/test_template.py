"""A team's patch of the pod template: merged as the API server does, and refused where it cannot be."""

import pytest

import canarykit as ck
from canarykit.clusters.kube.workloads.manifests import SETTINGS, Workload, deployment
from canarykit.clusters.kube.workloads.template import merged, read_template
from canarykit.errors import PlanError

SERVICE = ck.Service("chat", ck.Version("v1", image="a:1", env={"MODEL": "m"}), ck.Version("v2", image="a:2"))
PATCH = """
metadata:
  annotations: {team: shop}
spec:
  serviceAccountName: chat
  automountServiceAccountToken: null
  tolerations: [{key: gpu, operator: Exists}]
  volumes: [{name: cache, emptyDir: {medium: Memory}}]
  initContainers: [{name: fetch, image: "b:1"}]
  containers:
  - name: server
    envFrom: [{secretRef: {name: keys}}]
    env: [{name: MODEL, value: other}, {name: PORT, $patch: delete}]
    volumeMounts: [{name: cache, mountPath: /cache}]
  - name: proxy
    image: c:1
"""


@pytest.fixture
def workload(tmp_path):
    """A workload whose template is a file."""
    (tmp_path / "pod.yaml").write_text(PATCH)
    return Workload(template=str(tmp_path / "pod.yaml"))


def test_a_patch_is_merged_over_the_kits_own_template(workload):
    """
    Lists by name, maps field by field; null and a delete remove; what the patch does not say stays.
    """
    plain, patched = (deployment(SERVICE, "stable", each)["spec"]["template"] for each in (Workload(), workload))
    assert patched["metadata"] == {**plain["metadata"], "annotations": {"team": "shop"}}
    spec = patched["spec"]
    assert (spec["serviceAccountName"], spec["tolerations"]) == ("chat", [{"key": "gpu", "operator": "Exists"}])
    assert "automountServiceAccountToken" not in spec
    assert [each["name"] for each in spec["containers"]] == ["server", "proxy"]
    server, before = spec["containers"][0], plain["spec"]["containers"][0]
    assert {each["name"]: each["value"] for each in server["env"]} == {"CANARYKIT_ROLE": "stable", "MODEL": "other"}
    assert {key: server[key] for key in before if key != "env"} == {key: before[key] for key in before if key != "env"}
    assert server["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_the_settings_of_a_build_are_those_of_the_patched_container(workload):
    """
    The same image with another environment may behave otherwise: the evidence of the one says nothing about the other.
    """
    noted = {deployment(SERVICE, "stable", each)["metadata"]["annotations"][SETTINGS] for each in (Workload(), workload)}
    assert len(noted) == 2


@pytest.mark.parametrize(
    ("base", "patch", "made"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"args": [1, 2]}, {"args": [3]}, {"args": [3]}),
        (
            {"ports": [{"containerPort": 80, "name": "x"}]},
            {"ports": [{"containerPort": 80, "name": "y"}]},
            {"ports": [{"containerPort": 80, "name": "y"}]},
        ),
        (
            {"env": [{"name": "a", "value": "1"}]},
            {"env": [{"name": "b", "value": "2"}]},
            {"env": [{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]},
        ),
        ({"env": [{"name": "a"}]}, {"env": [{"name": "a", "$patch": "delete"}]}, {"env": []}),
        ({}, {"volumes": [{"name": "v"}]}, {"volumes": [{"name": "v"}]}),
    ],
)
def test_fields_lists_and_deletions(base, patch, made):
    """
    Worked out by hand.
    """
    assert merged(base, patch) == made


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ({"containers": []}, "with metadata and spec, and has containers"),
        ({}, "is empty, or no mapping"),
        ("no-such-file.yaml", "cannot be read: .*No such file"),
        ({"spec": {"containers": [{"image": "a"}]}}, r"template=spec.containers\[0\] has no name"),
        ({"spec": {"containers": {"server": {}}}}, "spec.containers is a dict, and the pod template has a list there"),
        ({"metadata": {"labels": {"version": "x"}}}, "changes the label version"),
        ({"metadata": {"labels": None}}, "changes the label app"),
        ({"spec": {"containers": [{"name": "server", "$patch": "delete"}]}}, "removes the container server"),
    ],
)
def test_a_patch_that_cannot_be_merged_is_refused(template, says):
    """
    What a rollout needs stays, and the place is named.
    """
    with pytest.raises(PlanError, match=says):
        deployment(SERVICE, "canary", Workload(template=template))


def test_what_is_no_yaml_is_refused(tmp_path):
    """
    A file with something else in it.
    """
    for content in ("a: [", "- 1", "text", "", b"\xff"):
        path = tmp_path / "pod.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(PlanError, match="template="):
            read_template(path)
