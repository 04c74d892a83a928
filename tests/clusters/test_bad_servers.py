"""Servers that others built and that are broken, behind a real Envoy: none of them is promoted, and the report says why."""

import sys
import textwrap

import pytest

import canarykit as ck
from canarykit.history import replay
from canarykit.report.verdict import verdict

pytestmark = pytest.mark.real("envoy")

SERVER = textwrap.dedent(
    """
    import http.server, json, random, sys

    class Server(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(200, b"ready")

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            behaviour = sys.argv[2]
            if self.path != "/predict":
                self.answer(404, b'{"detail": "Not Found"}')
            elif behaviour == "refuses":
                self.answer(422, b'{"detail": "field required: text"}')
            elif behaviour == "fails":
                self.answer(500, b'{"error": "no model"}')
            elif behaviour == "breaks" and random.random() < 0.2:
                self.answer(200, b'{"label"', length=40)
                self.close_connection = True
            else:
                self.answer(200, b'{"label": "cat"}')

        def answer(self, status, body, length=None):
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
    """
)
PLAN = ck.RolloutPlan.of(10, 50, hold="4s", budget="2min", no_data_after="20s")


def version(name, behaviour):
    """A server from the standard library."""
    return ck.Version(name, command=[sys.executable, "-c", SERVER, "{port}", behaviour], ready="/healthz")


@pytest.mark.parametrize(
    ("stable", "canary", "path", "outcome", "said"),
    [
        ("works", "refuses", "/predict", "rolled back", ["refused requests", "0 % → 100 %"]),
        ("works", "breaks", "predict", "rolled back", ["error rate", "0 % →"]),
        ("fails", "fails", "/predict", "no data", ["stable does not serve what the kit sends", "failed (500)"]),
        ("works", "works", "/v1/predict", "no data", ["stable does not serve what the kit sends", "refused (404)"]),
        ("works", "works", "/predict", "promoted", ["no guardrail worse than its margin"]),
    ],
    ids=["the canary refuses all", "the canary breaks bodies off", "both fail all", "a wrong path", "both work"],
)
def test_only_servers_that_work_are_promoted(tmp_path, stable, canary, path, outcome, said):
    """
    The canary refuses everything, breaks a fifth of its bodies off, both fail, or the path is wrong: never promoted, and the
    first sentence of the report says why. The same servers without a fault are promoted.
    """
    service = ck.Service("texts", version("v1", stable), version("v2", canary))
    record = tmp_path / "journal.sqlite"
    with ck.Experiment(service, plan=PLAN, journal=record, notify=lambda line: None) as exp:
        exp.deploy()
        exp.send(80, path=path, payloads=[{"body": {"text": "miaow"}}])
        ending = exp.run()
    found = verdict(replay(ck.Journal.read(record)), ending)
    assert found["outcome"] == outcome, ending
    for part in said:
        assert part in found["sentence"], ending


def test_users_whose_requests_both_versions_fail_are_no_reference(tmp_path):
    """
    Traffic of others, which the kit does not send: stable fails all of it, and the verdict is "no data" with that reason.
    """
    import concurrent.futures
    import urllib.error
    import urllib.request

    service = ck.Service("texts", version("v1", "fails"), version("v2", "fails"))
    with ck.Experiment(service, notify=lambda line: None) as exp:
        exp.deploy()
        exp.shift(50)

        def ask(_):
            request = urllib.request.Request(f"{exp.cluster.url}/predict", b"{}")
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=10)

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(120)))
        exp.observe("1s")
        judgement = exp.judge()
    assert judgement.status == "no data"
    assert "stable fails 100 % of requests, so it is no reference" in judgement.sentence
