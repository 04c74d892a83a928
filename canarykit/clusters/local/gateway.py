"""What Envoy is told: pure functions from a service to its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canarykit.model import ROLES, Protocol, Role, TrafficSplit
from canarykit.protocol import (
    FLAGS_HEADER,
    FORCED_ROUTE,
    INSTANCE_HEADER,
    LIMIT_HEADER,
    LOG_FIELDS,
    METADATA,
    PING_PATH,
    ROLE_HEADER,
    SPLIT_ROUTE,
    VERSION_HEADER,
)
from canarykit.routers.envoy import RUNTIME_PREFIX, weights
from canarykit.statuses import LIMIT_FLAG

__all__ = ["TIMEOUT", "Endpoint", "bootstrap", "endpoints"]

TIMEOUT = 15.0
"""Seconds that a request may take; many gateways, Envoy among them, have this limit by default."""


_TYPE = "type.googleapis.com/envoy."
_MANAGER = f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_UPSTREAM = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_IDLE = 300.0
"""Seconds for which a request may stand still, unless its limit is longer."""

_PROTOCOLS: Mapping[Protocol, tuple[str, str]] = {
    "http": ("http_protocol_options", "HTTP1"),
    "h2c": ("http2_protocol_options", "HTTP2"),
}
"""Of each protocol of a version, Envoy's options for requests and its codec for health checks."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one replica listens.

    Parameters
    ----------
    instance : str
        Name of the replica: ``"stable-0"``.
    version : str
        Name of the version that it runs.
    port : int
        On the loopback address.
    draining : bool
        Gets no new request, and may finish what it has.
    """

    instance: str
    version: str
    port: int
    draining: bool = False


def bootstrap(
    folder: Path, port: int, ready: Mapping[Role, str], *, timeout: float = TIMEOUT, protocol: Protocol = "http"
) -> dict[str, Any]:
    """Configuration that Envoy starts from.

    Parameters
    ----------
    folder : Path
        Private folder with the admin socket, the access log and the endpoint files.
    port : int
        Port of the gateway, on the loopback address.
    ready : dict
        Path that answers 200 when a version is ready, per role.
    timeout : float
        Seconds after which the gateway ends a request.
    protocol : {"http", "h2c"}
        Protocol of the versions' servers.

    Returns
    -------
    dict
        To be written as JSON.
    """
    return {
        "admin": {"address": {"pipe": {"path": str(folder / "admin.sock"), "mode": 0o600}}},
        "node": {"id": "canarykit", "cluster": "canarykit"},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "static_resources": {
            "listeners": [_listener(folder, port, timeout)],
            "clusters": [_cluster(role, folder, ready[role], protocol) for role in ROLES],
        },
    }


def endpoints(role: Role, replicas: Iterable[Endpoint]) -> str:
    """Content of the file that names a version's replicas; Envoy follows the file."""
    assignment = {
        "@type": f"{_TYPE}config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": role,
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {"address": _address(replica.port)},
                        "health_status": "DRAINING" if replica.draining else "UNKNOWN",
                        "metadata": {"filter_metadata": {METADATA: {"instance": replica.instance, "version": replica.version}}},
                    }
                    for replica in replicas
                ]
            }
        ],
    }
    return json.dumps({"resources": [assignment]})


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(folder: Path, port: int, timeout: float) -> dict[str, Any]:
    log_line = "\t".join(LOG_FIELDS.values()) + "\n"
    manager = {
        "@type": _MANAGER,
        "stat_prefix": "gateway",
        "generate_request_id": True,
        "preserve_external_request_id": True,
        # Old monitors, ApacheBench and nginx's proxies by default speak HTTP/1.0, and may leave out the host.
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "localhost"},
        "stream_idle_timeout": _duration(max(_IDLE, timeout)),
        "route_config": {"name": "canarykit", "virtual_hosts": [_virtual_host(timeout)]},
        "local_reply_config": {"mappers": [_limit_reply(timeout)]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
            }
        ],
        "access_log": [
            {
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(folder / "access.log"),
                    "log_format": {"text_format_source": {"inline_string": log_line}},
                },
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {"name": "gateway", "address": _address(port), "filter_chains": [chain]}


def _duration(seconds: float) -> str:
    return f"{seconds:.3f}s"


def _limit_reply(timeout: float) -> dict[str, Any]:
    """What a client reads whose request took too long: a 504 that says whose it is."""
    text = (
        f"504: the gateway's limit of {timeout:g} s ended this request; "
        f'set timeout=, as in LocalCluster(timeout=60) or where="local?timeout=60"\n'
    )
    return {"filter": {"response_flag_filter": {"flags": [LIMIT_FLAG]}}, "body": {"inline_string": text}}


def _virtual_host(timeout: float) -> dict[str, Any]:
    policy = {
        "timeout": _duration(timeout),
        # Only what a server cannot have begun to work on is sent again, so a request still counts once.
        "retry_policy": {"retry_on": "connect-failure,refused-stream,reset-before-request", "num_retries": 2},
    }
    # Before any weight is set, everything goes to stable.
    initial = weights(TrafficSplit(0))
    split = {
        "runtime_key_prefix": RUNTIME_PREFIX,
        "clusters": [{"name": role, "weight": weight, **_stamp(role, timeout)} for role, weight in initial.items()],
    }
    forced = [
        {
            "name": FORCED_ROUTE,
            "match": {
                "prefix": "/",
                "headers": [{"name": ROLE_HEADER, "string_match": {"exact": role}}],
            },
            "route": {"cluster": role, **policy},
            **_stamp(role, timeout),
        }
        for role in ROLES
    ]
    return {
        "name": "service",
        "domains": ["*"],
        "routes": [
            {"name": "ping", "match": {"path": PING_PATH}, "direct_response": {"status": 204}},
            *forced,
            {"name": SPLIT_ROUTE, "match": {"prefix": "/"}, "route": {"weighted_clusters": split, **policy}},
        ],
    }


def _stamp(role: str, timeout: float) -> dict[str, Any]:
    """Headers that the gateway puts on each response; what a server says of itself is overwritten."""
    values = {
        ROLE_HEADER: role,
        VERSION_HEADER: f"%UPSTREAM_METADATA({METADATA}:version)%",
        INSTANCE_HEADER: f"%UPSTREAM_METADATA({METADATA}:instance)%",
        FLAGS_HEADER: "%RESPONSE_FLAGS%",
        LIMIT_HEADER: f"{timeout:g}",
    }
    return {
        "response_headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in values.items()
        ]
    }


def _cluster(role: Role, folder: Path, ready: str, protocol: Protocol) -> dict[str, Any]:
    options, codec = _PROTOCOLS[protocol]
    return {
        "name": role,
        "type": "EDS",
        "connect_timeout": "2s",
        "eds_cluster_config": {
            "eds_config": {"path_config_source": {"path": str(folder / f"{role}.json")}, "resource_api_version": "V3"}
        },
        "lb_policy": "LEAST_REQUEST",
        # A replica that is taken out of the file gets no new request at once, and may finish what it has.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": "2s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": ready, "codec_client_type": codec},
            }
        ],
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 10_000, "max_pending_requests": 10_000, "max_requests": 10_000, "max_retries": 100}
            ]
        },
        "typed_extension_protocol_options": {
            _UPSTREAM: {
                "@type": f"type.googleapis.com/{_UPSTREAM}",
                # Many servers close an idle connection after 2 to 5 s; closing first avoids the race that loses a request.
                "common_http_protocol_options": {"idle_timeout": "1s"},
                "explicit_http_config": {options: {}},
            }
        },
    }
