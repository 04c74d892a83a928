"""What comes over the wire: encodings, sizes, interim answers, early answers, connections that end, addresses."""

import gzip
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib

import pytest

import canarykit as ck
from canarykit.encodings import BrokenBody, Decoder
from canarykit.load.bodies import MOST_KEPT

RIGHT = b'{"outputs": [{"data": [1]}]}'
ROLE = b"x-canarykit-role: canary\r\n"
PAYLOADS = [{"body": {"x": 1}, "label": 1}]


def raw_deflate(data):
    """Deflate without the header of zlib."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


def whole(body=RIGHT, headers=b"", status=b"200 OK", role=ROLE):
    """An answer."""
    return b"HTTP/1.1 %b\r\n%b%bcontent-length: %d\r\n\r\n%b" % (status, role, headers, len(body), body)


class Raw:
    """A server that writes the same bytes to each request, whole requests or not."""

    def __init__(self, listening, context=None):
        self._listening, self._context = listening, context
        self.answer, self.early, self.open_for, self.then = b"", False, 30.0, "wait"
        self.requests = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self):
        """Address."""
        host, port = self._listening.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            used = time.monotonic()
            while self._read(connection):
                self.requests += 1
                if time.monotonic() - used > self.open_for:
                    return  # it was about to close it
                used = time.monotonic()
                connection.sendall(self.answer)
                if self.then == "close":
                    return
        except OSError:
            return
        finally:
            connection.close()

    def _read(self, connection):
        """Whether a request came."""
        read = b""
        while b"\r\n\r\n" not in read:
            piece = connection.recv(65536)
            if not piece:
                return False
            read += piece
        head, _, body = read.partition(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        while not self.early and len(body) < length:
            body += connection.recv(65536)
        return True


@pytest.fixture
def raw():
    """Make servers that write what a test says."""
    made = []

    def make(answer=b"", host="127.0.0.1", context=None, **options):
        listening = socket.create_server((host, 0), backlog=1000, family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        made.append(listening)
        server = Raw(listening, context)
        server.answer = answer
        for name, value in options.items():
            setattr(server, name, value)
        return server

    yield make
    for listening in made:
        listening.close()


def sent(url, **options):
    """What became of some traffic."""
    load = ck.Load(url, path="/", **{"rate": 40, "duration": 0.4, "payloads": PAYLOADS, "timeout": 5, **options}).start()
    return load.wait(), load.answers()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(RIGHT)),
        (b"GZIP ", gzip.compress(RIGHT)),
        (b"x-gzip", gzip.compress(RIGHT)),
        (b"gzip", gzip.compress(RIGHT[:9]) + gzip.compress(RIGHT[9:])),
        (b"deflate", zlib.compress(RIGHT)),
        (b"deflate", raw_deflate(RIGHT)),
        (b"identity", RIGHT),
        (b"identity", b"\xef\xbb\xbf" + RIGHT),
    ],
    # A name made of what gzip writes would hold the time, and pytest-xdist needs the same names in every process.
    ids=["gzip", "capitals", "x-gzip", "two members", "zlib", "raw deflate", "identity", "byte order mark"],
)
def test_encoded_answers_are_read(raw, encoding, body):
    """
    As the versions' own clients read them.
    """
    summary, answers = sent(raw(whole(body, b"content-encoding: %b\r\n" % encoding)).url)
    assert (summary.lost, {answer.right for answer in answers}) == ({}, {True})


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"aes128gcm"])
def test_an_encoding_that_nobody_asked_for_is_an_answer_that_cannot_be_read(raw, encoding):
    """
    The version answered, with this status, and is not right: a connection that broke off would be another fault.
    """
    summary, answers = sent(raw(whole(b"\x8b\x02", b"content-encoding: %b\r\n" % encoding)).url)
    assert (summary.lost, summary.statuses) == ({}, {"canary": {200: len(answers)}})
    assert {(answer.right, answer.said) for answer in answers} == {(False, None)}


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", RIGHT),
        (b"gzip", gzip.compress(RIGHT)[:-4]),
        (b"gzip", gzip.compress(RIGHT) + b"more"),
        (b"deflate", zlib.compress(RIGHT)[:-4]),
        (b"deflate", b"\xff" + RIGHT),
    ],
    ids=["not gzip", "gzip cut", "more after gzip", "deflate cut", "not deflate"],
)
def test_an_answer_that_is_not_encoded_as_it_says_is_lost(raw, encoding, body, labelled):
    """
    With a label or without: no client could read it.
    """
    payloads = PAYLOADS if labelled else [{"body": 1}]
    summary, answers = sent(raw(whole(body, b"content-encoding: %b\r\n" % encoding)).url, payloads=payloads)
    assert summary.lost == {"broken off": len(answers)}
    assert {answer.right for answer in answers} == {False if labelled else None}


@pytest.mark.parametrize("size", [1, 7, 64, 10_000_000])
@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress, raw_deflate], ids=["gzip", "zlib", "raw deflate"])
def test_pieces_of_any_size_are_decoded(encode, size):
    """
    Wherever a body is cut: the same, in pieces of bounded size, and broken when its end is missing.
    """
    data = b"".join(b"%d," % number for number in range(100)) + b"0" * 3_000_000
    encoded = encode(data)
    encoding = "gzip" if encode is gzip.compress else "deflate"
    decoder = Decoder(encoding)
    pieces = [piece for at in range(0, len(encoded), size) for piece in decoder.decoded(encoded[at : at + size])]
    decoder.close()
    assert b"".join(pieces) == data
    assert max(map(len, pieces)) <= 256 * 1024
    decoder = Decoder(encoding)
    with pytest.raises(BrokenBody):
        [list(decoder.decoded(encoded[:-1])), decoder.close()]


def memory_of(load):
    """Most bytes that a sending process has had in memory."""
    with open(f"/proc/{load._process.pid}/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="there is no /proc")
@pytest.mark.parametrize("labelled", [True, False])
def test_large_answers_do_not_fill_the_memory(raw, labelled):
    """
    Half a megabyte of gzip is half a gigabyte: read to its end, decoded bit by bit, and not kept.
    """
    encoder = zlib.compressobj(9, wbits=31)
    body = b"".join([encoder.compress(bytes(1_000_000)) for _ in range(500)]) + encoder.flush()
    load = ck.Load(
        raw(whole(body, b"content-encoding: gzip\r\n")).url,
        path="/",
        rate=4,
        payloads=PAYLOADS if labelled else [{"body": 1}],
        timeout=20,
    ).start()
    before = memory_of(load)
    time.sleep(2.5)
    most = memory_of(load)
    summary = load.stop()
    assert summary.answered > 0
    assert summary.lost == {}
    assert most - before < 8 * MOST_KEPT
    assert {answer.right for answer in load.answers()} == {False if labelled else None}


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
@pytest.mark.parametrize("times", [1, 3])
def test_interim_answers_are_passed_over(raw, interim, times):
    """
    Once or more: what counts is the answer itself.
    """
    summary, answers = sent(raw(b"HTTP/1.1 %b\r\nlink: </a>\r\n\r\n" % interim * times + whole()).url)
    assert (summary.lost, summary.statuses) == ({}, {"canary": {200: len(answers)}})
    assert {answer.right for answer in answers} == {True}


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("length", [b"", b"content-length: 0\r\n", b"content-length: 500\r\n"])
def test_answers_without_a_body_end_with_their_headers(raw, status, length):
    """
    Whatever length they say; the connection is used again, and such an answer is not right.
    """
    server = raw(b"HTTP/1.1 %b\r\n%b%b\r\n" % (status, ROLE, length))
    summary, answers = sent(server.url, timeout=2)
    assert (summary.lost, summary.statuses) == ({}, {"canary": {int(status[:3]): len(answers)}})
    assert {answer.right for answer in answers} == {False}


@pytest.mark.parametrize("protocol", [b"HTTP/1.1", b"HTTP/1.0"])
def test_an_answer_may_end_with_its_connection(raw, protocol):
    """
    Without a length, as old servers do.
    """
    summary, answers = sent(raw(b"%b 200 OK\r\n%b\r\n%b" % (protocol, ROLE, RIGHT), then="close").url)
    assert (summary.lost, {answer.right for answer in answers}) == ({}, {True})


def test_a_server_may_answer_before_it_has_read(raw):
    """
    It refuses a large body by its length: that is its answer, and not a connection that broke off.
    """
    server = raw(whole(b"", status=b"413 Content Too Large", headers=b"connection: close\r\n"), early=True, then="close")
    summary, answers = sent(server.url, payloads=[{"body": "x" * 3_000_000, "label": 1}], rate=5, duration=1.0)
    assert (summary.lost, summary.statuses) == ({}, {"canary": {413: len(answers)}})


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx-large: " + b"x" * 200_000 + b"\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_http_is_unreadable(raw, answer):
    """
    Something answers that is no web server, or sends headers without end: a cause of its own.
    """
    summary, answers = sent(raw(answer, then="close").url)
    assert summary.lost == {"unreadable": len(answers)}


def test_large_headers_are_read(raw):
    """
    Cookies and policies have some ten kilobytes; other clients take them.
    """
    summary, _ = sent(raw(whole(headers=b"set-cookie: a=" + b"x" * 20_000 + b"\r\n")).url)
    assert summary.lost == {}


@pytest.mark.parametrize(
    ("headers", "role"),
    [
        (b"", ""),
        (b"x-canarykit-role: v7\r\n", ""),
        (b"x-canarykit-role: stable\r\nx-canarykit-role: canary\r\n", ""),
        (b"x-canarykit-role: stable, canary\r\n", ""),
        (b"x-canarykit-role: canary\r\nx-canarykit-role: canary\r\n", "canary"),
        (b"X-Canarykit-Role: canary \r\n", "canary"),
    ],
)
def test_only_a_version_is_taken_for_one(raw, headers, role):
    """
    A gateway that adds its header to that of the server leaves two: then nobody knows which version answered.
    """
    summary, answers = sent(raw(whole(role=headers)).url)
    assert {answer.role for answer in answers} == {role}
    assert summary.statuses == {role: {200: len(answers)}}


def test_a_request_is_sent_once_and_connections_end_before_the_servers_do(raw):
    """
    The server closes connections that were unused for two seconds: by then no request uses them. None is sent twice.
    """
    server = raw(whole(), open_for=2.0)
    load = ck.Load(server.url, path="/", rate=0.5, payloads=PAYLOADS, seed=8).start()
    time.sleep(7)
    summary = load.stop()
    assert summary.lost == {}
    assert server.requests == summary.sent > 0


def test_a_connection_that_is_closed_at_once_loses_one_request_and_sends_none_twice(raw):
    """
    A POST must not be repeated, though aiohttp would repeat others.
    """
    server = raw(whole(), then="close")
    summary, answers = sent(server.url, rate=100, duration=1.0)
    assert server.requests <= len(answers)
    assert set(summary.lost) <= {"reset"}
    assert summary.answered == server.requests


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6")
def test_ipv6_addresses_are_asked(raw):
    """
    Written in brackets.
    """
    summary, answers = sent(raw(whole(), host="::1").url)
    assert (summary.lost, summary.answered) == ({}, len(answers))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_https_needs_a_certificate_that_this_machine_trusts(raw, tmp_path, monkeypatch):
    """
    For this very host; otherwise no request is sent, and the cause is not that nobody listens.
    """
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = raw(whole(), context=context)
    right = server.url.replace("http://127.0.0.1", "https://localhost")
    summary, answers = sent(right)
    assert summary.lost == {"TLS": len(answers)}
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert sent(right)[0].lost == {}
    summary, answers = sent(right.replace("localhost", "127.0.0.1"))
    assert summary.lost == {"TLS": len(answers)}


def test_a_host_that_does_not_exist_is_said():
    """
    Not that it refuses.
    """
    summary, answers = sent("http://nobody.invalid")
    assert summary.lost == {"no such host": len(answers)}


def test_two_loads_at_once_do_not_mix(raw):
    """
    Each counts its own; ids are different.
    """
    one, two = raw(whole()), raw(whole(status=b"503 Busy", headers=b"x-canarykit-flags: -\r\n"))
    loads = [ck.Load(server.url, path="/", rate=80, duration=0.6, payloads=PAYLOADS).start() for server in (one, two)]
    first, second = [load.wait() for load in loads]
    assert first.statuses == {"canary": {200: one.requests}}
    assert second.statuses == {"canary": {503: two.requests}}
    ids = [answer.request_id for load in loads for answer in load.answers()]
    assert len(set(ids)) == len(ids) == one.requests + two.requests


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_senders_end_with_the_process_that_began_them(raw, how):
    """
    Ctrl-C of a script, or a kernel that is killed: soon nothing sends any more.
    """
    server = raw(whole())
    code = (
        "import time, canarykit as ck\n"
        f"load = ck.Load({server.url!r}, path='/', rate=50, payloads=[{{'body': 1}}]).start()\n"
        "print(load._process.pid, flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    pid = int(parent.stdout.readline())
    parent.send_signal(how)
    parent.wait(10)
    parent.stdout.close()
    end = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.05)
    before = server.requests
    time.sleep(0.3)
    assert server.requests == before


def test_a_reader_that_is_busy_does_not_hold_up_the_sender(raw):
    """
    A cell of the notebook computes for seconds, and reads no results meanwhile: requests leave in time.
    """
    server = raw(whole())
    spec = ck.Load(server.url, path="/", rate=500, duration=4.0, payloads=PAYLOADS)._spec
    process = subprocess.Popen(
        [sys.executable, "-m", "canarykit.load.generator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.flush()
    time.sleep(6)
    lines = [json.loads(line) for line in process.stdout]
    process.stdin.close()
    process.wait(10)
    requests = [line for line in lines if isinstance(line, list)]
    assert lines[-1]["sent"] == len(requests) > 1000
    assert sorted(line[3] for line in requests)[int(0.99 * len(requests))] < 0.5


@pytest.mark.parametrize(("rate", "duration"), [(0.01, 1.0), (100, 0.001)])
def test_traffic_lasts_as_long_as_it_should(raw, rate, duration):
    """
    Also when no request is due within it; nothing is sent then, and nothing is said to be good.
    """
    load = ck.Load(raw(whole()).url, path="/", rate=rate, duration=duration, payloads=PAYLOADS).start()
    began = time.monotonic()
    summary = load.wait()
    assert time.monotonic() - began >= 0.9 * duration
    assert (summary.sent, summary.answered, summary.lost, summary.statuses) == (0, 0, {}, {})
    assert str(summary) == "0 requests sent, 0 lost"


def test_slow_traffic_stops_at_once(raw):
    """
    A request a minute: nobody waits for the next one.
    """
    load = ck.Load(raw(whole()).url, path="/", rate="1/min", payloads=PAYLOADS).start()
    time.sleep(0.3)
    began = time.monotonic()
    load.stop()
    assert time.monotonic() - began < 2
