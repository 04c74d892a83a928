"""The HTTP client: what it reads, how it fails in words, and which way it goes."""

import http.server
import socket
import socketserver
import threading
import time

import pytest
from raw_servers import answering

from canarykit.web import Client, NoAnswerError, checked_token, read_token


class Handler(http.server.BaseHTTPRequestHandler):
    """Says back what it was asked; streams without an end on /stream."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            except OSError:
                self.close_connection = True
            return
        self.server.connections.add(self.client_address)
        length = int(self.headers.get("content-length", 0))
        said = f"{self.command} {self.path} {self.headers.get('x-a')} ".encode() + self.rfile.read(length)
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_POST = do_GET

    def log_message(self, *words):
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves on a socket in the file system."""

    daemon_threads = True

    def get_request(self):
        request, _ = super().get_request()
        return request, ("unix", 0)


@pytest.fixture
def server():
    """A server of the standard library on a free port."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.connections, made.url = set(), f"http://127.0.0.1:{made.server_address[1]}"
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_an_answer_has_status_headers_and_body(server):
    """Headers are found in any case, a redirect is not followed, and the connection is kept."""
    with Client(server.url) as client:
        answer = client.ask("GET", "/a?b=1", headers={"x-a": "2"})
        assert (answer.status, answer.body, answer.headers["location"]) == (200, b"GET /a?b=1 2 ", "/elsewhere")
        assert client.ask("POST", "/p", body=b"sent").body == b"POST /p None sent"
        assert client.ask("GET", "/moved").status == 302
    assert len(server.connections) == 1


def test_a_body_is_read_as_far_as_wanted(server):
    """A stream without an end is left after so many bytes; the next request gets an answer of its own."""
    with Client(server.url) as client:
        assert len(client.ask("GET", "/stream", most=5000).body) == 5000
        assert client.ask("GET", "/after", most=100).body == b"GET /after None "
        assert client.ask("GET", "/after", most=3).body == b"GET"
        assert client.ask("GET", "/again", most=100).body == b"GET /again None "


def test_a_slow_body_is_read_for_as_long_as_the_limit():
    """The status is known, and what came of the body."""
    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", hold=3) as listening:
        begun = time.monotonic()
        answer = Client(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=0.3).ask("GET", "/", most=100)
    assert (answer.status, answer.body) == (200, b"half")
    assert time.monotonic() - begun < 2.5


def test_a_socket_in_the_file_system_is_asked(tmp_path):
    """As Envoy's administration is."""
    path = tmp_path / "admin.sock"
    with UnixServer(str(path), Handler) as made:
        made.connections = set()
        threading.Thread(target=made.serve_forever, daemon=True).start()
        with Client("http://localhost", unix=path) as client:
            assert client.ask("GET", "/ready").body == b"GET /ready None "
        made.shutdown()
    with pytest.raises(NoAnswerError):
        Client("http://localhost", unix=tmp_path / "none.sock").ask("GET", "/")


@pytest.mark.parametrize(
    ("written", "connected", "says"),
    [
        (b"", True, "without response"),
        (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", True, ""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", True, "IncompleteRead"),
    ],
    ids=["closes without a word", "another protocol", "half a body"],
)
def test_what_is_no_answer_is_an_error(written, connected, says):
    """It says why, without objects of a library in it, and whether anybody was there."""
    with answering(written) as listening, pytest.raises(NoAnswerError) as failed:
        Client(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=2).ask("GET", "/")
    assert failed.value.connected is connected
    assert says in str(failed.value)
    assert "object at" not in str(failed.value)


def test_silence_and_absence_are_errors():
    """Nobody listens; nobody answers in time; no such name."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(NoAnswerError, match="timed out") as silent:
            Client(f"http://127.0.0.1:{port}", timeout=0.2).ask("GET", "/")
    with pytest.raises(NoAnswerError, match="refused") as absent:
        Client(f"http://127.0.0.1:{port}", timeout=2).ask("GET", "/")
    with pytest.raises(NoAnswerError) as unknown:
        Client("http://no-such-host.invalid", timeout=2).ask("GET", "/")
    for failed in (silent, absent, unknown):
        assert not failed.value.connected
        assert "object at" not in str(failed.value)


@pytest.mark.parametrize(("proxies", "host", "direct"), [(False, "ai.example", True), (True, "ai.example", False)])
def test_a_proxy_is_used_only_where_it_is_wanted(monkeypatch, server, proxies, host, direct):
    """A proxy of the environment answers for any host; without it, a host that does not exist is not found."""
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    client = Client(f"http://{host}.invalid", timeout=2, proxies=proxies)
    if direct:
        with pytest.raises(NoAnswerError):
            client.ask("GET", "/x")
    else:
        assert client.ask("GET", "/x").body == f"GET http://{host}.invalid/x None ".encode()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Client(server.url, proxies=True).ask("GET", "/here").status == 200


def test_a_token_is_one_word(tmp_path):
    """Whatever is wrong is said without the token."""
    (tmp_path / "token").write_text(" abc.def\n")
    assert read_token(tmp_path / "token") == "abc.def"
    for text in ("", " \n", "two words", "line\nbreak", "umlaut-ä"):
        with pytest.raises(ValueError, match="token= holds no token") as refused:
            checked_token(text, "token=")
        assert "break" not in str(refused.value)
    with pytest.raises(ValueError, match="none with the token cannot be read: No such file"):
        read_token(tmp_path / "none")
