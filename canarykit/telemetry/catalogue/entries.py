"""The catalogue: one entry per gateway or model server.

Durations of requests that were not answered are left out where the histogram tells which they are; elsewhere, such as in
Envoy's, Ray Serve's and FastAPI's, they are in it.
"""

from __future__ import annotations

from collections.abc import Mapping

from canarykit.errors import PlanError
from canarykit.protocol import METRICS_PORT
from canarykit.telemetry.catalogue.exposition import Exposition

__all__ = ["EXPOSITIONS", "exposition"]

_MS = 1e-3

EXPOSITIONS: Mapping[str, Exposition] = {
    "canarykit": Exposition(
        "canarykit_requests_total", "canarykit_request_duration_seconds", "code", handlers=(), port=METRICS_PORT
    ),
    # Gateways -----------------------------------------------------------------------------------------------------------
    # The code of a gRPC call is its gRPC status.
    "traefik": Exposition(
        "traefik_service_requests_total",
        "traefik_service_request_duration_seconds",
        "code",
        grpc="code",
        protocol="protocol",
        backend="service",
        handlers=(),
    ),
    "istio": Exposition(
        "istio_requests_total",
        "istio_request_duration_milliseconds",
        "response_code",
        grpc="grpc_response_status",
        protocol="request_protocol",
        flags="response_flags",
        seconds=_MS,
        backend="destination_workload",
        mesh=True,
        handlers=(),
    ),
    # No counter of Envoy's clusters tells which answers broke off after their headers.
    "envoy": Exposition(
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_time",
        "envoy_response_code",
        seconds=_MS,
        backend="envoy_cluster_name",
        handlers=(),
    ),
    "ingress-nginx": Exposition(
        "nginx_ingress_controller_requests",
        "nginx_ingress_controller_request_duration_seconds",
        "status",
        backend="service",
        handlers=(),
    ),
    "envoy-ai-gateway": Exposition(
        "gen_ai_server_request_duration_seconds_count",
        "gen_ai_server_request_duration_seconds",
        fault="error_type",
        backend="gen_ai_response_model",
        handlers=(),
    ),
    "llm-d": Exposition(
        "llm_d_epp_request_total",
        "llm_d_epp_request_duration_seconds",
        failures="llm_d_epp_request_error_total",
        reason="error_code",
        reasons={"BadRequest": "refused", "InferencePoolResourceExhausted": "denied"},
        backend="target_model_name",
        handlers=(),
    ),
    # Servers ------------------------------------------------------------------------------------------------------------
    # vLLM itself counts successes alone; its web server counts all requests, with classes of status: 2xx, 5xx.
    "vllm": Exposition("http_requests_total", "vllm:e2e_request_latency_seconds", "status", classes=True),
    # Triton has sums of microseconds, and of those no quantile comes: latency is "no data" unless it was started with
    # --metrics-config histogram_latencies=true, which gives decoupled models the time to their first response.
    "triton": Exposition(
        "nv_inference_request_success",
        "nv_inference_first_response_histogram_ms",
        failures="nv_inference_request_failure",
        beside=True,
        seconds=_MS,
        handlers=(),
        port=8002,
    ),
    "mlserver": Exposition("rest_server_requests_total", "rest_server_request_duration_seconds", "status_code", port=8082),
    # The code of a gRPC call is the name of its gRPC status.
    "seldon": Exposition("seldon_model_infer_total", "seldon_model_infer_api_seconds", "code", handlers=(), port=9006),
    # Its requests are counted when they begin.
    "tgi": Exposition(
        "tgi_request_count",
        "tgi_request_duration",
        failures="tgi_request_failure",
        reason="err",
        reasons={"validation": "refused", "overloaded": "denied"},
        handlers=(),
    ),
    "bentoml": Exposition("bentoml_service_request_total", "bentoml_service_request_duration_seconds", "http_response_code"),
    # Among its errors are all statuses but 2xx, and among its requests those of its own probes: /-/healthz, /-/routes.
    "ray-serve": Exposition(
        "ray_serve_num_http_requests_total",
        "ray_serve_http_request_latency_ms",
        failures="ray_serve_num_http_error_requests_total",
        reason="error_code",
        seconds=_MS,
        port=8080,
    ),
    "fastapi": Exposition("http_requests_total", "http_request_duration_seconds", "status", classes=True),
}
"""By the name that people give them."""

_NOT_COMPARABLE = {
    "kserve": "KServe's own server counts failed requests as it counts others, so that errors would pass unseen: have the "
    "gateway in front of it scraped",
}


def exposition(name: str | Exposition) -> Exposition:
    """Return what a framework calls its counters.

    Raises
    ------
    PlanError
        It is not in the catalogue, or its counters tell too little.
    """
    if isinstance(name, Exposition):
        return name
    if name in _NOT_COMPARABLE:
        raise PlanError(_NOT_COMPARABLE[name])
    if name not in EXPOSITIONS:
        raise PlanError(
            f"nothing is known of metrics called {name!r}: use {', '.join(EXPOSITIONS)}, or an Exposition of your own"
        )
    return EXPOSITIONS[name]
