"""What every source of counts keeps to, whichever it is."""

import math
import time

import pytest
from telemetry_doubles import Fleet, Prometheus, page

from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.envoy import EnvoyTelemetry
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.scrape import ScrapeTelemetry

SINCE = round(time.time()) - 200.0


class Gateway:
    """Writes an access log, as the local gateway does."""

    def __init__(self, folder):
        self.log, self._written = folder / "access.log", 0
        self.telemetry = EnvoyTelemetry(self.log, reopen=lambda: None, stats=lambda: "")

    def serve(self, stable, canary):
        """Answer so many requests of each version."""
        with self.log.open("a") as log:
            for role, count in (("stable", stable), ("canary", canary)):
                for _ in range(count):
                    self._written += 1
                    log.write(f"{SINCE + 5:.6f}\tsplit\t{role}\t{role}-0\t200\t-\t-\t1000\tr-{self._written}\n")

    def close(self):
        """Nothing is open."""


class Pages:
    """Replicas that write metrics pages."""

    def __init__(self, folder):
        self._served = {"stable_0": 100, "canary_0": 50}
        self._fleet = Fleet(**{name: page(count) for name, count in self._served.items()})
        self.telemetry = ScrapeTelemetry(self._fleet)

    def serve(self, stable, canary):
        """Answer so many requests of each version."""
        for name, count in (("stable_0", stable), ("canary_0", canary)):
            self._served[name] += count
            self._fleet.pages[name] = page(self._served[name])

    def close(self):
        """Nothing is open."""


class Scraped:
    """Replicas that a Prometheus scrapes every 15 s."""

    def __init__(self, folder):
        self._prometheus, self._served, self._at = Prometheus(), {"stable": 100, "canary": 50}, SINCE - 29
        for _ in range(3):
            self.serve(0, 0)
        self.telemetry = PrometheusTelemetry(
            f"http://{self._prometheus.url}", "canarykit", {role: {"role": role} for role in ROLES}
        )

    def serve(self, stable, canary):
        """Answer so many requests of each version, until the next scrape."""
        for role, count in (("stable", stable), ("canary", canary)):
            self._served[role] += count
            self._prometheus.scrape(self._at, role, self._served[role])
        self._at += 15

    def close(self):
        """End the double."""
        self._prometheus.close()


@pytest.fixture(params=[Gateway, Pages, Scraped])
def source(request, tmp_path):
    """A source of counts that has served before, and counts from now on."""
    made = request.param(tmp_path)
    made.telemetry.begin(TrafficSplit(25), SINCE)
    yield made
    made.close()


def test_windows_follow_each_other_and_hold_each_request_once(source):
    """
    The first begins with the weight, each next one where the last ended; all carry the split.
    """
    source.serve(9, 4)
    first = source.telemetry.read(SINCE + 31)
    source.serve(3, 0)
    second = source.telemetry.read(SINCE + 46)
    assert [window.counts["outcome"].tolist() for window in (first, second)] == [[[9, 0], [4, 0]], [[3, 0], [0, 0]]]
    assert [window.counts["latency"].sum(axis=1).tolist() for window in (first, second)] == [[9, 4], [3, 0]]
    assert (first.start, first.end, second.start, second.end) == (SINCE, SINCE + 31, SINCE + 31, SINCE + 46)
    assert {first.split, second.split} == {TrafficSplit(25)}


def test_each_table_of_outcomes_counts_every_request_once(source):
    """
    Of whatever it says that it can notify: failed, refused and denied requests are each a share of all.
    """
    source.serve(9, 4)
    window = source.telemetry.read(SINCE + 31)
    told = source.telemetry.tables & {"outcome", "refused", "denied"}
    assert "outcome" in told
    assert {tuple(window.counts[table].sum(axis=1)) for table in told} == {(9, 4)}


def test_a_new_weight_starts_from_nothing(source):
    """
    What was served under the old weight and not read yet is in no window of the new one.
    """
    source.serve(9, 4)
    source.telemetry.begin(TrafficSplit(50), SINCE + 20)
    window = source.telemetry.read(SINCE + 21)
    assert (window.requests, window.split.canary, window.start) == ((0, 0), 50.0, SINCE + 20)
    assert window.note


def test_it_says_when_where_and_in_which_buckets(source):
    """
    A delay to wait for, edges that rise to infinity or are the kit's own, and sources in words.
    """
    source.serve(1, 1)
    source.telemetry.read(SINCE + 31)
    assert 0 <= source.telemetry.delay < 60
    edges = source.telemetry.latency_edges
    assert edges is None or (list(edges) == sorted(edges) and edges[-1] == math.inf and len(edges) > 1)
    assert source.telemetry.sources
    assert all(isinstance(said, str) and said for pair in source.telemetry.sources.items() for said in pair)
