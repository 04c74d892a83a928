"""What is removed and what stays: a live route keeps what it leads to."""

import pytest
from kube_doubles import Namespace

import canarykit as ck
from canarykit.clusters.kube.workloads.manifests import Model, Workload, labels, objects
from canarykit.clusters.kube.workloads.ownership import adoption, remove
from canarykit.clusters.kube.workloads.removal import carried_by, remove_unused
from canarykit.errors import ForbiddenError
from canarykit.model import TrafficSplit
from canarykit.routers import gateway_api, route, router_class
from canarykit.routers.base import apply
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


class Narrow(Namespace):
    """A namespace seen with a role that ends at it; some kinds are hidden even there, and some the cluster does not know."""

    hidden, unknown = frozenset(), frozenset({"VirtualService"})

    def list(self, kind, selector="", *, everywhere=False, fields=""):
        """Read what may be read: that of this namespace."""
        if everywhere or kind in self.hidden:
            raise ForbiddenError("no")
        return [] if kind in self.unknown else super().list(kind, selector)

    def serves(self, kind):
        """Whether the cluster knows a kind."""
        return kind not in self.unknown


def grant(*, to="chat-stable", kind="HTTPRoute", place="infra"):
    """Lets routes of another namespace lead to Services of this one."""
    source = {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": place}
    target = {"group": "", "kind": "Service", **({"name": to} if to else {})}
    return {"kind": "ReferenceGrant", "metadata": {"name": "web"}, "spec": {"from": [source], "to": [target]}}


UNSEEN = "could not be seen (no right to list them)"


@pytest.mark.parametrize(
    ("kind", "unknown", "says"),
    [
        ("VirtualService", (), "whether a VirtualService of another namespace leads to Services chat-canary and chat-stable"),
        ("GRPCRoute", ("VirtualService",), "whether a GRPCRoute leads to Services chat-canary and chat-stable"),
        ("Ingress", ("VirtualService",), "whether an Ingress leads to Services chat-canary and chat-stable"),
        ("ReferenceGrant", ("VirtualService",), "whether an HTTPRoute of another namespace or a GRPCRoute of another"),
        ("HTTPRoute", ("VirtualService", "GRPCRoute", "ReferenceGrant"), "whether an HTTPRoute leads to Services"),
        ("TCPRoute", ("VirtualService", "GRPCRoute", "ReferenceGrant"), "whether an HTTPRoute of another namespace leads"),
    ],
    ids=["mesh elsewhere", "a kind", "ingress", "grants", "no mesh", "grants of another version"],
)
def test_routes_that_may_not_be_seen_are_told_before_anything_is_removed(kind, unknown, says):
    """
    Those of other namespaces, and kinds that may be listed nowhere.
    """
    api, told = Narrow(*MADE), []
    api.hidden, api.unknown = {kind} - {"VirtualService"}, frozenset(unknown)
    assert remove_unused(api, NAMES, lambda line: told.append((line, len(api._objects))))
    ((said, there),) = told
    assert said.startswith(says) and UNSEEN in said
    assert there == len(MADE)
    assert not api._objects


def test_nothing_is_told_where_no_route_can_lead_here_unseen():
    """
    Without a ReferenceGrant none of another namespace may; an Ingress never does; and Istio is not there.
    """
    api, told = Narrow(*MADE), []
    assert remove_unused(api, NAMES, told.append)
    assert (told, api._objects) == ([], {})


@pytest.mark.parametrize("kind", ["HTTPRoute", "GRPCRoute"])
@pytest.mark.parametrize("to", ["chat-stable", None], ids=["by name", "all"])
def test_a_service_stays_where_somebody_lets_routes_that_may_not_be_seen_lead_to_it(kind, to):
    """
    With its Deployment, and it is said why; it goes where these routes may be seen, and none leads to it.
    """
    api, told = Narrow(*MADE, grant(to=to, kind=kind)), []
    assert not remove_unused(api, NAMES, told.append)
    both = {"chat-stable", "chat-canary"}
    assert {name for known, name in api._objects if known == "Service"} == ({to} if to else both)
    assert {name for known, name in api._objects if known == "Deployment"} == ({to} if to else both)
    (said,) = told
    article = "an HTTPRoute" if kind == "HTTPRoute" else "a GRPCRoute"
    assert f"because ReferenceGrant web lets {article} of namespace infra lead here, and whether one does {UNSEEN}" in said
    assert remove_unused(Namespace(*MADE, grant(to=to, kind=kind)), NAMES, print)


@pytest.mark.parametrize(
    "body",
    [
        grant(to="other"),
        grant(kind="TCPRoute"),
        grant(place="ns"),
        {**grant(), "spec": {"from": grant()["spec"]["from"], "to": [{"group": "", "kind": "Secret"}]}},
        {"kind": "ReferenceGrant", "metadata": {"name": "web"}, "spec": {}},
    ],
    ids=["other service", "other kind of route", "own namespace", "secret", "empty"],
)
def test_a_grant_for_something_else_keeps_nothing(body):
    """
    It lets no route lead to these Services that could not be seen.
    """
    api, told = Narrow(*MADE, body), []
    assert remove_unused(api, NAMES, told.append)
    assert told == []


def test_a_route_that_is_seen_and_one_that_is_not_are_both_named():
    """
    A grant beside a route of this namespace.
    """
    api, told = Narrow(*MADE, LEADING["backend"], grant()), []
    remove_unused(api, NAMES, told.append)
    assert "because HTTPRoute own still leads to them, and because ReferenceGrant web lets" in told[0]


def test_the_service_in_front_of_both_versions_is_not_removed_in_silence():
    """
    Pods as a router: it stays by a grant, and what nobody knows is told before.
    """
    api, told = Narrow(*MADE, grant(to="chat")), []
    router = ReplicasRouter(api, Target("chat", 80, labels(SERVICE)), within=0.1, notify=told.append)
    for body in router.objects():
        api.create(body)
    router.reset()
    assert api.get("Service", "chat") is not None
    assert told == []
    api.delete("ReferenceGrant", "web")
    api.unknown = frozenset()
    router.reset()
    assert api.get("Service", "chat") is None
    assert told[0].startswith(f"whether a VirtualService of another namespace leads to Service chat {UNSEEN}")


@pytest.mark.parametrize("unknown", [(), ("VirtualService",)], ids=["mesh", "no mesh"])
def test_a_canary_is_kept_up_for_routes_that_may_lead_to_it_unseen(unknown):
    """
    Where a grant lets them; otherwise it is told that nobody knows.
    """
    api, told = Narrow(grant(to="chat-canary")), []
    api.unknown = frozenset(unknown)
    by = carried_by(api, "chat", "chat-canary", told.append)
    assert by is not None and by.startswith("perhaps a route of another namespace (ReferenceGrant web lets an HTTPRoute of")
    api.delete("ReferenceGrant", "web")
    assert carried_by(api, "chat", "chat-canary", told.append) is None
    assert [UNSEEN in line for line in told] == ([] if unknown else [True])


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


LABELLED = {"app.kubernetes.io/managed-by": "canarykit", "app.kubernetes.io/part-of": "chat"}


@pytest.mark.parametrize("kind", ["gateway-api", "istio"])
def test_a_teams_own_route_with_the_kits_labels_keeps_the_canary_up(monkeypatch, kind):
    """
    A program of Pulumi has labelled it: its rule for testers leads to the canary after a promotion, too.
    """
    monkeypatch.setattr(route, "until_served", lambda *args, **options: None)
    monkeypatch.setattr(gateway_api, "accepted", lambda *args: None)
    if kind == "istio":
        asks = [{"headers": {"x-team": {"exact": "search"}}}]
        split = {"route": [{**to("chat-stable"), "weight": 100}, {**to("chat-canary"), "weight": 0}]}
        own = virtual(match=asks, route=[to("chat-canary")])
        own["spec"]["http"].append(split)
    else:
        own = http({"name": "chat-stable", "weight": 1}, {"name": "chat-canary", "weight": 0})
        asks = [{"headers": [{"name": "x-team", "value": "search"}]}]
        own["spec"]["rules"].append({"matches": asks, "backendRefs": [{"name": "chat-canary"}]})
    own["metadata"]["labels"] = LABELLED
    router = router_class(kind)(api := Namespace(own), Target("chat", 80, LABELLED), url="http://127.0.0.1:1", name="own")
    for weight in (20, 0):
        apply(router, TrafficSplit(weight))
    assert carried_by(api, "chat", "chat-canary") == f"{own['kind']} own"


def test_the_route_of_a_kit_in_another_namespace_is_no_route_of_this_one():
    """
    Though it was made for a service of the same name.
    """
    theirs = http({"name": "chat-canary", "namespace": "ns"}, namespace="web")
    theirs["metadata"]["labels"] = LABELLED
    assert carried_by(Namespace(theirs), "chat", "chat-canary") == "HTTPRoute own in namespace web"


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


def test_an_adopted_service_is_not_given_back_in_silence_where_routes_may_not_be_seen():
    """
    Its own pods are gone: it is kept where a grant lets routes lead to it, and otherwise it is told before.
    """

    def taken(*beside):
        full = adopted()
        full.delete("HTTPRoute", "own")
        api = Narrow(*beside)
        api._objects |= full._objects
        return api

    told = []
    assert not remove(taken(grant()), SERVICE, told.append)
    assert told[0].startswith("not given back, because ReferenceGrant web lets an HTTPRoute of namespace infra lead here")
    api, told = taken(), []
    api.unknown = frozenset()
    assert remove(api, SERVICE, told.append)
    assert told[0].startswith("the own pods of Service chat-stable are not ready, and whether a VirtualService of another")
    assert told[1] == "given back as before: Service chat-stable"
