"""From single requests to a window."""

import math

import numpy as np
import pytest

from canarykit.errors import TelemetryError
from canarykit.model import TrafficSplit
from canarykit.telemetry.envoy import EnvoyTelemetry, parse
from canarykit.telemetry.logtail import LogTail
from canarykit.telemetry.requests import Request, RequestCounter


def request(number, *, role="stable", code=200, seconds=0.01, start=10.0):
    """One request as the gateway saw it."""
    return Request(start, role, f"{role}-0", code, seconds, f"r-{number}")


def counter(*requests):
    """A counter that began at 0 with a quarter to the canary."""
    counting = RequestCounter()
    counting.begin(TrafficSplit(25), 0.0)
    for each in requests:
        counting.add(each)
    return counting


def test_requests_are_counted_by_version_and_outcome():
    """
    5xx and no answer are errors; a 4xx is the client's own doing.
    """
    window = counter(
        request(1), request(2, code=404), request(3, role="canary", code=500), request(4, role="canary", code=0)
    ).close(20.0)
    assert window.counts["outcome"].tolist() == [[2, 0], [0, 2]]
    assert window.requests == (2, 2)
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


def test_labels_join_by_id_in_any_order():
    """
    The label may come before or after the gateway's line, and in another window.
    """
    counting = counter()
    counting.label([("r-1", True)])
    counting.add(request(1, role="canary"))
    counting.add(request(2))
    assert counting.close(1).counts["answers"].tolist() == [[0, 0], [1, 0]]
    counting.label([("r-2", False)])
    assert counting.close(2).counts["answers"].tolist() == [[0, 1], [0, 0]]


def test_a_label_counts_once():
    """
    The same label twice, or a label without a request, counts no answer.
    """
    counting = counter(request(1))
    counting.label([("r-1", True), ("r-1", True), ("nobody", True)])
    assert counting.close(1).counts["answers"].sum() == 1


def test_without_labels_there_is_no_table_of_answers():
    """
    Missing labels are missing, not zero, and the note says so.
    """
    window = counter(request(1)).close(1)
    assert "answers" not in window.counts
    assert "no labels" in window.note
    assert "no request" in counter().close(1).note


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
    The latency of each replica is kept: instances are not versions.
    """
    window = counter(request(1), request(2, role="canary"), Request(1.0, "canary", "", 200, 0.1, "x")).close(1)
    assert {name: int(cells.sum()) for name, cells in window.instances.items()} == {
        "stable-0": 1,
        "canary-0": 1,
        "canary-unknown": 1,
    }


LINE = "1750000000.123456\tsplit\tcanary\tcanary-1\t200\t-\t4321\tabc-7"


def test_a_line_of_the_access_log_reads_as_written():
    """
    Microseconds and all; the id comes last and may hold anything.
    """
    read = parse(LINE + "\twith a tab")
    assert read == Request(1750000000.123456, "canary", "canary-1", 200, 0.004321, "abc-7\twith a tab")
    assert parse(LINE.replace("split", "forced")) is None
    assert math.isnan(parse(LINE.replace("4321", "-")).seconds)


@pytest.mark.parametrize("line", ["", "one\ttwo", LINE.replace("\tcanary\t", "\tother\t")])
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
    telemetry = EnvoyTelemetry(log, reopen=lambda: None)
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
