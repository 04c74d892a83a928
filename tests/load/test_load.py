"""Open-loop traffic: when it is sent, what is sent, and how each loss is counted."""

import asyncio
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

import canarykit as ck
from canarykit.errors import ClusterError, PlanError
from canarykit.load import generator
from canarykit.load.causes import broken_off_by, lost_by
from canarykit.load.limits import MOST_UNDER_WAY, most_under_way
from canarykit.load.load import per_second
from canarykit.load.payloads import classes_of, payloads
from canarykit.load.shapes import SHAPES, arrivals, peak
from canarykit.load.tally import Answer, Summary, Tally
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
    expected = 100 * np.array([SHAPES[shape](at, 40) for at in moments]).reshape(8, -1).mean(axis=1) * 5
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


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), None, "10s"])
def test_what_is_no_timeout_is_refused(timeout):
    """
    As many requests may be under way as come within it.
    """
    with pytest.raises(PlanError, match="a timeout is a number of seconds above 0"):
        ck.Load("http://127.0.0.1:9", timeout=timeout)


@pytest.mark.parametrize("duration", [0, -1, float("nan"), float("inf"), "10s"])
def test_what_is_no_duration_is_refused(duration):
    """
    NaN would send for ever; text would end the sending process.
    """
    with pytest.raises(PlanError, match="a duration is a number of seconds above 0"):
        ck.Load("http://127.0.0.1:9", duration=duration)


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None, True])
def test_what_is_no_seed_is_refused(seed):
    """
    The sending process could not begin, or would send at other times with each start.
    """
    with pytest.raises(PlanError, match="a seed is a whole number"):
        ck.Load("http://127.0.0.1:9", seed=seed)


@pytest.mark.parametrize(
    "url", ["", "localhost", "hush.example.com:80", "ftp://hush", "http://", "http://hush:99999", "http://[::1"]
)
def test_what_is_no_address_is_refused(url):
    """
    Every request would be lost, as though the service had broken off. The address is not shown: a password may be in it.
    """
    with pytest.raises(PlanError, match="of the form http://HOST:PORT") as caught:
        ck.Load(url)
    assert "hush" not in str(caught.value)


def nested(depth):
    """Lists within lists."""
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "payload",
    [
        {"body": 1, "label": np.int64(3)},
        {"body": np.zeros(3)},
        {"body": {"x": float("nan")}},
        {"body": 1, "label": float("inf")},
        {"body": {1, 2}},
        {"body": [b"text"]},
        {"body": b"text", "label": b"cat"},
        {"body": nested(100_000)},
    ],
)
def test_payloads_that_are_no_json_are_refused(payload):
    """
    By their number, before anything is sent: with a label of NumPy the process was started and left.
    """
    with pytest.raises(PlanError, match=r"payload 2 cannot be written as JSON: .*; give plain numbers"):
        ck.Load("http://127.0.0.1:9", payloads=[{"body": 1}, payload])


def test_a_line_that_is_nested_too_deeply_is_named(tmp_path):
    """
    As any other line that is no JSON the reader takes.
    """
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"body": 1}\n{"body": ' + "[" * 100_000 + "\n")
    with pytest.raises(PlanError, match=r"line 2 of .* too many arrays or objects"):
        payloads(path)


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
    path.write_text('\n{"body": 1}\n\n{"label": 2}\n')
    with pytest.raises(PlanError, match=r"line 4 of .* must be an object"):
        payloads(path)
    with pytest.raises(PlanError, match="payload 1 must be"):
        payloads([{"label": 3}])
    with pytest.raises(PlanError, match="no payloads"):
        payloads([])
    with pytest.raises(PlanError, match="cannot be read"):
        payloads(tmp_path / "missing.jsonl")


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\u2063", "ß"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_prompts_hold_any_sign(tmp_path, monkeypatch, sign, end):
    """
    Lines end at line feeds only; empty ones are passed over. Texts are UTF-8, whatever the locale, with a mark before or not.
    """
    monkeypatch.setattr("locale.getencoding", lambda: "ascii", raising=False)
    path = tmp_path / "prompts.jsonl"
    lines = ['{"body": {"prompt": "one' + sign + 'two"}}', "", '{"body": 2}', " \t", ""]
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + end.join(lines).encode())
        assert [payload.body for payload in payloads(path)] == [{"prompt": f"one{sign}two"}, 2]
        path.write_bytes(mark + end.join([*lines, "nonsense"]).encode())
        with pytest.raises(PlanError, match=r"line 6 of .* is no JSON"):
            payloads(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'[{"body": 1}, {"body": 2}]', "line 1 of .* is an array: write one object on each line"),
        (b'[\n  {"body": 1},\n  {"body": 2}\n]\n', "line 1 of .* is no JSON: .* The file is one JSON array: write one object"),
        (b'{\n  "body": 1\n}\n', "line 1 of .* An object must not go over several lines: write one object on each line"),
        (b"body,label\nHello,3\n", "line 1 of .* CSV and other formats are not read: write one object on each line"),
        (b'{"body": 1}\n\n{"body": NaN}\n', "line 3 of .* NaN is no number that JSON has"),
        ('{"body": "ü"}\n'.encode("latin-1"), "JSON lines in UTF-8; .* cannot be read"),
        ('{"body": 1}\n'.encode("utf-16"), "JSON lines in UTF-8; .* cannot be read"),
        (b"\n\n", "there are no payloads to send"),
    ],
)
def test_other_files_say_what_they_should_be(tmp_path, content, says):
    """
    A JSON array, an indented object, CSV, other encodings: each with a sentence that says what to write.
    """
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=says):
        payloads(path)


@pytest.mark.parametrize(
    ("path", "sent_to"),
    [
        ("predict", "/predict"),
        ("/predict", "/predict"),
        ("v1/models/iris:predict", "/v1/models/iris:predict"),
        ("/ask?key=1", "/ask?key=1"),
        ("/größe", "/größe"),
        ("/", "/"),
    ],
)
def test_a_path_begins_with_a_slash(path, sent_to):
    """
    One is put before it where there is none; what was asked for is written down without the query.
    """
    load = ck.Load("http://127.0.0.1:9/base/", path=path)
    assert load._spec["url"] == f"http://127.0.0.1:9/base{sent_to}"
    assert load.asked["path"] == urlsplit(f"/base{sent_to}").path


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("http://127.0.0.1:9/predict", "whole address"),
        ("HTTPS://ai.example.com", "whole address"),
        ("//ai.example.com/predict", "whole address"),
        ("localhost:8080/predict", "whole address"),
        ("/pre dict", "holds a space, or another sign"),
        ("/predict\n", "holds a space, or another sign"),
        ("/predict\x00", "holds a space, or another sign"),
        ("/predict#top", "holds a space, or another sign"),
        ("\\predict", "holds a space, or another sign"),
        ("/ask?key=hush hush", "holds a space, or another sign"),
        ("", "path of requests below"),
        (None, "path of requests below"),
    ],
)
def test_what_is_no_path_is_refused(path, says):
    """
    Before anything is sent; a whole address is not repeated, as it may hold a password.
    """
    with pytest.raises(PlanError, match=says) as caught:
        ck.Load("http://127.0.0.1:9", path=path)
    assert says != "whole address" or path.rpartition("/")[0] not in str(caught.value)
    assert "hush" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("status", "flags", "limit", "cause"),
    [
        (504, "UT", "15", "gateway 504 at its limit of 15 s"),
        (504, "DC,UT", "0.5", "gateway 504 at its limit of 0.5 s"),
        (504, "UT", None, "gateway 504"),
        (504, "UF", "15", "gateway 504"),
        (504, "-", "15", None),
        (504, None, "15", "gateway 504"),
        (504, "UT", "soon; x=" + "y" * 5000, "gateway 504"),
        (504, "UT", "nan", "gateway 504"),
    ],
    ids=["limit", "two flags", "no limit known", "no connection", "a version's", "another gateway", "a text", "no number"],
)
def test_a_504_of_the_gateways_limit_has_a_cause_of_its_own(status, flags, limit, cause):
    """
    With the limit, when the gateway says both; a server's own 504 is its answer.
    """
    assert lost_by(status, flags, limit=limit) == cause


def test_an_answer_that_is_cut_at_the_limit_says_so():
    """
    A stream has its headers when the limit ends it: how long it lasted tells.
    """
    assert broken_off_by("15", 15.01) == "broken off at the gateway's limit of 15 s"
    assert broken_off_by("15", 14.9) == broken_off_by(None, 100) == broken_off_by("x", 100) == "broken off"


def test_a_summary_says_what_to_do_about_a_limit():
    """
    Once, whatever the number of causes.
    """
    at_limit = {"gateway 504 at its limit of 15 s": 4, "broken off at the gateway's limit of 15 s": 2}
    assert str(Summary(lost=at_limit)).count("set timeout= of the cluster") == 1
    assert "timeout" not in str(Summary(lost={"gateway 504": 4}))


def test_an_error_that_no_version_signs_is_the_gateways():
    """
    Where versions sign their answers, and nobody has flags: a gateway's own 500 is lost, one of a version is not.
    """
    assert lost_by(500, None, unsigned=True) == "gateway 500"
    assert (lost_by(404, None, unsigned=True), lost_by(500, "-", unsigned=True)) == (None, None)


STRANGE = {
    "odd": b'{"odd": 1}',
    "nothing": b"",
    "arrays": b"[" * 200_000,
    "objects": b'{"outputs":' * 200_000,
    "deep": b'{"outputs": [{"data": [' + b"[" * 900 + b"]" * 900 + b"]}]}",
    "large": b'{"outputs": [{"data": ["' + b"x" * 1_000_000 + b'"]}]}',
    "digits": b'{"outputs": [{"data": [' + b"9" * 5000 + b"]}]}",
    "latin": '{"outputs": [{"data": ["ü"]}]}'.encode("latin-1"),
    "half": b'{"outputs": [{"data": ["\\ud800"]}]}',
}


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
        where, _, words = self.path.partition("?")
        if where == "/answer":
            self.answer(words.split("&"))
            return
        if self.path == "/headers":
            names = ("authorization", "content-type", "x-empty")
            body = json.dumps({"x": json.dumps({name: self.headers.get_all(name) for name in names})}).encode()
        failing = self.path == "/signed" and int(self.headers["x-request-id"].rpartition("-")[2]) > 10
        right = json.dumps({"outputs": [{"data": [json.loads(body)["x"]]}]}).encode()
        answer = right if self.path in ("/right", "/headers") else b"not JSON"
        self.send_response(502 if self.path == "/bad-gateway" else 500 if failing else 200)
        if self.path == "/signed" and not failing:
            self.send_header("x-canarykit-role", "stable")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def answer(self, words):
        """Answer with a status, signed or not, in a form, up to a point."""
        body = STRANGE.get(words[2], b'{"outputs": [{"data": [1]}]}')
        chunked, cut = words[2] == "chunked", words[-1] == "cut"
        self.send_response(int(words[0]))
        role = "canary" if "cookie" in self.headers else words[1]
        if role:
            self.send_header("x-canarykit-role", role)
        self.send_header(*(("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))))
        self.send_header("set-cookie", "version=canary; Path=/")
        self.send_header("location", "/right")
        self.end_headers()
        sent = body[:-5] if cut else body
        self.wfile.write(b"%x\r\n%b\r\n" % (len(sent), sent) if chunked else sent)
        self.wfile.flush()
        if cut and words[2] == "stalled":
            time.sleep(1.0)
        if cut and words[2] == "reset":
            time.sleep(0.02)  # so that the client has the headers
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
        elif chunked and not cut:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = cut

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
    load = ck.Load(url, path=path, **{"rate": 40, "duration": 1.0, "payloads": BODIES, **options}).start()
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
    ("how", "rights", "said"),
    [
        ("200&stable&plain", {True, False}, 1),
        ("201&stable&plain", {True, False}, 1),
        ("203&&plain", {True, False}, 1),
        ("200&stable&chunked", {True, False}, 1),
        ("422&stable&plain", {False}, None),
        ("404&canary&nothing", {False}, None),
        ("429&stable&odd", {False}, None),
        ("500&stable&plain", {False}, None),
        ("200&stable&odd", {False}, None),
        ("204&stable&nothing", {False}, None),
        ("422&&plain", {None}, None),
        ("500&&plain", {None}, None),
        ("307&stable&plain", {False}, None),
    ],
)
def test_a_version_whose_answer_cannot_be_read_is_not_right(server, how, rights, said):
    """
    Whatever its status: refused, failed, or in another form. Where nobody says which version it was, nobody knows.
    """
    summary, answers = sent(server, f"/answer?{how}", duration=0.4)
    assert {answer.right for answer in answers} == rights
    assert {answer.said for answer in answers} == {said}
    status, role, _ = how.split("&")
    assert summary.statuses == {role: {int(status): len(answers)}}
    assert summary.lost == {}


@pytest.mark.parametrize("form", ["plain", "chunked", "reset"])
@pytest.mark.parametrize(("status", "role", "right"), [(200, "canary", False), (200, "", None), (422, "stable", False)])
def test_an_answer_that_breaks_off_is_lost(server, form, status, role, right):
    """
    After its headers, however it does: with a cause of its own, the status and the version that the headers say.
    """
    summary, answers = sent(server, f"/answer?{status}&{role}&{form}&cut", duration=0.4)
    assert summary.lost == {"broken off": len(answers)}
    assert {(answer.status, answer.role, answer.right, answer.said) for answer in answers} == {(status, role, right, None)}
    assert (summary.answered, summary.statuses) == (0, {})


def test_a_version_that_stalls_is_not_right(server):
    """
    After its headers, which say which version it is; one without headers may be any.
    """
    summary, answers = sent(server, "/answer?200&canary&stalled&cut", duration=0.4, timeout=0.3)
    assert summary.lost == {"timed out": len(answers)}
    assert {(answer.status, answer.role, answer.right) for answer in answers} == {(200, "canary", False)}


def test_each_request_is_drawn_by_itself(server):
    """
    A gateway with sticky sessions gives a cookie: sent back, one draw would decide for all requests.
    """
    _, answers = sent(server.replace("127.0.0.1", "localhost"), "/answer?200&stable&plain")
    assert {answer.role for answer in answers} == {"stable"}


def test_a_redirect_is_not_followed(server):
    """
    It would be drawn a second time, under the same id: it is an answer, and said.
    """
    summary, answers = sent(server, "/answer?302&stable&plain", duration=0.4)
    assert f"{len(answers)} redirected ({len(answers)} × 302)" in str(summary)


@pytest.mark.parametrize("form", STRANGE)
def test_no_answer_makes_a_request_vanish(server, form):
    """
    Whatever a version answers: each request that was sent comes to an end, and such an answer is not right.
    """
    summary, answers = sent(server, f"/answer?200&canary&{form}", duration=0.4)
    assert (summary.lost, summary.answered) == ({}, len(answers))
    assert len(answers) == len(list(arrivals(40, "steady", 0.4, seed=0))) > 0
    assert {answer.right for answer in answers} == {False}


def test_an_error_of_the_sender_is_a_lost_request(sleepy, monkeypatch, capsys):
    """
    It is named by its class, and the request is not forgotten.
    """

    def broken(status, flags, **more):
        raise ZeroDivisionError

    monkeypatch.setattr(Sleepy, "SECONDS", 0.01)
    monkeypatch.setattr(generator, "lost_by", broken)
    spec = ck.Load(sleepy, path="/", rate=100, duration=0.3, payloads=BODIES)._spec
    asyncio.run(generator.Generator(spec).run(asyncio.Event()))
    tally = Tally()
    *_, sent_in_all = [tally.take(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    assert tally.summary.lost == {"ZeroDivisionError": sent_in_all}
    assert sent_in_all == len(list(arrivals(100, "steady", 0.3, seed=0)))


def test_requests_that_never_ended_are_lost():
    """
    Of each sender: the last line says how many it sent; those of which no line tells are lost, and said.
    """
    tally = Tally()
    for sender, ended in (("a", 3), ("b", 5)):
        for number in range(ended):
            tally.take([f"{sender}-{number}", 0.0, 0.01, 0.0, 200, "stable", None, None, None, None])
    assert (tally.take({"sent": 5, "ids": "a"}), tally.take({"sent": 5, "ids": "b"}), tally.take({"sent": 1, "ids": "c"})) == (
        5,
        5,
        1,
    )
    tally.take({"sent": 5, "ids": "a"})
    assert tally.summary.lost == {"unaccounted for": 3}
    assert "11 requests sent, 3 lost (3 unaccounted for)" in str(tally.summary)


def test_lines_that_are_no_sender_s_do_no_harm(server, tmp_path, monkeypatch):
    """
    Something else that runs in the sending process writes to its output: requests are counted all the same.
    """
    (tmp_path / "sitecustomize.py").write_text("print('hello'); print('[1, 2]'); print('[' * 100000)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    summary, answers = sent(server, "/right", duration=0.4)
    assert (summary.lost, summary.answered) == ({}, len(answers))
    assert len(answers) == len(list(arrivals(40, "steady", 0.4, seed=0))) > 0


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"x-retries": 3}, "has int for 'x-retries', not text"),
        ({"Authorization": None}, "has None for 'Authorization', not text: is a variable not set?"),
        ({"authorization": b"Bearer hush"}, "has bytes for 'authorization', not text"),
        ({"authorization": "Bearer hush\nx-more: 1"}, "a value for 'authorization' with a line feed"),
        ({"authorization": "Bearer\x00hush"}, "a value for 'authorization' with a line feed or another sign"),
        ({"authorization": "Bearer hush\x7f"}, "a value for 'authorization' with a line feed or another sign"),
        ({"authorization": "hush\ud800"}, "a value for 'authorization' with a line feed or another sign"),
        ({"authorization: Bearer hush": "1"}, r"a name \(the 1. one\) that is none"),
        ({"host": "a", "x-ü": "hush"}, r"a name \(the 2. one\) that is none"),
        ({3: "hush"}, r"a name \(the 1. one\) that is none"),
        ({"": "hush"}, r"a name \(the 1. one\) that is none"),
        ({"Host": "a", "host": "hush"}, "'host' twice"),
        ({"X-Request-Id": "hush"}, "'X-Request-Id', which the sender sets itself"),
        ({"content-length": "3"}, "'content-length', which the sender sets itself"),
        ({"Transfer-Encoding": "chunked"}, "'Transfer-Encoding', which the sender sets itself"),
        ({"expect": "100-continue"}, "'expect', which the sender sets itself"),
        ({"accept-encoding": "gzip, br"}, "'accept-encoding' that the sender cannot read"),
        (["authorization: hush"], "headers= takes names and texts, .* not a list"),
        ("authorization: hush", "headers= takes names and texts, .* not a str"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(headers, says):
    """
    Before anything is sent, by the header's name; the value may be a token, and is never shown.
    """
    with pytest.raises(PlanError, match=says) as caught:
        ck.Load("http://127.0.0.1:9", headers=headers)
    assert "hush" not in str(caught.value)


def test_headers_arrive_as_they_were_meant(server):
    """
    The line feed that ends a token's file is left out; a content type of one's own replaces that of JSON.
    """
    headers = {"Authorization": "Bearer t\n", "x-name": "ü", "Content-Type": "application/vnd.api+json", "x-empty": ""}
    assert ck.Load(server, headers=headers)._spec["headers"]["authorization"] == "Bearer t"
    _, answers = sent(server, "/headers", headers=headers, duration=0.3)
    (seen,) = {answer.said for answer in answers}
    assert json.loads(seen) == {"authorization": ["Bearer t"], "content-type": ["application/vnd.api+json"], "x-empty": [""]}


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


class Sleepy(asyncio.Protocol):
    """Answers each request after some seconds, however many there are."""

    SECONDS = 2.0

    def connection_made(self, transport):
        """Keep the way back."""
        self._transport, self._begun = transport, b""

    def data_received(self, data):
        """Answer once the body is whole."""
        self._begun += data
        if self._begun.endswith(b"}"):
            self._begun = b""
            answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
            asyncio.get_running_loop().call_later(self.SECONDS, self._transport.write, answer)


@pytest.fixture
def sleepy():
    """A server that sleeps, and takes as many connections as there are."""
    loop, listening = asyncio.new_event_loop(), socket.create_server(("127.0.0.1", 0), backlog=2000)
    serving = loop.run_until_complete(loop.create_server(Sleepy, sock=listening))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    loop.call_soon_threadsafe(serving.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_thousand_requests_under_way_do_not_hold_up_the_next(sleepy):
    """
    A slow server gets as many as are due: all are answered as late as it answers, none waits for another to end.
    """
    load = ck.Load(sleepy, path="/", rate=700, duration=2.0, payloads=BODIES).start()
    summary, answers = load.wait(), load.answers()
    assert (summary.lost, summary.unsent) == ({}, 0)
    times = sorted([(answer.sent + answer.behind, 1) for answer in answers] + [(a.sent + a.seconds, -1) for a in answers])
    assert max(np.cumsum([step for _, step in times])) > 1000
    assert np.median([answer.seconds for answer in answers]) < 2 * Sleepy.SECONDS


def test_what_cannot_be_sent_is_said(sleepy, monkeypatch, capsys):
    """
    With twenty under way at most, requests do not queue: they are counted, and latencies are not to be believed.
    """
    monkeypatch.setattr(generator, "files_for", lambda connections: 20)
    spec = ck.Load(sleepy, path="/", rate=100, duration=1.0, payloads=BODIES)._spec
    asyncio.run(generator.Generator(spec).run(asyncio.Event()))
    tally = Tally()
    *_, sent_in_all = [tally.take(json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    due = len(list(arrivals(100, "steady", 1.0, seed=0)))
    summary = tally.summary
    assert (sent_in_all, summary.sent, summary.unsent, summary.lost) == (20, 20, due - 20, {})
    assert summary.overloaded
    assert f"{due - 20} more could not be sent" in str(summary)
    assert max(answer.behind for answer in tally.answers()) < 1.0


def limited(soft, hard, code):
    """What a process prints that may open so many files."""
    begin = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}));"
    begin += "from canarykit.load import generator; from canarykit.load.limits import files_for;"
    return subprocess.run([sys.executable, "-c", begin + code], capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize(("soft", "hard", "may"), [(100, 4000, 1000), (100, 500, 500 - 64), (4000, 4000, 1000), (64, 64, 1)])
def test_connections_need_files(soft, hard, may):
    """
    The soft limit is raised as far as the hard one allows; what is left bounds the requests under way.
    """
    assert int(limited(soft, hard, "print(files_for(1000))")) == may


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_machine_without_room_is_not_a_service_that_refuses(sleepy, tmp_path):
    """
    When no more files can be opened, requests are unsent, not lost.
    """
    spec = ck.Load(sleepy, path="/", rate=100, duration=1.0, payloads=BODIES)._spec
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    code = (
        f"generator.files_for = lambda wanted: wanted; import sys; sys.argv = ['', '--spec', {str(tmp_path / 'spec.json')!r}];"
    )
    tally = Tally()
    for line in limited(60, 60, code + "generator.main()").splitlines():
        tally.take(json.loads(line))
    summary = tally.summary
    assert summary.lost == {}
    assert summary.unsent > 0
    assert summary.sent + summary.unsent == len(list(arrivals(100, "steady", 1.0, seed=0)))


def test_how_many_may_be_under_way_follows_from_rate_and_timeout():
    """
    As many as come until the first is given up, at the peak of the shape, with room for chance; within a bound.
    """
    assert 1000 < most_under_way(100, "steady", 10) < 1300
    assert 4000 < most_under_way(100, "spike", 10) < 4500
    assert most_under_way(0.1, "steady", 1) >= 10
    assert most_under_way(5000, "steady", 60) == MOST_UNDER_WAY
    for shape in SHAPES:
        assert peak(shape) == max(SHAPES[shape](at, 100) for at in np.linspace(0, 100, 1001))


@pytest.mark.parametrize(
    ("departure", "behind"),
    [
        ({"began": 3.5}, 0.5),
        ({"began": 3.0, "left": 5.0}, 2.0),
        ({"began": 3.0, "left": 5.0, "connecting": 1.5}, 0.5),
        ({"began": 3.0, "connecting": -3.1}, 0.0),
        ({"began": 2.9, "left": 2.95}, 0.0),
    ],
)
def test_lateness_is_that_of_the_sender(departure, behind):
    """
    From when a request was due, at 3.0, until it left; the time to connect is the service's.
    """
    assert generator._Departure(**departure).behind(3.0) == pytest.approx(behind)


def answered(status, role, number=0, lost=None):
    """One answer."""
    return Answer(f"r-{number}", 0.0, 0.01, 0.0, status, role, None, lost)


def test_a_summary_says_how_the_versions_answered():
    """
    By version, status and kind; the most frequent statuses are named; plain data holds it too, and so does a journal.
    """
    tally = Tally()
    seen = [(404, "stable")] * 40 + [(404, "canary")] * 3 + [(422, "canary"), (429, "canary"), (500, "stable"), (200, "")]
    for number, (status, role) in enumerate(seen):
        tally.add(answered(status, role, number))
    tally.add(answered(200, "canary", lost="broken off"))
    summary = tally.summary
    assert summary.statuses == {"stable": {404: 40, 500: 1}, "canary": {404: 3, 422: 1, 429: 1}, "": {200: 1}}
    assert summary.kinds["stable"] == {"ok": 0, "refused": 40, "denied": 0, "failed": 1}
    assert summary.kinds["canary"] == {"ok": 0, "refused": 4, "denied": 1, "failed": 0}
    assert sum(sum(counted.values()) for counted in summary.statuses.values()) == summary.answered
    assert "44 refused (43 × 404, 1 × 422), 1 denied (1 × 429), 1 failed (1 × 500)" in str(summary)
    journal = ck.Journal()
    journal.set_load(1, summary.record())
    (read,) = journal.loads()
    assert read == summary.record()
    assert read["statuses"]["canary"] == {"404": 3, "422": 1, "429": 1}
    assert Summary().record()["statuses"] == Summary().record()["kinds"] == {}


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


def senders():
    """Ids of the sending processes that this one has."""
    listed = subprocess.run(["ps", "-o", "pid=,stat=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return [line.split()[0] for line in listed.stdout.splitlines() if "load.generator" in line and line.split()[1][0] != "Z"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "raise ImportError('no library: key=hush, token=hush')",
            r"exit code 1 before it sent anything: ImportError: no library",
        ),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", r"exit code -9 \(killed: is there memory left\?\) before"),
        ("raise SystemExit(0)", "exit code 0 before it sent anything"),
    ],
)
def test_a_sender_that_does_not_come_up_is_an_error_at_once(server, tmp_path, monkeypatch, code, says, large):
    """
    With its exit code and what it said last; whether it ends before or after it is told what to send. Nothing is left.
    """
    (tmp_path / "aiohttp.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    bodies = [{"body": "x" * 500_000}] if large else BODIES
    load = ck.Load(server, path="/right", payloads=bodies, headers={"authorization": "hush"})
    began = time.monotonic()
    with pytest.raises(ClusterError, match=says) as caught:
        load.start()
    assert time.monotonic() - began < 30
    assert "hush" not in str(caught.value)
    assert (load.running, senders(), load.stop().sent) == (False, [], 0)


@pytest.mark.parametrize("error", [OSError(32, "Broken pipe"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_start_that_fails(server, monkeypatch, error):
    """
    When what to send cannot be handed over, or Ctrl-C comes meanwhile: the process is ended.
    """

    class Broken:
        def __init__(self, file):
            self.close = file.close

        def write(self, _):
            raise error

    def popen(*args, **options):
        process = real(*args, **options)
        process.stdin = Broken(process.stdin)
        return process

    real = subprocess.Popen
    load = ck.Load(server, path="/right", payloads=BODIES)
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises((ClusterError, KeyboardInterrupt)) as caught:
        load.start()
    assert caught.type is KeyboardInterrupt or "before it sent anything" in str(caught.value)
    monkeypatch.undo()
    assert (load.running, senders()) == (False, [])


def test_a_load_is_not_started_twice_at_once(server):
    """
    The first sender would be forgotten and send for ever. After it has been stopped it may begin again, and counts on.
    """
    load = ck.Load(server, path="/right", rate=40, duration=0.4, payloads=BODIES).start()
    with pytest.raises(PlanError, match="started before"):
        load.start()
    first = load.wait()
    second = load.start().wait()
    assert (second.sent, second.lost) == (2 * first.sent, {})


def test_labels_are_classes_when_they_are_few():
    """
    Whole numbers and texts in order; not truth values, not measurements, not one, not many.
    """
    assert classes_of([3, 1, 3, None, 2]) == (1, 2, 3)
    assert classes_of(["dog", "cat", "dog"]) == ("cat", "dog")
    for labels in ([True, False], [0.5, 1.5], [1, 1], [None], range(21), [[1], [2]], [1, 2, 3.5]):
        assert classes_of(list(labels)) == ()


@pytest.mark.parametrize("odd", [[3], {"x": 1}, [], [[1], [2]], {}, True])
@pytest.mark.parametrize("others", [[1, 2], ["a", "b"]])
def test_labels_that_are_no_plain_values_are_no_classes(odd, others):
    """
    Lists and objects beside classes: the labels are no classes, whatever their order, and traffic can be made from them.
    """
    assert classes_of([*others, odd]) == classes_of([odd, *others]) == ()
    load = ck.Load("http://127.0.0.1:9", payloads=[{"body": 1, "label": label} for label in [*others, odd]])
    assert load.classes == ()


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
