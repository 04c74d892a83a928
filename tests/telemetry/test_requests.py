"""From single requests to a window."""

import math
import random
from types import SimpleNamespace

import numpy as np
import pytest

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.errors import RoutingError, TelemetryError
from canarykit.model import TrafficSplit
from canarykit.telemetry.envoy import EnvoyTelemetry, in_flight, parse
from canarykit.telemetry.labels import LabelledAnswers
from canarykit.telemetry.logtail import LogTail
from canarykit.telemetry.requests import Request, RequestCounter


def request(number, *, role="stable", code=200, seconds=0.01, start=10.0, flags="", grpc=None):
    """One request as the gateway saw it."""
    return Request(start, role, f"{role}-0", code, seconds, frozenset(flags.split()), grpc)


def counter(*requests):
    """A counter that began at 0 with a quarter to the canary."""
    counting = RequestCounter()
    counting.begin(TrafficSplit(25), 0.0)
    for each in requests:
        counting.add(each)
    return counting


def test_requests_are_counted_by_version_and_outcome():
    """
    5xx and no answer are errors; a 4xx is refused, or denied. Each table counts each request.
    """
    window = counter(
        request(1), request(2, code=404), request(3, role="canary", code=500), request(4, role="canary", code=0),
        request(5, role="canary", code=429),
    ).close(20.0)  # fmt: skip
    assert window.counts["outcome"].tolist() == [[2, 0], [1, 2]]
    assert window.counts["refused"].tolist() == [[1, 1], [3, 0]]
    assert window.counts["denied"].tolist() == [[2, 0], [2, 1]]
    assert window.requests == (2, 3)
    assert (window.start, window.end, window.split.canary) == (0.0, 20.0, 25.0)


def test_a_quick_failure_is_no_quick_answer():
    """
    Failures do not flatter latency; what never ended is in the top bucket.
    """
    window = counter(
        request(1, code=500, seconds=1e-4), request(2, code=504, seconds=15.0), request(3, seconds=math.nan)
    ).close(1)
    latency = window.counts["latency"][0]
    assert (latency.sum(), latency[-1]) == (2, 2)


def test_what_the_gateway_ended_at_its_limit_is_counted_apart():
    """
    A 504 of its own, and an answer that it cut; a version's own 504, and other faults, are not.
    """
    window = counter(
        request(1, code=504, flags="UT"), request(2, code=504), request(3, role="canary", flags="UT", seconds=math.nan),
        request(4, role="canary", code=503, flags="UF URX"), request(5, role="canary", flags="DC", code=0),
    ).close(1)  # fmt: skip
    assert window.counts["at_limit"].tolist() == [[1, 1], [2, 1]]
    assert window.counts["outcome"].tolist() == [[0, 2], [0, 3]]


NEVER = math.inf


@pytest.mark.parametrize(
    ("kind", "latency", "seen"),
    [
        ("ok", 0.01, {}),
        ("ok", 0.01, {"code": 304}),
        ("refused", None, {"code": 302}),
        ("refused", None, {"code": 422}),
        ("denied", None, {"code": 401}),
        ("failed", None, {"code": 503, "flags": "UC"}),
        ("failed", NEVER, {"code": 504, "flags": "UT"}),
        ("failed", NEVER, {"code": 0, "flags": "DC", "seconds": math.nan}),
        # Broken off after the headers: Envoy says UPE for a body that ends too early, UC, UR or LR for a connection.
        ("failed", None, {"flags": "UPE", "seconds": math.nan}),
        ("failed", None, {"flags": "UC", "seconds": math.nan}),
        ("failed", None, {"flags": "UR"}),
        ("failed", None, {"code": 422, "flags": "UPE", "seconds": math.nan}),
        ("failed", None, {"code": 500, "flags": "UPE", "seconds": math.nan}),
        ("failed", NEVER, {"flags": "UT", "seconds": math.nan}),
        ("failed", NEVER, {"flags": "SI", "seconds": math.nan}),
        ("failed", NEVER, {"seconds": math.nan}),
        # A client that left: a stalled version looks alike. One that was refused has its answer.
        ("failed", NEVER, {"flags": "DC", "seconds": math.nan}),
        ("refused", None, {"code": 400, "flags": "DC", "seconds": math.nan}),
        ("ok", None, {"code": 101, "flags": "DC", "seconds": math.nan}),
        ("ok", None, {"code": 101, "seconds": 3600.0}),
        ("failed", None, {"code": 101, "flags": "UPE", "seconds": 3.0}),
        ("failed", None, {"flags": "UH"}),
        # Envoy's own words to a client that does not send its body: whole, whatever the flags.
        ("refused", None, {"code": 408, "flags": "SI"}),
        # gRPC: the HTTP status is 200.
        ("ok", 0.01, {"grpc": 0}),
        ("failed", None, {"grpc": 13}),
        ("failed", NEVER, {"grpc": 4}),
        ("refused", None, {"grpc": 3}),
        ("denied", None, {"grpc": 16}),
        ("failed", None, {"grpc": 0, "flags": "UR", "seconds": math.nan}),
        ("failed", None, {"code": 503, "grpc": 14}),
    ],
)
def test_what_became_of_a_request(kind, latency, seen):
    """
    Its status says so, or its gRPC status, or that its answer broke off; only whole answers have a duration.
    """
    read = request(1, **seen)
    assert (read.kind, read.latency) == (kind, latency)


@pytest.mark.parametrize(
    ("guardrail", "seen"),
    [
        ("refused requests", {"code": 422, "seconds": 0.002}),
        ("refused requests", {"grpc": 3, "seconds": 0.002}),
        ("denied requests", {"code": 403, "seconds": 0.002}),
        ("error rate", {"grpc": 13, "seconds": 0.002}),
        ("error rate", {"flags": "UPE", "seconds": math.nan}),
    ],
)
def test_a_canary_that_refuses_a_third_of_its_input_fails(guardrail, seen):
    """
    Whatever it says to them, its guardrail fails; those requests are not right, and do not make it look faster.
    """
    rng, counting, labels, number = random.Random(0), RequestCounter(), LabelledAnswers(), 0
    judge = Judge([metrics.error_rate(), metrics.refused(), metrics.denied(), metrics.latency(), metrics.accuracy()])
    counting.begin(TrafficSplit(50), 0.0)
    for second in range(60):
        for _ in range(60):
            number, role = number + 1, rng.choice(("stable", "canary"))
            bad = role == "canary" and rng.random() < 1 / 3
            counting.add(request(number, role=role, **(seen if bad else {"seconds": rng.lognormvariate(-3, 0.3)})))
            labels.take([SimpleNamespace(role=role, right=not bad and rng.random() < 0.95, sent=float(second))])
        judge.update(labels.added_to(counting.close(second + 1.0)))
    words = {verdict.guardrail: verdict.status for verdict in judge.judgement.verdicts}
    assert {name for name, word in words.items() if word == "fail"} == {guardrail, "accuracy"}
    (latency,) = (verdict.comparison for verdict in judge.judgement.verdicts if verdict.guardrail == "p95 latency")
    assert 0.9 < latency.effect < 1.1


def test_requests_under_way_are_those_of_the_weight_in_force():
    """
    Of what the gateway has under way, what was drawn under an earlier weight is left out, until it has ended.
    """
    counting = counter()
    counting.begin(TrafficSplit(50), 100.0, (8, 2))
    assert counting.close(101.0, (9, 5)).in_flight == (1, 3)
    for number in range(3):
        counting.add(request(number, start=99.0))
    assert counting.close(102.0, (9, 5)).in_flight == (4, 3)
    assert counting.close(103.0, (1, 0)).in_flight == (0, 0)
    assert counting.close(104.0, (4, 6)).in_flight == (3, 6)  # so that a wrong guess does not last
    assert counting.close(105.0).in_flight is None


PAGE = """cluster.canary.upstream_rq_active: 3
cluster.canary.upstream_rq_pending_active: 4
cluster.stable.upstream_rq_active: 20
cluster.stable.upstream_rq_pending_active: 0
"""


@pytest.mark.parametrize("page", ["", PAGE.replace("cluster.stable", "cluster.other"), PAGE.replace(": ", " = ")])
def test_a_page_that_does_not_say_what_is_under_way(page):
    """
    Is no answer, not zero.
    """
    assert in_flight(PAGE) == (20, 7)
    assert in_flight(page) is None


def test_an_admin_interface_that_is_gone_hides_no_counts(tmp_path):
    """
    Windows are read without it, and do not say what is under way.
    """

    def gone():
        raise RoutingError("the gateway's admin interface does not answer")

    log = tmp_path / "access.log"
    log.write_text(LINE + "\n")
    telemetry = EnvoyTelemetry(log, reopen=lambda: None, stats=gone)
    telemetry.begin(TrafficSplit(25), 0.0)
    with log.open("a") as file:
        file.write(LINE + "\n")
    window = telemetry.read(1.0)
    assert (window.requests, window.in_flight) == ((0, 1), None)


def test_a_window_without_a_request_says_so():
    """
    Nothing reached the gateway.
    """
    assert counter(request(1)).close(1).note == ""
    assert counter().close(1).note == "no request reached the gateway"


def test_requests_of_an_earlier_weight_are_left_out_and_counted_as_such():
    """
    A request that began before the weight was in force is evidence of another split.
    """
    counting = counter(request(1))
    counting.begin(TrafficSplit(50), 100.0)
    counting.add(request(2, start=99.9))
    counting.add(request(3, start=100.1))
    window = counting.close(101.0)
    assert (window.requests, window.left_out, window.split.canary) == ((1, 0), 2, 50.0)


def test_replicas_are_counted_apart():
    """
    The latency and the failures of each replica are kept: instances are not versions.
    """
    window = counter(request(1), request(2, role="canary", code=500), Request(1.0, "canary", "", 200, 0.1, "x")).close(1)
    assert {name: int(cells.sum()) for name, cells in window.instances["latency"].items()} == {
        "stable-0": 1,
        "canary-unknown": 1,
    }
    assert {name: cells.tolist() for name, cells in window.instances["outcome"].items()} == {
        "stable-0": [1, 0],
        "canary-0": [0, 1],
    }


LINE = "1750000000.123456\tsplit\tcanary\tcanary-1\t200\t-\t-\t4321\tabc-7"


def test_a_line_of_the_access_log_reads_as_written():
    """
    Microseconds and all; the id comes last and may hold anything.
    """
    read = parse(LINE + "\twith a tab")
    assert read == Request(1750000000.123456, "canary", "canary-1", 200, 0.004321)
    assert parse(LINE.replace("split", "forced")) is None
    cut = parse(LINE.replace("-\t-\t4321", "UF,URX\t14\t-"))
    assert (cut.flags, cut.grpc, math.isnan(cut.seconds)) == ({"UF", "URX"}, 14, True)


@pytest.mark.parametrize(
    "line", ["", "one\ttwo", LINE.replace("\tcanary\t", "\tother\t"), LINE.replace("4321", "soon"), LINE.replace("200", "OK")]
)
def test_a_strange_line_is_an_error(line):
    """
    A line that the gateway was not told to write is reported, not skipped.
    """
    with pytest.raises(TelemetryError, match="access log"):
        parse(line)


def test_telemetry_reads_only_what_is_new(tmp_path):
    """
    Each line counts once, half lines wait for their end, and a log that is gone says so.
    """
    log = tmp_path / "access.log"
    telemetry = EnvoyTelemetry(log, reopen=lambda: None, stats=lambda: "")
    telemetry.begin(TrafficSplit(25), 0.0)
    assert telemetry.read(1.0).requests == (0, 0)
    log.write_text(LINE + "\n" + LINE[:20])
    assert telemetry.read(2.0).requests == (0, 1)
    with log.open("a") as file:
        file.write(LINE[20:] + "\n")
    assert telemetry.read(3.0).requests == (0, 1)
    assert telemetry.read(4.0).requests == (0, 0)


def test_a_growing_log_is_rotated_and_no_line_is_lost(tmp_path):
    """
    The file is moved away and the writer opens a new one; lines written meanwhile are read.
    """
    log = tmp_path / "access.log"
    files = [log.open("a")]

    def reopen():
        files[-1].write("late\n")
        files[-1].flush()
        files.append(log.open("a"))

    tail = LogTail(log, reopen, rotate_at=40)
    read = []
    for number in range(50):
        files[-1].write(f"line {number}\n")
        files[-1].flush()
        read += tail.lines()
    read += tail.lines()
    rotations = len(files) - 1
    assert rotations >= 1
    assert sorted(read) == sorted([f"line {number}" for number in range(50)] + ["late"] * rotations)
    assert [path.name for path in tmp_path.iterdir()] == ["access.log"]
    for file in files:
        file.close()


def test_counts_are_integers():
    """
    Windows hold whole numbers.
    """
    assert all(np.issubdtype(table.dtype, np.integer) for table in counter(request(1)).close(1).counts.values())
