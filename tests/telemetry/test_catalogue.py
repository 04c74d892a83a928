"""What frameworks call their counters: a page of each, and what it must count as."""

import math

import pytest

from canarykit.errors import PlanError
from canarykit.model import TrafficSplit
from canarykit.telemetry.catalogue import EXPOSITIONS, Exposition, exposition, labels_of
from canarykit.telemetry.counters import CounterWindows, increases
from canarykit.telemetry.scrape import read_page

# Of each framework: its page, good and failed requests, and latency per bucket as {upper edge in seconds: requests}.
PAGES = {
    "canarykit": (
        """
        canarykit_requests_total{code="200"} 7
        canarykit_requests_total{code="400"} 1
        canarykit_requests_total{code="500"} 2
        canarykit_request_duration_seconds_bucket{le="0.05"} 5
        canarykit_request_duration_seconds_bucket{le="+Inf"} 8
        """,
        (8, 2),
        {0.05: 5, math.inf: 3},
    ),
    "traefik": (
        """
        traefik_service_requests_total{code="200",method="POST",protocol="http",service="ns-d-canary-80@kubernetes"} 9
        traefik_service_requests_total{code="502",method="POST",protocol="http",service="ns-d-canary-80@kubernetes"} 1
        traefik_service_request_duration_seconds_bucket{code="200",service="ns-d-canary-80@kubernetes",le="0.1"} 6
        traefik_service_request_duration_seconds_bucket{code="200",service="ns-d-canary-80@kubernetes",le="+Inf"} 9
        traefik_service_request_duration_seconds_bucket{code="502",service="ns-d-canary-80@kubernetes",le="0.1"} 1
        traefik_service_request_duration_seconds_bucket{code="502",service="ns-d-canary-80@kubernetes",le="+Inf"} 1
        """,
        (9, 1),
        {0.1: 6, math.inf: 3},
    ),
    "istio": (
        """
        istio_requests_total{response_code="200",destination_workload="d-canary"} 4
        istio_requests_total{response_code="503",destination_workload="d-canary"} 2
        istio_requests_total{response_code="0",destination_workload="d-canary"} 1
        istio_request_duration_milliseconds_bucket{response_code="200",destination_workload="d-canary",le="25"} 3
        istio_request_duration_milliseconds_bucket{response_code="200",destination_workload="d-canary",le="+Inf"} 4
        istio_request_duration_milliseconds_bucket{response_code="0",destination_workload="d-canary",le="25"} 1
        istio_request_duration_milliseconds_bucket{response_code="0",destination_workload="d-canary",le="+Inf"} 1
        """,
        (4, 3),
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
        (4, 1),
        {0.0005: 0, 0.005: 4, math.inf: 1},
    ),
    "ingress-nginx": (
        """
        nginx_ingress_controller_requests{status="200",service="d-stable",canary="ns-d-canary-80"} 5
        nginx_ingress_controller_requests{status="404",service="d-stable",canary="ns-d-canary-80"} 1
        nginx_ingress_controller_requests{status="500",service="d-stable",canary="ns-d-canary-80"} 1
        nginx_ingress_controller_request_duration_seconds_bucket{status="200",service="d-stable",le="0.005"} 5
        nginx_ingress_controller_request_duration_seconds_bucket{status="200",service="d-stable",le="+Inf"} 5
        """,
        (6, 1),
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
        (7, 2),
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
        (8, 1),
        {0.1: 7, math.inf: 1},
    ),
    "mlserver": (
        """
        rest_server_requests_total{method="POST",path="/v2/models/d/infer",status_code="200"} 3
        rest_server_requests_total{method="POST",path="/v2/models/d/infer",status_code="500"} 1
        rest_server_request_duration_seconds_bucket{le="0.01",path="/v2/models/d/infer",status_code="200"} 3
        rest_server_request_duration_seconds_bucket{le="+Inf",path="/v2/models/d/infer",status_code="200"} 3
        """,
        (3, 1),
        {0.01: 3, math.inf: 0},
    ),
    "seldon": (
        """
        seldon_model_infer_total{code="200",model="d",model_internal="d_1"} 3
        seldon_model_infer_total{code="500",model="d",model_internal="d_1"} 1
        seldon_model_infer_api_seconds_bucket{code="200",model="d",model_internal="d_1",le="0.01"} 1
        seldon_model_infer_api_seconds_bucket{code="200",model="d",model_internal="d_1",le="+Inf"} 3
        """,
        (3, 1),
        {0.01: 1, math.inf: 2},
    ),
    "tgi": (
        """
        # TYPE tgi_request_count counter
        tgi_request_count 5
        # TYPE tgi_request_failure counter
        tgi_request_failure{err="overloaded"} 1
        # TYPE tgi_request_duration histogram
        tgi_request_duration_bucket{le="0.5"} 1
        tgi_request_duration_bucket{le="+Inf"} 4
        """,
        (4, 1),
        {0.5: 1, math.inf: 3},
    ),
    "bentoml": (
        """
        bentoml_service_request_total{endpoint="/predict",http_response_code="200",service_version="v2"} 2
        bentoml_service_request_total{endpoint="/predict",http_response_code="503",service_version="v2"} 1
        bentoml_service_request_duration_seconds_bucket{endpoint="/predict",http_response_code="200",le="0.1"} 2
        bentoml_service_request_duration_seconds_bucket{endpoint="/predict",http_response_code="200",le="+Inf"} 2
        """,
        (2, 1),
        {0.1: 2, math.inf: 0},
    ),
    "ray-serve": (
        """
        ray_serve_num_http_requests_total{application="a",route="/"} 6
        ray_serve_num_http_error_requests_total{application="a",route="/",error_code="500"} 2
        ray_serve_http_request_latency_ms_bucket{application="a",route="/",le="50"} 5
        ray_serve_http_request_latency_ms_bucket{application="a",route="/",le="+Inf"} 6
        """,
        (4, 2),
        {0.05: 5, math.inf: 1},
    ),
    "llm-d": (
        """
        llm_d_epp_request_total{target_model_name="m"} 6
        llm_d_epp_request_error_total{target_model_name="m",error_code="x"} 1
        llm_d_epp_request_duration_seconds_bucket{target_model_name="m",le="1"} 2
        llm_d_epp_request_duration_seconds_bucket{target_model_name="m",le="+Inf"} 6
        """,
        (5, 1),
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
        (4, 2),
        {0.32: 1, math.inf: 3},
    ),
    "fastapi": (
        """
        http_requests_total{handler="/predict",method="POST",status="2xx"} 3
        http_requests_total{handler="/predict",method="POST",status="5xx"} 1
        http_request_duration_seconds_bucket{handler="/predict",method="POST",le="0.1"} 1
        http_request_duration_seconds_bucket{handler="/predict",method="POST",le="+Inf"} 4
        """,
        (3, 1),
        {0.1: 1, math.inf: 3},
    ),
}


def window_of(text, entry):
    """What a page of the canary's only pod counts as, from its start on."""
    totals = read_page("\n".join(line.strip() for line in text.splitlines() if line.strip()) + "\n", entry, "canary", "pod")
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
    Good and failed requests, and durations in seconds.
    """
    text, outcome, latency = PAGES[name]
    window, edges = window_of(text, EXPOSITIONS[name])
    assert window.counts["outcome"].tolist() == [[0, 0], list(outcome)]
    assert window.counts["latency"].tolist() == [[0] * len(latency), list(latency.values())]
    assert edges == pytest.approx(tuple(latency))


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
    ("code", "failed"), [("200", False), ("404", False), ("499", False), ("500", True), ("5xx", True), ("0", True), ("", False)]
)
def test_what_counts_as_a_failure(code, failed):
    """
    5xx and no end are the server's doing; 4xx is the client's.
    """
    assert Exposition("r", "s", "code").failed({"code": code}) is failed


def test_an_entry_of_ones_own_is_taken_as_it_is():
    """
    Nobody has to wait for the catalogue.
    """
    own = Exposition("my_requests", "my_seconds", "status")
    assert exposition(own) is own
    assert own.names == {"requests": "my_requests", "latency": "my_seconds_bucket"}


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


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("traefik", {"service": "~.*ns-digits-canary-.*"}),
        (
            "istio",
            {"destination_workload": "digits-canary", "destination_workload_namespace": "ns", "reporter": "source"},
        ),
        ("ingress-nginx", {"canary": "~ns-digits-canary-.*"}),
        ("envoy", {"envoy_cluster_name": "~.*digits-canary.*"}),
        ("vllm", {"pod": "~digits-canary-.*", "namespace": "ns"}),
    ],
)
def test_a_version_is_picked_by_the_label_that_its_source_has(name, labels):
    """
    Of a gateway by the backend, of servers by their pods.
    """
    assert labels_of(name, "ns", "digits", "canary") == labels


def test_stable_of_ingress_nginx_has_no_alternative_upstream():
    """
    There a request to the canary is labelled with stable's Service too.
    """
    assert labels_of("ingress-nginx", "ns", "digits", "stable") == {"service": "digits-stable", "canary": ""}
