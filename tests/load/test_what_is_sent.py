"""Requests of any method and any body, as they arrive at a server."""

import base64
import gzip
import http.server
import json
import subprocess
import sys
import threading
import zlib

import pytest

import canarykit as ck
from canarykit.errors import PlanError
from canarykit.load.load import specification
from canarykit.load.payloads import payloads
from canarykit.load.requests import METHODS, carried

URL = "http://127.0.0.1:9"
PICTURE = bytes(range(256))


class Mirror(http.server.BaseHTTPRequestHandler):
    """Says what it was sent, as the answer to compare."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        length = self.headers["content-length"]
        body = self.rfile.read(int(length or 0))
        told = {name: self.headers[name] for name in ("content-type", "content-encoding") if name in self.headers}
        seen = [self.command, length, body.hex(), told]
        said = json.dumps({"seen": json.dumps(seen), "nested": {"a.b": [None, "cat"]}, "label": 1}).encode()
        self.send_response(200)
        self.send_header("x-canarykit-role", "stable")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def mirror():
    """A server with one thread per connection."""
    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    serving.daemon_threads = True
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}"
    serving.shutdown()
    serving.server_close()


def sent(url, **options):
    """What became of some traffic."""
    load = ck.Load(url, path="/", **{"rate": 40, "duration": 0.4, **options}).start()
    summary = load.wait()
    assert summary.lost == {}
    answers = load.answers()
    assert answers
    return answers


def seen(url, payload, **options):
    """What a server saw of a payload: method, length, body and content headers."""
    (said,) = {answer.said for answer in sent(url, payloads=[{**payload, "label": "x"}], answer="seen", **options)}
    method, length, body, told = json.loads(said)
    return method, length, bytes.fromhex(body), told


@pytest.mark.parametrize("method", [method for method in METHODS if method != "HEAD"])
def test_each_method_arrives(mirror, method):
    """
    With a body when one is given, whatever the method.
    """
    found = seen(mirror, {"body": {"x": 1}}, method=method.lower())
    assert found == (method, "8", b'{"x": 1}', {"content-type": "application/json"})


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
def test_a_method_without_a_body_sends_none(mirror, method):
    """
    Nor a length or a content type.
    """
    found = seen(mirror, {}, method=method)
    assert (found[0], found[2], found[3]) == (method, b"", {})
    assert found[1] in (None, "0")
    assert {answer.status for answer in sent(mirror, method=method)} == {200}


def test_a_head_has_an_answer_without_a_body(mirror):
    """
    It is whole, and a label compares with nothing.
    """
    answers = sent(mirror, method="HEAD", payloads=[{"label": 1}], answer="label")
    assert {(answer.status, answer.right, answer.unread) for answer in answers} == {(200, False, "an answer is empty")}


@pytest.mark.parametrize(
    ("payload", "options", "body", "told"),
    [
        ({"body": PICTURE}, {}, PICTURE, {"content-type": "application/octet-stream"}),
        ({"body": bytearray(PICTURE)}, {"content_type": "image/png"}, PICTURE, {"content-type": "image/png"}),
        (
            {"body": PICTURE, "content_type": "image/jpeg"},
            {"content_type": "image/png"},
            PICTURE,
            {"content-type": "image/jpeg"},
        ),
        ({"body": b"x,y"}, {"headers": {"Content-Type": "text/csv"}}, b"x,y", {"content-type": "text/csv"}),
        ({"body_base64": base64.b64encode(PICTURE).decode()}, {}, PICTURE, {"content-type": "application/octet-stream"}),
        (
            {"body": "ü,y"},
            {"content_type": "text/csv; charset=utf-8"},
            "ü,y".encode(),
            {"content-type": "text/csv; charset=utf-8"},
        ),
        ({"body": "text"}, {}, b'"text"', {"content-type": "application/json"}),
        ({"body": "text"}, {"content_type": "application/vnd.x+json"}, b'"text"', {"content-type": "application/vnd.x+json"}),
        ({"body": None}, {}, b"null", {"content-type": "application/json"}),
        ({"body": b""}, {}, b"", {"content-type": "application/octet-stream"}),
    ],
    ids=["bytes", "bytearray", "own type", "a header", "base64", "text", "JSON text", "kind of JSON", "null", "nothing"],
)
def test_bodies_arrive_as_they_were_meant(mirror, payload, options, body, told):
    """
    Bytes as they are, text as text when its type says so, all else as JSON; a payload's own content type goes first.
    """
    found = seen(mirror, payload, **options)
    assert found[2:] == (body, told)


@pytest.mark.parametrize(
    ("compression", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)], ids=["gzip", "deflate"]
)
@pytest.mark.parametrize("body", [{"x": "y" * 500}, b"z" * 500], ids=["JSON", "bytes"])
def test_bodies_are_compressed_when_asked_for(mirror, compression, unpack, body):
    """
    The header says how, and the same payloads give the same bytes each time.
    """
    _, _, packed, told = seen(mirror, {"body": body}, compression=compression)
    content_type = "application/octet-stream" if isinstance(body, bytes) else "application/json"
    assert told == {"content-encoding": compression, "content-type": content_type}
    assert unpack(packed) == (body if isinstance(body, bytes) else json.dumps(body).encode())
    assert len(packed) < 100
    again = [specification(URL, payloads=[{"body": body}], compression=compression)["bodies"] for _ in range(2)]
    assert again[0] == again[1]


def test_bodies_that_are_compressed_already_are_sent_as_they_are(mirror):
    """
    With a header that says so.
    """
    packed = gzip.compress(b'{"x": 1}')
    found = seen(mirror, {"body": packed}, headers={"content-encoding": "gzip"}, content_type="application/json")
    assert found[2:] == (packed, {"content-encoding": "gzip", "content-type": "application/json"})


def test_a_file_holds_bytes_and_content_types(tmp_path):
    """
    Bytes in Base64, as JSON has no bytes; a line that is none is named.
    """
    path = tmp_path / "payloads.jsonl"
    path.write_text('{"body_base64": "AAEC", "content_type": "image/png", "label": "cat"}\n{"body": 1}\n')
    first, second = payloads(path)
    assert (first.body, first.content_type, first.label) == (b"\0\1\2", "image/png", "cat")
    assert (second.body, second.content_type) == (1, None)
    for line in ('{"body_base64": "A"}', '{"body_base64": 3}', '{"body_base64": "A?=="}', '{"body_base64": "ü"}'):
        path.write_text(f'{{"body": 1}}\n{line}\n')
        with pytest.raises(PlanError, match=r'"body_base64" of line 2 of .* is no Base64'):
            payloads(path)
    with pytest.raises(PlanError, match='payload 1 must be an object with "body" or "body_base64"'):
        payloads([{"body": 1, "body_base64": "AAEC"}])
    with pytest.raises(PlanError, match='payload 1 must be an object with any of "body" or "body_base64"'):
        payloads([{"query": 1}], body_needed=False)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"method": "FETCH"}, "method= is one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, not 'FETCH'"),
        ({"method": "CONNECT"}, "method= is one of"),
        ({"method": None}, "method= is one of .*, not None"),
        ({"content_type": "png"}, "content_type= is a media type .*, not 'png'"),
        ({"content_type": b"image/png"}, "content_type= is a media type"),
        ({"content_type": "text/plain; x=\n1"}, "content_type= is a media type|line feed"),
        ({"content_type": "image/png", "headers": {"Content-Type": "image/png"}}, "leave out one of them"),
        ({"payloads": [{"body": 1}, {"body": 1, "content_type": "png"}]}, '"content_type" of payload 2 is a media type'),
        ({"payloads": [{"body": 1, "content_type": 3}]}, '"content_type" of payload 1 is a media type'),
        ({"payloads": [{"body": {"x": 1}, "content_type": "image/png"}]}, "payload 1 has the content type 'image/png'"),
        ({"content_type": "application/x-www-form-urlencoded"}, "neither text nor bytes"),
        ({"payloads": [{"body": "\ud800"}], "content_type": "text/plain"}, "payload 1 cannot be written in UTF-8"),
        ({"compression": "br"}, 'compression= is "gzip" or "deflate", or None, not \'br\''),
        ({"compression": True}, "compression= is"),
        ({"compression": ["gzip"]}, "compression= is"),
        ({"compression": "gzip", "method": "GET"}, "no request has a body"),
        ({"compression": "gzip", "headers": {"content-encoding": "gzip"}}, "leave out one of them"),
        ({"headers": {"Content-Encoding": "gzip"}}, 'compression="gzip"'),
        ({"answer": "outputs[0]"}, "answer='outputs\\[0\\]' is written as in JSONPath"),
        ({"answer": ""}, "answer= is a path"),
    ],
)
def test_what_cannot_be_sent_is_refused(options, says):
    """
    Before anything is sent, with what to do.
    """
    with pytest.raises(PlanError, match=says):
        ck.Load(URL, **options)


@pytest.mark.parametrize(
    ("answer", "label", "right", "unread"),
    [
        ("label", 1, True, None),
        ("label", 2, False, None),
        ('nested."a.b".1', "cat", True, None),
        ("score", 1, False, "no answer at 'score': the body has the keys seen, nested, label"),
        ('nested."a.b".0', 1, False, r"no answer at 'nested.a\\.b.0': null stands there"),
    ],
)
def test_an_answer_is_read_where_a_path_leads(mirror, answer, label, right, unread):
    """
    It is compared with the label there; what is missing is not right, and the reason is handed on.
    """
    answers = sent(mirror, payloads=[{"body": 1, "label": label}], answer=answer)
    assert {(answer.right, answer.unread) for answer in answers} == {(right, unread)}


def test_pods_that_send_are_told_the_same(mirror, tmp_path):
    """
    All of it survives the file that a sender in a pod reads; what an earlier release wrote is sent as it was.
    """
    options = {"method": "PUT", "compression": "deflate", "answer": "seen", "content_type": "image/png"}
    spec = specification(mirror, rate=40, duration=0.4, payloads=[{"body": PICTURE, "label": "x"}], **options)
    earlier = {key: spec[key] for key in ("url", "rate", "shape", "duration", "timeout", "seed")}
    earlier |= {"headers": {}, "bodies": ['{"x": 1}'], "labels": [None]}
    lines = []
    for told in ({**spec, "senders": 1}, earlier):
        path = tmp_path / "spec.json"
        path.write_text(json.dumps(told))
        words = [sys.executable, "-m", "canarykit.load.generator", "--spec", str(path)]
        *written, _ = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        lines.append(json.loads(written[0]))
    method, _, body, headers = json.loads(lines[0][9])
    assert (method, zlib.decompress(bytes.fromhex(body))) == ("PUT", PICTURE)
    assert headers == {"content-type": "image/png", "content-encoding": "deflate"}
    assert (lines[1][4], lines[1][7]) == (200, None)


def test_bytes_come_back_from_json():
    """
    Text, bytes and nothing, each as it was.
    """
    told = specification(URL, payloads=[{"body": "ü"}, {"body": PICTURE}, {}], method="GET")["bodies"]
    assert [carried(body) for body in json.loads(json.dumps(told))] == [b'"\\u00fc"', PICTURE, None]


def test_what_was_asked_for_names_how_bodies_are_sent_only_where_that_was_chosen():
    """
    It is written down, and advice about refused requests names it.
    """
    given = {"rate": 10, "payloads": [{"body": {"text": "a"}}]}
    assert not {"compression", "content_type", "answer"} & set(ck.Load("http://127.0.0.1:1", **given).asked)
    chosen = {"compression": "gzip", "content_type": "application/json", "answer": "label"}
    assert ck.Load("http://127.0.0.1:1", **given, **chosen).asked.items() >= chosen.items()
