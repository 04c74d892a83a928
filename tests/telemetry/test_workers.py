"""Counters that bounce between the workers of one server are found, and restarts are counted as before."""

import random
import time
from collections import Counter
from itertools import accumulate

import pytest
from telemetry_doubles import Fleet, Prometheus, page

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.catalogue import EXPOSITIONS
from canarykit.telemetry.counters import series_of
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.restarts import Life
from canarykit.telemetry.scrape import Replica, ScrapeTelemetry

SAYS = "one worker's of several"
ADVICE = "set PROMETHEUS_MULTIPROC_DIR, or run one worker per pod"


class Workers:
    """A stable and a canary server of two workers each; a scrape is answered by either."""

    def __init__(self, seed, *, served=(5000, 4800, 5000, 4900), workers=2, starts=None):
        self.rng = random.Random(seed)
        self.good = {(role, n): served[2 * i + n] for i, role in enumerate(ROLES) for n in range(2)}
        self.bad = {who: count // 100 for who, count in self.good.items()}
        self.workers, self.starts, self.sent = workers, starts, 0

    def serve(self, requests):
        """Answer so many requests, one in a hundred badly."""
        for _ in range(requests):
            who, self.sent = (self.rng.choice(ROLES), self.rng.randrange(self.workers)), self.sent + 1
            (self.bad if self.rng.random() < 0.01 else self.good)[who] += 1

    def page(self, role):
        """The page of whichever worker is free."""
        who = role, self.rng.randrange(self.workers)
        start = f"process_start_time_seconds {self.starts[who[1]]}\n" if self.starts else ""
        counters = (f'http_requests_total{{status="{s}"}} {n[who]}\n' for s, n in (("2xx", self.good), ("5xx", self.bad)))
        return start + "".join(counters)

    def __call__(self):
        return [Replica(role, f"{role}-0", lambda role=role: self.page(role)) for role in ROLES]


def watched(workers, seconds=60, rate=40):
    """All windows of a minute, and what is judged of them."""
    source, judge, windows = ScrapeTelemetry(workers, "fastapi"), Judge([metrics.error_rate()]), []
    source.begin(TrafficSplit(50), 0.0)
    for second in range(1, seconds + 1):
        workers.serve(rate)
        windows.append(source.read(float(second)))
        judge.update(windows[-1])
    return windows, judge.judgement


@pytest.mark.parametrize("seed", range(5))
def test_bouncing_counters_count_nothing_and_say_why(seed):
    """
    Two workers without PROMETHEUS_MULTIPROC_DIR: no request is counted, and the judgement is no data with the reason.
    """
    windows, judgement = watched(Workers(seed))
    assert sum(sum(window.requests) for window in windows) == 0
    assert judgement.status == "no data"
    assert all(SAYS in window.note and ADVICE in window.note and "counter fell from" in window.note for window in windows)


@pytest.mark.parametrize("seed", range(20))
def test_workers_that_began_together_are_found_within_seconds(seed):
    """
    A fresh server's workers have counted nothing when counting begins: less is counted than was sent, and then nothing.
    """
    workers = Workers(seed, served=(0, 0, 0, 0))
    windows, _ = watched(workers)
    assert sum(sum(window.requests) for window in windows) < 0.15 * workers.sent
    assert all(window.counts == {} and SAYS in window.note for window in windows[20:])


@pytest.mark.parametrize("seed", range(5))
def test_start_times_that_alternate_are_proof_before_any_counter_falls(seed):
    """
    Both workers have counted the same, and each page says when its own process started.
    """
    windows, _ = watched(Workers(seed, served=(0, 0, 0, 0), starts=(1000.0, 1003.5)), rate=0)
    assert all("process_start_time_seconds" in window.note and SAYS in window.note for window in windows)


def test_one_worker_is_counted_exactly():
    """
    The same server with one worker: each request is counted once.
    """
    workers = Workers(0, workers=1)
    windows, _ = watched(workers)
    assert sum(sum(window.requests) for window in windows) == workers.sent


def test_pages_are_read_again_at_first_sight_only():
    """
    A page is cheap to read a few times, but not with every window.
    """
    asked = []
    source = ScrapeTelemetry(lambda: [Replica("stable", "stable-0", lambda: asked.append(1) or page(100))])
    source.begin(TrafficSplit(50), 0.0)
    assert len(asked) > 5
    asked.clear()
    source.read(1.0)
    source.begin(TrafficSplit(50), 1.0)
    assert len(asked) == 2


def test_a_pod_that_comes_later_with_several_workers_stops_the_counting():
    """
    A replica is looked at when it is new, whenever that is.
    """
    fleet, totals = Fleet(stable_0=page(10), canary_0=page(10)), iter([900, 500] * 20)
    source = ScrapeTelemetry(lambda: [*fleet(), *late])
    late = []
    source.begin(TrafficSplit(50), 0.0)
    assert not source.read(1.0).note.count(SAYS)
    late.append(Replica("canary", "canary-1", lambda: page(next(totals))))
    window = source.read(2.0)
    assert (window.counts, "canary-1" in window.note, SAYS in window.note) == ({}, True, True)


def test_a_proof_is_forgotten_when_the_pod_is_gone():
    """
    A new pod with one worker takes its place: the others are counted on, and it begins clean, also under the same name.
    """
    totals = iter([900, 500] * 40)
    replicas = {"stable-0": lambda: page(100), "canary-0": lambda: page(next(totals))}
    source = ScrapeTelemetry(lambda: [Replica(name.partition("-")[0], name, fetch) for name, fetch in replicas.items()])
    source.begin(TrafficSplit(50), 0.0)
    assert SAYS in source.read(1.0).note
    del replicas["canary-0"]
    replicas |= {"stable-0": lambda: page(103), "canary-1": lambda: page(2)}
    window = source.read(2.0)
    assert (window.requests, window.note) == ((3, 2), "")
    replicas["canary-0"] = lambda: page(40)  # a StatefulSet's next pod; what it has counted may be of any weight
    assert source.read(3.0).requests == (0, 0)
    replicas["canary-0"] = lambda: page(47)
    assert source.read(4.0).requests == (0, 7)


def test_many_pods_are_read_again_a_few_at_a_time():
    """
    A hundred new pods: with each look some of them are read again, until all were.
    """
    asked = []

    def fetch(name):
        asked.append(name)
        return page(100)

    names = [f"{role}-{number}" for role in ROLES for number in range(50)]
    replicas = [Replica(name.partition("-")[0], name, lambda name=name: fetch(name)) for name in names]
    source = ScrapeTelemetry(lambda: replicas)
    source.begin(TrafficSplit(50), 0.0)
    assert len(asked) < 200
    assert {name.partition("-")[0] for name in asked[100:]} == set(ROLES)
    for second in range(1, 15):
        source.read(float(second))
    assert min(Counter(asked).values()) >= 15 + 5
    asked.clear()
    source.read(16.0)
    assert len(asked) == 100


def test_a_restart_that_start_times_prove_counts_from_zero():
    """
    A later start time is a restart, although the counter is above where it was.
    """
    fleet = Fleet(stable_0="process_start_time_seconds 5\n" + page(100), canary_0="process_start_time_seconds 5\n" + page(3))
    source = ScrapeTelemetry(fleet)
    source.begin(TrafficSplit(50), 10.0)
    fleet.pages |= {"stable_0": "process_start_time_seconds 15\n" + page(90)}
    fleet.pages |= {"canary_0": "process_start_time_seconds 15\n" + page(4)}
    assert source.read(20.0).requests == (90, 4)


def test_a_restart_in_the_middle_of_traffic_is_counted_once_it_is_clear():
    """
    A process that restarted and has counted many requests since: held back at most until the next reads agree.
    """
    total, counted, sent = 9000, 0, 0
    fleet = Fleet(stable_0=page(total), canary_0=page(0))
    source = ScrapeTelemetry(fleet)
    source.begin(TrafficSplit(50), 0.0)
    for second in range(5, 61, 5):
        total, sent = total + 500, sent + 500
        if second == 30:
            total = 400  # 100 of these were answered before the restart and are lost
            sent -= 100
        fleet.pages["stable_0"] = page(total)
        counted += source.read(float(second)).requests[0]
    assert counted == sent


def of(**totals):
    """Totals of a source, by the status: good or bad."""
    name, codes = "canarykit_requests_total", {"good": "200", "bad": "500"}
    return {series_of(EXPOSITIONS["canarykit"], name, {"code": codes[s]}, "stable", "pod"): n for s, n in totals.items()}


def lived(*reads, every=1.0):
    """A life of reads ``(good, started)`` or ``good``."""
    life = Life("pod")
    for number, read in enumerate(reads):
        total, started = read if isinstance(read, tuple) else (read, None)
        life.see(number * every, of(good=total), started)
    return life


@pytest.mark.parametrize(
    ("reads", "says"),
    [
        ([(100, 50.0), (90, 50.0)], "the counter fell from 100 to 90 and the process did not restart"),
        ([(100, 50.0), (100, 40.0)], "process_start_time_seconds went back by 10 s"),
        ([5000, 5010, 5020, 4800, 5035], "the counter fell from 5,020 to 4,800 and then came back"),
        ([5000, 5010, 4800, 4810, 4700], "the counter fell from 4,810 to 4,700 and no restart explains that"),
    ],
)
def test_what_proves_that_a_page_is_one_workers(reads, says):
    """
    A start time that stays or goes back, a counter that comes back to where it was, or falls that no restart explains.
    """
    proof = lived(*reads).proof
    assert says in proof
    assert SAYS in proof


def test_a_process_that_was_there_before_is_not_counted_from_its_start():
    """
    It started while another one answered: what it has counted is older than the last read, so only its growth counts.
    """
    assert lived(*[(100, 10.0)] * 60, (5000, 12.0)).anew == {60.0: of(good=5000)}
    assert lived(*[(100, 10.0)] * 60, (5000, 58.0)).anew == {60.0: {}}


def test_a_fall_that_no_restart_explains_never_adds_a_life():
    """
    4,800 requests cannot have come within a second where ten do: once it is a restart all the same, only growth counts.
    """
    life = lived(5000, 5010, 5020, 4800)
    assert life.doubted_since == 3.0
    assert "fell from 5,020 to 4,800" in life.doubt
    for moment, total in enumerate((4810, 4820, 4830), start=4):
        life.see(float(moment), of(good=total))
    assert (life.doubt, life.proof) == ("", "")
    assert life.anew == {3.0: of(good=4800)}


def test_a_crash_that_is_seen_three_times_says_what_else_it_may_be():
    """
    Falls to nothing again and again: workers, or a process that does not stay up.
    """
    life = lived(100, 2, 40, 3, 50, 1)
    assert SAYS in life.proof
    assert "restarts again and again" in life.proof


def test_a_burst_after_a_restart_is_no_worker_that_came_back():
    """
    Traffic rises to ten times as much just when a pod restarts.
    """
    life = lived(12, 12, 2, 300, 600, 900, 1200, every=15.0)
    assert (life.proof, life.anew) == ("", {30.0: {}})


# One worker answers many reads in a row ---------------------------------------------------------------------------------


def steps(*growth, start=5000):
    """Totals that grow by this."""
    return list(accumulate(growth, initial=start))


@pytest.mark.parametrize(
    ("reads", "says"),
    [
        ([*steps(*[10] * 5, 4000, *[10] * 15), 5210], "the counter fell from 9,200 to 5,210 after it rose by 4,000 at once"),
        ([*steps(*[10] * 9, start=9000), *steps(*[10] * 20, 4200, *[10] * 3)], "and later rose by 4,200 at once"),
        (
            [*steps(*[10] * 9, start=9000), *steps(*[10] * 20, start=7000), *steps(*[10] * 20)],
            "the counter fell from 7,200 to 5,000 and no restart explains that, for the second time",
        ),
    ],
    ids=["rise, fall", "fall, rise", "two falls"],
)
def test_workers_that_answer_many_reads_in_a_row_are_found(reads, says):
    """
    A rise and a fall between totals that are alike, or two such falls, are proof at whatever distance.
    """
    life = lived(*reads)
    assert says in life.proof
    assert SAYS in life.proof


def test_a_rise_that_does_not_go_on_is_left_out():
    """
    4,000 requests within a second where ten come: held back, and then only what comes after it counts.
    """
    life = lived(*steps(*[10] * 5, 4000))
    assert (life.doubted_since, life.strange) == (6.0, True)
    assert life.doubt == "pod: the counter rose by 4,000, far more than usual; the next reads tell whether traffic has risen"
    life.see(7.0, of(good=9060))
    assert (life.doubt, life.proof, life.anew) == ("", "", {6.0: of(good=9050)})


@pytest.mark.parametrize(
    "growth",
    [
        [*[10] * 5, 2000, 2100, 1900],  # a surge that stays
        [*[10] * 5, 2000, 600, 100],  # and one that ebbs away
        [*[100] * 5, *[0] * 9, 1000, 100],  # requests that waited while the server stood still
        [*[0, 0, 0, 0, 0, 90] * 6],  # batches
        [*[1] * 30, 90, 1],  # a small one
        [0, 0, 3, 40, 260, 300],  # traffic that begins
    ],
)
def test_bursts_are_counted(growth):
    """
    More requests than before are no other worker's totals as long as they go on, come again, or were waiting.
    """
    life = lived(*steps(*growth, 1, 1))
    assert (life.proof, life.doubt, life.anew) == ("", "", {})


def test_a_burst_of_a_process_that_says_when_it_started_is_counted():
    """
    Its start time is the same before and after: no other worker has answered.
    """
    life = lived(*((total, 7.0) for total in steps(*[10] * 5, 4000, 10)))
    assert (life.proof, life.doubt, life.anew) == ("", "", {})


def test_a_higher_weight_makes_more_requests_usual():
    """
    With 50 instead of 1 % a version gets fifty times as many. After 0 % nobody knows how many: then the next read tells.
    """
    life = lived(*steps(*[2] * 9))
    life.expect(TrafficSplit(99), TrafficSplit(50))
    life.see(10.0, of(good=5000 + 9 * 2 + 400))
    assert life.doubt == ""
    life = lived(*steps(*[0] * 9))
    life.expect(TrafficSplit(100), TrafficSplit(50))
    life.see(10.0, of(good=5300))
    assert "the next reads tell whether traffic has risen" in life.doubt
    life.see(11.0, of(good=5600))
    assert (life.doubt, life.anew) == ("", {})


def test_large_batches_are_counted_once_they_are_known():
    """
    The first one looks like the way to another worker's totals, and is left out; those that follow are counted.
    """
    assert list(lived(*steps(*[*[0] * 5, 200] * 6)).anew) == [6.0]


def test_a_source_that_has_counted_little_is_believed():
    """
    A new pod's first requests are no other worker's totals: those would be little as well.
    """
    life = lived(*steps(900, 30, 900, 30, start=10))
    assert (life.doubt, life.proof) == ("", "")
    assert lived(*steps(900, 30, start=5000)).anew == {1.0: of(good=5900)}


def test_a_burst_and_later_a_restart_are_no_proof():
    """
    A process that restarted has counted little, whatever came before.
    """
    life = lived(*steps(*[10] * 9, 4000, *[10] * 9), *steps(*[10] * 9, start=150), *steps(*[10] * 9, start=90))
    assert life.proof == ""


# The same from a Prometheus --------------------------------------------------------------------------------------------


@pytest.fixture
def prometheus():
    """A double of Prometheus' API."""
    made = Prometheus()
    yield made
    made.close()


def counting(prometheus, since):
    """Telemetry that counts since a moment."""
    made = PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", {role: {"role": role} for role in ROLES})
    made.begin(TrafficSplit(50), since)
    return made


@pytest.mark.parametrize("seed", range(3))
def test_prometheus_shows_workers_at_once(prometheus, seed):
    """
    The scrapes of the last five minutes go up and down: every window is empty and says so.
    """
    rng, since = random.Random(seed), round(time.time()) - 200.0
    for number in range(-20, 13):
        at = 15.0 * number
        prometheus.scrape(since + at, "stable", 5000 + 10 * number)
        prometheus.scrape(since + at, "canary", rng.choice((5000, 4900)) + 10 * number)
    telemetry = counting(prometheus, since)
    for read in (20, 40, 60, 190):
        window = telemetry.read(since + read)
        assert (window.counts, "canary-0" in window.note, SAYS in window.note) == ({}, True, True)


def test_prometheus_shows_start_times_that_go_back(prometheus):
    """
    Two scrapes suffice where each page names the start of its process.
    """
    since = round(time.time()) - 200.0
    for at, total, start in ((-29, 100, 5000.0), (-14, 100, 5003.0), (1, 100, 5000.0)):
        prometheus.scrape(since + at, "stable", 100)
        prometheus.scrape(since + at, "canary", total)
        prometheus.add(since + at, "process_start_time_seconds", start, role="canary", instance="canary-0", job="pods")
    telemetry = counting(prometheus, since)
    assert "process_start_time_seconds went back" in telemetry.read(since + 2).note


def test_a_fall_in_prometheus_waits_for_the_next_scrape(prometheus):
    """
    A restarted pod that has counted much is counted one scrape later, and the other version waits with it.
    """
    since = round(time.time()) - 200.0
    for number in range(-10, 3):
        for role in ROLES:
            prometheus.scrape(since + 1 + 15 * number, role, 4000 + 150 * number)
    telemetry = counting(prometheus, since)
    assert telemetry.read(since + 32).requests == (300, 300)
    prometheus.scrape(since + 46, "stable", 4450)
    prometheus.scrape(since + 46, "canary", 120)
    held = telemetry.read(since + 47)
    assert held.counts == {}
    assert "canary-0: the counter fell from 4,300 to 120; the next reads tell whether the process restarted" in held.note
    prometheus.scrape(since + 61, "stable", 4600)
    prometheus.scrape(since + 61, "canary", 270)
    assert telemetry.read(since + 62).requests == (300, 270)


def test_prometheus_forgets_a_proof_when_the_pod_is_gone(prometheus):
    """
    Two scrapes after its last one the other pods are counted, and a new one from its start.
    """
    rng, since = random.Random(1), round(time.time()) - 400.0
    for number in range(-20, 20):
        at = since + 1 + 15 * number
        prometheus.scrape(at, "stable", 5000 + 10 * number)
        if number < 5:
            prometheus.scrape(at + 1, "canary", rng.choice((5000, 4900)) + 10 * number, pod="canary-0")
        else:
            prometheus.scrape(at + 1, "canary", 10 * (number - 5), pod="canary-1")
    real, telemetry, windows = prometheus.series, None, []
    for now in range(0, 300, 5):
        prometheus.series = {key: [value for value in values if value[0] <= since + now] for key, values in real.items()}
        telemetry = telemetry or counting(prometheus, since)
        windows.append(telemetry.read(since + now))
    assert all(SAYS in window.note for window in windows[:14])
    assert [sum(each) for each in zip(*(window.requests for window in windows), strict=True)] == [190, 140]


class Kept:
    """Two workers of each version behind a connection that Prometheus keeps for many scrapes."""

    def __init__(self, prometheus, since, seed, share, stay):
        rng, total = random.Random(seed), {}
        self.sent = 0
        for role, late in (("stable", 1), ("canary", 8)):
            total[role] = [round(9000 * share), round(9000 * (1 - share))]
            worker, left = rng.randrange(2), rng.randint(*stay)
            for number in range(-20, 240):
                grown = sum(rng.random() < share for _ in range(150))
                total[role] = [total[role][0] + grown, total[role][1] + 150 - grown]
                if not left:
                    worker, left = rng.randrange(2), rng.randint(*stay)
                left -= 1
                prometheus.scrape(since + 15 * number + late, role, total[role][worker])
                self.sent += 150 if number > 0 else 0


@pytest.mark.parametrize(("share", "stay"), [(0.7, (10, 20)), (0.6, (10, 20)), (0.7, (5, 10)), (0.85, (10, 20))])
@pytest.mark.parametrize("seed", range(3))
def test_prometheus_that_stays_with_one_worker_counts_no_lives(prometheus, share, stay, seed):
    """
    An hour of 72,000 requests: no rise to the other worker's totals is ever counted, and sooner or later it is found.
    """
    since = round(time.time()) - 3700.0
    kept, real = Kept(prometheus, since, seed, share, stay), prometheus.series
    prometheus.series = {}
    windows, telemetry = [], None
    for now in range(0, 3600, 15):
        prometheus.series = {
            key: [value for value in values if since + now - 400 < value[0] <= since + now] for key, values in real.items()
        }
        telemetry = telemetry or counting(prometheus, since)
        windows.append(telemetry.read(since + now))
    assert sum(sum(window.requests) for window in windows) < 0.15 * kept.sent
    assert max(max(window.requests) for window in windows) < 1000
    assert SAYS in windows[-1].note
