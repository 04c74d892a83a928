"""Words that the gateway, the load and the telemetry must agree on."""

__all__ = [
    "FLAGS_HEADER",
    "FORCED_ROUTE",
    "INSTANCE_HEADER",
    "LOG_FIELDS",
    "METADATA",
    "PING_PATH",
    "REQUEST_ID_HEADER",
    "ROLE_HEADER",
    "SPLIT_ROUTE",
    "VERSION_HEADER",
]

ROLE_HEADER = "x-canarykit-role"
"""On a request: which version must answer it. On a response: which one did, said by the gateway."""

VERSION_HEADER = "x-canarykit-version"
"""On a response: the name of the version that answered."""

INSTANCE_HEADER = "x-canarykit-instance"
"""On a response: the replica that answered."""

FLAGS_HEADER = "x-canarykit-flags"
"""On a response: what went wrong on the way, in the gateway's own flags; ``-`` when nothing did."""

REQUEST_ID_HEADER = "x-request-id"

METADATA = "canarykit"
"""Namespace of the endpoint metadata that names the version and the replica."""

PING_PATH = "/.canarykit/ping"
"""Answered by the gateway itself: a round trip through its worker."""

SPLIT_ROUTE, FORCED_ROUTE = "split", "forced"
"""Names of the gateway's routes. A forced request was not drawn, so it is no evidence."""

LOG_FIELDS = {
    "start": "%START_TIME(%s.%6f)%",
    "route": "%ROUTE_NAME%",
    "role": "%UPSTREAM_CLUSTER%",
    "instance": f"%UPSTREAM_METADATA({METADATA}:instance)%",
    "code": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "micros": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}
"""Fields of one line of the gateway's access log, separated by tabs. The id comes last: a client chose it."""
