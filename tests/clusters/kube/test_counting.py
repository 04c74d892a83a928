"""Who counts on a cluster, where it is asked, and what is told when it cannot be read or tells too little."""

import json
import re

import pytest

import canarykit as ck
from canarykit.clusters.kube import telemetry as counting
from canarykit.clusters.kube.binding import target_of
from canarykit.clusters.kube.telemetry import Counting, _page
from canarykit.clusters.kube.workloads.manifests import Workload
from canarykit.clusters.kube.workloads.prepared import managed
from canarykit.errors import ClusterError, PlanError
from canarykit.model import ROLES
from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.scrape import ScrapeTelemetry

FORBIDDEN = 'pods "digits-stable-1:8080" is forbidden: User "ci" cannot get resource "pods/proxy"'
SERVICE = ck.Service("chat", ck.Version("v1", image="a:1", ready="/up"), ck.Version("v2", image="a:2", ready="/healthz"))
TARGET = target_of("chat", 80)
PROMETHEUS = "http://me:s%40cret@prometheus:9090"
ENVOY_GATEWAY = "gateway.envoyproxy.io/gatewayclass-controller"
TRAEFIK = "traefik.io/gateway-controller"


class Client:
    """An API server that answers one thing, or by port and path."""

    namespace = "ai"

    def __init__(self, status=404, text="no such page", *, pages=()):
        self._answer, self._pages, self.asked = (status, text), dict(pages), []

    def through(self, pod, port, path):
        """Answer."""
        self.asked.append((port, path))
        return self._pages.get((port, path), self._answer)


class Pods:
    """One ready pod of each version."""

    def by_role(self):
        """As the cluster has them."""
        ready = {"phase": "Running", "containerStatuses": [{"name": "server", "started": True, "state": {"running": {}}}]}
        return {role: [{"metadata": {"name": f"chat-{role}-0"}, "status": ready}] for role in ROLES}


def route(*rules, controller=TRAEFIK, name="chat"):
    """An HTTPRoute whose rules have these filters on stable's and on the canary's backend; None is a rule for testers."""

    def backend(role, filters=()):
        return {"name": f"chat-{role}", "port": 80, "weight": 1, **({"filters": list(filters)} if filters else {})}

    made = [
        [backend("canary")] if filters is None else [backend(*pair) for pair in zip(ROLES, filters, strict=True)]
        for filters in rules
    ]
    return {
        "metadata": {"name": name, "namespace": "ai"},
        "spec": {"rules": [{"backendRefs": refs} for refs in made]},
        "status": {"parents": [{"controllerName": controller}]},
    }


PLAIN, FILTERED = ((), ()), ((), ({"type": "ResponseHeaderModifier"},))


def telemetry(client=None, found=None, **options):
    """What counts when a cluster was asked so."""
    port = options.pop("workload_port", 8080)
    made = Counting(**options).telemetry(
        client or Client(), managed(SERVICE, Workload(port=port), {}), TARGET, Pods(), route=found
    )
    return made


# The pages of pods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (
            403,
            json.dumps({"kind": "Status", "message": FORBIDDEN}),
            f" 403 at port 8080 /metrics: {FORBIDDEN}; deploy/rbac.yaml",
        ),
        (404, "no such page", r" 404 at port 8080 /metrics: no such page; its metrics may be on another port: set port="),
        (502, "[]", r" 502 at port 8080 /metrics: \[\]; .*mutual TLS of Istio they are at port=15020, path=/stats/prometheus"),
        (500, "x" * 1000, " 500 at port 8080 /metrics: x{200};"),
    ],
)
def test_a_page_that_cannot_be_read_says_why_in_few_words(status, text, says):
    """
    In the API server's own words when it is the one who answers, where it was looked for, and what would help.
    """
    with pytest.raises(OSError, match=f"^digits-stable-1 answers{says}"):
        _page(Client(status, text), "digits-stable-1", 8080)
    assert _page(Client(200, text), "digits-stable-1", 8080) == text


def test_an_error_of_a_page_names_servers_that_have_a_port_of_their_own():
    """
    Whoever runs MLServer and did not say so is told its port.
    """
    with pytest.raises(OSError, match=r"set port=.*triton: 8002.*mlserver: 8082.*seldon: 9006"):
        _page(Client(404, '{"detail":"Not Found"}'), "iris-canary-0", 8080)


@pytest.mark.parametrize(
    ("options", "place", "line"),
    [
        ({"metrics": "mlserver"}, (8082, "/metrics"), 'rest_server_requests_total{status_code="200"} '),
        ({"metrics": "triton", "workload_port": 8000}, (8002, "/metrics"), "nv_inference_request_success "),
        ({"metrics": "seldon"}, (9006, "/metrics"), 'seldon_model_infer_total{code="200"} '),
        ({"metrics": "vllm", "workload_port": 8000}, (8000, "/metrics"), 'http_requests_total{status="2xx"} '),
        (
            {"metrics": "bentoml", "workload_port": 3000},
            (3000, "/metrics"),
            'bentoml_service_request_total{http_response_code="200"} ',
        ),
        ({}, (9464, "/metrics"), 'canarykit_requests_total{code="200"} '),
        ({"metrics": "fastapi", "port": 9100, "path": "/stats"}, (9100, "/stats"), 'http_requests_total{status="2xx"} '),
        ({"metrics": "mlserver", "port": 8080, "path": "/m"}, (8080, "/m"), 'rest_server_requests_total{status_code="200"} '),
        ({"metrics": Exposition("own", "s", port=9999, path="/p")}, (9999, "/p"), "own "),
    ],
)
def test_pods_are_asked_where_their_server_shows_its_metrics(options, place, line):
    """
    At the port and the path that were said, or else at the catalogue's, or else where it serves; the record has them.
    """
    client = Client(pages={place: (200, f"{line}5\n")})
    source = telemetry(client, **options)
    source.begin(ck.TrafficSplit(50), 0.0)
    client._pages[place] = 200, f"{line}7\n"
    assert source.read(1.0).requests == (2, 2)
    assert set(client.asked) == {place}
    assert source.sources["requests"].endswith(f" at port {place[0]} {place[1]} of each pod")


def test_a_page_at_another_port_ends_in_a_note_that_says_what_to_set():
    """
    The window names the pod once, where it was asked, and what to do.
    """
    source = telemetry(Client(pages={(8082, "/metrics"): (200, "rest_server_requests_total 5\n")}), metrics="fastapi")
    source.begin(ck.TrafficSplit(50), 0.0)
    note = source.read(1.0).note
    assert note.startswith("chat-stable-0 answers 404 at port 8080 /metrics: no such page; its metrics may be on another port")
    assert note.count("chat-stable-0") == 1


def left_out(**asked):
    """What is said to be left out, once pods have counted something under a label that tells."""
    text = 'http_requests_total{handler="/predict",status="2xx"} 5\n'
    source = telemetry(Client(pages={(8080, "/metrics"): (200, text)}), **asked)
    source.begin(ck.TrafficSplit(50), 0.0)
    return source.sources["left out"]


def test_probes_of_both_versions_are_left_out():
    """
    What `ready=` of a version says, beside the paths that are known or given.
    """
    told = left_out(metrics="fastapi")
    assert "/up" in told
    assert "/healthz" in told
    assert "/ping" in told
    told = left_out(metrics="fastapi", ignore="/internal, /metrics")
    assert "for /internal, /metrics, /up, /healthz, where" in told


# A Prometheus -----------------------------------------------------------------------------------------------------------


def test_queries_by_the_catalogue_and_by_hand():
    """
    Resolved as they are asked, under both names that a gateway's labels may have.
    """
    asked = telemetry(prometheus=PROMETHEUS).sources["requests of canary"]
    assert asked.startswith('http://prometheus:9090: traefik_service_requests_total{service=~"(ai-chat-canary-(80|http)@')
    assert ' or traefik_service_requests_total{exported_service=~"(ai-chat-canary-' in asked
    asked = telemetry(prometheus=PROMETHEUS, select='service="{app}.{namespace}.{role}"').sources
    assert asked["requests of stable"] == 'http://prometheus:9090: traefik_service_requests_total{service="chat.ai.stable"}'


def test_what_istio_could_not_deliver_is_counted_by_the_service():
    """
    Beside what reached a pod of the version.
    """
    asked = telemetry(prometheus=PROMETHEUS, metrics="istio").sources["requests of canary"]
    assert 'destination_workload="chat-canary",destination_workload_namespace="ai",reporter="source"}' in asked
    assert 'destination_service_name="chat-canary",destination_service_namespace="ai",destination_workload="unknown"' in asked


def test_an_entry_that_names_models_takes_them_by_hand():
    """
    With select= it is counted; without it is refused before anything is asked.
    """
    asked = telemetry(prometheus=PROMETHEUS, metrics="llm-d", select='target_model_name="chat-{role}"').sources
    assert asked["failures of canary"].endswith('llm_d_epp_request_error_total{target_model_name="chat-canary"}')
    with pytest.raises(PlanError, match="nothing is known that tells the versions apart"):
        Counting(prometheus=PROMETHEUS, metrics="llm-d")


def test_rules_of_the_route_that_are_split_are_counted():
    """
    Those for testers have counters of their own in Traefik.
    """
    asked = telemetry(found=route(PLAIN, None, PLAIN), prometheus=PROMETHEUS).sources["requests of canary"]
    assert "httproute-ai-chat-gw-[a-z0-9-]+-ep-[a-zA-Z0-9-]+-(0|2)-[0-9a-f]+-svc-ai-chat-canary-[0-9]+" in asked


def test_where_envoy_gateway_cannot_tell_the_versions_apart_it_is_said():
    """
    One cluster per rule has both in it: what to do is said before a rollout; a filter on one backend gives two.
    """
    one, two = route(PLAIN, controller=ENVOY_GATEWAY), route(FILTERED, None, controller=ENVOY_GATEWAY)
    counted = Counting(prometheus=PROMETHEUS, metrics="envoy")
    with pytest.raises(
        ClusterError, match=r"one cluster for rule 0 of HTTPRoute chat.*a filter .*select=.*leave out prometheus="
    ):
        counted.check("ai", TARGET, one)
    select = counted.selected("ai", TARGET, two)
    assert select["canary"] == {"envoy_cluster_name": "~(httproute/ai/chat/rule/0/backend/1)"}
    assert select["stable"] == {"envoy_cluster_name": "~(httproute/ai/chat/rule/0/backend/0)"}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"select": 'a="{role}"', "metrics": "envoy", "prometheus": PROMETHEUS}, route(PLAIN, controller=ENVOY_GATEWAY)),
        ({"metrics": "envoy", "prometheus": PROMETHEUS}, route(PLAIN)),
        ({"metrics": "envoy", "prometheus": PROMETHEUS}, None),
        ({"metrics": "istio", "prometheus": PROMETHEUS}, route(PLAIN, controller=ENVOY_GATEWAY)),
        ({"metrics": "vllm", "prometheus": PROMETHEUS}, route(PLAIN, controller=ENVOY_GATEWAY)),
        ({}, route(PLAIN, controller=ENVOY_GATEWAY)),
    ],
)
def test_others_are_not_kept_from_rolling_out(options, found):
    """
    Who has said the series, another controller, another who counts, or pods that are asked themselves.
    """
    Counting(**options).check("ai", TARGET, found)


def test_a_token_is_handed_on_as_a_file(monkeypatch):
    """
    Its name alone: whoever asks Prometheus reads it.
    """
    seen = []
    monkeypatch.setattr(counting, "PrometheusTelemetry", lambda *given, **named: seen.append(named))
    telemetry(prometheus=PROMETHEUS, prometheus_token_file="/var/run/token")
    telemetry(prometheus=PROMETHEUS)
    assert seen == [{"token_file": "/var/run/token"}, {}]


def test_the_password_of_prometheus_is_in_nothing_that_is_shown():
    """
    Neither in what was asked nor in the record nor in an error.
    """
    counted = Counting(prometheus=PROMETHEUS, metrics="envoy")
    with pytest.raises(ClusterError) as refused:
        counted.check("ai", TARGET, route(PLAIN, controller=ENVOY_GATEWAY))
    shown = f"{counted!r} {telemetry(prometheus=PROMETHEUS).sources} {refused.value!r}"
    assert "cret" not in shown
    assert "me:" not in shown


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"metrics": "traefik"}, "metrics='traefik' are a gateway's, and pods have none of them: give prometheus="),
        ({"metrics": "envoy-ai-gateway"}, "are a gateway's"),
        ({"select": 'a="{role}"'}, "select= is for a Prometheus: give prometheus= as well"),
        ({"prometheus_token_file": "/t"}, "prometheus_token_file= is for a Prometheus"),
        ({"prometheus": PROMETHEUS, "port": 8082}, "port= and path= say where the metrics of pods are"),
        ({"prometheus": PROMETHEUS, "path": "/m"}, "port= and path= say where the metrics of pods are"),
        ({"port": 0}, "port= takes the port of the pods' metrics, 1 to 65535, not 0"),
        ({"port": "http"}, "port= takes the port of the pods' metrics, 1 to 65535, not 'http'"),
        ({"port": True}, "port= takes the port"),
        ({"path": "metrics"}, "path= takes paths that begin with a slash, such as /metrics, not 'metrics'"),
        ({"ignore": ["/up", "healthz"]}, "ignore= takes paths that begin with a slash, such as /metrics, not 'healthz'"),
        ({"ignore": "/up,healthz"}, "ignore= takes paths that begin with a slash"),
        ({"prometheus": PROMETHEUS, "select": 'a="b"'}, "picks the same series for both versions"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, says):
    """
    Before any cluster is asked, with what to do.
    """
    with pytest.raises(PlanError, match=re.escape(says)) as refused:
        Counting(**options)
    assert "cret" not in str(refused.value)


def test_scrapes_without_a_prometheus_are_of_the_kits_own_server():
    """
    The default on a cluster: pods of the kit's server, by their own pages.
    """
    source = telemetry()
    assert isinstance(source, ScrapeTelemetry)
    assert source.sources["requests"] == "canarykit_requests_total at port 9464 /metrics of each pod"
    assert source.tables == {"outcome", "latency", "refused", "denied"}
