"""What is removed and what stays: a live route keeps what it leads to."""

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube.manifests import Model, Workload, labels, objects
from canarykit.clusters.kube.ownership import adoption, remove
from canarykit.clusters.kube.removal import carried_by, remove_unused
from canarykit.errors import ForbiddenError
from canarykit.routers.objects import Target
from canarykit.routers.references import references, services_in
from canarykit.routers.replicas import ReplicasRouter

SERVICE = ck.Service("chat", ck.Version("v1", model="a.skops"), ck.Version("v2", image="a:2"))
MADE = objects(SERVICE, Workload(), {"stable": Model(b"content")})
NAMES = [(body["kind"], body["metadata"]["name"]) for body in MADE]


def http(*refs, namespace="ns", kind="HTTPRoute", **rule):
    """A route of the Gateway API with one rule."""
    meta = {"name": "own", "namespace": namespace}
    return {"kind": kind, "metadata": meta, "spec": {"rules": [{"backendRefs": list(refs), **rule}]}}


def virtual(namespace="ns", protocol="http", **route):
    """A VirtualService with one route."""
    return {"kind": "VirtualService", "metadata": {"name": "own", "namespace": namespace}, "spec": {protocol: [route]}}


def ingress(**spec):
    """An Ingress."""
    return {"kind": "Ingress", "metadata": {"name": "own", "namespace": "ns"}, "spec": spec}


def to(host):
    """One destination."""
    return {"destination": {"host": host}}


FRONT = {"service": {"name": "chat-stable", "port": {"number": 80}}}
MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "chat-stable"}}}
LEADING = {
    "backend": http({"name": "chat-stable"}),
    "weight 0": http({"name": "chat-stable", "weight": 0}),
    "grpc": http({"name": "chat-stable"}, kind="GRPCRoute"),
    "elsewhere": http({"name": "chat-stable", "namespace": "ns"}, namespace="web"),
    "mirror": http({"name": "other"}, filters=[MIRROR]),
    "host": virtual(route=[to("chat-stable")]),
    "full host": virtual("web", route=[to("chat-stable.ns.svc.cluster.local")]),
    "tcp": virtual(protocol="tcp", route=[to("chat-stable.ns")]),
    "one mirror": virtual(route=[to("other")], mirror={"host": "chat-stable"}),
    "mirrors": virtual(route=[to("other")], mirrors=[to("chat-stable")]),
    "path": ingress(rules=[{"http": {"paths": [{"path": "/", "backend": FRONT}]}}]),
    "default": ingress(defaultBackend=FRONT),
}
BESIDE = {
    "other name": http({"name": "chat-stable-2"}),
    "other namespace": http({"name": "chat-stable", "namespace": "web"}),
    "from there": http({"name": "chat-stable"}, namespace="web"),
    "other kind": http({"name": "chat-stable", "kind": "InferencePool"}),
    "header": http({"name": "other"}, matches=[{"headers": [{"name": "chat-stable", "value": "1"}]}]),
    "other host": virtual(route=[to("chat-stable.web.svc.cluster.local")]),
    "short host there": virtual("web", route=[to("chat-stable")]),
    "ingress": ingress(rules=[{"host": "chat-stable", "http": {"paths": []}}]),
}


@pytest.mark.parametrize("body", LEADING.values(), ids=LEADING)
def test_a_route_that_leads_to_a_service_is_found(body):
    """
    Of every kind, wherever it names the Service, also from another namespace, and also with no weight.
    """
    assert "chat-stable" in services_in(body["kind"], body, "ns")
    assert list(references(Namespace(body), {"chat-stable"}).by) == ["chat-stable"]


@pytest.mark.parametrize("body", BESIDE.values(), ids=BESIDE)
def test_a_route_that_leads_elsewhere_keeps_nothing(body):
    """
    Another Service, or one of the same name in another namespace, or a header of that name.
    """
    assert references(Namespace(body), {"chat-stable"}).by == {}


def test_what_a_route_leads_to_stays_with_all_that_it_needs():
    """
    The Service, the Deployment behind it and its model stay, and it is said why; the other version goes.
    """
    api, told = Namespace(*MADE, LEADING["elsewhere"]), []
    assert not remove_unused(api, NAMES, told.append)
    assert {name for _, name in api._objects} == {"chat-stable", "own", MADE[0]["metadata"]["name"]}
    (said,) = told
    assert said.startswith(
        "Service chat-stable and Deployment chat-stable stay, because HTTPRoute own in namespace web still leads to them: "
    )
    assert said.endswith("kubectl -n ns delete service/chat-stable deployment/chat-stable")
    api.delete("HTTPRoute", "own")
    assert remove_unused(api, NAMES, told.append)
    assert not api._objects
    assert len(told) == 1


def test_a_deployment_behind_a_service_of_the_teams_stays():
    """
    The route leads to a Service that is not the kit's, which picks the kit's pods.
    """
    front = {"kind": "Service", "metadata": {"name": "chat"}, "spec": {"selector": {"app": "chat"}}}
    api, told = Namespace(*MADE, front, http({"name": "chat"})), []
    remove_unused(api, NAMES, told.append)
    assert {name for kind, name in api._objects if kind == "Deployment"} == {"chat-stable", "chat-canary"}
    assert api.get("Service", "chat-stable") is None
    assert told[0].startswith("Deployments chat-canary and chat-stable stay, because HTTPRoute own still leads to them")


def test_the_kits_own_route_goes_first():
    """
    It leads to the Services until then, and keeps nothing.
    """
    made = http({"name": "chat-stable"}, {"name": "chat-canary"})
    api = Namespace(*MADE, made)
    assert remove_unused(api, [*NAMES, ("HTTPRoute", "own")], print)
    assert not api._objects


def test_a_route_of_another_kit_keeps_what_it_leads_to():
    """
    It carries the label of a kit that conducts another service, and nobody removes it here.
    """
    said = {"app.kubernetes.io/managed-by": "canarykit", "app.kubernetes.io/part-of": "other"}
    theirs = http({"name": "chat-canary"})
    api, told = Namespace(*MADE, {**theirs, "metadata": {**theirs["metadata"], "labels": said}}), []
    assert not remove(api, SERVICE, told.append)
    assert {name for kind, name in api._objects if kind == "Deployment"} == {"chat-canary"}


def test_a_service_in_front_of_both_versions_stays_where_a_route_leads_to_it():
    """
    Pods as a router: a team's Ingress in front of their Service.
    """
    front = {"service": {"name": "chat", "port": {"number": 80}}}
    target = Target("chat", 80, labels(SERVICE))
    router = ReplicasRouter(api := Namespace(*MADE, ingress(defaultBackend=front)), target, within=0.1)
    for body in router.objects():
        api.create(body)
    router.reset()
    assert api.get("Service", "chat") is not None
    assert not remove(api, SERVICE, [].append)
    assert {name for kind, name in api._objects if kind == "Deployment"} == {"chat-stable", "chat-canary"}
    api.delete("Ingress", "own")
    router.reset()
    assert api.get("Service", "chat") is None
    assert remove(api, SERVICE, [].append)


def test_kinds_that_may_not_be_seen_are_told():
    """
    Of another namespace, routes of this one are looked at; where not even these may be, that is said.
    """

    class Narrow(Namespace):
        def list(self, kind, selector="", *, everywhere=False, fields=""):
            if everywhere or kind == "GRPCRoute":
                raise ForbiddenError("no")
            return super().list(kind, selector)

    api, told = Narrow(*MADE, LEADING["backend"]), []
    assert references(api, {"chat-stable"}).by == {"chat-stable": ["HTTPRoute own"]}
    remove_unused(api, NAMES, told.append)
    assert told[0] == "no permission to see whether a route of kind GRPCRoute leads to what was removed"
    assert "stay" in told[1]


@pytest.mark.parametrize(
    ("body", "carries"),
    [
        (http({"name": "chat-canary", "weight": 0}, {"name": "chat-stable"}), False),
        (http({"name": "chat-canary", "weight": 1}), True),
        (http({"name": "chat-canary"}), True),
        (virtual(route=[{**to("chat-canary"), "weight": 0}, {**to("chat-stable"), "weight": 100}]), False),
        (virtual(route=[to("chat-canary")]), True),
    ],
    ids=["no weight", "weight", "unsaid", "virtual none", "virtual"],
)
def test_a_canary_is_kept_up_for_those_who_still_get_it(body, carries):
    """
    A rule for testers of the team's, here or in another route; what the kit made itself does not count.
    """
    assert (carried_by(Namespace(body), "chat", "chat-canary") is not None) is carries
    body = {**body, "metadata": {**body["metadata"], "labels": {"app.kubernetes.io/managed-by": "canarykit"}}}
    body["metadata"]["labels"]["app.kubernetes.io/part-of"] = "chat"
    assert carried_by(Namespace(body), "chat", "chat-canary") is None


# What was adopted -------------------------------------------------------------------------------------------------------

THEIRS = {
    "kind": "Service",
    "metadata": {"name": "chat-stable", "labels": {"team": "search"}},
    "spec": {"selector": {"app": "old"}, "ports": [{"port": 80}]},
}


def adopted(*beside):
    """A namespace where the kit took over a Service of the team's, which a live route names."""
    api = Namespace(THEIRS, http({"name": "chat-stable"}), *beside)
    adoption(api, api.get("Service", "chat-stable"))
    noted = api.get("Service", "chat-stable")["metadata"]["annotations"]
    for body in MADE:
        api._store({**body, "metadata": {**body["metadata"], "annotations": noted if body["kind"] == "Service" else {}}})
    api.patch("Service", "chat-canary", {"metadata": {"annotations": dict.fromkeys(noted)}})
    return api


@pytest.mark.parametrize("state", ["ready", "not ready", "leaving", "unknown"])
def test_an_adopted_service_is_given_back_to_pods_that_are_there(state):
    """
    Where the team's own pods are gone by now, or about to go, the route keeps leading to the kit's, and that is said.
    """
    ready, leaves = state == "ready", {"deletionTimestamp": "2026-01-01T00:00:00Z"} if state == "leaving" else {}
    says = {"not ready": "False", "unknown": "Unknown"}.get(state, "True")
    status = {"conditions": [{"type": "Ready", "status": says}]}
    api, told = (
        adopted({"kind": "Pod", "metadata": {"name": "old-1", "labels": {"app": "old"}, **leaves}, "status": status}),
        [],
    )
    assert remove(api, SERVICE, told.append) is ready
    now = api.get("Service", "chat-stable")["spec"]["selector"]
    assert now == ({"app": "old"} if ready else {"app": "chat", "version": "stable"})
    assert (api.get("Deployment", "chat-stable") is None) is ready
    assert api.get("Deployment", "chat-canary") is None
    assert told[0] == (
        "given back as before: Service chat-stable"
        if ready
        else "not given back, because a route leads to it and its own pods are not ready: Service chat-stable"
    )
