"""Who answers at the gateway, as a probe sees it."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.probe import Probe
from canarykit.routers.served import Patience, until_served
from canarykit.routers.ways import Way


@pytest.fixture
def gateway():
    """Answers with a status and headers that a test sets."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            made.asked.append((self.path, dict(self.headers)))
            status, headers = made.answer(self.path) if made.answer else (made.status, made.headers)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    made = HTTPServer(("127.0.0.1", 0), Handler)
    made.answer, made.asked = None, []
    made.status, made.headers, made.url = 200, {}, f"http://127.0.0.1:{made.server_port}"
    threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def probe(gateway):
    """Asks it."""
    made = Probe(gateway.url, "/ready")
    yield made
    made.close()


def test_who_answers(gateway, probe):
    """
    The role that a header names, nobody's name, and no version at all where the gateway itself refuses.
    """
    gateway.headers = {ROLE_HEADER: "canary"}
    assert (probe(), probe.last) == ("canary", "status 200")
    gateway.headers = {}
    assert probe() == ""
    gateway.status = 503
    assert (probe(), probe.last) == (None, "status 503")


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("https://gateway/ready", ", a redirect to https://gateway/ready: give url= as that"),
        ("https://me:secret@login:8443/auth?token=secret#secret", ", a redirect to https://login:8443/auth: give url= as that"),
        ("/login?back=secret", ", a redirect to /login: give url= as that"),
        ("http://[secret", ""),
        (None, ""),
    ],
)
def test_a_redirect_is_the_answer_of_no_version(gateway, probe, location, says):
    """
    From HTTP to HTTPS, or to where one logs in: the split is not seen there, and the error says where to look.
    """
    gateway.status, gateway.headers = 301, {} if location is None else {"location": location}
    assert (probe(), probe.last) == (None, f"status 301{says}")


def test_a_gateway_that_redirects_serves_no_split(gateway, probe):
    """
    Its answers, which name nobody, do not end the check.
    """
    gateway.status, gateway.headers = 308, {"location": "https://gateway/ready"}
    with pytest.raises(
        RoutingError, match=r"answers GET http://\S+/ready with status 308, a redirect to https://gateway/ready: give url= as"
    ):
        until_served(probe, TrafficSplit(0), TrafficSplit(5), what="HTTPRoute digits", patience=Patience(0.1))


def confirm(probe, before, after, *, within=20.0, **options):
    """Confirm a split with little time; what was told."""
    told = []
    probe.aim(TrafficSplit(after))
    patience = Patience(within, 0.1, notify=told.append, **options)
    until_served(probe, TrafficSplit(before), TrafficSplit(after), what="HTTPRoute digits", patience=patience)
    return told


@pytest.fixture
def soon(monkeypatch):
    """An answer is known to be steady sooner."""
    monkeypatch.setattr("canarykit.routers.served._STEADY", 0.3)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [401, 403, 405, 407])
def test_a_gateway_that_asks_who_is_there_is_left_to_the_counts(gateway, probe, status):
    """
    It turns the question away, not the users: that is told once, and the split is believed, sooner the next time.
    """
    gateway.status = status
    (said,) = confirm(probe, 0, 5)
    assert said.startswith(
        f"HTTPRoute digits: the gateway answers GET {gateway.url}/ready with status {status}, so that nobody sees"
    )
    asked = len(gateway.asked)
    assert confirm(probe, 5, 25) == []
    assert len(gateway.asked) - asked < asked


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [404, 302])
def test_a_teams_own_route_is_not_given_up_for_a_probe(gateway, probe, status):
    """
    It serves its users, whatever it answers at a path that they do not ask for; of a route that the kit made, it is an error.
    """
    gateway.status, gateway.headers = status, {"location": "https://login/?token=secret"} if status == 302 else {}
    with pytest.raises(RoutingError, match=rf"status {status}") as refused:
        confirm(probe, 0, 5, within=0.6)
    assert "secret" not in str(refused.value)
    (said,) = confirm(probe, 0, 5, any_refusal=True)
    assert f"with status {status}" in said
    assert "secret" not in said


@pytest.mark.usefixtures("soon")
def test_a_route_that_is_taken_up_late_is_waited_for(gateway, probe):
    """
    404 until the gateway has it, and then the versions: what was steady for a while is told once, and forgotten.
    """
    gateway.answer = lambda path: (404, {}) if len(gateway.asked) < 40 else (200, {ROLE_HEADER: "stable"})
    (said,) = confirm(probe, 0, 0)
    assert "with status 404 so far: does url= lead to the gateway of this route" in said
    assert len(gateway.asked) >= 40


@pytest.mark.usefixtures("soon")
def test_a_gateway_that_fails_is_never_believed(gateway, probe):
    """
    503 is what users get, too.
    """
    gateway.status = 503
    with pytest.raises(RoutingError, match=r"no version answers \(status 503\) in \d+ requests.* It was asked for GET http"):
        confirm(probe, 0, 5, within=0.6, any_refusal=True)


def test_each_version_is_asked_for_its_own_page(gateway):
    """
    All of one version: at its page. Both: in turn, and a 404 of a version that says its name counts as its answer.
    """
    pages = {"stable": "/healthz", "canary": "/v2/ready"}
    probe = Probe(gateway.url, pages)
    for split, paths in ((0, {"/healthz"}), (100, {"/v2/ready"}), (50, {"/healthz", "/v2/ready"})):
        gateway.asked.clear()
        probe.aim(TrafficSplit(split))
        for _ in range(4):
            probe()
        assert {path for path, _ in gateway.asked} == paths
    gateway.status, gateway.headers = 404, {ROLE_HEADER: "canary"}
    assert probe() == "canary"
    gateway.headers = {}
    assert (probe(), probe.refused) == (None, 404)
    probe.close()


@pytest.mark.parametrize("after", [100, 0])
def test_all_of_a_version_without_a_name_is_seen_at_its_own_page(gateway, after):
    """
    Each answers at a page of its own, and no answer says who gave it: 100 % is in force, and so is the way back.
    """
    served = "/v2/ready" if after else "/healthz"
    gateway.answer = lambda path: (200 if path == served else 404, {})
    probe = Probe(gateway.url, {"stable": "/healthz", "canary": "/v2/ready"})
    assert confirm(probe, 100 - after, after) == []
    probe.close()


def test_a_probe_asks_as_the_route_wants(gateway):
    """
    Its host, its headers, its prefix and its query; what a query holds is in no message.
    """
    way = Way("ai.example.com", "/chat", "/", headers={"x-tenant": "a"}, query={"key": "se cret"})
    probe = Probe(gateway.url, "/ready", way=way)
    assert probe() == ""
    ((path, headers),) = gateway.asked
    assert path == "/chat/ready?key=se+cret"
    assert (headers["host"], headers["x-tenant"]) == ("ai.example.com", "a")
    assert probe.asks == f"GET {gateway.url}/chat/ready (host ai.example.com)"
    probe.close()
