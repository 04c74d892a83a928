"""Who answers at the gateway, as a probe sees it."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.probe import Probe
from canarykit.routers.served import Patience, until_served
from canarykit.wire import ROLE_HEADER


@pytest.fixture
def gateway():
    """Answers with a status and headers that a test sets."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    made = HTTPServer(("127.0.0.1", 0), Handler)
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
