"""Latency in buckets that are not the same everywhere, or hold nothing."""

import math
import time
from dataclasses import replace

import pytest
from telemetry_doubles import REQUESTS, Prometheus

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.errors import TelemetryError
from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry

INF = math.inf
OTEL = Exposition("http_server_duration_milliseconds_count", "http_server_duration_milliseconds", "code", seconds=1e-3)
OURS = Exposition("requests_total", "seconds", "code")
VLLM = (0.3, 1.0, 60.0)


def page(buckets, entry=OURS, total=None):
    """A page with these buckets, ``{le: count}``, and as many requests as the last one counts."""
    total = max(buckets.values(), default=0) if total is None else total
    lines = [f'{entry.requests}{{code="200"}} {total}']
    lines += [f'{entry.latency}_bucket{{code="200",le="{le}"}} {count}' for le, count in buckets.items()]
    return "\n".join(lines) + "\n"


def all_at(edges, count, slow=0):
    """So many requests within the first edge, and some beyond the last."""
    return {**dict.fromkeys(edges, count), "+Inf": count + slow}


class Pods:
    """Replicas whose pages a test writes."""

    def __init__(self, entry=OURS, **pages):
        self.pages = pages
        self.source = ScrapeTelemetry(self, entry)
        self.source.begin(TrafficSplit(50), 0.0)

    def __call__(self):
        return [Replica(name.partition("_")[0], name, lambda name=name: self.pages[name]) for name in self.pages]


def judge_of(source):
    """A judge of latency and errors in the buckets of a source, as an experiment makes it."""
    latency = metrics.latency()
    return Judge([replace(latency, metric=replace(latency.metric, cells=source.latency_edges)), metrics.error_rate()])


@pytest.mark.parametrize("lowest", [["0.0"], ["-5.0", "0.0"], ["-10", "-5"], ["-0.0"]])
def test_an_edge_at_0_or_below_is_merged_into_the_next(lowest):
    """
    OpenTelemetry's boundaries begin with 0: what is counted there is in the first bucket that lasts, and judging works.
    """
    early = dict.fromkeys(lowest, 0)
    pods = Pods(OTEL, **dict.fromkeys(ROLES, page({**early, "5.0": 1, "25.0": 2, "+Inf": 2}, OTEL)))
    assert pods.source.latency_edges == (0.005, 0.025, INF)
    judge = judge_of(pods.source)
    pods.pages["canary"] = page({**dict.fromkeys(lowest, 3), "5.0": 8, "25.0": 10, "+Inf": 11}, OTEL)
    window = pods.source.read(1.0)
    assert window.counts["latency"].tolist() == [[0, 0, 0], [7, 1, 1]]
    judge.update(window)


@pytest.mark.parametrize(
    ("stable", "canary", "edges"),
    [
        (VLLM, (*VLLM, 120.0, 240.0), VLLM),  # edges added at the upper end
        ((0.01, 0.1, *VLLM), VLLM, VLLM),  # at the lower end
        ((0.1, 0.25, 0.5, 1.0), (0.1, 0.2, 0.5, 2.0), (0.1, 0.5)),  # another ladder
        (("0.1", "1"), ("0.10", "1e0"), (0.1, 1.0)),  # the same, written in another way
    ],
    ids=["upper", "lower", "other", "spelling"],
)
def test_versions_with_other_buckets_are_compared_on_the_edges_that_both_have(stable, canary, edges):
    """
    Buckets are cumulative, so that merging is exact.
    """
    pods = Pods(stable=page(all_at(stable, 10)), canary=page(all_at(canary, 0)))
    assert pods.source.latency_edges == (*edges, INF)
    judge = judge_of(pods.source)
    pods.pages |= {"stable": page(all_at(stable, 17, slow=2)), "canary": page(all_at(canary, 5, slow=1))}
    window = pods.source.read(1.0)
    none = [0] * (len(edges) - 1)
    assert window.counts["latency"].tolist() == [[7, *none, 2], [5, *none, 1]]
    assert window.requests == (9, 6)
    judge.update(window)


def test_versions_without_a_common_edge_are_compared_by_their_errors():
    """
    Latency alone is no data, with the reason; the kit's own guardrails go on.
    """
    pods = Pods(stable=page(all_at((0.1, 0.5), 0)), canary=page(all_at((0.2, 0.7), 0)))
    assert pods.source.latency_edges is None
    pods.pages["stable"] = page(all_at((0.1, 0.5), 9))
    window = pods.source.read(1.0)
    assert window.counts["outcome"].tolist() == [[9, 0], [0, 0]]
    assert "latency" not in window.counts
    assert "latency is not compared: canary has 3 latency buckets (0.2 to 0.7 s), stable has 3 latency buckets" in window.note


def test_a_single_edge_of_many_in_common_says_too_little():
    """
    Where a canary that is four times as slow would be in the same bucket, nothing is compared.
    """
    pods = Pods(
        stable=page(all_at((0.25, 0.5, 1.0, 2.5, 10.0, 60.0), 0)), canary=page(all_at((0.3, 0.6, 1.2, 2.4, 9.6, 60.0), 0))
    )
    assert pods.source.latency_edges is None
    pods.pages["stable"] = page(all_at((0.25, 0.5, 1.0, 2.5, 10.0, 60.0), 9))
    assert "too few edges in common" in pods.source.read(1.0).note


def test_a_pod_that_comes_with_more_edges_is_mapped_onto_those_in_use():
    """
    The first request makes the canary's histogram, which has more buckets: its counts fall into those that are judged.
    """
    pods = Pods(stable=page(all_at(VLLM, 0)), canary=page({}, total=0))
    assert pods.source.read(1.0).note == "no request was counted in requests_total"
    pods.pages["canary"] = page({"0.3": 1, "0.6": 3, "1.0": 4, "60.0": 4, "120.0": 6, "+Inf": 7})
    window = pods.source.read(2.0)
    assert pods.source.latency_edges == (*VLLM, INF)
    assert window.counts["latency"].tolist() == [[0, 0, 0, 0], [1, 3, 0, 3]]


def test_a_pod_that_comes_with_fewer_edges_makes_latency_no_data():
    """
    The edges in use never change under the judge, and no error ends the rollout: errors go on, and the note says why.
    """
    pods = Pods(stable=page(all_at(VLLM, 0)), canary=page({}, total=0))
    pods.source.read(1.0)
    judge = judge_of(pods.source)
    pods.pages["canary"] = page(all_at((0.3, 60.0), 4))
    window = pods.source.read(2.0)
    assert window.requests == (0, 4)
    assert "latency" not in window.counts
    assert "canary has 3 latency buckets (0.3 to 60 s), and so far there were 4" in window.note
    assert "it has no edge at 1 s" in window.note
    assert pods.source.latency_edges == (*VLLM, INF)
    judge.update(window)
    pods.source.begin(TrafficSplit(50), 3.0)
    del pods.pages["canary"]  # such a pod may be gone again
    pods.pages |= {"canary_1": page(all_at(VLLM, 6)), "stable": page(all_at(VLLM, 2))}
    assert pods.source.read(4.0).counts["latency"].sum(axis=1).tolist() == [2, 6]


def test_a_histogram_without_an_end_is_not_compared():
    """
    Without a bucket +Inf the slowest requests are in none.
    """
    pods = Pods(stable=page({"0.1": 1, "0.5": 1}), canary=page(all_at((0.1, 0.5), 1)))
    pods.pages["stable"] = page({"0.1": 2, "0.5": 2})
    assert "stable has no latency bucket +Inf" in pods.source.read(1.0).note


def test_an_edge_that_is_no_number_is_an_error():
    """
    NaN is refused, with the source that has it.
    """
    with pytest.raises(TelemetryError, match="stable has a latency bucket whose edge"):
        Pods(stable=page({"NaN": 1, "+Inf": 2}), canary=page({}))
    with pytest.raises(TelemetryError, match="metrics page of stable cannot be read"):
        Pods(stable=page({"fast": 1, "+Inf": 2}), canary=page({}))


def test_buckets_that_are_not_cumulative_are_an_error():
    """
    Each bucket alone is no histogram of Prometheus: the edges at which counts fall are named.
    """
    with pytest.raises(
        TelemetryError, match=r"buckets of stable are not cumulative: 60 requests up to 0.1 s, but 30 up to 0.5 s"
    ):
        Pods(stable=page({"0.1": 60, "0.5": 30, "+Inf": 10}), canary=page({}))


def test_a_page_that_is_written_while_a_request_ends_is_no_error():
    """
    One request is in the lower bucket and not yet in the next: no count is negative.
    """
    pods = Pods(**dict.fromkeys(ROLES, page({"0.1": 100, "0.5": 100, "+Inf": 100})))
    pods.pages["stable"] = page({"0.1": 101, "0.5": 100, "+Inf": 101})
    assert pods.source.read(1.0).counts["latency"].min() == 0


# The same from a Prometheus --------------------------------------------------------------------------------------------


@pytest.fixture
def prometheus():
    """A double of Prometheus' API."""
    made = Prometheus()
    yield made
    made.close()


def scrape(prometheus, at, role, buckets, pod=None):
    """One scrape of a pod with these buckets."""
    target = {"role": role, "instance": pod or f"{role}-0", "job": "pods"}
    prometheus.add(at, REQUESTS, max(buckets.values()), code="200", **target)
    for le, count in buckets.items():
        prometheus.add(at, "canarykit_request_duration_seconds_bucket", count, le=str(le), **target)


def test_prometheus_compares_on_common_edges_and_goes_on_when_there_are_none(prometheus):
    """
    The canary has more edges, and one at 0: both are compared on stable's; then a pod of another ladder comes.
    """
    since = round(time.time()) - 200.0
    wide = (0, *VLLM, 120.0)
    for at in (-29, -14, 1):
        scrape(prometheus, since + at, "stable", all_at(VLLM, 10))
        scrape(prometheus, since + at, "canary", {**all_at(wide, 5), 0: 0})
    telemetry = PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", {role: {"role": role} for role in ROLES})
    telemetry.begin(TrafficSplit(50), since)
    assert telemetry.latency_edges == (*VLLM, INF)
    scrape(prometheus, since + 16, "stable", all_at(VLLM, 14, slow=1))
    scrape(prometheus, since + 16, "canary", {**all_at(wide, 8, slow=2), 0: 1})
    assert telemetry.read(since + 17).counts["latency"].tolist() == [[4, 0, 0, 1], [3, 0, 0, 2]]
    for at in (31, 46):
        scrape(prometheus, since + at, "stable", all_at(VLLM, 14 + at, slow=1))
        scrape(prometheus, since + at, "canary", {**all_at(wide, 8 + at, slow=2), 0: 1})
        scrape(prometheus, since + at, "canary", all_at((0.2,), at), pod="canary-1")
    window = telemetry.read(since + 47)
    assert window.requests[0] == 46
    assert "latency" not in window.counts
    assert "canary-1 has 2 latency buckets" in window.note


def test_prometheus_refuses_buckets_that_are_not_cumulative_whenever_they_come(prometheus):
    """
    A canary whose first request makes such a histogram leaves empty windows that say so, and no latency.
    """
    since = round(time.time()) - 200.0
    for at in (-29, -14, 1, 16):
        scrape(prometheus, since + at, "stable", all_at(VLLM, 10))
    telemetry = PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", {role: {"role": role} for role in ROLES})
    telemetry.begin(TrafficSplit(50), since)
    scrape(prometheus, since + 16, "canary", {0.3: 50, 1.0: 20, "+Inf": 5})
    window = telemetry.read(since + 17)
    assert window.counts == {}
    assert "buckets of canary-0 are not cumulative" in window.note
