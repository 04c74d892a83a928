"""What gateways and model servers call their counters.

No model server labels its version reliably: identity comes from the gateway's label, or from which pod was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from canarykit.errors import PlanError

__all__ = ["EXPOSITIONS", "Exposition", "exposition"]


@dataclass(frozen=True, slots=True)
class Exposition:
    """Names under which one framework counts.

    Parameters
    ----------
    requests : str
        Counter of finished requests.
    latency : str
        Histogram of their durations, without ``_bucket``.
    code : str, optional
        Label with the status; 5xx, and 0 where nobody waited for the end, are failures.
    failures : str, optional
        Counter of failed requests, where no label tells. They are among `requests` or beside them: `beside`.
    beside : bool
        Whether `requests` counts successes alone.
    seconds : float
        One unit of the histogram in seconds.
    backend : str, optional
        Label that names the backend, of a gateway; None where each pod is asked itself.
    """

    requests: str
    latency: str
    code: str | None = None
    failures: str | None = None
    beside: bool = False
    seconds: float = 1.0
    backend: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """Its metrics, by what they count."""
        named = {"requests": self.requests, "failures": self.failures, "latency": f"{self.latency}_bucket"}
        return {what: name for what, name in named.items() if name}

    def failed(self, labels: Mapping[str, str]) -> bool:
        """Whether a series counts failed requests."""
        said = labels.get(self.code, "") if self.code else ""
        return said[:1] == "5" or said == "0"


_MS = 1e-3

EXPOSITIONS: Mapping[str, Exposition] = {
    "canarykit": Exposition("canarykit_requests_total", "canarykit_request_duration_seconds", "code"),
    "traefik": Exposition(
        "traefik_service_requests_total", "traefik_service_request_duration_seconds", "code", backend="service"
    ),
    "istio": Exposition(
        "istio_requests_total",
        "istio_request_duration_milliseconds",
        "response_code",
        seconds=_MS,
        backend="destination_workload",
    ),
    "envoy": Exposition(
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_time",
        "envoy_response_code",
        seconds=_MS,
        backend="envoy_cluster_name",
    ),
    "ingress-nginx": Exposition(
        "nginx_ingress_controller_requests", "nginx_ingress_controller_request_duration_seconds", "status", backend="service"
    ),
    "vllm": Exposition(
        "vllm:request_success_total", "vllm:e2e_request_latency_seconds", failures="vllm:request_failure_total", beside=True
    ),
    "mlserver": Exposition("rest_server_requests_total", "rest_server_request_duration_seconds", "status_code"),
    "seldon": Exposition("seldon_model_infer_total", "seldon_model_infer_api_seconds", "code"),
    "tgi": Exposition("tgi_request_count", "tgi_request_duration", failures="tgi_request_failure"),
    "bentoml": Exposition("bentoml_service_request_total", "bentoml_service_request_duration_seconds", "http_response_code"),
    "ray-serve": Exposition(
        "ray_serve_num_http_requests_total",
        "ray_serve_http_request_latency_ms",
        failures="ray_serve_num_http_error_requests_total",
        seconds=_MS,
    ),
    "llm-d": Exposition(
        "llm_d_epp_request_total", "llm_d_epp_request_duration_seconds", failures="llm_d_epp_request_error_total"
    ),
    "fastapi": Exposition("http_requests_total", "http_request_duration_seconds", "status"),
}
"""By the name that people give them."""


def exposition(name: str | Exposition) -> Exposition:
    """Return what a framework calls its counters.

    Raises
    ------
    PlanError
        It is not in the catalogue.
    """
    if isinstance(name, Exposition):
        return name
    if name not in EXPOSITIONS:
        raise PlanError(
            f"nothing is known of metrics called {name!r}: use {', '.join(EXPOSITIONS)}, or an Exposition of your own"
        )
    return EXPOSITIONS[name]
