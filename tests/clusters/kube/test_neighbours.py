"""Objects of others that would select the pods of a rollout: each is named before anything is written."""

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube.jobs import job
from canarykit.clusters.kube.workloads.manifests import Workload, objects
from canarykit.clusters.kube.workloads.neighbours import ALLOWED, check_neighbours, find_neighbours
from canarykit.clusters.kube.workloads.selectors import equal, matches
from canarykit.errors import ClusterError, ForbiddenError

SERVICE = ck.Service("ai", ck.Version("v1", image="a:1"), ck.Version("v2", image="a:2"))
BODIES = objects(SERVICE, Workload())
POD = {"app": "ai", "version": "canary"}


def made(kind, name="theirs", *, annotations=(), **spec):
    """An object of somebody else."""
    return {"kind": kind, "metadata": {"name": name, "annotations": dict(annotations)}, "spec": spec}


def service(name="theirs", *, annotations=(), type="ClusterIP", **selector):
    """A Service of somebody else."""
    return made("Service", name, annotations=annotations, type=type, selector=selector)


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "ai"}}, True),
        ({"matchLabels": {"app": "ai", "version": "stable"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["ai", "other"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["other"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["ai"]}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["search"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "ai"}, "matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["ai"]}]}, False),
        ({"matchLabels": None, "matchExpressions": None}, True),
    ],
)
def test_selectors_select_as_the_api_server_does(selector, expected):
    """
    All of a selector must hold; an empty one selects everything, and none nothing.
    """
    assert matches(selector, POD) is expected


@pytest.mark.parametrize(("selector", "expected"), [(None, False), ({}, False), ({"app": "ai"}, True), ({"app": "x"}, False)])
def test_a_service_without_a_selector_selects_nothing(selector, expected):
    """
    Its endpoints are written by hand.
    """
    assert equal(selector, POD) is expected


@pytest.mark.parametrize("selector", [{"app": "ai"}, {"app.kubernetes.io/name": "ai"}, {"app": "ai", "version": "canary"}])
def test_a_service_that_would_send_users_to_the_canary_is_refused(selector):
    """
    By whichever of its labels, with its name, what it selects, and what to do.
    """
    with pytest.raises(ClusterError, match=rf"Service theirs in namespace ns .*the pods of ai-canary.*{ALLOWED}=true"):
        check_neighbours(Namespace(service(**selector)), BODIES)


def test_each_service_is_named():
    """
    Not only the first.
    """
    with pytest.raises(ClusterError, match=r"(?s)Service one .*Service two "):
        check_neighbours(Namespace(service("one", app="ai"), service("two", app="ai")), BODIES)


@pytest.mark.parametrize(
    "found",
    [
        service(app="other"),
        service(),
        service(app="ai", type="ExternalName"),
        service("ai-canary", app="ai", version="canary"),
        service(app="ai", annotations={ALLOWED: "true"}),
    ],
    ids=["another app", "no selector", "external name", "the kit's own", "allowed"],
)
def test_other_services_are_left_alone(found):
    """
    Those of others, those without a selector, the kit's own, and those that are meant to select the canary.
    """
    assert find_neighbours(Namespace(found), BODIES).notes == ()


def test_the_service_of_replicas_as_a_router_is_meant_to_select_both():
    """
    It is among the objects of the rollout; another one with the same selector is not.
    """
    front = service("ai", app="ai")
    check_neighbours(Namespace(front), [*BODIES, front])
    with pytest.raises(ClusterError, match="Service web "):
        check_neighbours(Namespace(front, service("web", app="ai")), [*BODIES, front])


def test_a_service_of_stables_pods_alone_is_told():
    """
    They are what its users know already.
    """
    assert check_neighbours(Namespace(service(app="ai", version="stable")), BODIES) == (
        "Service theirs sends requests to the pods of ai-stable as well",
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (made("NetworkPolicy", podSelector={}), "NetworkPolicy theirs selects the pods of ai-stable and the pods of"),
        (made("NetworkPolicy", podSelector={"matchLabels": {"version": "canary"}}), "NetworkPolicy theirs selects the"),
        (made("PodDisruptionBudget", selector={"matchLabels": {"app": "ai"}}), "PodDisruptionBudget theirs selects "),
        (made("PodDisruptionBudget", selector={}), "PodDisruptionBudget theirs selects "),
        (made("PodDisruptionBudget"), None),
        (made("HorizontalPodAutoscaler", scaleTargetRef={"kind": "Deployment", "name": "web"}), "HorizontalPodAutoscaler "),
        (made("HorizontalPodAutoscaler", scaleTargetRef={"kind": "Deployment", "name": "ai-stable"}), None),
        (made("HorizontalPodAutoscaler", scaleTargetRef={"kind": "Deployment", "name": "gone"}), None),
        (made("HorizontalPodAutoscaler", scaleTargetRef={"kind": "Rollout", "name": "web"}), None),
    ],
)  # fmt: skip
def test_what_may_be_meant_so_is_told(found, says):
    """
    Policies, budgets, and autoscalers that measure the pods of another Deployment with the same labels.
    """
    there = Namespace(made("Deployment", "web", selector={"matchLabels": {"app": "ai"}}), found)
    notes = check_neighbours(there, BODIES)
    assert [note.startswith(says) for note in notes] == [True] if says else notes == ()


def test_what_may_not_be_listed_is_said(monkeypatch):
    """
    A role without these rights is no reason to fail.
    """
    there, listed = Namespace(service(app="ai")), Namespace.list

    def forbidden(self, kind, *args, **options):
        if kind != "Service":
            raise ForbiddenError("no permission")
        return listed(self, kind, *args, **options)

    monkeypatch.setattr(Namespace, "list", forbidden)
    found = find_neighbours(there, BODIES)
    assert len(found.refused) == 1
    assert "whether a NetworkPolicy or PodDisruptionBudget or HorizontalPodAutoscaler of namespace ns selects" in found.told[0]
    assert found.notes[0].startswith("deploy() refuses: Service theirs ")


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_what_an_autoscaler_scales_may_be_hidden(monkeypatch, kind):
    """
    A role may list autoscalers and not read what they scale: that is said, and the other autoscalers are looked at.
    """
    hidden = made("HorizontalPodAutoscaler", "hidden", scaleTargetRef={"kind": kind, "name": "db"})
    seen = made("HorizontalPodAutoscaler", "seen", scaleTargetRef={"kind": "Deployment", "name": "web"})
    web = made("Deployment", "web", selector={"matchLabels": {"app": "ai"}})
    there, get = Namespace(hidden, seen, web), Namespace.get

    def forbidden(self, kind, name, **options):
        if name == "db":
            raise ForbiddenError("no permission")
        return get(self, kind, name, **options)

    monkeypatch.setattr(Namespace, "get", forbidden)
    unknown, selects = check_neighbours(there, BODIES)
    assert unknown.startswith(
        f"not known, for lack of permission to get {kind} db: whether HorizontalPodAutoscaler hidden, which"
    )
    assert selects.startswith("HorizontalPodAutoscaler seen selects the pods of ai-stable")


def test_senders_have_no_label_of_the_service():
    """
    A Service or policy that selects the service's pods does not select the pods that send traffic to it.
    """
    senders = job("ai-load-1", SERVICE, Workload(), pods=1)
    for selector in ({"app": "ai"}, {"app.kubernetes.io/name": "ai"}, {"app.kubernetes.io/part-of": "ai"}):
        check_neighbours(Namespace(service(**selector)), [senders])
    with pytest.raises(ClusterError, match="the pods of ai-load-1"):
        check_neighbours(Namespace(service(**{"app.kubernetes.io/managed-by": "canarykit"})), [senders])
