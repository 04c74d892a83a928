"""What frameworks call their counters: a page of each, and what it must count as."""

import math

import pytest

from canarykit.errors import PlanError, TelemetryError
from canarykit.model import TrafficSplit
from canarykit.places import managed_places
from canarykit.telemetry.catalogue import EXPOSITIONS, Exposition, exposition, labels_of
from canarykit.telemetry.counters import CounterWindows, increases
from canarykit.telemetry.page import page_of

# Of each framework: its page, the tables that it tells, and latency per bucket as {upper edge in seconds: requests}.
PAGES = {
    "canarykit": (
        """
        canarykit_requests_total{code="200"} 7
        canarykit_requests_total{code="400"} 1
        canarykit_requests_total{code="500"} 2
        canarykit_request_duration_seconds_bucket{le="0.05"} 5
        canarykit_request_duration_seconds_bucket{le="+Inf"} 7
        """,
        {"outcome": (8, 2), "refused": (9, 1), "denied": (10, 0)},
        {0.05: 5, math.inf: 2},
    ),
    "traefik": (
        """
        traefik_service_requests_total{code="200",method="POST",protocol="http",service="ns-d-canary-80@kubernetes"} 9
        traefik_service_requests_total{code="502",method="POST",protocol="http",service="ns-d-canary-80@kubernetes"} 1
        traefik_service_requests_total{code="422",method="POST",protocol="http",service="ns-d-canary-80@kubernetes"} 3
        traefik_service_requests_total{code="0",method="POST",protocol="grpc",service="ns-d-canary-80@kubernetes"} 5
        traefik_service_requests_total{code="14",method="POST",protocol="grpc",service="ns-d-canary-80@kubernetes"} 2
        traefik_service_request_duration_seconds_bucket{code="200",service="ns-d-canary-80@kubernetes",le="0.1"} 6
        traefik_service_request_duration_seconds_bucket{code="200",service="ns-d-canary-80@kubernetes",le="+Inf"} 9
        traefik_service_request_duration_seconds_bucket{code="502",service="ns-d-canary-80@kubernetes",le="0.1"} 1
        traefik_service_request_duration_seconds_bucket{code="502",service="ns-d-canary-80@kubernetes",le="+Inf"} 1
        traefik_service_request_duration_seconds_bucket{code="422",service="ns-d-canary-80@kubernetes",le="0.1"} 3
        traefik_service_request_duration_seconds_bucket{code="422",service="ns-d-canary-80@kubernetes",le="+Inf"} 3
        """,
        {"outcome": (17, 3), "refused": (17, 3), "denied": (20, 0)},
        {0.1: 6, math.inf: 3},
    ),
    "istio": (
        """
        istio_requests_total{response_code="200",destination_workload="d-canary"} 4
        istio_requests_total{response_code="503",destination_workload="d-canary"} 2
        istio_requests_total{response_code="0",destination_workload="d-canary"} 1
        istio_requests_total{response_code="200",response_flags="UC",destination_workload="d-canary"} 2
        istio_requests_total{response_code="200",request_protocol="grpc",grpc_response_status="14"} 3
        istio_requests_total{response_code="200",request_protocol="grpc",grpc_response_status="0"} 5
        istio_requests_total{response_code="200",request_protocol="http",grpc_response_status="14"} 1
        istio_requests_total{response_code="403",response_flags="UAEX",destination_workload="d-canary"} 1
        istio_request_duration_milliseconds_bucket{response_code="200",destination_workload="d-canary",le="25"} 3
        istio_request_duration_milliseconds_bucket{response_code="200",destination_workload="d-canary",le="+Inf"} 4
        istio_request_duration_milliseconds_bucket{response_code="0",destination_workload="d-canary",le="25"} 1
        istio_request_duration_milliseconds_bucket{response_code="0",destination_workload="d-canary",le="+Inf"} 1
        """,
        {"outcome": (11, 8), "refused": (19, 0), "denied": (18, 1)},
        {0.025: 3, math.inf: 1},
    ),
    "envoy": (
        """
        envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="canary"} 4
        envoy_cluster_upstream_rq{envoy_response_code="504",envoy_cluster_name="canary"} 1
        envoy_cluster_upstream_rq_total{envoy_cluster_name="canary"} 0
        envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="canary",le="0.5"} 0
        envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="canary",le="5"} 4
        envoy_cluster_upstream_rq_time_bucket{envoy_cluster_name="canary",le="+Inf"} 5
        """,
        {"outcome": (4, 1), "refused": (5, 0), "denied": (5, 0)},
        {0.0005: 0, 0.005: 4, math.inf: 1},
    ),
    "ingress-nginx": (
        """
        nginx_ingress_controller_requests{status="200",service="d-stable",canary="ns-d-canary-80"} 5
        nginx_ingress_controller_requests{status="404",service="d-stable",canary="ns-d-canary-80"} 1
        nginx_ingress_controller_requests{status="500",service="d-stable",canary="ns-d-canary-80"} 1
        nginx_ingress_controller_requests{status="499",service="d-stable",canary="ns-d-canary-80"} 1
        nginx_ingress_controller_requests{status="429",service="d-stable",canary="ns-d-canary-80"} 1
        nginx_ingress_controller_request_duration_seconds_bucket{status="200",service="d-stable",le="0.005"} 5
        nginx_ingress_controller_request_duration_seconds_bucket{status="200",service="d-stable",le="+Inf"} 5
        """,
        {"outcome": (7, 2), "refused": (8, 1), "denied": (8, 1)},
        {0.005: 5, math.inf: 0},
    ),
    "vllm": (
        """
        vllm:request_success_total{finished_reason="stop",model_name="m"} 6
        http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 6
        http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 1
        http_requests_total{handler="/v1/completions",method="POST",status="5xx"} 2
        vllm:e2e_request_latency_seconds_bucket{le="0.3",model_name="m"} 2
        vllm:e2e_request_latency_seconds_bucket{le="+Inf",model_name="m"} 6
        """,
        {"outcome": (7, 2), "refused": (8, 1)},
        {0.3: 2, math.inf: 4},
    ),
    "triton": (
        """
        nv_inference_request_success{model="d",version="1"} 8
        nv_inference_request_failure{model="d",version="1",reason="BACKEND"} 1
        nv_inference_request_failure{model="d",version="1",reason="OTHER"} 0
        nv_inference_request_duration_us{model="d",version="1"} 412345
        nv_inference_first_response_histogram_ms_bucket{model="d",version="1",le="100"} 7
        nv_inference_first_response_histogram_ms_bucket{model="d",version="1",le="+Inf"} 8
        """,
        {"outcome": (8, 1)},
        {0.1: 7, math.inf: 1},
    ),
    "mlserver": (
        """
        rest_server_requests_total{method="POST",path="/v2/models/d/infer",status_code="200"} 3
        rest_server_requests_total{method="POST",path="/v2/models/d/infer",status_code="500"} 1
        rest_server_requests_total{method="POST",path="/v2/models/d/infer",status_code="422"} 2
        rest_server_requests_total{method="GET",path="/metrics",status_code="200"} 50
        rest_server_requests_total{method="GET",path="/v2/health/ready",status_code="200"} 60
        rest_server_requests_total{method="GET",path="/v2/models/d/ready",status_code="200"} 60
        rest_server_request_duration_seconds_bucket{le="0.01",path="/v2/models/d/infer",status_code="200"} 3
        rest_server_request_duration_seconds_bucket{le="+Inf",path="/v2/models/d/infer",status_code="200"} 3
        rest_server_request_duration_seconds_bucket{le="0.01",method="GET",path="/metrics",status_code="200"} 50
        rest_server_request_duration_seconds_bucket{le="+Inf",method="GET",path="/metrics",status_code="200"} 50
        """,
        {"outcome": (5, 1), "refused": (4, 2), "denied": (6, 0)},
        {0.01: 3, math.inf: 0},
    ),
    "seldon": (
        """
        seldon_model_infer_total{code="200",model="d",model_internal="d_1"} 3
        seldon_model_infer_total{code="500",model="d",model_internal="d_1"} 1
        seldon_model_infer_total{code="OK",method_type="grpc",model="d",model_internal="d_1"} 4
        seldon_model_infer_total{code="Unavailable",method_type="grpc",model="d",model_internal="d_1"} 2
        seldon_model_infer_total{code="InvalidArgument",method_type="grpc",model="d",model_internal="d_1"} 1
        seldon_model_infer_api_seconds_bucket{code="200",model="d",model_internal="d_1",le="0.01"} 1
        seldon_model_infer_api_seconds_bucket{code="200",model="d",model_internal="d_1",le="+Inf"} 3
        """,
        {"outcome": (8, 3), "refused": (10, 1), "denied": (11, 0)},
        {0.01: 1, math.inf: 2},
    ),
    "tgi": (
        """
        # TYPE tgi_request_count counter
        tgi_request_count 9
        # TYPE tgi_request_failure counter
        tgi_request_failure{err="overloaded"} 1
        tgi_request_failure{err="validation"} 2
        tgi_request_failure{err="incomplete"} 1
        tgi_request_failure{err="generation"} 1
        # TYPE tgi_request_duration histogram
        tgi_request_duration_bucket{le="0.5"} 1
        tgi_request_duration_bucket{le="+Inf"} 4
        """,
        {"outcome": (7, 2), "refused": (7, 2), "denied": (8, 1)},
        {0.5: 1, math.inf: 3},
    ),
    "bentoml": (
        """
        bentoml_service_request_total{endpoint="/predict",http_response_code="200",service_version="v2"} 2
        bentoml_service_request_total{endpoint="/predict",http_response_code="503",service_version="v2"} 1
        bentoml_service_request_total{endpoint="/predict",http_response_code="401",service_version="v2"} 1
        bentoml_service_request_total{endpoint="/livez",http_response_code="200",service_version="v2"} 30
        bentoml_service_request_duration_seconds_bucket{endpoint="/predict",http_response_code="200",le="0.1"} 2
        bentoml_service_request_duration_seconds_bucket{endpoint="/predict",http_response_code="200",le="+Inf"} 2
        """,
        {"outcome": (3, 1), "refused": (4, 0), "denied": (3, 1)},
        {0.1: 2, math.inf: 0},
    ),
    "ray-serve": (
        """
        ray_serve_num_http_requests_total{application="a",route="/",method="POST"} 9
        ray_serve_num_http_requests_total{application="",route="/-/healthz",method="GET"} 40
        ray_serve_num_http_error_requests_total{application="a",route="/",error_code="500"} 2
        ray_serve_num_http_error_requests_total{application="a",route="/",error_code="404"} 1
        ray_serve_num_http_error_requests_total{application="a",route="/",error_code="429"} 1
        ray_serve_num_http_error_requests_total{application="a",route="/",error_code="302"} 1
        ray_serve_http_request_latency_ms_bucket{application="a",route="/",le="50"} 5
        ray_serve_http_request_latency_ms_bucket{application="a",route="/",le="+Inf"} 6
        """,
        {"outcome": (7, 2), "refused": (7, 2), "denied": (8, 1)},
        {0.05: 5, math.inf: 1},
    ),
    "llm-d": (
        """
        llm_d_epp_request_total{target_model_name="m"} 6
        llm_d_epp_request_error_total{target_model_name="m",error_code="ModelServerError"} 1
        llm_d_epp_request_error_total{target_model_name="m",error_code="BadRequest"} 2
        llm_d_epp_request_duration_seconds_bucket{target_model_name="m",le="1"} 2
        llm_d_epp_request_duration_seconds_bucket{target_model_name="m",le="+Inf"} 6
        """,
        {"outcome": (5, 1), "refused": (4, 2), "denied": (6, 0)},
        {1.0: 2, math.inf: 4},
    ),
    "envoy-ai-gateway": (
        """
        # TYPE gen_ai_server_request_duration_seconds histogram
        gen_ai_server_request_duration_seconds_bucket{gen_ai_response_model="m",le="0.32"} 1
        gen_ai_server_request_duration_seconds_bucket{gen_ai_response_model="m",le="+Inf"} 4
        gen_ai_server_request_duration_seconds_count{gen_ai_response_model="m"} 4
        gen_ai_server_request_duration_seconds_sum{gen_ai_response_model="m"} 3.5
        gen_ai_server_request_duration_seconds_bucket{gen_ai_response_model="m",error_type="_OTHER",le="0.32"} 2
        gen_ai_server_request_duration_seconds_bucket{gen_ai_response_model="m",error_type="_OTHER",le="+Inf"} 2
        gen_ai_server_request_duration_seconds_count{gen_ai_response_model="m",error_type="_OTHER"} 2
        """,
        {"outcome": (4, 2)},
        {0.32: 1, math.inf: 3},
    ),
    "fastapi": (
        """
        http_requests_total{handler="/predict",method="POST",status="2xx"} 3
        http_requests_total{handler="/predict",method="POST",status="5xx"} 1
        http_requests_total{handler="/predict",method="POST",status="4xx"} 2
        http_requests_total{handler="/metrics",method="GET",status="2xx"} 60
        http_requests_total{handler="/healthz",method="GET",status="2xx"} 60
        http_request_duration_seconds_bucket{handler="/predict",method="POST",le="0.1"} 1
        http_request_duration_seconds_bucket{handler="/predict",method="POST",le="+Inf"} 6
        http_request_duration_seconds_bucket{handler="/healthz",method="GET",le="0.1"} 60
        http_request_duration_seconds_bucket{handler="/healthz",method="GET",le="+Inf"} 60
        """,
        {"outcome": (5, 1), "refused": (4, 2)},
        {0.1: 1, math.inf: 5},
    ),
}


def window_of(text, entry):
    """What a page of the canary's only pod counts as, from its start on."""
    totals = page_of(
        "\n".join(line.strip() for line in text.splitlines() if line.strip()) + "\n", entry, "canary", "pod"
    ).totals
    windows = CounterWindows(entry)
    windows.begin(TrafficSplit(5), 0.0)
    windows.learn_edges(totals)
    windows.add(increases({}, totals))
    return windows.close(1.0), windows.edges


def test_every_framework_has_a_page_here():
    """
    A new entry needs one.
    """
    assert set(PAGES) == set(EXPOSITIONS)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_counts_as_by_hand(name):
    """
    Failed, refused and denied requests, each table with every request once, and durations in seconds.
    """
    text, tables, latency = PAGES[name]
    entry = EXPOSITIONS[name]
    window, edges = window_of(text, entry)
    assert {table: window.counts[table].tolist() for table in tables} == {
        table: [[0, 0], list(counts)] for table, counts in tables.items()
    }
    assert window.counts["latency"].tolist() == [[0] * len(latency), list(latency.values())]
    assert edges == pytest.approx(tuple(latency))
    assert entry.tables == {*tables, "latency"} == set(window.counts)


def test_without_a_histogram_latency_is_no_data():
    """
    Triton's sums of microseconds are no table of durations.
    """
    text = "\n".join(line for line in PAGES["triton"][0].splitlines() if "histogram" not in line)
    window, edges = window_of(text, EXPOSITIONS["triton"])
    assert window.requests == (0, 9)
    assert "latency" not in window.counts
    assert edges is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("200", "ok"),
        ("302", "refused"),
        ("304", "ok"),
        ("2xx", "ok"),
        ("404", "refused"),
        ("422", "refused"),
        ("4xx", "refused"),
        ("4XX", "refused"),
        ("401", "denied"),
        ("429", "denied"),
        ("499", "failed"),
        ("500", "failed"),
        ("5xx", "failed"),
        ("0", "failed"),
        ("000", "failed"),
        ("-", "failed"),
        ("", None),
        ("14", None),
        ("none", None),
    ],
)
def test_what_a_status_says_of_a_request(code, kind):
    """
    A status, a class of them, or none that arrived; what is no status says nothing, and never that all is well.
    """
    assert Exposition("r", "s", "code").kind({"code": code}) == kind


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ({"grpc_response_status": "14", "request_protocol": "grpc"}, "failed"),
        ({"grpc_response_status": "13", "request_protocol": "grpc"}, "failed"),
        ({"grpc_response_status": "0", "request_protocol": "grpc"}, "ok"),
        ({"grpc_response_status": "3", "request_protocol": "grpc"}, "refused"),
        ({"grpc_response_status": "16", "request_protocol": "grpc"}, "denied"),
        ({"request_protocol": "grpc"}, "failed"),
        ({"grpc_response_status": "14", "request_protocol": "http"}, "ok"),
        ({"grpc_response_status": "0", "request_protocol": "grpc", "response_code": "503"}, "failed"),
    ],
)
def test_a_grpc_call_of_a_mesh_is_judged_by_its_own_status(labels, kind):
    """
    Its HTTP status is 200 also when it failed; a call without a status broke off; what is no gRPC keeps the HTTP rule.
    """
    broken = {"response_code": "200", "destination_workload": "chat-canary", **labels}
    assert EXPOSITIONS["istio"].kind(broken) == kind
    assert EXPOSITIONS["istio"].kind(broken, "latency") == kind


@pytest.mark.parametrize(
    ("code", "protocol", "kind"),
    [
        ("0", "grpc", "ok"),
        ("0", "http", "failed"),
        ("14", "grpc", "failed"),
        ("14", "grpc-web", "failed"),
        ("7", "grpc", "denied"),
        ("200", "grpc", "ok"),
        ("502", "grpc", "failed"),
        ("200", "sse", "ok"),
    ],
)
def test_traefik_counts_grpc_calls_by_their_own_status(code, protocol, kind):
    """
    Its label code is the gRPC status of such a call: 0 is a success there, and with HTTP nobody's answer. Its older versions
    had the HTTP status.
    """
    assert EXPOSITIONS["traefik"].kind({"code": code, "protocol": protocol}) == kind


@pytest.mark.parametrize("name", ["Unavailable", "UNAVAILABLE", "DataLoss", "DATA_LOSS", "Cancelled", "Canceled"])
def test_a_grpc_status_may_be_a_name(name):
    """
    As Seldon's agent and others write it.
    """
    assert EXPOSITIONS["seldon"].kind({"code": name, "method_type": "grpc"}) == "failed"
    assert EXPOSITIONS["seldon"].kind({"code": "OK", "method_type": "grpc"}) == "ok"
    assert Exposition("r", "s", "status", grpc="grpc_status").kind({"status": "200", "grpc_status": name}) == "failed"


@pytest.mark.parametrize(
    ("flags", "code", "kind"),
    [
        ("-", "200", "ok"),
        ("", "200", "ok"),
        ("UC", "200", "failed"),
        ("UR", "200", "failed"),
        ("UPE", "200", "failed"),
        ("SI", "200", "failed"),
        ("DC", "200", "failed"),
        ("UF,URX", "200", "failed"),
        ("DI", "200", "ok"),
        ("DC", "101", "ok"),
        ("DR", "101", "ok"),
        ("UPE", "101", "failed"),
        ("UT", "101", "failed"),
        ("UH", "200", "failed"),
        ("RL", "429", "denied"),
        ("NR", "404", "refused"),
    ],
)
def test_an_answer_that_breaks_off_after_its_headers_is_a_failure(flags, code, kind):
    """
    Its status stays 200: the flags say that it has no end. Flags of the gateway's own refusals leave the status as it is. A
    client that closes a WebSocket ends it as it should be.
    """
    assert EXPOSITIONS["istio"].kind({"response_code": code, "response_flags": flags}) == kind


def test_a_class_of_statuses_does_not_tell_who_was_denied():
    """
    All 4xx count as refused, also where a server writes whole statuses; no table claims to know more.
    """
    entry = EXPOSITIONS["fastapi"]
    assert entry.tables == {"outcome", "refused", "latency"}
    assert [entry.kind({"status": status}) for status in ("4xx", "401", "422", "2xx")] == ["refused"] * 3 + ["ok"]


def test_a_canary_that_refuses_a_third_of_its_requests_is_seen():
    """
    Of 90 requests 30 ended with 422 at once: no error, and no quick answer either.
    """
    text = """
    canarykit_requests_total{code="200"} 60
    canarykit_requests_total{code="422"} 30
    """
    window, _ = window_of(text, EXPOSITIONS["canarykit"])
    assert window.counts["outcome"].tolist() == [[0, 0], [90, 0]]
    assert window.counts["refused"].tolist() == [[0, 0], [60, 30]]
    assert window.counts["denied"].tolist() == [[0, 0], [90, 0]]


@pytest.mark.parametrize(
    "line",
    ['http_requests_total{code="500",handler="/predict"} 5', "http_requests_total 5", 'http_requests_total{status=""} 5'],
)
def test_a_counter_that_does_not_tell_errors_is_refused(line):
    """
    Another library under the same name writes another label: its errors would pass unseen.
    """
    with pytest.raises(
        TelemetryError, match=r"http_requests_total of pod has no label status with a status .*errors would pass"
    ):
        window_of(line, EXPOSITIONS["fastapi"])


def test_a_counter_with_a_longer_name_is_another_one():
    """
    Envoy counts envoy_cluster_upstream_rq per status, and all once more in envoy_cluster_upstream_rq_total.
    """
    text = """
    envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="canary"} 4
    envoy_cluster_upstream_rq_total{envoy_cluster_name="canary"} 4
    """
    assert window_of(text, EXPOSITIONS["envoy"])[0].requests == (0, 4)


def test_an_entry_of_ones_own_is_taken_as_it_is():
    """
    Nobody has to wait for the catalogue.
    """
    own = Exposition("my_requests", "my_seconds", "status")
    assert exposition(own) is own
    assert own.names == {"requests": "my_requests", "latency": "my_seconds_bucket"}
    assert labels_of(own, "ns", managed_places("digits")["canary"], "canary")["namespace"] == "ns"


@pytest.mark.parametrize(
    ("name", "says"),
    [("nobody", "nothing is known of metrics called 'nobody': use canarykit"), ("kserve", "errors would pass")],
)
def test_what_cannot_be_compared_is_refused(name, says):
    """
    An unknown name, and a server that does not tell its failures from its answers.
    """
    with pytest.raises(PlanError, match=says):
        exposition(name)


@pytest.mark.parametrize("name", EXPOSITIONS)
def test_every_entry_says_what_the_router_assigned(name):
    """
    A gateway counts what it sent; pods, and the sidecars of a mesh, also what came beside it.
    """
    assert EXPOSITIONS[name].assigned_only is (name in ("traefik", "envoy", "ingress-nginx", "envoy-ai-gateway", "llm-d"))
