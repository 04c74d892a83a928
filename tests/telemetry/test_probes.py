"""Probes and scrapes among the requests of pods: left out where labels notify, and said where they do not."""

import json
import random
import time

import pytest
from telemetry_doubles import Prometheus

from canarykit.analysis.checks import SplitCheck
from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.catalogue import EXPOSITIONS, Exposition
from canarykit.telemetry.page import page_of
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry


class Pods:
    """Two pods of each version, which are probed every second, and counted by a web framework."""

    def __init__(self, line, *, ready="/healthz", path="/predict"):
        self._line, self._ready, self._path, self._counts = line, ready, path, {}
        self.names = [(role, number) for role in ROLES for number in (0, 1)]
        self.real = [[0, 0], [0, 0]]

    def __call__(self):
        return [Replica(role, f"{role}-{n}", lambda who=(role, n): self._page(who)) for role, n in self.names]

    def second(self, rng):
        """Let five requests come, of which the canary fails three in ten, and a probe of each pod."""
        for who in self.names:
            self._add(who, "GET", self._ready, "2xx")
        for _ in range(5):
            row = rng.random() < 0.05
            failed = bool(row) and rng.random() < 0.3
            self.real[row][failed] += 1
            self._add((ROLES[row], rng.randrange(2)), "POST", self._path, "5xx" if failed else "2xx")

    def _add(self, who, method, path, status):
        key = who, method, path, status
        self._counts[key] = self._counts.get(key, 0) + 1

    def _page(self, who):
        self._add(who, "GET", "/metrics", "2xx")
        return "".join(
            self._line.format(method=method, path=path, status=status) + f" {count}\n"
            for (pod, method, path, status), count in self._counts.items()
            if pod == who
        )


FASTAPI = 'http_requests_total{{handler="{path}",method="{method}",status="{status}"}}'
MLSERVER = 'rest_server_requests_total{{method="{method}",path="{path}",status_code="{status}"}}'
BENTOML = 'bentoml_service_request_total{{endpoint="{path}",http_response_code="{status}"}}'
OTEL = 'http_server_duration_count{{http_method="{method}",http_target="{path}",http_status_code="{status}"}}'
OTEL_NEW = 'asked_total{{http_request_method="{method}",http_route="{path}",http_response_status_code="{status}"}}'
OWN = 'asked_total{{uri="{path}",code="{status}"}}'


@pytest.mark.parametrize(
    ("entry", "pods"),
    [
        ("fastapi", Pods(FASTAPI)),
        ("vllm", Pods(FASTAPI, ready="/health")),
        ("mlserver", Pods(MLSERVER, ready="/v2/health/ready", path="/v2/models/d/infer")),
        ("bentoml", Pods(BENTOML, ready="/readyz")),
        (EXPOSITIONS["fastapi"].ignoring(["/am/i/up?deep=1"]), Pods(FASTAPI, ready="/am/i/up")),
        (Exposition("asked_total", "seconds", "code"), Pods(OWN, ready="/livez")),
        (Exposition("http_server_duration_count", "s", "http_status_code"), Pods(OTEL)),
        (Exposition("asked_total", "s", "http_response_status_code"), Pods(OTEL_NEW)),
    ],
    ids=["fastapi", "vllm", "mlserver", "bentoml", "ready", "own", "otel", "otel-new"],
)
def test_only_requests_of_clients_are_counted(entry, pods):
    """
    At five requests per second most that a pod of the canary gets are probes and scrapes: the counts are those of clients
    alone, so that the share of errors is theirs, and no check blames the router.
    """
    rng, check, counted = random.Random(2), SplitCheck(alpha=0.001), 0
    source = ScrapeTelemetry(pods, entry)
    source.begin(TrafficSplit(5), 0.0)
    for second in range(1, 61):
        pods.second(rng)
        window = source.read(float(second))
        counted += window.counts["outcome"]
        check.update(window)
    assert counted.tolist() == pods.real
    assert check.alarm is None
    assert not source.assigned_only


def test_durations_of_probes_are_left_out_too():
    """
    They are quick, and would make a slow version look well.
    """
    text = (
        'http_request_duration_seconds_bucket{handler="/healthz",method="GET",le="0.1"} 60\n'
        'http_request_duration_seconds_bucket{handler="/healthz",method="GET",le="+Inf"} 60\n'
        'http_request_duration_seconds_bucket{handler="/predict",method="POST",le="0.1"} 0\n'
        'http_request_duration_seconds_bucket{handler="/predict",method="POST",le="+Inf"} 4\n'
    )
    totals = page_of(text, EXPOSITIONS["fastapi"], "canary", "pod").totals
    assert sorted((series.edge, total) for series, total in totals.items()) == [(0.1, 0.0), (float("inf"), 4.0)]


@pytest.mark.parametrize(
    ("labels", "left_out"),
    [
        ({"handler": "/healthz", "method": "GET"}, True),
        ({"handler": "/healthz/", "method": "get"}, True),
        ({"handler": "/healthz", "method": "HEAD"}, True),
        ({"handler": "/healthz"}, True),
        ({"handler": "/ping", "method": "POST"}, False),
        ({"handler": "/predict", "method": "GET"}, False),
        ({"handler": "/healthz2", "method": "GET"}, False),
        ({"handler": "/", "method": "GET"}, False),
        ({"path": "/v2/models/d/ready", "method": "GET"}, True),
        ({"path": "/v2/models/d/versions/1/ready", "method": "GET"}, True),
        ({"path": "/v2/models/ready/infer", "method": "POST"}, False),
        ({"route": "/-/healthz", "method": "GET"}, True),
        ({"endpoint": "metrics", "exported_endpoint": "/readyz"}, True),
        ({"endpoint": "metrics", "exported_endpoint": "/predict"}, False),
        ({"endpoint": "metrics"}, False),
        ({"http_route": "/healthz", "http_method": "GET"}, True),
        ({"http_route": "/healthz", "http_request_method": "GET"}, True),
        ({"http_target": "/healthz?full=1", "http_method": "GET"}, True),
        ({"url_path": "/readyz", "http_request_method": "HEAD"}, True),
        ({"http_route": "/ping", "http_request_method": "POST"}, False),
        ({"http_target": "/ping", "http_method": "POST"}, False),
        ({"http_route": "/predict", "http_request_method": "GET"}, False),
        ({"exported_http_route": "/metrics"}, True),
        ({"handler": "/models/{name}/up", "method": "GET"}, True),
        ({"handler": "/models/{name}/{action}", "method": "GET"}, False),
        ({"handler": "/{path:path}", "method": "GET"}, False),
        ({}, False),
    ],
)
def test_what_a_probe_looks_like(labels, left_out):
    """
    A GET of a path that only the cluster asks for, also as a template; an operator's own label endpoint is no path. What may
    be a client's is counted.
    """
    entry = EXPOSITIONS["fastapi"].ignoring(["/models/d/up"])
    assert entry.ignores(labels) is left_out


def test_other_paths_take_the_place_of_the_catalogues_and_ready_stays():
    """
    Whoever serves at /ping says what is to be left out.
    """
    entry = EXPOSITIONS["fastapi"].ignoring(["/up"], ignore=["/internal/*"])
    asked = ("/internal/metrics", "/up", "/ping", "/metrics")
    assert [entry.ignores({"handler": path, "method": "GET"}) for path in asked] == [True, True, False, False]


def pages_of(text, entry):
    """Both versions with this page, which counting has begun with."""
    source = ScrapeTelemetry(lambda: [Replica(role, f"{role}-0", lambda: text) for role in ROLES], entry)
    source.begin(TrafficSplit(5), 0.0)
    return source


@pytest.mark.parametrize(
    "line",
    [
        'http_requests_total{handler="/predict",method="POST",status="2xx"} 5\n',
        'http_requests_total{exported_endpoint="/predict",endpoint="metrics",method="POST",status="2xx"} 5\n',
    ],
)
def test_what_is_left_out_is_told(line):
    """
    With the paths and the labels; entries that count inferences alone have nothing to say.
    """
    told = pages_of(line, EXPOSITIONS["fastapi"].ignoring(["/up"])).sources
    assert "for /metrics, /health," in told["left out"]
    assert "/up, where a label handler, path" in told["left out"]
    assert set(ScrapeTelemetry(list, "triton").sources) == {"requests", "failures", "latency"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        'http_requests_total{handler="/metrics",method="GET",status="2xx"} 5\n',
        'http_request_duration_seconds_bucket{le="+Inf"} 5\n',
    ],
)
def test_before_a_request_was_counted_nobody_knows_what_is_left_out(text):
    """
    The series of requests may have no label that tells: nothing is claimed before one was seen.
    """
    told = pages_of(text, "fastapi").sources
    assert told["left out"].startswith("not known yet: ")
    assert "counted" not in told


def test_where_no_label_tells_probes_apart_that_is_told():
    """
    All requests of a pod are counted then, and nobody is to think that they are the clients' alone.
    """
    page = 'http_requests_total{method="GET",status="2xx"} 5\n'
    source = ScrapeTelemetry(lambda: [Replica(role, f"{role}-0", lambda: page) for role in ROLES], "fastapi")
    source.begin(TrafficSplit(5), 0.0)
    assert source.sources["counted"].startswith("all requests of a pod, probes and scrapes among them: none of the labels")
    assert "left out" not in source.sources
    assert not source.assigned_only


def test_probes_are_left_out_of_what_prometheus_has_stored():
    """
    The same counters by way of a Prometheus.
    """
    prometheus, since = Prometheus(), round(time.time()) - 100.0
    try:
        for role, count in (("stable", 9), ("canary", 4)):
            for handler, growth in (("/metrics", 50), ("/predict", count)):
                labels = {"__name__": "http_requests_total", "role": role, "handler": handler, "status": "2xx", "pod": role}
                prometheus.series[json.dumps(labels)] = [
                    [since - 14 + 15 * n, str(1000 + growth * max(n - 1, 0))] for n in range(4)
                ]
        source = PrometheusTelemetry(f"http://{prometheus.url}", "fastapi", {role: {"role": role} for role in ROLES})
        source.begin(TrafficSplit(25), since)
        assert source.read(since + 35).requests == (18, 8)
        assert "left out" in source.sources
    finally:
        prometheus.close()
