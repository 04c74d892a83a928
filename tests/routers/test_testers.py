"""Who reaches the canary by a header, and until when."""

import pytest
from kube_doubles import Namespace

from canarykit.clusters.kube.binding import end_testers_at
from canarykit.errors import ClusterError, PlanError, RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers import gateway_api, ingress_nginx, route, router_class, testers
from canarykit.routers.base import apply
from canarykit.routers.objects import Target

TARGET = Target("chat", 80, {"app.kubernetes.io/managed-by": "canarykit", "app.kubernetes.io/part-of": "chat"})
NGINX = ingress_nginx.PREFIX


def values(api, kind):
    """Values of the testers' header that lead to the canary now."""
    if kind == "ingress-nginx":
        said = api.get("Ingress", "chat-canary")["metadata"]["annotations"]
        return [said[f"{NGINX}/canary-by-header-value"]] if f"{NGINX}/canary-by-header" in said else []
    if kind == "istio":
        routes = api.get("VirtualService", "chat")["spec"]["http"]
        forced = [http for http in routes if http["name"] == "testers-canary"]
        return [match["headers"]["x-canarykit-role"]["exact"] for http in forced for match in http["match"]]
    rules = api.get("HTTPRoute", "chat")["spec"]["rules"]
    to_canary = [rule for rule in rules if [ref["name"] for ref in rule["backendRefs"]] == ["chat-canary"]]
    return [header["value"] for rule in to_canary for match in rule["matches"] for header in match["headers"]]


def made(kind, api, asked):
    """A router whose objects are there."""
    router = router_class(kind)(api, TARGET, url="http://127.0.0.1:1", gateway="ns/web", testers=testers.Testers.of(asked))
    for body in router.objects():
        if api.get(body["kind"], body["metadata"]["name"]) is None:
            api.create(body)
    return router


@pytest.fixture(autouse=True)
def calm(monkeypatch):
    """Gateways that take up at once what is written."""
    monkeypatch.setattr(route, "until_served", lambda *args, **options: None)
    monkeypatch.setattr(gateway_api, "accepted", lambda *args: None)


@pytest.mark.parametrize("kind", ["gateway-api", "istio", "ingress-nginx"])
@pytest.mark.parametrize(
    ("asked", "lead"),
    [(True, ["canary"]), (False, []), ("k3y-of-ours", ["k3y-of-ours"])],
    ids=["anybody", "nobody", "secret"],
)
def test_who_reaches_the_canary_until_the_end(kind, asked, lead):
    """
    Who was told to, while the rollout lasts: then no header leads there, the split is as it was, and the next rollout opens it.
    """
    router = made(kind, api := Namespace(), asked)
    assert values(api, kind) == lead
    apply(router, TrafficSplit(20))
    for _ in range(2):
        router.admit_testers(False)
        assert values(api, kind) == []
        assert router.observed() == TrafficSplit(20)
    router.admit_testers(True)
    assert values(api, kind) == lead
    assert router.observed() == TrafficSplit(20)
    written = len(api.writes)
    router.admit_testers(True)
    assert len(api.writes) == written


@pytest.mark.parametrize("kind", ["gateway-api", "istio", "ingress-nginx"])
def test_another_choice_takes_the_place_of_the_first(kind):
    """
    A rollout that is found under way has testers as this one says.
    """
    made(kind, api := Namespace(), True)
    made(kind, api, "k3y-of-ours").admit_testers(True)
    assert values(api, kind) == ["k3y-of-ours"]
    made(kind, api, False).admit_testers(True)
    assert values(api, kind) == []


def test_a_teams_own_rules_are_theirs():
    """
    The kit opens and closes nothing in a route that it did not make.
    """
    refs = [{"name": f"chat-{role}", "weight": 1} for role in ("stable", "canary")]
    theirs = {"matches": [{"headers": [{"name": "x-canarykit-role", "value": "canary"}]}], "backendRefs": refs[1:]}
    own = {"kind": "HTTPRoute", "metadata": {"name": "own"}, "spec": {"rules": [{"backendRefs": refs}, theirs]}}
    api = Namespace(own)
    router = router_class("gateway-api")(api, TARGET, url="http://127.0.0.1:1", name="own")
    router.admit_testers(False)
    router.admit_testers(True)
    assert api.get("HTTPRoute", "own")["spec"] == own["spec"]


@pytest.mark.parametrize(
    "asked",
    ["stable", "canary", "", "two words", "a,b", "x" * 129, 5, None, "line\nbreak"],
    ids=[f"{number}" for number in range(9)],
)
def test_a_value_that_is_none_is_refused_without_being_shown(asked):
    """
    What anybody guesses is no secret, and what no header holds is no value.
    """
    with pytest.raises(PlanError, match="testers= takes True, False, or a value of the header") as refused:
        testers.Testers.of(asked)
    assert "two words" not in str(refused.value)
    assert "k3y" not in repr(testers.Testers.of("k3y"))


@pytest.mark.parametrize("left", [{}, {"rules": None, "http": None}, {"rules": [], "http": []}], ids=["none", "null", "empty"])
@pytest.mark.parametrize(("kind", "object_kind"), [("gateway-api", "HTTPRoute"), ("istio", "VirtualService")])
def test_a_route_without_rules_has_none_for_testers(kind, object_kind, left):
    """
    Somebody has edited the kit's own: no header leads to the canary, and nothing is written.
    """
    router = made(kind, api := Namespace(), True)
    edited = api.get(object_kind, "chat")
    api._store({**edited, "spec": {"hosts": ["*"], "hostnames": ["a.example.com"], **left}})
    written = len(api.writes)
    router.admit_testers(False)
    router.admit_testers(True)
    assert len(api.writes) == written


def test_an_object_without_a_spec_has_no_testers():
    """
    Not even then an error that is none of the kit's.
    """
    found = {"metadata": {"name": "chat", "resourceVersion": "1"}}
    for kind in ("gateway-api", "istio", "ingress-nginx"):
        assert made(kind, Namespace(), True).testing(found, testers.Testers(None)) is None


@pytest.mark.parametrize("error", [KeyError("http"), TypeError("no list"), ConnectionError("reset")], ids=["key", "type", "os"])
def test_how_a_rollout_ended_is_written_down_whatever_fails_with_the_header(error):
    """
    An object of a form that nobody expects, for one: it is told by its name.
    """

    class Odd:
        def admit_testers(self, admitted):
            raise error

    told = []
    end_testers_at("promoted", Odd(), told.append)
    assert [line.endswith(f"may lead to the canary still: {type(error).__name__}: {error}") for line in told] == [True]

    def gone(line):
        raise BrokenPipeError(line)

    end_testers_at("promoted", Odd(), gone)


def test_a_rollout_ends_also_where_the_header_cannot_be_taken_away():
    """
    That is told, and is no error; while the rollout lasts nothing is done.
    """

    class Away:
        def admit_testers(self, admitted):
            raise ClusterError("the API server is away")

    told = []
    for phase in ("progressing", None):
        end_testers_at(phase, Away(), told.append)
    end_testers_at("promoted", None, told.append)
    assert told == []
    for outcome in ("promoted", "rolled back", "inconclusive", "no data", "failed"):
        end_testers_at(outcome, Away(), told.append)
    assert len(told) == 5
    assert told[0].endswith("may lead to the canary still: the API server is away")


# The canary's Ingress ---------------------------------------------------------------------------------------------------


def test_the_canarys_ingress_is_served_as_the_first_is():
    """
    Class, by field or by the old annotation, rewriting, logins and certificates; and nothing by which others own or change it.
    """
    copied = {
        "kubernetes.io/ingress.class": "nginx",
        f"{NGINX}/use-regex": "true",
        f"{NGINX}/rewrite-target": "/$2",
        f"{NGINX}/auth-url": "https://login",
        "haproxy.org/timeout-server": "60s",
    }
    theirs = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        f"{NGINX}/canary-by-cookie": "beta",
        "meta.helm.sh/release-name": "chat",
        "argocd.argoproj.io/tracking-id": "chat",
        "cert-manager.io/cluster-issuer": "letsencrypt",
        "external-dns.alpha.kubernetes.io/hostname": "ai.test",
        "canarykit.dev/before": "{}",
    }
    backend = {"service": {"name": "chat-stable", "port": {"name": "http"}}}
    paths = [{"path": "/chat(/|$)(.*)", "pathType": "ImplementationSpecific", "backend": backend}]
    tls = [{"hosts": ["ai.test"], "secretName": "ai-tls"}]
    first = {
        "metadata": {"name": "chat", "annotations": {**copied, **theirs}},
        "spec": {"rules": [{"host": "ai.test", "http": {"paths": paths}}], "tls": tls},
    }
    made = ingress_nginx.canary_ingress(first, TARGET)
    said = made["metadata"]["annotations"]
    assert copied.items() <= said.items()
    assert not theirs.keys() & said.keys()
    assert said[f"{NGINX}/canary-weight"] == "0"
    assert made["spec"]["tls"] == tls
    assert made["metadata"]["labels"] == TARGET.labels
    assert (
        f"{NGINX}/canary-by-header"
        not in ingress_nginx.canary_ingress(first, TARGET, testers.Testers(None))["metadata"]["annotations"]
    )


def test_a_default_backend_has_no_canary_beside_it():
    """
    An Ingress without rules: the reason is said.
    """
    first = {
        "metadata": {"name": "chat"},
        "spec": {"defaultBackend": {"service": {"name": "chat-stable", "port": {"number": 80}}}},
    }
    with pytest.raises(RoutingError, match="no rule that leads to Service chat-stable but as defaultBackend, which no canary"):
        ingress_nginx.canary_ingress(first, TARGET)
