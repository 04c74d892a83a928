"""Open-loop traffic: when it is sent, what is sent, and how each loss is counted."""

import http.server
import json
import socket
import threading
import time

import numpy as np
import pytest

import canarykit as ck
from canarykit.errors import ClusterError, PlanError
from canarykit.load.generator import lost_by
from canarykit.load.load import per_second
from canarykit.load.payloads import classes_of, payloads
from canarykit.load.shapes import SHAPES, arrivals, relative_rate
from canarykit.metrics import confusion_cells


def test_arrivals_are_poisson():
    """
    Gaps of steady traffic are exponential: mean and deviation are both one over the rate.
    """
    times = np.fromiter(arrivals(200, "steady", 50, seed=1), float)
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(1 / 200, rel=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_arrivals_follow_their_shape_and_their_seed(shape):
    """
    The number of arrivals in each part of the time is what the shape says, and a seed repeats it.
    """
    times = np.fromiter(arrivals(100, shape, 40, seed=3), float)
    assert times.tolist() == list(arrivals(100, shape, 40, seed=3))
    counted, _ = np.histogram(times, bins=8, range=(0, 40))
    moments = np.linspace(0, 40, 8000, endpoint=False)
    expected = 100 * np.array([relative_rate(shape, at, 40) for at in moments]).reshape(8, -1).mean(axis=1) * 5
    assert counted == pytest.approx(expected, rel=0.25)


@pytest.mark.parametrize(("text", "value"), [(150, 150), ("150", 150), ("150/s", 150), ("30/min", 0.5), ("3600 / h", 1)])
def test_rates_have_units(text, value):
    """
    Requests per second, or text with a unit.
    """
    assert per_second(text) == value


@pytest.mark.parametrize("text", [0, -1, "fast", "1/day", float("inf"), float("nan")])
def test_what_is_no_rate_is_refused(text):
    """
    Anything else is refused, before a process is started.
    """
    with pytest.raises(PlanError, match="a rate is"):
        ck.Load("http://127.0.0.1:9", rate=text)


def test_an_unknown_shape_is_refused():
    """
    Shapes have names.
    """
    with pytest.raises(PlanError, match="choose one of steady, ramp, spike"):
        ck.Load("http://127.0.0.1:9", shape="square")


def test_payloads_come_from_the_digits_from_a_file_or_from_hand(tmp_path):
    """
    Held-out digits have labels; a line that is none is named.
    """
    assert len(payloads("digits")) == 900
    assert payloads("digits")[0].label in range(10)
    path = tmp_path / "payloads.jsonl"
    path.write_text('{"body": {"x": 1}, "label": 2}\n{"body": {"x": 3}}\n')
    assert [payload.label for payload in payloads(path)] == [2, None]
    path.write_text('{"body": 1}\nnonsense\n')
    with pytest.raises(PlanError, match="line 2 of"):
        payloads(path)
    with pytest.raises(PlanError, match="payload 1 must be"):
        payloads([{"label": 3}])
    with pytest.raises(PlanError, match="no payloads"):
        payloads([])
    with pytest.raises(PlanError, match="cannot be read"):
        payloads(tmp_path / "missing.jsonl")


@pytest.mark.parametrize(
    ("status", "flags", "cause"),
    [
        (200, "-", None),
        (404, "-", None),
        (500, "-", None),
        (503, "-", None),
        (503, "UF,URX", "gateway 503"),
        (504, "UT", "gateway 504"),
        (500, None, None),
        (502, None, "gateway 502"),
    ],
)
def test_a_server_that_errs_is_not_a_lost_request(status, flags, cause):
    """
    A 5xx of the version is its error rate; a 5xx of the gateway is a lost request.
    """
    assert lost_by(status, flags) == cause


def test_an_error_that_no_version_signs_is_the_gateways():
    """
    Where versions sign their answers, and nobody has flags: a gateway's own 500 is lost, one of a version is not.
    """
    assert lost_by(500, None, unsigned=True) == "gateway 500"
    assert (lost_by(404, None, unsigned=True), lost_by(500, "-", unsigned=True)) == (None, None)


class Server(http.server.BaseHTTPRequestHandler):
    """Answers as the path asks."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
            return
        if self.path == "/slow":
            time.sleep(1.0)
        failing = self.path == "/signed" and int(self.headers["x-request-id"].rpartition("-")[2]) > 10
        right = json.dumps({"outputs": [{"data": [json.loads(body)["x"]]}]}).encode()
        answer = right if self.path == "/right" else b"not JSON"
        self.send_response(502 if self.path == "/bad-gateway" else 500 if failing else 200)
        if self.path == "/signed" and not failing:
            self.send_header("x-canarykit-role", "stable")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def server():
    """A server with one thread per connection."""
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    serving.daemon_threads = True
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


BODIES = [{"body": {"x": 1}, "label": 1}, {"body": {"x": 2}, "label": 9}]


def sent(url, path, **options):
    """What became of a second of traffic."""
    load = ck.Load(url, path=path, rate=40, duration=1.0, payloads=BODIES, **options).start()
    summary = load.wait()
    return summary, load.answers()


def test_answers_are_judged_by_their_labels(server):
    """
    Each request has an id of its own, a time, a status, and a label that agreed or not.
    """
    summary, answers = sent(server, "/right")
    assert (summary.lost_total, summary.answered) == (0, len(answers))
    assert len({answer.request_id for answer in answers}) == len(answers) > 10
    assert {answer.label for answer in answers} == {1, 9}
    assert all(answer.right == (answer.said == answer.label) for answer in answers)
    right = [answer.right for answer in answers]
    assert 0.3 < sum(right) / len(right) < 0.7
    assert all(answer.seconds >= answer.behind >= 0 for answer in answers)


def test_requests_that_a_gateway_fails_without_a_word_are_lost(server):
    """
    After ten answers of a version come errors of nobody.
    """
    summary, answers = sent(server, "/signed")
    assert 0 < summary.lost_total < len(answers)
    assert {answer.lost for answer in answers if answer.status == 500} == {"gateway 500"}


def test_an_answer_that_cannot_be_read_is_wrong(server):
    """
    An answer that is not in the protocol counts as wrong, not as unknown.
    """
    _, answers = sent(server, "/nonsense")
    assert {answer.right for answer in answers} == {False}


@pytest.mark.parametrize(
    ("path", "cause", "options"),
    [("/reset", "reset", {}), ("/slow", "timed out", {"timeout": 0.2}), ("/bad-gateway", "gateway 502", {})],
)
def test_each_loss_has_its_cause(server, path, cause, options):
    """
    Reset, timed out, 5xx of the gateway.
    """
    summary, answers = sent(server, path, **options)
    assert summary.lost == {cause: len(answers)}
    assert cause in str(summary)
    assert {answer.right for answer in answers} == {None} or cause == "gateway 502"


def test_a_port_where_nobody_listens_refuses():
    """
    Refused connections are lost requests too.
    """
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        summary, answers = sent(f"http://127.0.0.1:{nobody.getsockname()[1]}", "/")
    assert summary.lost == {"refused": len(answers)}


def test_latency_counts_from_when_a_request_was_due(server):
    """
    A server that takes a second does not slow the traffic down: all is sent in time.
    """
    summary, answers = sent(server, "/slow", timeout=5.0)
    assert summary.behind_p99 < 0.5
    assert min(answer.seconds for answer in answers) >= 1.0
    assert max(answer.sent for answer in answers) - min(answer.sent for answer in answers) < 1.0


def test_traffic_stops_when_asked_and_counts_what_was_under_way(server):
    """
    Stop waits for answers that are due; it may be called again.
    """
    load = ck.Load(server, path="/slow", rate=20, payloads=BODIES).start()
    time.sleep(1.5)
    summary = load.stop()
    assert summary.lost_total == 0
    assert summary.sent == len(load.answers()) > 0
    assert load.stop() == summary
    assert not load.running


def test_a_killed_sender_is_an_error(server):
    """
    When nobody knows what became of the last requests, that is said.
    """
    load = ck.Load(server, path="/right", rate=20, payloads=BODIES).start()
    time.sleep(0.5)
    load._process.kill()
    with pytest.raises(ClusterError, match="ended with exit code -9"):
        load.stop()


def test_labels_are_classes_when_they_are_few():
    """
    Whole numbers and texts in order; not truth values, not measurements, not one, not many.
    """
    assert classes_of([3, 1, 3, None, 2]) == (1, 2, 3)
    assert classes_of(["dog", "cat", "dog"]) == ("cat", "dog")
    for labels in ([True, False], [0.5, 1.5], [1, 1], [None], range(21), [[1], [2]], [1, 2, 3.5]):
        assert classes_of(list(labels)) == ()


def test_a_confusion_counts_every_labelled_answer_of_both_versions():
    """
    By hand: a row for each label, a column for each class, and one for what is no class.
    """
    answers = [
        ("stable", 1, 1), ("stable", 2, 1), ("canary", 2, 2), ("canary", 2, 2.0), ("canary", 1, None),
        ("canary", 1, [2]), ("", 1, 1), ("canary", 7, 1),
    ]  # fmt: skip
    stable, canary = confusion_cells(answers, (1, 2)).reshape(2, 2, 3).tolist()
    assert stable == [[1, 0, 0], [1, 0, 0]]
    assert canary == [[0, 0, 2], [0, 2, 0]]
