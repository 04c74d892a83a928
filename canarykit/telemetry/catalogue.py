"""What gateways and model servers call their counters.

No model server labels its version reliably: identity comes from the gateway's label, or from which pod was asked.
Durations of failed requests are left out where the histogram tells which they are (`code`, `fault`); elsewhere, such as
in Envoy's, Ray Serve's and FastAPI's, they are in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from canarykit.errors import PlanError
from canarykit.model import Role

__all__ = ["EXPOSITIONS", "Exposition", "exposition", "labels_of"]


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
    fault : str, optional
        Label that failed requests alone carry, whatever it says.
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
    fault: str | None = None
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
        if self.fault:
            return bool(labels.get(self.fault))
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
    # vLLM itself counts successes alone; its web server counts all requests, with classes of status: 2xx, 5xx.
    "vllm": Exposition("http_requests_total", "vllm:e2e_request_latency_seconds", "status"),
    # Triton has sums of microseconds, and of those no quantile comes: latency is "no data" unless it was started with
    # --metrics-config histogram_latencies=true, which gives decoupled models the time to their first response.
    "triton": Exposition(
        "nv_inference_request_success",
        "nv_inference_first_response_histogram_ms",
        failures="nv_inference_request_failure",
        beside=True,
        seconds=_MS,
    ),
    "mlserver": Exposition("rest_server_requests_total", "rest_server_request_duration_seconds", "status_code"),
    "seldon": Exposition("seldon_model_infer_total", "seldon_model_infer_api_seconds", "code"),
    # Its requests are counted when they begin, and what it refused as not valid is among its failures.
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
    "envoy-ai-gateway": Exposition(
        "gen_ai_server_request_duration_seconds_count",
        "gen_ai_server_request_duration_seconds",
        fault="error_type",
        backend="gen_ai_response_model",
    ),
    "fastapi": Exposition("http_requests_total", "http_request_duration_seconds", "status"),
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


def labels_of(name: str, namespace: str, app: str, role: Role) -> dict[str, str]:
    """Labels of a version's series on Kubernetes; a value that begins with ``~`` is a regular expression.

    Parameters
    ----------
    name : str
        Of the catalogue.
    namespace, app : str
        Where the version runs, and of which service.
    role : {"stable", "canary"}
        Which version.
    """
    backend, version = exposition(name).backend, f"{app}-{role}"
    if name == "traefik":
        return {"service": f"~.*{namespace}-{version}-.*"}
    if name == "istio":
        # Where the server has a sidecar too, it would report each request a second time.
        return {"destination_workload": version, "destination_workload_namespace": namespace, "reporter": "source"}
    if name == "ingress-nginx":
        # A request to the canary carries the name of stable's Service, and that of the canary's upstream beside it.
        return {"service": version, "canary": ""} if role == "stable" else {"canary": f"~{namespace}-{version}-.*"}
    if backend is None:
        return {"pod": f"~{version}-.*", "namespace": namespace}
    return {backend: f"~.*{version}.*"}
