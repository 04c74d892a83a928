"""Counts from Prometheus: a double of its API for what goes wrong, and a real one for what must be exact."""

import base64
import http.client
import json
import re
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler

import numpy as np
import pytest
from real_prometheus import prometheus_of, started
from telemetry_doubles import REQUESTS, Prometheus

from canarykit.errors import TelemetryError
from canarykit.load.payloads import payloads as payloads_of
from canarykit.model import ROLES, TrafficSplit
from canarykit.serving import digits, storage
from canarykit.telemetry.prometheus import PrometheusTelemetry, selector

SELECT = {role: {"role": role} for role in ROLES}


@pytest.fixture
def prometheus():
    """A double of Prometheus' API."""
    made = Prometheus()
    yield made
    made.close()


@pytest.fixture
def since():
    """A moment at which a weight came into force, long enough ago for what a test writes to lie in the past."""
    return round(time.time()) - 200.0


@pytest.fixture
def telemetry(prometheus, since):
    """Counts since that moment; both pods were scraped twice before, every 15 s."""
    for role in ROLES:
        for at in (-29, -14):
            prometheus.scrape(since + at, role, 100)
    made = PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", SELECT)
    made.begin(TrafficSplit(25), since)
    return made


def both(prometheus, at, stable, canary, **options):
    """Scrape both pods."""
    prometheus.scrape(at, "stable", stable)
    prometheus.scrape(at, "canary", canary, **options)


def test_windows_hold_what_was_served_between_scrapes(prometheus, telemetry, since):
    """
    The first scrape of a weight is where counting begins; each later one counts once.
    """
    assert telemetry.delay == 16.0
    both(prometheus, since + 1, 110, 105)
    assert telemetry.read(since + 2).note == "Prometheus has not scraped since the last look"
    both(prometheus, since + 16, 140, 115, failed=2, fast=109)
    window = telemetry.read(since + 20)
    assert window.counts["outcome"].tolist() == [[30, 0], [10, 2]]
    assert window.counts["latency"].tolist() == [[30, 0], [4, 6]]
    assert telemetry.latency_edges == (0.1, float("inf"))
    silent = telemetry.read(since + 25)
    assert (silent.counts, silent.note) == ({}, "Prometheus has not scraped since the last look")
    both(prometheus, since + 31, 141, 115, failed=2, fast=109)
    both(prometheus, since + 46, 143, 116, failed=3, fast=110)
    assert telemetry.read(since + 50).counts["outcome"].tolist() == [[3, 0], [1, 1]]


def test_a_restarted_pod_counts_from_zero(prometheus, telemetry, since):
    """
    A total that has fallen is the growth since the restart; the other pod goes on.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 120, 4)
    assert telemetry.read(since + 20).requests == (10, 4)


def test_a_series_that_a_scrape_lacks_has_not_begun_anew(prometheus, telemetry, since):
    """
    A scrape may miss one series; when it is back, only its growth counts.
    """
    both(prometheus, since + 1, 110, 105, failed=50)
    both(prometheus, since + 16, 111, 106)
    both(prometheus, since + 31, 112, 107, failed=51)
    assert telemetry.read(since + 40).counts["outcome"].tolist() == [[2, 0], [2, 1]]


def test_a_pod_that_comes_later_counts_from_its_start(prometheus, telemetry, since):
    """
    It was not there when counting began, so that all of its requests are of this weight.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 110, 105)
    both(prometheus, since + 31, 110, 105)
    prometheus.scrape(since + 32, "canary", 7, pod="canary-1")
    prometheus.scrape(since + 47, "canary", 9, pod="canary-1")
    assert telemetry.read(since + 50).requests == (0, 9)


def test_a_pod_that_could_not_be_scraped_when_counting_began_brings_nothing_old(prometheus, telemetry, since):
    """
    Known from before and away for a while: what it counted until it is back may be of another weight.
    """
    for at in (1, 16, 31, 46):
        prometheus.scrape(since + at, "stable", 100 + at)
    assert telemetry.read(since + 50).requests == (45, 0)
    both(prometheus, since + 61, 161, 900)
    both(prometheus, since + 76, 176, 903)
    assert telemetry.read(since + 80).requests == (30, 3)


@pytest.mark.parametrize("total", ["NaN", "-1", "0.5", "+Inf"])
def test_an_impossible_total_empties_windows_and_loses_nothing(prometheus, telemetry, since, total):
    """
    NaN is never silence and never zero: the pod is named as long as its newest scrape is such, and the next one has all.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 120, total)
    for at in (20, 30):
        window = telemetry.read(since + at)
        assert window.counts == {}
        assert re.search(r"canary-0 counts .* a count is a whole number", window.note)
    both(prometheus, since + 31, 130, 109)
    assert telemetry.read(since + 40).requests == (20, 4)


def test_a_pod_whose_last_words_are_odd_is_not_waited_for_for_ever(prometheus, telemetry, since):
    """
    It is gone after that scrape: the others are counted as without it.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 120, "NaN")
    for at in range(31, 200, 15):
        prometheus.scrape(since + at, "stable", 110 + at)
    assert telemetry.read(since + 197).requests[0] > 100


def test_buckets_that_do_not_add_up_once_empty_windows_and_lose_nothing(prometheus, telemetry, since):
    """
    One scrape of a histogram that is no such thing is as if it had been missed.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 120, 106, fast=500)
    assert "the latency buckets of canary-0 are not cumulative" in telemetry.read(since + 20).note
    both(prometheus, since + 31, 130, 109)
    assert telemetry.read(since + 40).requests == (20, 4)


def test_no_series_is_no_data(prometheus, since):
    """
    A name that nobody counts under is said, and no window passes for quiet traffic.
    """
    telemetry = PrometheusTelemetry(f"http://{prometheus.url}", "traefik", SELECT)
    telemetry.begin(TrafficSplit(25), since)
    window = telemetry.read(since + 10)
    assert (window.counts, window.note) == ({}, "Prometheus has no series traefik_service_requests_total of either version")


def test_the_resolved_queries_are_told(prometheus, telemetry):
    """
    What is written down can be asked again by hand; the interval of the scrapes is told beside it.
    """
    assert telemetry.sources["requests of canary"] == f'http://{prometheus.url}: {REQUESTS}{{role="canary"}}'
    assert telemetry.sources["scrape interval"] == "15 s"
    assert len(telemetry.sources) == 5


def result(value):
    """An answer with this result."""
    return 200, json.dumps({"status": "success", "data": {"resultType": "matrix", "result": value}})


NO_PROMETHEUS = "does not answer as a Prometheus does"
ODD_ANSWERS = [
    ((400, '{"status":"error","error":"parse error: bad"}'), r"answers 400 to canarykit_.*parse error: bad"),
    ((401, "who are you?"), r"answers 401 to .*who are you\?"),
    ((404, "default backend - 404"), "answers 404 to .*default backend"),
    ((422, '{"status":"error","errorType":"execution"}'), "answers 422 to .*execution"),
    ((500, '{"status":"error","error":"opening storage"}'), "answers 500 to .*opening storage"),
    ((503, "starting"), "answers 503 to .*starting"),
    ((200, "<html>hello</html>"), f"{NO_PROMETHEUS}: b'<html>hello"),
    ((200, ""), NO_PROMETHEUS),
    ((200, '{"status":"success"}'), NO_PROMETHEUS),
    ((200, '{"status":"success","data":null}'), NO_PROMETHEUS),
    (result(None), NO_PROMETHEUS),
    (result({}), NO_PROMETHEUS),
    (result(["a"]), NO_PROMETHEUS),
    (result([{"metric": {}}]), NO_PROMETHEUS),
    (result([{"metric": None, "values": []}]), NO_PROMETHEUS),
    (result([{"metric": {}, "values": None}]), NO_PROMETHEUS),
    (result([{"metric": {}, "value": [0, "1"]}]), NO_PROMETHEUS),
    (
        result([{"metric": {}, "histograms": [[0, {}]]}]),
        r"has native histograms for canarykit_\S+, which are not read: have it",
    ),
]


@pytest.mark.parametrize(("answer", "says"), ODD_ANSWERS)
def test_an_odd_answer_empties_windows_and_loses_nothing(prometheus, telemetry, since, answer, says):
    """
    A storage that is being opened, a login page, a token that is being replaced: the reason is in the window, and all counts
    are in the next one. Whether it lasts too long is for the plan to say.
    """
    both(prometheus, since + 1, 110, 105)
    telemetry.read(since + 2)
    both(prometheus, since + 16, 120, 109)
    prometheus.answer = answer
    window = telemetry.read(since + 20)
    assert window.counts == {}
    assert re.search(says, window.note)
    prometheus.answer = None
    both(prometheus, since + 31, 121, 109)
    assert telemetry.read(since + 40).requests == (11, 4)


@pytest.mark.parametrize(("answer", "says"), ODD_ANSWERS)
def test_an_odd_answer_is_an_error_at_the_beginning(prometheus, since, answer, says):
    """
    A query that is refused, credentials that are wrong, something else at that address: before traffic moves.
    """
    prometheus.answer = answer
    with pytest.raises(TelemetryError, match=says):
        PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", SELECT).begin(TrafficSplit(5), since)


@pytest.mark.parametrize("damage", [lambda path: path.write_text(""), lambda path: path.unlink()])
def test_a_token_file_that_is_being_replaced_empties_a_window(prometheus, since, tmp_path, damage):
    """
    For a moment it is empty, or not there.
    """
    file = tmp_path / "token"
    file.write_text("abc")
    for role in ROLES:
        for at in (-29, -14, 1):
            prometheus.scrape(since + at, role, 100)
    telemetry = PrometheusTelemetry(f"http://{prometheus.url}", "canarykit", SELECT, token_file=file)
    telemetry.begin(TrafficSplit(25), since)
    damage(file)
    window = telemetry.read(since + 2)
    assert window.counts == {}
    assert "token for Prometheus" in window.note
    file.write_text("def")
    both(prometheus, since + 16, 103, 102)
    assert telemetry.read(since + 20).requests == (3, 2)


def test_samples_beside_native_histograms_are_read(prometheus, telemetry, since):
    """
    A Prometheus that has changed over to them still has numbers of before in the same series.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 120, 109)
    real = prometheus.query

    def query(*asked):
        said = json.loads(real(*asked))
        for series in said["data"]["result"]:
            series["histograms"] = [[since, {}]]
        return json.dumps(said)

    prometheus.query = query
    assert telemetry.read(since + 20).requests == (10, 4)


def test_a_prometheus_that_is_away_leaves_an_empty_window_and_loses_nothing(prometheus, telemetry, since):
    """
    Busy or gone for a while: the reason is in the window, and the counts are in the next one.
    """
    both(prometheus, since + 1, 110, 105)
    telemetry.read(since + 2)
    both(prometheus, since + 16, 120, 109)
    prometheus.answer = (503, "starting")
    silent = telemetry.read(since + 20)
    assert silent.counts == {}
    assert "answers 503" in silent.note
    prometheus.answer = None
    both(prometheus, since + 31, 121, 109)
    assert telemetry.read(since + 40).requests == (11, 4)


def test_nobody_there_is_an_error_at_the_beginning(since):
    """
    An address where nobody listens is said before traffic moves.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TelemetryError, match=rf"Prometheus at http://127.0.0.1:{port} cannot be reached"):
        PrometheusTelemetry(f"http://127.0.0.1:{port}", "canarykit", SELECT).begin(TrafficSplit(5), since)


@pytest.mark.parametrize("answer", [(503, "starting"), (401, "who are you?")])
def test_a_new_weight_is_counted_although_nobody_answers_as_it_comes(prometheus, telemetry, since, answer):
    """
    The weight has changed by then. What was scraped meanwhile is counted as it would have been: nothing of before is in it.
    """
    for at in (1, 16):
        prometheus.scrape(since + at, "stable", 100 + at)
        prometheus.scrape(since + at, "canary", 900 + at, pod="canary-1")  # came under the weight of before
    prometheus.answer = answer
    telemetry.begin(TrafficSplit(0), since + 20)
    prometheus.answer = None
    for at in (31, 46, 61):
        prometheus.scrape(since + at, "stable", 100 + at)
    for at in (46, 61):
        prometheus.scrape(since + at, "canary", 900 + at, pod="canary-1")
    window = telemetry.read(since + 62)
    assert (window.requests, window.split) == ((30, 15), TrafficSplit(0))


@pytest.mark.parametrize("phase", [2.0, 7.4, 7.6, 13.0])
@pytest.mark.parametrize("every", [1.0, 4.0, 7.0, 16.0])
def test_pods_that_are_scraped_at_different_seconds_are_counted_over_equal_spans(prometheus, telemetry, since, phase, every):
    """
    Ten requests per second each, scraped every 15 s, and read at any time: no window has more seconds of one than the other.
    """
    for number in range(12):
        jitter = 0.2 * (number % 3)
        for role, at in (("stable", 1 + 15 * number + jitter), ("canary", 1 + phase + 15 * number)):
            prometheus.scrape(since + at, role, 1000 + round(10 * at))
    windows, now = [], since
    real = prometheus.series
    while now < since + 170:
        now += every
        prometheus.series = {key: [value for value in values if value[0] <= now] for key, values in real.items()}
        windows.append(telemetry.read(now))
    counted = [window.requests for window in windows if window.counts]
    assert sum(stable for stable, _ in counted) >= 1000
    assert all(abs(stable - canary) <= 5 for stable, canary in counted)
    assert any("yet to scrape" in window.note for window in windows) or every > 4
    assert telemetry.delay == pytest.approx(16 + phase, abs=0.5)


def test_a_pod_that_is_silent_is_not_waited_for_for_ever(prometheus, telemetry, since):
    """
    After two scrapes without it the others are counted alone, as it may be gone.
    """
    both(prometheus, since + 1, 110, 105)
    both(prometheus, since + 16, 120, 109)
    assert telemetry.read(since + 20).requests == (10, 4)
    prometheus.scrape(since + 31, "stable", 130)
    assert telemetry.read(since + 32).note == "Prometheus has yet to scrape canary-0 since the last look"
    prometheus.scrape(since + 46, "stable", 140)
    assert telemetry.read(since + 49).requests == (20, 0)


def test_a_redirect_is_told_and_not_followed(prometheus, since):
    """
    A Prometheus that says it has moved may say so of any address: what proves who we are does not go there.
    """
    other = Prometheus()

    class Moved(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(302)
            self.send_header("location", f"http://{other.url}/api/v1/query")
            self.end_headers()

        def log_message(self, *args):
            pass

    prometheus._server.RequestHandlerClass = Moved
    try:
        with pytest.raises(TelemetryError, match=r"answers 302 .*: give the address that it leads to"):
            PrometheusTelemetry(f"http://me:secret@{prometheus.url}", "canarykit", SELECT).begin(TrafficSplit(5), since)
        assert other.asked == []
    finally:
        other.close()


def test_the_password_is_sent_and_never_shown(prometheus, since):
    """
    It is in the header, and in no error, note or record.
    """
    telemetry = PrometheusTelemetry(f"http://me:s%40cret@{prometheus.url}/", "canarykit", SELECT)
    prometheus.answer = (403, "no")
    with pytest.raises(TelemetryError) as refused:
        telemetry.begin(TrafficSplit(5), since)
    assert base64.b64decode(prometheus.authorization.removeprefix("Basic ")).decode() == "me:s@cret"
    said = f"{refused.value!r} {telemetry.sources}"
    assert "cret" not in said
    assert "me:" not in said
    assert f"http://{prometheus.url}: " in said


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({}, "{}"),
        ({"b": "x", "a": "y"}, '{a="y",b="x"}'),
        ({"service": "~.*-80@.*"}, '{service=~".*-80@.*"}'),
        ({"a": 'say "hi" \\ bye'}, '{a="say \\"hi\\" \\\\ bye"}'),
    ],
)
def test_labels_are_written_as_promql(labels, text):
    """
    Sorted, quoted and escaped; a tilde makes a regular expression.
    """
    assert selector(labels) == text


# A real one ------------------------------------------------------------------------------------------------------------


class Server:
    """The kit's own model server as a process of its own."""

    def __init__(self, model):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.metrics_port = free.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            command = [sys.executable, "-m", "canarykit.serving", "--model", str(model), "--name", "digits", "--version", "v"]
            command += ["--fd", str(listener.fileno()), "--metrics-port", str(self.metrics_port)]
            self.process = subprocess.Popen(command, pass_fds=[listener.fileno()])

    def send(self, payloads):
        """Send requests; return how many ended well and how many did not."""
        ended = {True: 0, False: 0}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        for payload in payloads:
            connection.request("POST", "/v2/models/digits/infer", json.dumps(payload), {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            ended[answer.status == 200] += 1
        connection.close()
        return ended[True], ended[False]


@pytest.fixture
def fleet(tmp_path):
    """A stable server, and a canary that fails for some digits."""
    servers = {}
    for role, kind in (("stable", "stable"), ("canary", "failing")):
        storage.save(digits.model(kind), tmp_path / f"{kind}.skops")
        servers[role] = Server(tmp_path / f"{kind}.skops")
    try:
        for server in servers.values():
            started(server.process, server.port, "/v2/health/ready")
        yield servers
    finally:
        for server in servers.values():
            server.process.terminate()
        for server in servers.values():
            server.process.wait(15)


@pytest.fixture
def real(fleet, tmp_path, request):
    """A real Prometheus that scrapes both every half second, or with the jobs of a test; its address."""
    targets = [{"targets": [f"127.0.0.1:{server.metrics_port}"], "labels": {"role": role}} for role, server in fleet.items()]
    jobs = [
        {"job_name": name, "scrape_interval": every, "scrape_timeout": every, "static_configs": targets}
        for name, every in getattr(request, "param", [("servers", "500ms")])
    ]
    with prometheus_of(tmp_path, jobs) as url:
        yield url


@pytest.mark.real("prometheus")
def test_a_real_prometheus_counts_what_was_sent_exactly(fleet, real):
    """
    Requests before counting began are in no window, and each one after is in one, good or failed.
    """
    payloads = sorted((item.body for item in payloads_of("digits")), key=lambda body: -np.mean(body["inputs"][0]["data"]))
    for server in fleet.values():
        server.send(payloads[:20])
    telemetry = PrometheusTelemetry(real, "canarykit", SELECT)
    wait_for_scrapes(telemetry, real)
    assert telemetry.sources["scrape interval"] == "0.5 s"
    begun = time.time()
    telemetry.begin(TrafficSplit(40), begun)
    assert telemetry.delay < 3.0
    time.sleep(telemetry.delay)  # until the first scrape of this weight, where counting begins
    sent = {"stable": fleet["stable"].send(payloads[:60]), "canary": fleet["canary"].send(payloads[:40])}
    assert sent["stable"] == (60, 0)
    assert sent["canary"][1] > 0  # those with much ink
    counted = dict.fromkeys(("outcome", "latency"), 0)
    for _ in range(2):
        time.sleep(telemetry.delay)
        window = telemetry.read(time.time())
        counted = {name: counted[name] + window.counts.get(name, 0) for name in counted}
    assert counted["outcome"].tolist() == [list(sent["stable"]), list(sent["canary"])]
    assert counted["latency"].sum(axis=1).tolist() == [sent["stable"][0], sent["canary"][0]]


@pytest.mark.real("prometheus")
@pytest.mark.parametrize("real", [[("servers", "1500ms"), ("again", "1s")]], indirect=True)
def test_a_real_prometheus_that_scrapes_twice_counts_once(fleet, real):
    """
    Two jobs have the same pods as targets, each with an interval of its own, as configured and not as measured.
    """
    payloads = [item.body for item in payloads_of("digits")]
    for server in fleet.values():
        server.send(payloads[:20])
    telemetry = PrometheusTelemetry(real, "canarykit", SELECT)
    wait_for_scrapes(telemetry, real, longest=5.0)
    assert telemetry.sources["scrape interval"] == "1.5 s"
    telemetry.begin(TrafficSplit(40), time.time())
    time.sleep(telemetry.delay)
    sent = {role: sum(fleet[role].send(payloads[:count])) for role, count in (("stable", 60), ("canary", 40))}
    counted = [0, 0]
    for _ in range(2):
        time.sleep(telemetry.delay)
        window = telemetry.read(time.time())
        counted = [have + more for have, more in zip(counted, window.requests, strict=True)]
    assert counted == [sent["stable"], sent["canary"]]
    assert telemetry.sources["scraped twice"].count("is scraped twice") == 2


def wait_for_scrapes(telemetry, url, within=30.0, longest=3.0):
    """Wait until Prometheus knows both servers by two scrapes at least."""
    end = time.monotonic() + within
    while True:
        telemetry.begin(TrafficSplit(0), time.time())
        if telemetry.latency_edges and telemetry.delay < longest:
            return
        assert time.monotonic() < end, f"{url} does not scrape"
        time.sleep(0.2)
