"""How Prometheus is asked who we are, and what is never shown."""

import base64
import socket
import time
import traceback
from http.server import BaseHTTPRequestHandler

import pytest
from click.testing import CliRunner
from telemetry_doubles import Prometheus

from canarykit.cli import main
from canarykit.errors import PlanError, TelemetryError
from canarykit.model import ROLES, TrafficSplit
from canarykit.telemetry.prometheus import PrometheusTelemetry
from canarykit.telemetry.prometheus_api import TOKEN_VARIABLE

SECRET = "s3cret-Tok.en_1"


@pytest.fixture
def prometheus():
    """A double of Prometheus' API."""
    made = Prometheus()
    yield made
    made.close()


def telemetry_of(prometheus, user="", **options):
    """Telemetry that has not begun."""
    url = f"http://{user}{prometheus.url}"
    return PrometheusTelemetry(url, "canarykit", {role: {"role": role} for role in ROLES}, **options)


def begun(telemetry):
    """The error at the beginning, with its traceback as a notebook shows it."""
    with pytest.raises(TelemetryError) as refused:
        telemetry.begin(TrafficSplit(5), time.time() - 100)
    return "".join(traceback.format_exception(refused.value)) + repr(refused.value)


def test_a_token_comes_from_a_file_that_is_read_anew(prometheus, tmp_path):
    """
    Tokens of service accounts are replaced while they are used: the next request has the new one.
    """
    file = tmp_path / "token"
    file.write_text("first\n")
    telemetry = telemetry_of(prometheus, token_file=file)
    telemetry.begin(TrafficSplit(5), time.time() - 100)
    assert prometheus.authorization == "Bearer first"
    file.write_text("second")
    telemetry.read(time.time())
    assert prometheus.authorization == "Bearer second"


def test_a_token_comes_from_the_environment(prometheus, monkeypatch):
    """
    The environment is asked when nothing else says who asks.
    """
    monkeypatch.setenv(TOKEN_VARIABLE, "from-outside")
    telemetry_of(prometheus).begin(TrafficSplit(5), time.time() - 100)
    assert prometheus.authorization == "Bearer from-outside"
    telemetry_of(prometheus, user="me:pw@").begin(TrafficSplit(5), time.time() - 100)
    assert prometheus.authorization == f"Basic {base64.b64encode(b'me:pw').decode()}"
    monkeypatch.delenv(TOKEN_VARIABLE)
    telemetry_of(prometheus).begin(TrafficSplit(5), time.time() - 100)
    assert prometheus.authorization is None


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY"])
def test_no_proxy_is_asked_for_a_prometheus_of_this_machine(prometheus, monkeypatch, variable):
    """
    A company's proxy does not reach what `kubectl port-forward` opens here, and most do not set no_proxy for it.
    """
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    telemetry_of(prometheus).begin(TrafficSplit(5), time.time() - 100)
    assert prometheus.asked


def test_two_ways_to_say_who_asks_are_refused(prometheus, tmp_path):
    """
    Nobody knows which one is meant; neither is shown.
    """
    with pytest.raises(PlanError, match="say in one way who asks") as refused:
        telemetry_of(prometheus, f"me:{SECRET}@", token_file=tmp_path)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("content", [None, "", " \n", "two words", "line\nbreak", "umlaut-ä"])
def test_a_file_without_a_token_is_an_error_that_names_it(prometheus, tmp_path, content):
    """
    Missing, empty, or not one word: said before anything is sent, and what is in it is not shown.
    """
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    said = begun(telemetry_of(prometheus, token_file=file))
    assert str(file) in said
    assert "break" not in said
    assert prometheus.asked == []


def test_who_is_turned_away_learns_how_to_say_who_asks(prometheus, tmp_path):
    """
    A 401 without any credentials names the variable.
    """
    prometheus.answer = (401, "Unauthorized")
    assert TOKEN_VARIABLE in begun(telemetry_of(prometheus))
    (tmp_path / "token").write_text("x")
    assert TOKEN_VARIABLE not in begun(telemetry_of(prometheus, token_file=tmp_path / "token"))


def power(url):
    """What the command line says when it asks this Prometheus for its interval."""
    return CliRunner().invoke(main, ["power", "--rate", "10", "--base", "0.01", "--effect", "2", "--prometheus", url])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            (401, "Who?"),
            f"answers 401 to its targets: Who? (name a file with a token, or set {TOKEN_VARIABLE})",
        ),
        ((403, "no"), "answers 403 to its targets: no"),
        ((503, "starting"), "answers 503 to its targets: starting"),
        ((500, "broken"), "answers 500 to its targets: broken"),
        ((200, "<html>login</html>"), "does not answer as a Prometheus does: b'<html>login</html>'"),
        ((404, "page not found"), "this Prometheus does not say how often it scrapes: give --scrape-interval instead"),
        ((200, '{"data":{"activeTargets":[]}}'), "this Prometheus does not say how often it scrapes"),
    ],
)
def test_power_says_why_it_learns_no_interval(prometheus, monkeypatch, answer, says):
    """
    Turned away, not ready, no Prometheus at all: each is another thing to do than to give the interval by hand.
    """
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    prometheus.answer = answer
    ended = power(f"http://{prometheus.url}")
    assert ended.exit_code != 0
    assert says in ended.output


def test_power_says_that_nobody_answers():
    """
    A port where nobody listens.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    ended = power(f"http://127.0.0.1:{port}")
    assert ended.exit_code != 0
    assert f"Prometheus at http://127.0.0.1:{port} cannot be reached" in ended.output


class Echo(BaseHTTPRequestHandler):
    """Says back what it was sent: in the status line, the headers and the body."""

    status = 401

    def do_POST(self):
        sent = self.headers.get("authorization", "")
        self.send_response(self.status, f"no {sent}")
        self.send_header("location", f"http://me:s%40cret@{self.headers['host']}/login?token={sent.split()[-1]}")
        self.end_headers()
        plain = base64.b64decode(sent.split()[-1]).decode() if sent.startswith("Basic") else sent
        self.wfile.write(f"<p>{sent} {plain} me:s%40cret@ {'x' * 400}".encode())

    do_GET = do_POST

    def log_message(self, *args):
        pass


@pytest.mark.parametrize("status", [200, 302, 307, 400, 401, 403, 500])
@pytest.mark.parametrize("way", ["password", "file", "environment"])
def test_what_proves_who_we_are_is_never_shown(prometheus, tmp_path, monkeypatch, status, way):
    """
    A server that says everything back: nothing of it is in an error, its traceback, the sources or a representation.
    """
    handler = type("Handler", (Echo,), {"status": status})
    prometheus._server.RequestHandlerClass = handler
    (tmp_path / "token").write_text(SECRET)
    if way == "environment":
        monkeypatch.setenv(TOKEN_VARIABLE, SECRET)
    options = {"token_file": tmp_path / "token"} if way == "file" else {}
    telemetry = telemetry_of(prometheus, "me:s%40cret@" if way == "password" else "", **options)
    said = f"{begun(telemetry)} {telemetry.sources} {telemetry!r} {telemetry._api!r}"
    encoded = base64.b64encode(b"me:s@cret").decode()
    hidden = ("s@cret", "s%40cret", encoded) if way == "password" else (SECRET,)
    assert [secret for secret in hidden if secret in said] == []
