"""Which rules of a team's route are split, what is written into them, and what they have in the end."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_doubles import Namespace

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers import gateway_api, istio, route, router_class
from canarykit.routers.base import apply
from canarykit.routers.objects import Target
from canarykit.routers.rules import NOTE

TARGET = Target("chat", 80, {"app.kubernetes.io/managed-by": "canarykit"})
BETA = [{"headers": [{"name": "x-beta", "value": "1"}]}]
ALL = [{"path": {"type": "PathPrefix", "value": "/"}}]


def ref(role, weight=None, **more):
    """One backend of an HTTPRoute; a weight that is not said is 1, as the API server writes it."""
    return {"name": f"chat-{role}", "port": 80, "weight": 1 if weight is None else weight, **more}


def http(*rules, **meta):
    """A team's HTTPRoute, of pairs of matches and backends."""
    spec = {"rules": [{"matches": matches, "backendRefs": list(refs)} for matches, refs in rules]}
    return {"kind": "HTTPRoute", "metadata": {"name": "own", "namespace": "ns", "resourceVersion": "7", **meta}, "spec": spec}


def to(role, weight=None, host="chat-{}", **more):
    """One destination of a VirtualService."""
    return {"destination": {"host": host.format(role), **more}, **({} if weight is None else {"weight": weight})}


def virtual(*routes):
    """A team's VirtualService, of pairs of matches and destinations."""
    spec = {"http": [{**({"match": match} if match else {}), "route": list(entries)} for match, entries in routes]}
    return {"kind": "VirtualService", "metadata": {"name": "own", "namespace": "ns", "resourceVersion": "7"}, "spec": spec}


def changed(patch):
    """Paths and values of a patch, without the line that compares versions."""
    return {line["path"]: line.get("value") for line in patch[1:]}


# Which rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    "matches",
    [
        BETA,
        [{"queryParams": [{"name": "beta", "value": "1"}]}],
        [{"path": {"type": "PathPrefix", "value": "/"}, "headers": [{"name": "cookie", "value": "beta=1"}]}, *BETA],
    ],
    ids=["header", "query", "each"],
)
def test_a_rule_for_testers_is_not_ours(matches, number):
    """
    It asks for a header or a query parameter and gives one version everything, before or after the rule that is split.
    """
    rules = [(ALL, [ref("stable", 95), ref("canary", 5)])]
    rules.insert(number, (matches, [ref("stable", 0), ref("canary", 100)]))
    found = http(*rules)
    ours = f"/spec/rules/{1 - number}/backendRefs"
    assert gateway_api.split_of(found, TARGET) == TrafficSplit(5)
    assert changed(gateway_api.patch(found, TARGET, TrafficSplit(10))) == {f"{ours}/0/weight": 90, f"{ours}/1/weight": 10}
    assert {place[0] for place in gateway_api.backends(found, TARGET)} == {1 - number}
    (line,) = gateway_api.mirrored(found, TARGET, 10.0)[1:]
    assert line["path"] == f"/spec/rules/{1 - number}/filters"


@pytest.mark.parametrize(
    "match",
    [{"headers": {"x-beta": {"exact": "1"}}}, {"queryParams": {"beta": {"exact": "1"}}}, {"sourceLabels": {"app": "probe"}}],
    ids=["header", "query", "source"],
)
def test_a_route_for_testers_of_a_virtual_service_is_not_ours(match):
    """
    The same for Istio, beside two routes with paths that are split alike.
    """
    paths = [([{"uri": {"prefix": path}}], [to("stable", 95), to("canary", 5)]) for path in ("/a", "/b")]
    found = virtual(([match], [to("stable", 0), to("canary", 100)]), *paths)
    assert istio.split_of(found, TARGET) == TrafficSplit(5)
    assert {path.split("/")[3] for path in changed(istio.patch(found, TARGET, TrafficSplit(10)))} == {"1", "2"}


@pytest.mark.parametrize(
    ("matches", "splits"),
    [
        (BETA, True),  # the only one: a route of a tenant
        ([{"method": "POST", "path": {"type": "Exact", "value": "/v1/chat/completions"}}], True),  # what for, not who asks
        (ALL, True),
        ([], True),
    ],
    ids=["tenant", "method", "path", "none"],
)
def test_a_rule_that_is_alone_is_split(matches, splits):
    """
    Also where it asks for a header, when stable has everything.
    """
    found = http((matches, [ref("stable", 100), ref("canary", 0)]))
    assert gateway_api.split_of(found, TARGET) == TrafficSplit(0)
    assert bool(changed(gateway_api.patch(found, TARGET, TrafficSplit(5)))) is splits


def test_a_rule_for_testers_alone_is_no_split():
    """
    A route that sends testers to the canary and nobody else anywhere is refused, with the order in which to change it.
    """
    found = http((BETA, [ref("stable", 0), ref("canary", 100)]))
    for ask in (lambda: gateway_api.split_of(found, TARGET), lambda: gateway_api.patch(found, TARGET, TrafficSplit(0))):
        with pytest.raises(RoutingError, match=r"but those for testers \(rule 0 gives the canary 100 %\)\. To lose no request"):
            ask()


def test_rules_that_differ_are_listed():
    """
    Nobody guesses which is meant.
    """
    found = http((ALL, [ref("stable", 9), ref("canary", 1)]), ([], [ref("stable", 8), ref("canary", 2)]))
    with pytest.raises(RoutingError, match="rule 0 gives the canary 10 %; rule 1 gives the canary 20 %"):
        gateway_api.split_of(found, TARGET)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("chat-{}", True),
        ("chat-{}.ns", True),
        ("chat-{}.ns.svc", True),
        ("chat-{}.ns.svc.cluster.local", True),
        ("chat-{}.ns.svc.example.org", True),
        ("chat-{}.other", False),
        ("chat-{}.other.svc.cluster.local", False),
        ("chat-{}.nsx.svc.cluster.local", False),
        ("chat-{}.example.com", False),
    ],
)
def test_hosts_of_other_namespaces_are_not_ours(host, ours):
    """
    A short name and the full ones of the route's own namespace are.
    """
    found = virtual((None, [to("stable", 90, host), to("canary", 10, host)]))
    if ours:
        assert istio.split_of(found, TARGET) == TrafficSplit(10)
    else:
        with pytest.raises(RoutingError, match="has no http route with both"):
            istio.split_of(found, TARGET)


def test_a_version_named_twice_is_refused():
    """
    Its two weights would both be set to what one was to have.
    """
    with pytest.raises(RoutingError, match="rule 0 of HTTPRoute own names the Service of a version twice"):
        gateway_api.patch(http((ALL, [ref("stable"), ref("stable"), ref("canary", 0)])), TARGET, TrafficSplit(5))


# A whole rollout on a team's own route ----------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def calm(monkeypatch):
    """Gateways that take up at once what is written."""
    monkeypatch.setattr(route, "until_served", lambda *args, **options: None)
    monkeypatch.setattr(gateway_api, "accepted", lambda *args: None)


def router_of(found):
    """A router of this route, and the namespace that holds it."""
    api = Namespace(found)
    kind = {"HTTPRoute": "gateway-api", "VirtualService": "istio"}[found["kind"]]
    return api, router_class(kind)(api, TARGET, url="http://127.0.0.1:1", gateway="ns/web", name="own")


def spec(api, found):
    """What the route says now."""
    return api.get(found["kind"], "own")["spec"]


STABLE_ALONE = [
    http((ALL, [ref("stable")])),
    http((ALL, [ref("stable", filters=[{"type": "X"}])]), (BETA, [ref("stable", 7)]), annotations={"team": "search"}),
    http((BETA, [ref("stable", 0), ref("canary", 100)]), (ALL, [ref("stable", 5)])),
    virtual((None, [to("stable")])),
    virtual(([{"uri": {"prefix": "/a"}}], [to("stable", None, "chat-{}.ns.svc.cluster.local", port={"number": 80})])),
    virtual((None, [to("", None, "chat", subset="stable")])),
]
BOTH = [
    http((ALL, [ref("stable", 1), ref("canary", 0)])),
    http((ALL, [ref("canary", 0), ref("stable", 3)]), (BETA, [ref("stable", 0), ref("canary", 1)])),
    http((ALL, [ref("stable", 1), ref("canary", 0), {"name": "old", "port": 80, "weight": 0}])),
    virtual((None, [to("stable", 100), to("canary", 0)])),
    virtual((None, [to("stable", 100), to("canary")])),
]


@pytest.mark.parametrize("found", [*STABLE_ALONE, *BOTH], ids=[f"{number}" for number in range(len([*STABLE_ALONE, *BOTH]))])
def test_a_route_is_in_the_end_what_it_was(found):
    """
    The canary joins where it is not named, with no weight, gets some, and leaves nothing: also where another process goes on.
    """
    api, router = router_of(found)
    router.check()
    assert router.observed() == TrafficSplit(0)
    router.join()
    assert router.observed() == TrafficSplit(0)
    for weight in (0, 30, 100):
        apply(router, TrafficSplit(weight))
        assert router.observed() == TrafficSplit(weight)
    again = router_class("gateway-api" if found["kind"] == "HTTPRoute" else "istio")(
        api, TARGET, url="http://127.0.0.1:1", gateway="ns/web", name="own"
    )
    again.check()
    again.join()
    assert again.observed() == TrafficSplit(100)
    again.reset()
    assert spec(api, found) == found["spec"]
    now = api.get(found["kind"], "own")["metadata"].get("annotations", {})
    assert now == found["metadata"].get("annotations", {})


@pytest.mark.parametrize(
    "found",
    [
        http((ALL, [ref("stable", 95), ref("canary", 5)])),
        http((ALL, [ref("stable"), ref("canary")])),
        virtual((None, [to("stable", 95), to("canary", 5)])),
    ],
    ids=["http", "unsaid", "virtual"],
)
@pytest.mark.parametrize("exact", [True, False])
def test_a_share_of_the_canary_comes_back_only_with_the_canary(found, exact):
    """
    A deployment that failed beside a canary that was there leaves it its share; one that removes the canary does not.
    """
    api, router = router_of(found)
    apply(router, TrafficSplit(0))
    assert json.loads(api.get(found["kind"], "own")["metadata"]["annotations"][NOTE])
    router.give_back(exact=exact)
    if exact:
        assert spec(api, found) == found["spec"]
    else:
        assert router.observed() == TrafficSplit(0)
    router.give_back(exact=exact)  # and again: there is no note any more
    assert NOTE not in api.get(found["kind"], "own")["metadata"].get("annotations", {})


def test_the_rules_of_a_rollout_stay_its_rules():
    """
    A rule that asks for a header is split with the other one. At 0 % and at 100 % it looks like one for testers, and is none.
    """
    found = http((BETA, [ref("stable", 9), ref("canary", 1)]), (ALL, [ref("stable", 9), ref("canary", 1)]))
    api, router = router_of(found)
    for weight in (0, 100, 0, 20):
        apply(router, TrafficSplit(weight))
        shares = [
            sum(r["weight"] for r in rule["backendRefs"] if r["name"] == "chat-canary") for rule in spec(api, found)["rules"]
        ]
        assert shares == [weight, weight]
    # Somebody puts a rule before them: the others are found by what they match.
    rules = copy.deepcopy(spec(api, found)["rules"])
    api.edit(
        "HTTPRoute",
        "own",
        rules=[{"matches": [{"method": "PUT"}], "backendRefs": [ref("stable", 1), ref("canary", 0)]}, *rules],
    )
    apply(router, TrafficSplit(50))
    assert [rule["backendRefs"][1]["weight"] for rule in spec(api, found)["rules"]] == [0, 50, 50]


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (
            http((ALL, [{"name": "chat", "port": 80}])),
            "has no rule with both .* To lose no request, first bring up both versions",
        ),
        (http((ALL, [ref("canary")])), "has no rule with both"),
        (http((ALL, [ref("stable", 1), {"name": "old", "weight": 1}])), "rule 0 of HTTPRoute own has backends beside the two"),
        (http((ALL, [ref("stable", 1, kind="InferencePool"), ref("canary", 0)])), "has no rule with both"),
        (
            http((ALL, [ref("stable", 9), ref("canary", 1)]), ([], [ref("stable", 1), ref("canary", 1)])),
            "rule 0 gives the canary 10 %; rule 1 gives the canary 50 %",
        ),
        (
            virtual((None, [to("stable", 50), to("audit", 50)])),
            "http route 0 of VirtualService own has backends beside the two",
        ),
    ],
    ids=["neither", "canary", "beside", "kind", "differ", "virtual"],
)
def test_what_a_deployment_would_refuse_is_refused_before_it_writes(found, says):
    """
    With what to do; and nothing is written.
    """
    api, router = router_of(found)
    written = len(api.writes)
    with pytest.raises(RoutingError, match=says):
        router.check()
    assert len(api.writes) == written


def test_a_service_of_the_canarys_name_elsewhere_is_not_the_canary():
    """
    Ours joins beside it, and leaves it alone.
    """
    theirs = ref("canary", 0, namespace="other")
    api, router = router_of(found := http((ALL, [ref("stable", 1), theirs])))
    router.check()
    router.join()
    apply(router, TrafficSplit(40))
    weights = [entry["weight"] for entry in spec(api, found)["rules"][0]["backendRefs"]]
    assert weights == [60, 0, 40]
    router.reset()
    assert spec(api, found) == found["spec"]


def test_a_canary_that_is_not_there_yet_has_no_weight():
    """
    A route that gives it some already would answer its users with errors until its pods are ready.
    """
    api, router = router_of(found := http((ALL, [ref("stable", 95), ref("canary", 5)])))
    router.hold_back()
    assert router.observed() == TrafficSplit(0)
    written = len(api.writes)
    router.hold_back()
    assert len(api.writes) == written
    router.give_back(exact=True)
    assert spec(api, found) == found["spec"]


@given(
    stable=st.integers(1, 1000),
    canary=st.none() | st.just(0),
    shifts=st.lists(st.integers(0, 1000).map(lambda parts: TrafficSplit(parts / 10)), max_size=4),
)
def test_whatever_happens_between_the_route_is_what_it_was(stable, canary, shifts):
    """
    Any weight of stable, with or without the canary beside it, and any shifts.
    """
    found = http((ALL, [ref("stable", stable), *([] if canary is None else [ref("canary", canary)])]))
    api, router = router_of(found)
    router._wait_accepted = lambda written, cancelled: True
    router.join()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(route, "until_served", lambda *args, **options: None)
        for split in shifts:
            apply(router, split)
        router.reset()
    assert spec(api, found) == found["spec"]
