"""Scrapes every 15, 30 or 60 s: the interval is known, shown, and waited for."""

import json
import time

import pytest
from telemetry_doubles import Prometheus

from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.prometheus_api import seconds_of


@pytest.fixture
def prometheus():
    """A double of Prometheus' API, which does not tell its targets."""
    made = Prometheus()
    yield made
    made.close()


def targets(**intervals):
    """What Prometheus says of its targets: stable's, the canary's, and another's."""
    found = [
        {"labels": {"job": "pods", "instance": f"{role}-0", "role": role}, "scrapeInterval": interval, "health": "up"}
        for role, interval in intervals.items()
    ]
    other = {"labels": {"job": "nodes", "instance": "n", "role": "node"}, "scrapeInterval": "5m"}
    return 200, json.dumps({"status": "success", "data": {"activeTargets": [other, *found], "droppedTargets": []}})


def telemetry_of(prometheus):
    """Telemetry that has not begun."""
    return PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", {role: {"role": role} for role in ROLES})


@pytest.mark.parametrize("said", [True, False], ids=["told", "not told"])
@pytest.mark.parametrize("phase", [0.0, 0.8])
@pytest.mark.parametrize("interval", [15, 30, 60, 120])
def test_every_interval_gives_equal_spans_from_the_first_window_on(prometheus, interval, phase, said):
    """
    Ten requests per second each: no window has more of one version, none is late, and none is left out.
    """
    since = round(time.time()) - 12.0 * interval
    for number in range(-8, 12):
        for role, later in (("stable", 0.1), ("canary", 0.1 + phase)):
            at = (number + later) * interval
            prometheus.scrape(since + at, role, round(10 * (at + 10 * interval)))
    if said:
        prometheus.targets = targets(stable=f"{interval}s", canary=f"{interval}s")
    real = prometheus.series

    def clip(now):
        prometheus.series = {key: [value for value in values if value[0] <= now] for key, values in real.items()}

    telemetry, windows = telemetry_of(prometheus), []
    clip(since)
    telemetry.begin(TrafficSplit(50), since)
    assert telemetry.sources["scrape interval"] == f"{interval} s"
    for look in range(1, 60):
        clip(since + look * interval / 5)
        windows.append(telemetry.read(since + look * interval / 5))
    counted = [window for window in windows if window.counts]
    assert counted[0].end <= since + (2 + phase) * interval
    assert [window.apart for window in counted] == pytest.approx([phase * interval] * len(counted))
    assert all(abs(stable - canary) <= 1 for stable, canary in (window.requests for window in counted))
    assert sum(window.requests[0] for window in counted) >= 10 * 9 * interval
    assert telemetry.delay == pytest.approx(interval * (1 + phase) + 1)


@pytest.mark.parametrize(
    "answer",
    [
        (403, "forbidden"),
        (404, ""),
        (200, "<html>"),
        (200, '{"data": {"activeTargets": null}}'),
        (200, '{"data": {"activeTargets": []}}'),
        (503, "starting"),
    ],
)
def test_who_does_not_tell_its_targets_is_measured(prometheus, answer):
    """
    Thanos and Mimir have no targets, and a proxy may refuse them: the samples say the interval, without a word.
    """
    since = round(time.time()) - 200.0
    for number in range(8):
        prometheus.scrape(since - 30 * number, "stable", 1000 - number)
    prometheus.targets = answer
    telemetry = telemetry_of(prometheus)
    telemetry.begin(TrafficSplit(50), since)
    assert telemetry.sources["scrape interval"] == "30 s"


def test_a_missed_scrape_makes_no_interval_longer(prometheus):
    """
    The interval was measured when counting began: a gap later is a gap.
    """
    since = round(time.time()) - 300.0
    for at in (*range(-300, 31, 15), 75, 90):
        for role in ROLES:
            prometheus.scrape(since + at, role, 1000 + at)
    telemetry = telemetry_of(prometheus)
    telemetry.begin(TrafficSplit(50), since)
    for now in (35, 80, 95):
        telemetry.read(since + now)
        assert telemetry.sources["scrape interval"] == "15 s"


def test_an_interval_is_known_before_the_first_scrape(prometheus):
    """
    Nothing was scraped yet, and targets are 60 s apart: what a pod had counted before its first scrape is in no window.
    """
    since = round(time.time()) - 400.0
    prometheus.targets = targets(stable="1m", canary="1m")
    telemetry = telemetry_of(prometheus)
    telemetry.begin(TrafficSplit(50), since)
    assert telemetry.sources["scrape interval"] == "60 s"
    for number in range(3):
        prometheus.scrape(since + 20 + 60 * number, "stable", 9000 + 60 * number)
        prometheus.scrape(since + 50 + 60 * number, "canary", 7000 + 60 * number)
    assert telemetry.read(since + 175).requests == (120, 120)


def test_where_targets_differ_the_longest_interval_is_waited_for(prometheus):
    """
    Stable every 15 s, the canary every minute: spans are equal to within a scrape of stable.
    """
    since = round(time.time()) - 600.0
    prometheus.targets = targets(stable="15s", canary="1m")
    for role, interval in (("stable", 15), ("canary", 60)):
        for at in range(-300, 600, interval):
            prometheus.scrape(since + at + 1, role, 10 * (at + 400))
    real, telemetry, counted = prometheus.series, telemetry_of(prometheus), []
    telemetry.begin(TrafficSplit(50), since)
    assert telemetry.sources["scrape interval"] == "60 s"
    for now in range(5, 600, 5):
        prometheus.series = {key: [value for value in values if value[0] <= since + now] for key, values in real.items()}
        window = telemetry.read(since + now)
        counted += [window.requests] if window.counts else []
    assert len(counted) > 5
    assert all(abs(stable - canary) <= 150 for stable, canary in counted)


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15.0), ("1m", 60.0), ("1m30s", 90.0), ("500ms", 0.5), ("1h", 3600.0), ("", None), (15, None)]
)
def test_durations_are_read_as_prometheus_writes_them(text, seconds):
    """
    Numbers with units, one after the other; anything else is unknown.
    """
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(("interval", "seconds"), [("15s", 15), ("30s", 30), ("1m", 60)])
def test_power_rounds_up_to_scrapes(prometheus, interval, seconds):
    """
    What a question costs comes in whole scrapes, after the one that says where counting begins. Prometheus says how long.
    """
    from click.testing import CliRunner

    from canarykit.cli import main

    prometheus.targets = targets(stable=interval, canary=interval)
    asked = ["power", "--rate", "1000/s", "--weight", "50", "--base", "0.01", "--effect", "2", "--json"]
    plain, by_hand, read = (
        CliRunner().invoke(main, [*asked, *more])
        for more in ([], ["--scrape-interval", f"{seconds}s"], ["--prometheus", f"http://{prometheus.url}"])
    )
    at_once = json.loads(plain.output)["steps"][0]["seconds"]
    assert 0 < at_once < 15
    assert json.loads(by_hand.output)["steps"][0]["seconds"] == 2 * seconds
    assert json.loads(read.output) == json.loads(by_hand.output)
    assert f"every {seconds} s" in json.loads(read.output)["question"]


def test_power_asks_for_the_interval_that_a_prometheus_does_not_tell(prometheus):
    """
    Thanos and Mimir do not say how often they are fed: the option is named, and two answers to one question are refused.
    """
    from click.testing import CliRunner

    from canarykit.cli import main

    asked = ["power", "--rate", "10/s", "--base", "0.01", "--effect", "2", "--prometheus", f"http://{prometheus.url}"]
    untold = CliRunner().invoke(main, asked)
    assert untold.exit_code != 0
    assert "--scrape-interval" in untold.output
    twice = CliRunner().invoke(main, [*asked, "--scrape-interval", "30s"])
    assert twice.exit_code == 2
    assert "give one of them" in twice.output
