"""Lines of a metrics page: exemplars, times, comments, and label values that look like any of these."""

import pytest
from telemetry_doubles import page

from canarykit.errors import TelemetryError
from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.catalogue import EXPOSITIONS
from canarykit.telemetry.page import page_of
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry

ENTRY = EXPOSITIONS["fastapi"]
EXEMPLARS = [
    '# {trace_id="a1"} 2',
    '# {trace_id="a1"} 2 1700000000.123',
    "# {} 0.7",
    '# {trace_id="a1",span_id="b } # {c=\\"1\\"} 9"} 0.67 1.7e9',
    '1700000000123 # {trace_id="a1"} 2',
    "1700000000.5",
]


def totals_of(text, known=None):
    """What a page counts, by what and edge or status."""
    totals = page_of(text, ENTRY, "stable", "pod", known).totals
    return {(series.what, dict(series.rest).get("le") or dict(series.rest).get("status")): n for series, n in totals.items()}


@pytest.mark.parametrize("after", EXEMPLARS)
def test_what_follows_the_number_is_no_count(after):
    """
    Nothing has happened between two reads, whatever exemplar or time a line ends with, on counters as on buckets.
    """
    text = (
        f'http_requests_total{{status="200"}} 100 {after}\n'
        f'http_request_duration_seconds_bucket{{le="5"}} 100 {after}\n'
        'http_request_duration_seconds_bucket{le="+Inf"} 100\n'
    )
    source = ScrapeTelemetry(lambda: [Replica(role, role, lambda: text) for role in ROLES], "fastapi")
    source.begin(TrafficSplit(50), 0.0)
    assert source.read(1.0).requests == (0, 0)
    known = {}
    for number in (100, 105):
        found = totals_of(text.replace(" 100", f" {number}"), known)
        assert found == {("requests", "200"): number, ("latency", "5"): number, ("latency", "+Inf"): number}


def test_a_page_of_openmetrics_is_read_as_any_other():
    """
    Counters end in _total, the times of their creation are no counts, and the page ends with a mark.
    """
    text = """# TYPE http_requests counter
# UNIT http_requests requests
http_requests_total{status="2xx"} 12.0 # {trace_id="a"} 1.0
http_requests_created{status="2xx"} 1.7e9
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.1"} 7 # {trace_id="KOO5S4vxi0o"} 0.067 1520879607.789
http_request_duration_seconds_bucket{le="+Inf"} 12
http_request_duration_seconds_count 12
http_request_duration_seconds_sum 3.2
http_request_duration_seconds_created 1.7e9
# EOF
"""
    assert totals_of(text) == {("requests", "2xx"): 12, ("latency", "0.1"): 7, ("latency", "+Inf"): 12}


@pytest.mark.parametrize(
    "value", ["a b", 'say \\"5\\"', "} 7", "x # {y} 3", "back\\\\", "{", "one\u2028two", "one\u0085two", "tab\there", "#"]
)
def test_label_values_may_hold_anything(value):
    """
    A value that looks like the end of the labels, or like an exemplar, is a value; so is one with a line's other ends.
    """
    labels = (f'handler="{value}",status="2xx"', f'status="5xx",handler="{value}"')
    text = f"http_requests_total{{{labels[0]}}} 4\nhttp_requests_total{{{labels[1]}}} 1 # {{}} 9\n"
    known = {}
    for _ in range(2):
        assert totals_of(text, known) == {("requests", "2xx"): 4, ("requests", "5xx"): 1}


@pytest.mark.parametrize(
    "text", ['http_requests_total { status="2xx" } 4', 'http_requests_total{status="2xx"}\t4', "a 1\r\n" * 2]
)
def test_spaces_and_other_ends_of_lines_are_allowed(text):
    """
    The format allows spaces and tabs between its parts, and carriage returns.
    """
    assert totals_of(text) == ({("requests", "2xx"): 4} if "requests" in text else {})


@pytest.mark.parametrize("line", ["a", 'a{b="c"}', 'a{b="c} 5', "a 5 6 7", 'a{b="c"} five', "a5"])
def test_a_line_that_is_none_is_an_error(line):
    """
    What has no number, no end, or one number too many is refused with the name of the replica.
    """
    with pytest.raises(TelemetryError, match="the metrics page of pod cannot be read"):
        page_of(line, ENTRY, "stable", "pod")


def test_a_page_says_when_its_process_started():
    """
    One start time is that of the process; of several, nobody knows whose counters these are.
    """
    start = "process_start_time_seconds 1.7000000005e+09\n"
    assert page_of(page(3) + start, ENTRY, "stable", "pod").started == 1700000000.5
    assert page_of(page(3), ENTRY, "stable", "pod").started is None
    two = start + 'process_start_time_seconds{process="worker"} 1.7e9\n'
    assert page_of(page(3) + two, ENTRY, "stable", "pod").started is None
