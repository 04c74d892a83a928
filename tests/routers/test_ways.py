"""What must be asked of a gateway so that the versions behind a team's route answer."""

import pytest

from canarykit.routers import gateway_api, ingress_nginx, istio
from canarykit.routers.objects import Target
from canarykit.routers.ways import Way, host_of

TARGET = Target("chat", 80, {})
READY = ("/v2/health/ready", "/v2/health/ready")


def http(*matches, hosts=("ai.example.com",), filters=()):
    """A team's HTTPRoute with one rule."""
    refs = [{"name": f"chat-{role}", "port": 80, "weight": 1} for role in ("stable", "canary")]
    rule = {"backendRefs": refs, **({"matches": list(matches)} if matches else {}), "filters": list(filters)}
    return {"metadata": {"name": "own", "namespace": "ns"}, "spec": {"hostnames": list(hosts), "rules": [rule]}}


def path(value, kind="PathPrefix"):
    """What a match of an HTTPRoute says of paths."""
    return {"path": {"type": kind, "value": value}}


REWRITE = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}


@pytest.mark.parametrize(
    ("found", "asked"),
    [
        (http(), "/v2/health/ready"),
        (http(path("/")), "/v2/health/ready"),
        (http(path("/v2")), "/v2/health/ready"),
        (http(path("/chat")), "/chat/v2/health/ready"),
        (http(path("/chat"), filters=[REWRITE]), "/chat/v2/health/ready"),
        (http(path("/v2"), filters=[REWRITE]), "/v2/v2/health/ready"),
        (http(path("/chat/"), filters=[REWRITE]), "/chat/v2/health/ready"),
        (http(path("/v1/chat", "Exact")), "/v1/chat"),
        (http(path("/v1/.*", "RegularExpression")), "/v2/health/ready"),
        (http(path("/v1"), path("/v2")), "/v2/health/ready"),  # the match that leads there
        (http({**path("/v2"), "method": "POST"}, path("/x")), "/x/v2/health/ready"),  # and takes a GET
        (http({"headers": [{"name": "x-a", "value": "1"}]}), "/v2/health/ready"),
    ],
    ids=[f"{number}" for number in range(12)],
)
def test_the_path_through_an_httproute(found, asked):
    """
    Below its prefix, as the versions see it after a rewrite.
    """
    way = gateway_api.way_of(found, TARGET, READY)
    assert way.to(READY[0]) == asked
    assert way.host == "ai.example.com"


def test_what_an_httproute_asks_for_is_sent():
    """
    Headers and query by exact values; those of an expression nobody can guess.
    """
    headers = [{"name": "x-a", "value": "1"}, {"name": "x-b", "value": ".*", "type": "RegularExpression"}]
    way = gateway_api.way_of(http({"headers": headers, "queryParams": [{"name": "q", "value": "2"}]}), TARGET, READY)
    assert (way.headers, way.query) == ({"x-a": "1"}, {"q": "2"})


def test_the_rule_for_testers_is_not_the_way():
    """
    Its header would have the canary answer each question.
    """
    found = http()
    beta = {"matches": [{"headers": [{"name": "x-beta", "value": "1"}]}]}
    refs = [{"name": "chat-stable", "weight": 0}, {"name": "chat-canary", "weight": 1}]
    found["spec"]["rules"].insert(0, {**beta, "backendRefs": refs})
    assert gateway_api.way_of(found, TARGET, READY).headers == {}


@pytest.mark.parametrize(
    ("hosts", "host"),
    [
        ([], None),
        (["*"], None),
        (["a.test", "b.test"], "a.test"),
        (["*.a.test", "b.test"], "b.test"),
        (["*.a.test"], "canarykit.a.test"),
    ],
    ids=["any", "all", "first", "plain", "wildcard"],
)
def test_a_name_that_a_route_answers_to(hosts, host):
    """
    One of its own; of a wildcard one that fits.
    """
    assert host_of(hosts) == host


@pytest.mark.parametrize(
    ("match", "rewrite", "asked"),
    [
        (None, None, "/v2/health/ready"),
        ({"uri": {"prefix": "/chat"}}, None, "/chat/v2/health/ready"),
        ({"uri": {"prefix": "/chat/"}}, "/", "/chat/v2/health/ready"),
        ({"uri": {"exact": "/v1"}}, None, "/v1"),
        ({"uri": {"regex": ".*"}}, None, "/v2/health/ready"),
    ],
    ids=["none", "prefix", "rewrite", "exact", "regex"],
)
def test_the_way_through_a_virtual_service(match, rewrite, asked):
    """
    The same, with the headers that it asks for.
    """
    entries = [{"destination": {"host": f"chat-{role}"}, "weight": 50} for role in ("stable", "canary")]
    http_route = {"route": entries}
    if match:
        http_route["match"] = [{**match, "headers": {"x-a": {"exact": "1"}, "x-b": {"regex": ".+"}}}]
    if rewrite:
        http_route["rewrite"] = {"uri": rewrite}
    found = {"metadata": {"name": "own", "namespace": "ns"}, "spec": {"hosts": ["ai.test"], "http": [http_route]}}
    way = istio.way_of(found, TARGET, READY)
    assert (way.to(READY[0]), way.host, dict(way.headers)) == (asked, "ai.test", {"x-a": "1"} if match else {})


@pytest.mark.parametrize(
    ("said", "kind", "rewrites", "asked"),
    [
        ("/", "Prefix", False, "/v2/health/ready"),
        ("/chat", "Prefix", False, "/chat/v2/health/ready"),
        ("/chat(/|$)(.*)", "ImplementationSpecific", True, "/chat/v2/health/ready"),
        ("/v1/chat", "Exact", False, "/v1/chat"),
    ],
    ids=["all", "prefix", "rewrite", "exact"],
)
def test_the_way_through_an_ingress(said, kind, rewrites, asked):
    """
    Its host and path; an expression up to where it begins to be one.
    """
    annotations = {f"{ingress_nginx.PREFIX}/rewrite-target": "/$2"} if rewrites else {}
    rule = {"host": "ai.test", "http": {"paths": [{"path": said, "pathType": kind}]}}
    way = ingress_nginx.way_of({"metadata": {"name": "own", "annotations": annotations}, "spec": {"rules": [rule]}}, READY)
    assert (way.to(READY[0]), way.host) == (asked, "ai.test")


def test_prefixes_are_of_whole_segments():
    """
    /v2x is not below /v2.
    """
    assert Way(prefix="/v2").to("/v2x/ready") == "/v2/v2x/ready"
    assert Way(prefix="/v2").leads_to("/v2")
    assert not Way(prefix="/v2").leads_to("/v2x")
