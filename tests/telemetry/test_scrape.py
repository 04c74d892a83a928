"""Counts read from the pages of replicas."""

import random
import re
from unittest.mock import Mock

import pytest
from telemetry_doubles import Fleet, page

from canarykit.analysis.checks import SplitCheck
from canarykit.errors import ClusterError, ForbiddenError, TelemetryError
from canarykit.model import TrafficSplit
from canarykit.telemetry.catalogue import EXPOSITIONS
from canarykit.telemetry.page import page_of
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry


@pytest.fixture
def fleet():
    """One replica each, that have served before."""
    return Fleet(stable_0=page(100, 2, slow=10), canary_0=page(50))


@pytest.fixture
def telemetry(fleet):
    """Counts from now on, a quarter to the canary."""
    made = ScrapeTelemetry(fleet)
    made.begin(TrafficSplit(25), 10.0)
    return made


def test_a_window_holds_what_pages_have_grown_by(fleet, telemetry):
    """
    What was served before counting began is in no window, and every request is in one.
    """
    fleet.pages |= {"stable_0": page(107, 3, slow=11), "canary_0": page(52, slow=1)}
    window = telemetry.read(20.0)
    assert window.counts["outcome"].tolist() == [[7, 1], [2, 0]]
    assert window.counts["latency"].tolist() == [[6, 1], [1, 1]]
    assert {name: cells.tolist() for name, cells in window.instances["latency"].items()} == {
        "stable-stable-0": [6, 1],
        "canary-canary-0": [1, 1],
    }
    assert (window.start, window.end) == (10.0, 20.0)
    assert telemetry.read(30.0).requests == (0, 0)


def test_a_replica_that_cannot_be_read_empties_a_window_and_loses_nothing(fleet, telemetry):
    """
    The counts of one version alone would look like a split that lies: nothing is told until all can be read.
    """
    fleet.pages |= {"stable_0": page(110, 2, slow=10), "canary_0": ConnectionError("refused")}
    silent = telemetry.read(20.0)
    assert (silent.counts, silent.note) == ({}, "canary-0 cannot be read: refused")
    fleet.pages |= {"stable_0": page(115, 2, slow=10), "canary_0": page(57)}
    assert telemetry.read(30.0).requests == (15, 7)


def test_a_replica_that_cannot_be_read_at_a_new_weight_delays_counting(fleet, telemetry):
    """
    What it counted meanwhile may be of the old weight, and so it is in no window.
    """
    fleet.pages["canary_0"] = TimeoutError("timed out")
    telemetry.begin(TrafficSplit(50), 20.0)
    fleet.pages |= {"stable_0": page(180, 2, slow=10), "canary_0": page(70)}
    late = telemetry.read(30.0)
    assert (late.counts, late.note) == ({}, "a replica could not be read when the weight was changed: counting begins here")
    fleet.pages |= {"stable_0": page(181, 2, slow=10)}
    assert telemetry.read(40.0).requests == (1, 0)


@pytest.mark.parametrize("away", [ClusterError("the API server is away"), TelemetryError("no page")])
def test_pods_that_cannot_even_be_found_at_a_new_weight_delay_counting(fleet, away):
    """
    The weight has changed by then, so that an error would come too late; the first time it is one.
    """
    out = []

    def replicas():
        if out:
            raise out[0]
        return fleet()

    out.append(away)
    telemetry = ScrapeTelemetry(replicas)
    with pytest.raises(type(away)):
        telemetry.begin(TrafficSplit(0), 10.0)
    out.clear()
    telemetry.begin(TrafficSplit(25), 10.0)
    out.append(away)
    telemetry.begin(TrafficSplit(0), 20.0)
    out.clear()
    fleet.pages |= {"stable_0": page(180, 2, slow=10), "canary_0": page(70)}
    late = telemetry.read(30.0)
    assert (late.counts, late.split) == ({}, TrafficSplit(0))
    assert "counting begins here" in late.note
    fleet.pages |= {"stable_0": page(181, 2, slow=10)}
    assert telemetry.read(40.0).requests == (1, 0)


class Served:
    """Pods that answer so many requests per second, each after some time, by the weight at which it came."""

    def __init__(self, rate, seconds, weights):
        draw, self._seconds = random.Random(0), seconds
        self._requests = []
        for number in range(int(rate * 100)):
            came = number / rate
            share = next(weight for since, weight in reversed(weights) if came >= since) / 100
            self._requests.append((came + seconds * draw.uniform(0.7, 1.3), "canary" if draw.random() < share else "stable"))
        self.now = 0.0

    def __call__(self):
        return [Replica(role, f"{role}-0", lambda role=role: self._page(role)) for role in ("stable", "canary")]

    def _page(self, role):
        count = sum(ended <= self.now and who == role for ended, who in self._requests)
        buckets = [f'canarykit_request_duration_seconds_bucket{{le="{edge}"}}' for edge in ("0.01", "0.1", "1", "8", "+Inf")]
        slowest = next(n for n, edge in enumerate((0.01, 0.1, 1, 8, 1e9)) if 1.3 * self._seconds <= edge)
        lines = [f"{bucket} {count if number >= slowest else 0}" for number, bucket in enumerate(buckets)]
        return "\n".join([f'canarykit_requests_total{{code="200"}} {count}', *lines]) + "\n"


@pytest.mark.parametrize(("seconds", "left_out"), [(0.005, 0), (0.07, 0), (5.0, 8.0)])
@pytest.mark.parametrize("every", [1.0, 5.0])
def test_slow_answers_are_no_split_that_lies(seconds, left_out, every):
    """
    From 5 to 50 %: what comes to its end then was drawn at 5 %. It is in no window, and quick answers are in all.
    """
    service = Served(60, seconds, [(0, 5), (30, 50)])
    telemetry, check, windows = ScrapeTelemetry(service), SplitCheck(), []
    telemetry.begin(TrafficSplit(5), 0.0)
    while service.now < 90:
        service.now += every
        windows.append(telemetry.read(service.now))
        check.update(windows[-1])
        assert check.alarm is None
        if service.now == 30:
            telemetry.begin(TrafficSplit(50), 30.0)
    empty = [window for window in windows if not window.counts]
    assert all(30 <= window.start < 30 + left_out for window in empty)
    assert bool(empty) is bool(left_out)
    assert all("earlier weight" in window.note and window.left_out for window in empty)


def test_pods_come_go_and_restart(fleet, telemetry):
    """
    A new pod counts from zero, a pod that is gone counts no more, and a restarted one begins anew.
    """
    fleet.pages = {"stable_0": page(4, 0), "canary_1": page(9)}
    assert telemetry.read(20.0).counts["outcome"].tolist() == [[4, 0], [9, 0]]
    fleet.pages = {"stable_0": page(4, 0), "canary_1": page(9), "canary_0": page(7)}
    assert telemetry.read(30.0).requests == (0, 7)  # of the same name, and yet another pod


def counted(fleet, telemetry, name, *pages):
    """Outcomes of the canary with each page; None is a pod that is not listed."""
    said = []
    for second, text in enumerate(pages, start=11):
        fleet.pages = {**fleet.pages, name: text} if text is not None else {k: v for k, v in fleet.pages.items() if k != name}
        window = telemetry.read(float(second))
        said.append(window.counts["outcome"][1].tolist() if window.counts else window.note)
    return said


@pytest.mark.parametrize("away", [1, 3, 600])
def test_a_pod_that_some_listings_lack_is_counted_once(fleet, telemetry, away):
    """
    The kubelet says for a moment that it has not started: what it has counted before is no growth when it is back.
    """
    said = counted(fleet, telemetry, "canary_0", page(60), *[None] * away, page(63), page(64))
    assert said == [[10, 0], *[[0, 0]] * away, [3, 0], [1, 0]]


@pytest.mark.parametrize("empty", ["", "# HELP other Of another.\n", "python_info 1\n", "process_start_time_seconds 5\n"])
def test_a_page_that_has_lost_all_counters_is_a_page_that_cannot_be_read(fleet, empty):
    """
    Silence is not zero, and what was counted before is not counted again when the counters are back.
    """
    start = "process_start_time_seconds 5\n"
    fleet.pages = {"stable_0": start + page(9), "canary_0": start + page(5000, 50)}
    telemetry = ScrapeTelemetry(fleet)
    telemetry.begin(TrafficSplit(25), 10.0)
    lost, back, later = counted(fleet, telemetry, "canary_0", empty, start + page(5003, 50), start + page(5004, 51))
    assert lost == "canary-0 shows no canarykit_requests_total any more: its page is empty, or is another server's"
    assert (back, later) == ([3, 0], [1, 1])


def test_a_restarted_process_without_requests_has_no_counters_yet(fleet):
    """
    Counters with labels are there from the first request on; a later start time says that this is no lost page.
    """
    fleet.pages = {name: "process_start_time_seconds 5\n" + page(5000) for name in ("stable_0", "canary_0")}
    telemetry = ScrapeTelemetry(fleet)
    telemetry.begin(TrafficSplit(25), 10.0)
    fresh = "process_start_time_seconds 11\n"
    said = counted(fleet, telemetry, "canary_0", fresh, fresh, fresh + page(30, 2))
    assert said == [[0, 0], [0, 0], [30, 2]]


@pytest.mark.parametrize("lacking", [page(5002), page(5002).partition("# TYPE canarykit_request_duration")[0]])
def test_a_series_that_one_page_lacks_has_not_begun_anew(fleet, lacking):
    """
    One kind of status, or the histogram, is missing once: none of it is counted again.
    """
    fleet.pages = {"stable_0": page(9), "canary_0": page(5000, 50)}
    telemetry = ScrapeTelemetry(fleet)
    telemetry.begin(TrafficSplit(25), 10.0)
    fleet.pages["canary_0"] = lacking
    telemetry.read(11.0)
    fleet.pages["canary_0"] = page(5003, 51)
    window = telemetry.read(12.0)
    assert window.counts["outcome"][1].tolist() == [1, 1]
    assert window.counts["latency"][1].sum() <= 3


def test_a_pod_that_is_away_at_a_new_weight_begins_with_its_next_page(fleet, telemetry):
    """
    What it counted meanwhile may be of the weight of before; the other pods are counted as usual.
    """
    fleet.pages = {"stable_0": page(110, 2)}
    telemetry.begin(TrafficSplit(50), 20.0)
    fleet.pages = {"stable_0": page(111, 2), "canary_0": page(60)}
    assert telemetry.read(21.0).requests == (1, 0)
    fleet.pages = {"stable_0": page(111, 2), "canary_0": page(62)}
    assert telemetry.read(22.0).requests == (0, 2)


def test_no_replica_is_no_data(fleet, telemetry):
    """
    Nobody there to be asked: an empty window that says so.
    """
    fleet.pages = {}
    window = telemetry.read(20.0)
    assert (window.requests, window.note) == ((0, 0), "no request was counted in canarykit_requests_total")


UNREADABLE = {
    "<html>not found</html>": "the metrics page of canary-0 cannot be read",
    page(51).replace(" 51", " many", 1): "the metrics page of canary-0 cannot be read",
    page(51).rpartition("_bucket")[0]: "the metrics page of canary-0 cannot be read",
    page(51, total="NaN"): "canary-0 counts nan requests: a count is a whole number",
    page(51, total="-1"): "canary-0 counts -1.0 requests: a count is a whole number",
    page(51, total="2.5"): "canary-0 counts 2.5 requests: a count is a whole number",
    page(51, 0, slow=-9): "the latency buckets of canary-0 are not cumulative",
    'canarykit_requests_total{pod="x"} 3\n': "has no label code with a status",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_page_that_is_none_empties_windows_and_loses_nothing(fleet, telemetry, text):
    """
    One page that is cut off, or another server's, ends no rollout: the window says what it is, and the next one has all.
    NaN is not silence, and never a zero.
    """
    fleet.pages |= {"stable_0": page(107, 2, slow=10), "canary_0": text}
    for now in (20.0, 21.0):
        window = telemetry.read(now)
        assert window.counts == {}
        assert UNREADABLE[text] in window.note
    fleet.pages["canary_0"] = page(55, 1)
    assert telemetry.read(30.0).counts["outcome"].tolist() == [[7, 0], [5, 1]]


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_page_that_is_none_is_an_error_at_the_beginning(fleet, text):
    """
    Nothing was read so far, and before traffic moves is the time to say so.
    """
    fleet.pages["canary_0"] = text
    with pytest.raises(TelemetryError, match=re.escape(UNREADABLE[text])):
        ScrapeTelemetry(fleet).begin(TrafficSplit(5), 10.0)


@pytest.mark.parametrize("away", [ClusterError("listing pods failed: 500"), TelemetryError("no page"), ForbiddenError("403")])
def test_pods_that_cannot_be_listed_for_a_moment_empty_a_window(fleet, telemetry, away):
    """
    An API server that restarts ends no rollout; nothing is lost.
    """
    real, telemetry._replicas = telemetry._replicas, Mock(side_effect=away)
    window = telemetry.read(20.0)
    assert (window.counts, window.note) == ({}, str(away))
    telemetry._replicas = real
    fleet.pages["canary_0"] = page(57)
    assert telemetry.read(30.0).requests == (0, 7)


def test_only_ours_is_read_of_a_page():
    """
    Sums, counts and the counters of others are left where they are.
    """
    totals = page_of(page(3, 1, slow=1), EXPOSITIONS["canarykit"], "stable", "pod").totals
    assert sorted((s.what, s.kind, s.edge, total) for s, total in totals.items()) == [
        ("latency", "ok", 0.1, 2.0),
        ("latency", "ok", float("inf"), 3.0),
        ("requests", "failed", -1.0, 1.0),
        ("requests", "ok", -1.0, 3.0),
    ]


def test_a_line_that_is_known_is_read_as_the_parser_reads_it():
    """
    What is remembered of a page are its lines but for the numbers; one that ends with a time is never remembered.
    """
    entry, known = EXPOSITIONS["canarykit"], {}
    first, then = page(3, 1, slow=1), page(70, 4, slow=9)
    for text in (first, then):
        assert page_of(text, entry, "stable", "pod", known) == page_of(text, entry, "stable", "pod")
    size = len(known)
    timed = "\n".join(f"{line} 17{number}" for number, line in enumerate(then.splitlines()) if not line.startswith("#"))
    assert page_of(timed, entry, "stable", "pod", known) == page_of(then, entry, "stable", "pod")
    assert len(known) == size
    with pytest.raises(TelemetryError, match="the metrics page of pod cannot be read"):
        page_of(first.replace(" 3", " three"), entry, "stable", "pod", known)
    with pytest.raises(TelemetryError, match="the metrics page of pod cannot be read"):
        page_of("nothing", entry, "stable", "pod", known)
