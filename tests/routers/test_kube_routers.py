"""What routers of a cluster write and read: objects to splits, splits to patches, and what they refuse."""

import copy
import itertools
import math
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_doubles import Namespace

from canarykit.errors import ConflictError, EditedError, PlanError, RoutingError
from canarykit.model import ROLES, TrafficSplit
from canarykit.protocol import ROLE_HEADER
from canarykit.routers import ROUTERS, gateway_api, ingress_nginx, istio, kserve, probe, replicas, route, router_class
from canarykit.routers.base import apply
from canarykit.routers.objects import Target, address, balancer_url, to_stable

LABELS = {"app.kubernetes.io/managed-by": "canarykit"}
TARGET = Target("digits", 80, LABELS)
NGINX = "nginx.ingress.kubernetes.io"
RULES = "/spec/rules/0/backendRefs"


def read(body, version="7"):
    """An object as the API server returns it."""
    body = copy.deepcopy(body)
    body["metadata"] |= {"resourceVersion": version, "namespace": "ns", "generation": 3}
    return body


def ref(name, weight=None, **more):
    """One backend of an HTTPRoute."""
    return {"name": name, "port": 80, **({} if weight is None else {"weight": weight}), **more}


def httproute(*rules):
    """An HTTPRoute of a user, of these rules' backends."""
    return read(
        {
            "kind": "HTTPRoute",
            "metadata": {"name": "own"},
            "spec": {"rules": [{"backendRefs": list(refs)} for refs in rules]},
        }
    )


def to(host, weight=None, **more):
    """One destination of a VirtualService."""
    return {"destination": {"host": host, **more}, **({} if weight is None else {"weight": weight})}


def virtual_service(*routes):
    """A VirtualService of a user, of these routes."""
    spec = {"http": [{"route": list(entries)} for entries in routes]}
    return read({"kind": "VirtualService", "metadata": {"name": "own"}, "spec": spec})


def annotated(**annotations):
    """The canary's Ingress with these annotations."""
    said = {f"{NGINX}/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return read({"kind": "Ingress", "metadata": {"name": "digits-canary", "annotations": said}, "spec": {}})


def inference(*, plain=False, percent=None, status=None):
    """An InferenceService in one of both modes."""
    spec = {"predictor": {"model": {}}}
    if plain:
        spec["canary"] = [{} if percent is None else {"trafficPercent": percent}]
    elif percent is not None:
        spec["predictor"]["canaryTrafficPercent"] = percent
    return read({"kind": "InferenceService", "metadata": {"name": "own"}, "spec": spec, "status": status or {}})


# Splits to weights and back ---------------------------------------------------------------------------------------------


@given(parts=st.integers(0, 1_000_000))
def test_a_split_survives_the_way_through_an_object(parts):
    """
    Any split in steps of 0.0001 % is written with whole weights and read back as it was.
    """
    split = TrafficSplit(parts / 10_000)
    weights = gateway_api.weights(split)
    assert all(0 <= weight <= 1_000_000 for weight in weights.values())
    refs = [ref("digits-stable", weights["stable"]), ref("digits-canary", weights["canary"])]
    assert gateway_api.split_of(httproute(refs), TARGET) == split
    ours = [to("digits-stable", weights["stable"]), to("digits-canary", weights["canary"])]
    assert istio.split_of(virtual_service(ours), TARGET) == split
    said = ingress_nginx.patch(annotated(), split)["metadata"]["annotations"]
    assert ingress_nginx.split_of(read({"metadata": {"name": "d", "annotations": said}})) == split


@pytest.mark.parametrize(
    ("weight", "parts"), [(0, (0, 100)), (100, (100, 100)), (25, (25, 100)), (0.1, (1, 1000)), (33.33, (3333, 10_000))]
)
def test_weights_are_as_small_as_can_be(weight, parts):
    """
    People read these objects: 0.1 % is 1 of 1,000.
    """
    assert route.whole_weights(TrafficSplit(weight), 1_000_000, "it") == parts


@pytest.mark.parametrize("weight", [1 / 3, 0.00001, 99.99999])
def test_a_split_that_is_too_fine_is_refused_by_all(weight):
    """
    Not rounded, and with the name of who cannot.
    """
    split = TrafficSplit(weight)
    refs = httproute([ref("digits-stable", 1), ref("digits-canary", 0)])
    routes = virtual_service([to("digits-stable", 1), to("digits-canary", 0)])
    for patch, who in [
        (lambda: gateway_api.patch(refs, TARGET, split), "an HTTPRoute"),
        (lambda: istio.patch(routes, TARGET, split), "a VirtualService"),
        (lambda: ingress_nginx.patch(annotated(), split), "ingress-nginx"),
        (lambda: kserve.patch(inference(), split), "KServe splits in whole percents"),
    ]:
        with pytest.raises(RoutingError, match=rf"{who}.* is finer"):
            patch()


@pytest.mark.parametrize(
    ("found", "weight"),
    [
        (httproute([ref("digits-stable", 3), ref("digits-canary", 1)]), 25),
        (httproute([ref("digits-stable"), ref("digits-canary")]), 50),  # a weight that is not said is 1
        (httproute([ref("digits-stable", 0), ref("digits-canary", 5)]), 100),
        (httproute([ref("digits-canary", 9)], [ref("digits-stable", 9), ref("digits-canary", 1)]), 10),  # testers have no split
        (httproute([ref("digits-stable", 1), ref("digits-canary", 0), ref("other", 8)]), 0),
    ],
)
def test_the_split_of_an_httproute(found, weight):
    """
    Proportions of our two backends in the rules that name both.
    """
    assert gateway_api.split_of(found, TARGET) == TrafficSplit(weight)


@pytest.mark.parametrize(
    ("found", "weight"),
    [
        (virtual_service([to("digits-stable", 75), to("digits-canary", 25)]), 25),
        (virtual_service([to("digits-stable.ns.svc.cluster.local", 9), to("digits-canary.ns.svc.cluster.local", 1)]), 10),
        (virtual_service([to("digits", 60, subset="stable"), to("digits", 40, subset="canary")]), 40),
        (virtual_service([to("other")], [to("digits-stable", 0), to("digits-canary", 100)]), 100),
        (virtual_service([to("digits-canary")], [to("digits-stable", 100), to("digits-canary")]), 0),  # none said is 0
    ],
)
def test_the_split_of_a_virtual_service(found, weight):
    """
    By hosts of their own or by subsets of one.
    """
    assert istio.split_of(found, TARGET) == TrafficSplit(weight)


@pytest.mark.parametrize(
    ("annotations", "weight"),
    [({}, 0), ({"canary_weight": "30"}, 30), ({"canary_weight": "1", "canary_weight_total": "1000"}, 0.1)],
)
def test_the_split_of_an_ingress(annotations, weight):
    """
    No weight is none; a total of 100 goes without saying.
    """
    assert ingress_nginx.split_of(annotated(**annotations)) == TrafficSplit(weight)


@pytest.mark.parametrize(
    "annotations", [{"canary_weight": "half"}, {"canary_weight": "5", "canary_weight_total": "0"}, {"canary_weight": "101"}]
)
def test_annotations_that_are_no_weights(annotations):
    """
    What someone wrote by hand is named, not guessed.
    """
    with pytest.raises(RoutingError, match="canary annotations of Ingress digits-canary are no weights"):
        ingress_nginx.split_of(annotated(**annotations))


@pytest.mark.parametrize(
    ("found", "weight"),
    [
        (inference(), 100),
        (inference(percent=15), 15),
        (inference(plain=True), 0),
        (inference(plain=True, percent=20), 20),
    ],
)
def test_the_split_of_an_inference_service(found, weight):
    """
    Of Knative's revisions the newest has all unless it is said; a canary of its own has nothing unless it is said.
    """
    assert kserve.split_of(found) == TrafficSplit(weight)


# Patches ----------------------------------------------------------------------------------------------------------------

VERSION = {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}


def test_an_httproute_is_changed_in_its_weights_alone():
    """
    One line per backend of ours, in each rule that is split, and one that fails when somebody wrote in between.
    """
    found = httproute([ref("digits-stable")], [ref("digits-canary", 0), ref("digits-stable", 1)])
    assert gateway_api.patch(found, TARGET, TrafficSplit(0.5)) == [
        VERSION,
        {"op": "add", "path": "/spec/rules/1/backendRefs/0/weight", "value": 5},
        {"op": "add", "path": "/spec/rules/1/backendRefs/1/weight", "value": 995},
    ]


def test_a_virtual_service_is_changed_in_its_weights_alone():
    """
    The same, below spec.http.
    """
    found = virtual_service([to("other")], [to("digits-stable", 100), to("digits-canary", 0)])
    assert istio.patch(found, TARGET, TrafficSplit(30)) == [
        VERSION,
        {"op": "add", "path": "/spec/http/1/route/0/weight", "value": 70},
        {"op": "add", "path": "/spec/http/1/route/1/weight", "value": 30},
    ]


def test_an_ingress_is_changed_in_its_weight_alone():
    """
    A merge patch that names the version it was made for.
    """
    assert ingress_nginx.patch(annotated(canary="true"), TrafficSplit(0.1)) == {
        "metadata": {
            "resourceVersion": "7",
            "annotations": {f"{NGINX}/canary-weight": "1", f"{NGINX}/canary-weight-total": "1000"},
        }
    }


@pytest.mark.parametrize(
    ("plain", "path"), [(False, "/spec/predictor/canaryTrafficPercent"), (True, "/spec/canary/0/trafficPercent")]
)
def test_an_inference_service_is_changed_in_its_percentage_alone(plain, path):
    """
    Wherever its mode keeps it.
    """
    assert kserve.patch(inference(plain=plain), TrafficSplit(20)) == [VERSION, {"op": "add", "path": path, "value": 20}]


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (
            lambda split: gateway_api.patch(
                httproute([ref("digits-stable", 8), ref("digits-canary", 1), ref("other", 1)]), TARGET, split
            ),
            "rule 0 of HTTPRoute own has backends beside the two versions",
        ),
        (
            lambda split: istio.patch(
                virtual_service([to("digits-stable", 80), to("digits-canary", 10), to("other", 10)]), TARGET, split
            ),
            "http route 0 of VirtualService own has backends beside the two versions",
        ),
        (
            lambda split: gateway_api.patch(httproute([ref("digits-stable")], [ref("digits-canary")]), TARGET, split),
            "HTTPRoute own has no rule with both backends digits-stable and digits-canary",
        ),
        (
            lambda split: gateway_api.patch(
                httproute([ref("digits-stable"), ref("digits-canary", namespace="elsewhere")]), TARGET, split
            ),
            "no rule with both",
        ),
        (
            lambda split: gateway_api.patch(
                httproute([ref("digits-stable"), ref("digits-canary", kind="Bucket")]), TARGET, split
            ),
            "no rule with both",
        ),
        (
            lambda split: istio.patch(virtual_service([to("digits-stable"), to("other")]), TARGET, split),
            "VirtualService own has no http route with both backends digits-stable and digits-canary",
        ),
    ],
)
def test_what_cannot_be_split_without_harm_is_refused(patch, says):
    """
    Where others have a share, ours would change it; where both are not named, nothing would change.
    """
    with pytest.raises(RoutingError, match=says):
        patch(TrafficSplit(5))


def test_a_backend_beside_ours_that_has_no_share_does_no_harm():
    """
    Its weight is 0, and stays so.
    """
    found = httproute([ref("digits-stable", 1), ref("digits-canary", 0), ref("old", 0)])
    assert [line["path"] for line in gateway_api.patch(found, TARGET, TrafficSplit(5))[1:]] == [
        f"{RULES}/0/weight",
        f"{RULES}/1/weight",
    ]


@pytest.mark.parametrize(
    ("split_of", "says"),
    [
        (
            lambda: gateway_api.split_of(
                httproute(
                    [ref("digits-stable", 9), ref("digits-canary", 1)], [ref("digits-stable", 8), ref("digits-canary", 2)]
                ),
                TARGET,
            ),
            r"rules of HTTPRoute own split the traffic differently.*10 %.*20 %",
        ),
        (
            lambda: gateway_api.split_of(httproute([ref("digits-stable", 0), ref("digits-canary", 0)]), TARGET),
            "differently, or not at all",
        ),
        (
            lambda: istio.split_of(
                virtual_service(
                    [to("digits-stable", 90), to("digits-canary", 10)], [to("digits-stable", 80), to("digits-canary", 20)]
                ),
                TARGET,
            ),
            "rules of VirtualService own split the traffic differently",
        ),
    ],
)
def test_rules_that_disagree_have_no_split(split_of, says):
    """
    Somebody edited one of them: that is said.
    """
    with pytest.raises(RoutingError, match=says):
        split_of()


# Objects that the kit makes ---------------------------------------------------------------------------------------------


def test_the_route_that_the_kit_makes():
    """
    All on stable, a header for testers, and the Gateway wherever it is.
    """
    made = gateway_api.route(TARGET, gateway="infra/web", hostname="ai.example.com")
    assert gateway_api.split_of(read(made), TARGET) == TrafficSplit(0)
    assert made["spec"]["parentRefs"] == [{"name": "web", "namespace": "infra"}]
    assert made["spec"]["hostnames"] == ["ai.example.com"]
    testers = {
        rule["matches"][0]["headers"][0]["value"]: [entry["name"] for entry in rule["backendRefs"]]
        for rule in made["spec"]["rules"][1:]
    }
    assert testers == {"stable": ["digits-stable"], "canary": ["digits-canary"]}
    assert gateway_api.route(TARGET, gateway="web", hostname=None)["spec"].keys() == {"parentRefs", "rules"}


def test_the_virtual_service_that_the_kit_makes():
    """
    The same for Istio; each answer says which version it is of.
    """
    made = istio.virtual_service(TARGET, "ns", gateway="ns/web", hostname=None)
    assert istio.split_of(read(made), TARGET) == TrafficSplit(0)
    assert (made["spec"]["hosts"], made["spec"]["gateways"]) == (["*"], ["ns/web"])
    for entry in made["spec"]["http"][-1]["route"]:
        role = entry["headers"]["response"]["set"][ROLE_HEADER]
        assert entry["destination"]["host"] == f"digits-{role}.ns.svc.cluster.local"
    within = istio.virtual_service(TARGET, "ns", gateway=None, hostname=None)["spec"]
    assert (within["hosts"], within["gateways"]) == (["digits.ns.svc.cluster.local"], ["mesh"])


def test_the_canarys_ingress_follows_the_primary():
    """
    Its rules that lead to stable, and no others, now lead to the canary, at no weight.
    """
    primary = ingress_nginx.ingress(TARGET, ingress_class="nginx", hostname="ai.example.com")
    other = {"path": "/admin", "pathType": "Prefix", "backend": {"service": {"name": "admin", "port": {"number": 80}}}}
    primary["spec"]["rules"][0]["http"]["paths"].append(other)
    made = ingress_nginx.canary_ingress(primary, TARGET)
    (rule,) = made["spec"]["rules"]
    assert rule["host"] == "ai.example.com"
    assert [path["backend"]["service"]["name"] for path in rule["http"]["paths"]] == ["digits-canary"]
    assert made["spec"]["ingressClassName"] == "nginx"
    assert ingress_nginx.split_of(made) == TrafficSplit(0)
    primary["spec"]["rules"][0]["http"]["paths"] = [other]
    with pytest.raises(RoutingError, match="has no rule that leads to Service digits-stable"):
        ingress_nginx.canary_ingress(primary, TARGET)


# Mirroring --------------------------------------------------------------------------------------------------------------

FOREIGN = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-team", "value": "search"}]}}


def test_an_httproute_mirrors_beside_the_filters_of_others():
    """
    Begun, changed and ended: the foreign filter is all the while as it was.
    """
    found = httproute([ref("digits-stable", 1), ref("digits-canary", 0)])
    found["spec"]["rules"][0]["filters"] = [FOREIGN]
    backend = {"name": "digits-canary", "port": 80}
    for percent, copied in [(10.0, {"backendRef": backend, "percent": 10}), (100.0, {"backendRef": backend})]:
        version, change = gateway_api.mirrored(found, TARGET, percent)
        assert version == VERSION
        assert change["value"] == [FOREIGN, {"type": "RequestMirror", "requestMirror": copied}]
        found["spec"]["rules"][0]["filters"] = change["value"]
    assert gateway_api.mirrored(found, TARGET, 0.0)[1:] == [{"op": "add", "path": "/spec/rules/0/filters", "value": [FOREIGN]}]


def test_a_virtual_service_mirrors():
    """
    To the canary's own destination; ended, nothing of it is left.
    """
    found = virtual_service([to("other")], [to("digits-stable", 100), to("digits-canary", 0)])
    assert istio.mirrored(found, TARGET, 12.5)[1:] == [
        {"op": "add", "path": "/spec/http/1/mirror", "value": {"host": "digits-canary"}},
        {"op": "add", "path": "/spec/http/1/mirrorPercentage", "value": {"value": 12.5}},
    ]
    found["spec"]["http"][1] |= {"mirror": {"host": "digits-canary"}, "mirrorPercentage": {"value": 12.5}}
    assert [line["path"] for line in istio.mirrored(found, TARGET, 0.0)[1:]] == [
        "/spec/http/1/mirror",
        "/spec/http/1/mirrorPercentage",
    ]


@pytest.mark.parametrize("foreign", [{"mirror": {"host": "audit"}}, {"mirrors": [{"destination": {"host": "audit"}}]}])
def test_a_mirror_of_somebody_else_stays(foreign):
    """
    Istio knows one for each route: ours is refused beside theirs, and theirs is not taken for ours in the end.
    """
    found = virtual_service([to("digits-stable", 100), to("digits-canary", 0)])
    found["spec"]["http"][0] |= {**foreign, "mirrorPercentage": {"value": 50.0}}
    with pytest.raises(RoutingError, match="http route 0 of VirtualService own has a mirror of its own"):
        istio.mirrored(found, TARGET, 10.0)
    assert istio.mirrored(found, TARGET, 0.0) == [VERSION]


def test_a_mirror_to_a_service_of_our_name_elsewhere_is_theirs():
    """
    In another namespace it is another Service.
    """
    found = httproute([ref("digits-stable", 1), ref("digits-canary", 0)])
    theirs = {"type": "RequestMirror", "requestMirror": {"backendRef": ref("digits-canary", namespace="elsewhere")}}
    found["spec"]["rules"][0]["filters"] = [theirs]
    assert gateway_api.mirrored(found, TARGET, 0.0) == [VERSION]
    assert gateway_api.mirrored(found, TARGET, 10.0)[1]["value"][0] == theirs


@pytest.mark.parametrize("percent", [-1, 101, math.nan])
def test_no_share_of_requests_is_no_mirror(percent):
    """
    Refused before the object is read.
    """
    with pytest.raises(PlanError, match="0 to 100 percent"):
        made("gateway-api", Namespace()).mirror(percent)


def test_a_mirror_that_is_too_fine_is_refused():
    """
    0.4 % of an HTTPRoute is not rounded to nothing.
    """
    with pytest.raises(RoutingError, match=r"mirrors whole percents; 0.4 % is finer"):
        gateway_api.mirrored(httproute([ref("digits-stable"), ref("digits-canary")]), TARGET, 0.4)


# Routers on a namespace in memory ---------------------------------------------------------------------------------------


def made(kind, api, **options):
    """A router of a kind, whose gateway nobody asks."""
    defaults = {"url": "http://127.0.0.1:1", "gateway": "ns/web", **options}
    return router_class(kind)(api, TARGET, **defaults)


@pytest.fixture(params=["gateway-api", "istio", "ingress-nginx"])
def kind(request):
    """Name of a router whose weights are in an object."""
    return request.param


@pytest.fixture
def calm(monkeypatch):
    """Gateways that take up at once what is written: only the objects are looked at."""
    monkeypatch.setattr(route, "until_served", lambda *args, **options: None)
    monkeypatch.setattr(route, "broken_within", lambda *args: False)
    monkeypatch.setattr(gateway_api, "accepted", lambda *args: None)
    monkeypatch.setattr("canarykit.routers.probe.time.sleep", lambda seconds: None)


@pytest.fixture
def there(kind):
    """A namespace in memory, and a router of that name whose objects are in it."""
    api = Namespace()
    router = made(kind, api)
    for body in router.objects():
        api.create(body)
    return api, router


@pytest.mark.usefixtures("calm")
def test_apply_observe_reset(there):
    """
    What is applied is observed; reset leaves nothing of the kit, and may be called again.
    """
    api, router = there
    for weight in (0.1, 25, 100, 0):
        assert apply(router, TrafficSplit(weight)) >= 0
        assert router.observed() == TrafficSplit(weight)
    for _ in range(2):
        router.reset()
        assert [api.get(body["kind"], body["metadata"]["name"]) for body in router.objects()] == [None] * len(router.objects())
    with pytest.raises(RoutingError, match=rf"there is no {router.kind} {router.name} in namespace ns.*(install|choose)"):
        apply(router, TrafficSplit(5))


@pytest.mark.usefixtures("calm")
def test_a_conflict_is_retried_on_what_the_other_wrote(there):
    """
    Somebody writes between our reading and our writing: their change and our weight are both in force.
    """
    api, router = there

    def once():
        api.before_write = lambda: None
        api.edit(router.kind, router.name, theirs="kept")

    api.before_write = once
    apply(router, TrafficSplit(5))
    assert router.observed() == TrafficSplit(5)
    assert api.get(router.kind, router.name)["spec"]["theirs"] == "kept"
    api.before_write = lambda: api.edit(router.kind, router.name, theirs="again and again")
    with pytest.raises(ConflictError):
        apply(router, TrafficSplit(50))


@pytest.mark.usefixtures("calm")
def test_what_was_read_last_is_not_read_again(there, monkeypatch):
    """
    The patch is the first thing that the API server is asked; only when somebody has written since is the object read.
    """
    api, router = there
    router.observed()
    real, reads = api.get, []
    monkeypatch.setattr(api, "get", lambda *args, **options: (reads.append(args), real(*args, **options))[1])
    for weight in (5, 25):
        apply(router, TrafficSplit(weight))
    assert not reads
    api.edit(router.kind, router.name, theirs="kept")
    apply(router, TrafficSplit(50))
    assert len(reads) == 1
    assert router.observed() == TrafficSplit(50)
    assert api.get(router.kind, router.name)["spec"]["theirs"] == "kept"


@pytest.mark.usefixtures("calm")
def test_only_the_split_that_was_to_be_replaced_is_replaced(kind, there):
    """
    Somebody else gives the canary 60 %, before we write or while we do: it stays.
    """
    api, router = there
    other, theirs = made(kind, api), TrafficSplit(60)
    apply(router, TrafficSplit(5), expected=TrafficSplit(0))
    apply(other, theirs)
    with pytest.raises(EditedError, match=r"told 60 %, not 5 %"):
        apply(router, TrafficSplit(25), expected=TrafficSplit(5))
    with pytest.raises(EditedError, match=r"told 60 %, not 5 %"):
        apply(router, TrafficSplit(0.00001), expected=TrafficSplit(5))  # too fine as well, which can be said next
    apply(router, TrafficSplit(5), expected=theirs)

    def once():
        api.before_write = lambda: None
        apply(other, theirs)

    api.before_write = once
    with pytest.raises(EditedError, match=r"told 60 %, not 5 %"):
        apply(router, TrafficSplit(25), expected=TrafficSplit(5))
    assert router.observed() == theirs


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("read", [True, False])
@pytest.mark.parametrize("known", [True, False])
def test_a_write_whose_answer_was_lost_is_no_edit_of_someone_else(there, monkeypatch, known, read):
    """
    It is sent again, and conflicts with itself. The gateway may still serve what was in place before that.
    """
    api, router = there
    if read:
        router.observed()
    real, asked = api.patch, []

    def lost(*args, **options):
        real(*args, **options)
        monkeypatch.setattr(api, "patch", real)
        return api.patch(*args, **options)

    monkeypatch.setattr(api, "patch", lost)
    monkeypatch.setattr(route, "until_served", lambda probe, before, after, **options: asked.append((before, after)))
    apply(router, TrafficSplit(5), expected=TrafficSplit(0) if known else None)
    assert router.observed() == TrafficSplit(5)
    assert asked == [(TrafficSplit(0), TrafficSplit(5))]


@pytest.mark.usefixtures("calm")
def test_a_route_that_was_mended_is_read_anew():
    """
    Someone took the canary out of it, the kit said so, and they put it back.
    """
    own = httproute([ref("digits-stable", 1), ref("digits-canary", 0)])
    api = Namespace(own)
    router = made("gateway-api", api, name="own")
    api.edit("HTTPRoute", "own", rules=[{"backendRefs": [ref("digits-stable", 1)]}])
    with pytest.raises(RoutingError, match="with both"):
        apply(router, TrafficSplit(5))
    api.edit("HTTPRoute", "own", rules=own["spec"]["rules"])
    apply(router, TrafficSplit(5))
    assert router.observed() == TrafficSplit(5)


@pytest.mark.usefixtures("calm")
def test_rules_that_disagree_are_replaced_only_when_anything_is():
    """
    They are no split that was to be replaced.
    """
    rules = [[ref("digits-stable", 9), ref("digits-canary", 1)], [ref("digits-stable", 1), ref("digits-canary", 1)]]
    router = made("gateway-api", Namespace(httproute(*rules)), name="own")
    with pytest.raises(EditedError, match="told no split, not 0 %"):
        apply(router, TrafficSplit(5), expected=TrafficSplit(0))
    apply(router, TrafficSplit(5))
    assert router.observed() == TrafficSplit(5)


@pytest.mark.usefixtures("calm")
def test_traffic_returns_to_stable_from_any_disorder():
    """
    Two rules that disagree have no split to observe; a rollback puts both right all the same.
    """
    disordered = [[ref("digits-stable", 9), ref("digits-canary", 1)], [ref("digits-stable", 0), ref("digits-canary", 0)]]
    api = Namespace(httproute(*disordered))
    router = made("gateway-api", api, name="own")
    with pytest.raises(RoutingError, match="differently"):
        router.observed()
    apply(router, TrafficSplit(0))
    assert router.observed() == TrafficSplit(0)


@pytest.mark.usefixtures("calm")
def test_a_users_own_route_is_given_back_without_our_traces():
    """
    Reset ends the mirror and the weight; what was not ours is as it was.
    """
    own = httproute([ref("admin")], [ref("digits-stable", 1), ref("digits-canary", 0)])
    own["spec"]["rules"][1]["filters"] = [FOREIGN]
    api = Namespace(own)
    router = made("gateway-api", api, name="own")
    assert router.objects() == []
    apply(router, TrafficSplit(25))
    router.mirror(10)
    assert len(api.get("HTTPRoute", "own")["spec"]["rules"][1]["filters"]) == 2
    router.reset()
    after = api.get("HTTPRoute", "own")["spec"]
    assert router.observed() == TrafficSplit(0)
    after["rules"][1]["backendRefs"] = own["spec"]["rules"][1]["backendRefs"]
    assert after == own["spec"]


class Gateway:
    """Answers as stable, unless the route has what it does not know."""

    def __init__(self, api, after=4):
        self._api, self._after, self._asked, self.last = api, after, 0, "status 200"
        self.refused = self.believed = None

    def __call__(self):
        """Take up the route a few questions late."""
        mirrors = self._api.get("HTTPRoute", "digits")["spec"]["rules"][0].get("filters")
        self._asked = self._asked + 1 if mirrors else 0
        self.last = "status 500" if self._asked > self._after else "status 200"
        return None if self._asked > self._after else "stable"

    def aim(self, split):
        """Both versions answer at the same page."""

    def close(self):
        """Nothing is open."""


def test_a_mirror_that_the_gateway_does_not_know_is_taken_away(monkeypatch):
    """
    It accepts the route, and answers 500 to everything a moment later: that is no mirror, and lasts no longer than it must.
    """
    monkeypatch.setattr("canarykit.routers.probe.time.sleep", lambda seconds: None)
    router = made("gateway-api", api := Namespace())
    (body,) = router.objects()
    api.create(body)
    router._probe = Gateway(api)
    with pytest.raises(RoutingError, match=r"answered nothing \(status 500\): this gateway cannot mirror.*and it answers"):
        router.mirror(10)
    assert "filters" not in api.get("HTTPRoute", "digits")["spec"]["rules"][0]


@pytest.mark.parametrize(
    ("said", "broken"),
    [(["stable"], False), (["stable", None, None, "", None, "stable"], False), (["stable", None, None, None], True)],
)
def test_a_gateway_that_breaks_is_told_from_one_that_stumbles(monkeypatch, said, broken):
    """
    Three failures in a row, at any time within the seconds that it has; else it answers in the end.
    """
    now, answers = [0.0], iter(said)
    monkeypatch.setattr(probe.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(probe.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    gateway = Mock(side_effect=lambda: next(answers, said[-1]), refused=None, believed=None)
    assert probe.broken_within(gateway, 1.0) is broken
    assert now[0] < 0.2 if broken else now[0] >= 1.0


@pytest.mark.parametrize(("refused", "broken"), [(401, False), (500, True), (404, True)])
def test_a_gateway_that_turned_the_probe_away_before_is_not_broken(monkeypatch, refused, broken):
    """
    It does so now, too, and that is no sign of what was written; another refusal is.
    """
    monkeypatch.setattr(probe.time, "sleep", lambda seconds: None)
    assert probe.broken_within(Mock(return_value=None, refused=refused, believed=401), 0.05) is broken


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize("kind", ["gateway-api", "istio"])
def test_a_users_own_route_that_lost_a_version_is_left_to_them(kind):
    """
    Somebody took the canary out of it: there is no weight to reset, only our mirror to remove, and no error.
    """
    if kind == "istio":
        own = virtual_service([to("digits-stable", 100)])
        own["spec"]["http"][0] |= {"mirror": {"host": "digits-canary"}, "mirrorPercentage": {"value": 5.0}}
        left = {"http": [{"route": [to("digits-stable", 100)]}]}
    else:
        own = httproute([ref("digits-stable", 1)])
        mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": ref("digits-canary")}}
        own["spec"]["rules"][0]["filters"] = [mirror]
        left = {"rules": [{"backendRefs": [ref("digits-stable", 1)]}]}
    api = Namespace(own)
    router = made(kind, api, name="own")
    router.reset()
    assert api.get(own["kind"], "own")["spec"] == left
    with pytest.raises(RoutingError, match="with both"):
        apply(router, TrafficSplit(5))


@pytest.mark.usefixtures("calm")
@pytest.mark.parametrize(
    "found",
    [
        httproute([ref("digits-stable", 9), ref("digits-canary", 1)]),
        httproute([ref("digits-stable", 9), ref("digits-canary", 1)], [ref("digits-stable", 1), ref("digits-canary", 1)]),
    ],
)
def test_everything_to_stable(found):
    """
    From a split and from disorder; where all is there already, or there is no route, nothing is written.
    """
    api = Namespace(found)
    router = made("gateway-api", api, name="own")
    to_stable(router)
    assert router.observed() == TrafficSplit(0)
    written = len(api.writes)
    to_stable(router)
    to_stable(made("gateway-api", Namespace(), name="own"))
    to_stable(replicas.ReplicasRouter(Namespace(), TARGET))
    assert len(api.writes) == written


@pytest.mark.usefixtures("calm")
def test_a_foreign_object_of_our_name_is_not_removed(kind):
    """
    Only what carries the kit's label is deleted.
    """
    api = Namespace()
    router = made(kind, api)
    for body in router.objects():
        api.create({**body, "metadata": {**body["metadata"], "labels": {"team": "search"}}})
    router.reset()
    assert all(api.get(body["kind"], body["metadata"]["name"]) is not None for body in router.objects())


@pytest.mark.usefixtures("calm")
def test_the_canarys_ingress_is_removed_when_the_primary_is_gone():
    """
    The user deleted their own Ingress meanwhile: the way back does not need it.
    """
    api = Namespace({**ingress_nginx.ingress(TARGET, ingress_class="nginx", hostname=None), "metadata": {"name": "own"}})
    router = made("ingress-nginx", api, name="own")
    (body,) = router.objects()
    api.create(body)
    api.delete("Ingress", "own")
    with pytest.raises(RoutingError, match="there is no Ingress own"):
        router.objects()
    router.reset()
    assert api.get("Ingress", "digits-canary") is None


# Acceptance -------------------------------------------------------------------------------------------------------------


def parent(accepted="True", resolved="True", generation=3, **more):
    """What a gateway says of a route."""
    conditions = [
        {"type": "Accepted", "status": accepted, "observedGeneration": generation, "reason": "R", "message": "because"},
        {"type": "ResolvedRefs", "status": resolved, "observedGeneration": generation, "reason": "R", "message": "no such"},
    ]
    return {"parentRef": {"name": "web"}, "conditions": [*conditions, *more.get("beside", [])]}


@pytest.mark.parametrize(
    ("parents", "says"),
    [
        ([parent()], None),
        ([parent("False"), parent()], None),  # one gateway that serves it is enough
        ([parent(beside=[{"type": "example.com/Audited", "status": "False"}])], None),  # a word of somebody else
        ([], "no gateway has taken it up"),
        ([parent(generation=2)], "gateway web has not looked at it"),
        ([parent("False")], "gateway web does not accept it (Accepted: R: because)"),
        ([parent(resolved="False")], "gateway web does not accept it (ResolvedRefs: R: no such)"),
        ([{"parentRef": {"name": "web"}}], "gateway web does not accept it (Accepted: unknown; ResolvedRefs: unknown)"),
    ],
)
def test_a_route_is_accepted_at_its_generation(parents, says):
    """
    By a gateway that has seen it as written and found all backends; else in the gateway's own words.
    """
    said = gateway_api.accepted({"status": {"parents": parents}}, 3)
    assert said is None if says is None else said.startswith(says)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ({}, "no KServe controller has taken it up"),
        ({"observedGeneration": 2}, "no KServe controller has taken it up"),
        ({"observedGeneration": 3}, "it ignores the percentage"),
        ({"observedGeneration": 3, "traffic": [(True, 10), (False, 90)]}, "serves 10 % to the newest revision, not 20 %"),
        ({"observedGeneration": 3, "traffic": [(True, 20), (False, 80)]}, None),
    ],
)
def test_kserve_is_believed_when_its_controller_says_so(status, says):
    """
    Silence is no success: the percentage has to be in the status.
    """
    traffic = [{"latestRevision": latest, "percent": percent} for latest, percent in status.pop("traffic", [])]
    status = {**status, "components": {"predictor": {"traffic": traffic}}}
    said = made("kserve", Namespace()).refusal(inference(percent=20, status=status), 3)
    assert said is None if says is None else says in said


# Features ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "feature", "says"),
    [
        ("gateway-api", "affinity", "HTTPRoute as a router has no affinity: no router here can do it"),
        ("istio", "affinity", "VirtualService as a router has no affinity: no router here can do it"),
        ("ingress-nginx", "mirroring", "Ingress as a router has no mirroring: gateway-api and istio can"),
        ("kserve", "testers", "has no testers: gateway-api and istio and ingress-nginx can"),
        ("replicas", "fractions", "replicas as a router have no fractions: gateway-api and istio and ingress-nginx can"),
    ],
)
def test_what_a_router_cannot_do_is_refused(name, feature, says):
    """
    Not ignored; and who can is said.
    """
    router = replicas.ReplicasRouter(Namespace(), TARGET) if name == "replicas" else made(name, Namespace())
    with pytest.raises(RoutingError, match=says):
        router.need(feature)
    if feature == "mirroring":
        with pytest.raises(RoutingError, match="no mirroring"):
            router.mirror(10)


def test_what_a_router_can_do_is_not_refused():
    """
    Testers reach a version by a header where weights are per request.
    """
    for name in ("gateway-api", "istio", "ingress-nginx"):
        made(name, Namespace()).need("testers")


def test_routers_go_by_their_names():
    """
    An unknown one is refused with those that there are.
    """
    assert [router_class(name).kind for name in ROUTERS] == [
        "HTTPRoute",
        "VirtualService",
        "Ingress",
        "InferenceService",
        "Service",
    ]
    with pytest.raises(PlanError, match="no router is known as 'nginx': choose one of gateway-api, istio, ingress-nginx"):
        router_class("nginx")


# Replicas ---------------------------------------------------------------------------------------------------------------


@given(pods=st.integers(2, 40), data=st.data())
def test_pods_serve_the_splits_that_they_can(pods, data):
    """
    Any share of whole pods, and all pods are used at each.
    """
    canary = data.draw(st.integers(0, pods))
    assert replicas.pods_for(TrafficSplit(100 * canary / pods), pods) == {"stable": pods - canary, "canary": canary}


@pytest.mark.parametrize(
    ("weight", "pods", "says"), [(33.3, 4, "steps of 25 %: 25 % and 50 % are the nearest to 33.3 %"), (5, 3, "0 % and 33.33 %")]
)
def test_pods_say_which_splits_they_can(weight, pods, says):
    """
    The nearest below and above.
    """
    with pytest.raises(RoutingError, match=says):
        replicas.pods_for(TrafficSplit(weight), pods)


def test_pods_that_get_connections_are_counted_by_version():
    """
    Not those that are not ready, and not those of others.
    """
    roles = {"s-0": "stable", "s-1": "stable", "c-0": "canary"}
    endpoints = [("s-0", True), ("s-1", False), ("c-0", True), ("x", True)]
    slices = [
        {"endpoints": [{"targetRef": {"name": name}, "conditions": {"ready": ready}} for name, ready in endpoints]},
        {"endpoints": None},
    ]
    assert replicas.ready_in(slices, roles) == {"stable": 1, "canary": 1}


class Pods(Namespace):
    """A namespace whose pods follow the Deployments at once; it remembers how many were there at each write."""

    def __init__(self):
        bodies = [{"kind": "Deployment", "metadata": {"name": f"digits-{role}"}, "spec": {"replicas": 2}} for role in ROLES]
        super().__init__(*bodies)
        self.totals = []

    def list(self, kind, selector="", **options):
        numbers = {role: self.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES}
        names = {role: [f"{role}-{number}" for number in range(numbers[role])] for role in ROLES}
        if kind == "Pod":
            return [{"metadata": {"name": name}} for name in names[selector.rpartition("=")[2]]]
        self.totals.append(sum(numbers.values()))
        ready = {"ready": True}
        return [{"endpoints": [{"targetRef": {"name": name}, "conditions": ready} for role in ROLES for name in names[role]]}]


def test_there_is_never_less_capacity_than_before():
    """
    The version that grows is ready before the other shrinks.
    """
    api = Pods()
    router = replicas.ReplicasRouter(api, TARGET, pods=4)  # without an address nobody can be asked
    for weight in (25, 100, 0):
        apply(router, TrafficSplit(weight))
        assert router.observed() == TrafficSplit(weight)
    with pytest.raises(EditedError, match="told 0 %, not 25 %"):
        apply(router, TrafficSplit(50), expected=TrafficSplit(25))
    assert router.observed() == TrafficSplit(0)
    assert min(api.totals) >= 4
    assert max(api.totals) > 4
    router.reset()
    assert router.observed() == TrafficSplit(0)


def test_a_canary_that_someone_else_scales_down_meanwhile_gets_no_pods_again(monkeypatch):
    """
    They wait for nothing; we do, for stable's new pods.
    """
    api = Pods()
    router = replicas.ReplicasRouter(api, TARGET, pods=4)
    apply(router, TrafficSplit(50))
    real = api.patch

    def meddled(kind, name, body, **options):
        changed = real(kind, name, body, **options)
        if name == "digits-stable":
            real(kind, "digits-canary", {"spec": {"replicas": 0}})
        return changed

    monkeypatch.setattr(api, "patch", meddled)
    with pytest.raises(RoutingError, match="someone else took pods from Deployment digits-canary meanwhile"):
        apply(router, TrafficSplit(25), expected=TrafficSplit(50))
    assert router.observed() == TrafficSplit(0)


@pytest.mark.parametrize(
    ("have", "want", "canary"),
    [((4, 0), (3, 1), 20), ((0, 4), (4, 0), 20), ((2, 2), (1, 3), 60), ((2, 0), (4, 0), 0), ((0, 0), (1, 1), 0)],
)
def test_the_last_pod_to_follow_is_waited_for(have, want, canary):
    """
    The split with one pod more of what shrinks; or one less of what grows, where nothing shrinks.
    """
    have, want = (dict(zip(ROLES, pods, strict=True)) for pods in (have, want))
    assert replicas.nearest_on_the_way(have, want) == TrafficSplit(canary)


def test_a_node_that_follows_late_is_waited_for(monkeypatch):
    """
    The API server has no pod of the canary any more; for some answers yet the node's proxy has one, beside four of stable.
    """
    answers = itertools.chain(["stable", "stable", "stable", "canary", "stable"] * 8, itertools.repeat("stable"))
    given = []

    class Late:
        def __init__(self, *where):
            self.close, self.aim, self.refused = (lambda: None), (lambda split: None), None

        def __call__(self):
            given.append(next(answers))
            return given[-1]

    monkeypatch.setattr(replicas, "Probe", Late)
    router = replicas.ReplicasRouter(Pods(), TARGET, pods=4, url="http://127.0.0.1:1")
    apply(router, TrafficSplit(0))
    assert len(given) > 40
    assert "canary" not in given[-40:]


def test_pods_that_do_not_become_ready_are_an_error():
    """
    With the numbers that are there and those that were asked for.
    """
    api = Pods()
    api.list = lambda kind, selector="", **options: []
    router = replicas.ReplicasRouter(api, TARGET, pods=4, within=0.0)
    with pytest.raises(RoutingError, match="0 pods of stable and 0 of the canary get traffic, not 3 and 2"):
        apply(router, TrafficSplit(25))


class Crashing(Pods):
    """The same, but pods of some versions are never ready."""

    def __init__(self, *roles):
        super().__init__()
        self._crashing = roles

    def list(self, kind, selector="", **options):
        found = super().list(kind, selector, **options)
        for endpoint in found[0].get("endpoints", []) if kind != "Pod" else []:
            crashes = endpoint["targetRef"]["name"].startswith(self._crashing)
            endpoint["conditions"] = {"ready": not crashes}
        return found


def test_a_canary_that_crashes_is_taken_away():
    """
    Its pods are never ready again, and nobody waits for them on the way back.
    """
    api = Crashing("canary")
    apply(replicas.ReplicasRouter(api, TARGET, pods=4, within=0.5), TrafficSplit(0))
    assert [api.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES] == [4, 0]


def test_a_canary_is_taken_away_from_a_stable_that_is_in_trouble_too():
    """
    Stable does not get half of all pods in time: that is said, and the canary gets no traffic all the same.
    """
    api = Crashing("canary", "stable-1", "stable-2", "stable-3")
    router = replicas.ReplicasRouter(api, TARGET, pods=4, within=0.0)
    with pytest.raises(RoutingError, match="1 pods of stable and 0 of the canary get traffic, not 4 and 2"):
        apply(router, TrafficSplit(0))
    assert router.observed() == TrafficSplit(0)
    with pytest.raises(RoutingError, match="get traffic, not 4 and 1"):
        apply(replicas.ReplicasRouter(Crashing("canary"), TARGET, pods=5, within=0.0), TrafficSplit(20))


def test_traffic_returns_to_half_of_the_pods_at_once():
    """
    Stable has two of four: it has all traffic when `write` returns, and its other pods come up behind that.
    """
    api = Crashing("stable-2", "stable-3")
    router = replicas.ReplicasRouter(api, TARGET, pods=4, within=0.0)
    change = router.write(TrafficSplit(0))
    assert [api.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES] == [4, 0]
    assert router.confirm(change)


@pytest.mark.parametrize("how", ["cancelled", "overtaken"])
def test_a_pod_that_never_starts_is_waited_for_until_somebody_returns_the_traffic(how):
    """
    Stable keeps its pods meanwhile, and the wait that has ended takes none of them away.
    """
    api = Crashing("canary-2")
    router = replicas.ReplicasRouter(api, TARGET, pods=4, within=600.0)
    change, asked = router.write(TrafficSplit(75)), []

    def cancelled():
        asked.append(how)
        if how == "overtaken" and len(asked) == 1:
            router.write(TrafficSplit(0))
        return how == "cancelled" and len(asked) > 1

    assert not router.confirm(change, cancelled=cancelled)
    pods = [api.get("Deployment", f"digits-{role}")["spec"]["replicas"] for role in ROLES]
    assert pods == ([2, 3] if how == "cancelled" else [4, 0])


def test_replicas_need_something_to_split():
    """
    Two pods, two Deployments and an address.
    """
    with pytest.raises(RoutingError, match="two versions need two pods at least, not 1"):
        replicas.ReplicasRouter(Namespace(), TARGET, pods=1)
    with pytest.raises(RoutingError, match="there is no Deployment digits-stable in namespace ns"):
        replicas.ReplicasRouter(Namespace(), TARGET).observed()
    with pytest.raises(RoutingError, match="Service digits has no address of a load balancer"):
        _ = replicas.ReplicasRouter(Namespace(), TARGET).url


# Addresses --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "port", "url"),
    [
        ([{"ip": "10.0.0.7"}], 80, "http://10.0.0.7"),
        ([{"hostname": "lb.example.com"}], 8080, "http://lb.example.com:8080"),
        ([{"ip": "fd00::7"}], 80, "http://[fd00::7]"),
        ([{}, {"ip": "10.0.0.8"}], 80, "http://10.0.0.8"),
        ([], 80, None),
    ],
)
def test_the_address_of_a_load_balancer(entries, port, url):
    """
    None as long as it has none; IPv6 in brackets.
    """
    assert balancer_url(entries, port) == url
    assert address("https", "a", 443) == "https://a:443"
