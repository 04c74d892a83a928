"""Requests that the gateway ends at its own limit: nobody takes them for the versions' failures without that word."""

import concurrent.futures
import contextlib
import http.client
import sys
import textwrap
import urllib.request

import pytest

import canarykit as ck
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.history import replay
from canarykit.report.verdict import verdict

pytestmark = pytest.mark.real("envoy")

SLOW = textwrap.dedent(
    """
    import http.server, sys, time

    class Server(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(200, b"ready")

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            if sys.argv[2] == "waits":
                time.sleep(3)
            if sys.argv[2] == "own 504":
                self.answer(504, b"")
            elif sys.argv[2] == "streams":
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for _ in range(30):
                    self.wfile.write(b"2\\r\\nok\\r\\n")
                    self.wfile.flush()
                    time.sleep(0.1)
            else:
                self.answer(200, b'{"label": "cat"}')

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

        def handle(self):
            try:
                super().handle()
            except OSError:
                pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
    """
)
PLAN = ck.RolloutPlan.of(50, hold="3s", budget="1min", no_data_after="20s")


def service(stable, canary):
    """Two servers from the standard library, one process each."""
    versions = (
        ck.Version(name, command=[sys.executable, "-c", SLOW, "{port}", how], ready="/healthz")
        for name, how in (("v1", stable), ("v2", canary))
    )
    return ck.Service("texts", *versions, replicas=1)


def test_a_limit_that_ends_all_requests_is_the_reason_that_is_told(tmp_path):
    """
    Two slow versions: as soon as `send` is called, while it runs, and in the summary, the judgement, ending and report.
    """
    lines, record = [], tmp_path / "journal.sqlite"
    with ck.Experiment(
        service("waits", "waits"), LocalCluster(timeout=1), plan=PLAN, journal=record, notify=lines.append
    ) as exp:
        exp.deploy()
        load = exp.send(20, path="/predict", payloads=[{"body": {"text": "miaow"}}], timeout=120)
        assert "send() waits 120 s for an answer, and the gateway ends requests after 1 s" in lines[-1]
        assert "LocalCluster(timeout=120)" in lines[-1]
        ending = exp.run()
        judgement, summary = exp.judge(), load.summary
    assert set(summary.lost) == {"gateway 504 at its limit of 1 s"}
    assert "set timeout=" in str(summary)
    assert ending.outcome == "no data"
    found = verdict(replay(ck.Journal.read(record)), ending)
    assert "504: the gateway's limit of 1 s ended" in found["sentence"]
    assert "The gateway gave up: set timeout= of the cluster" in found["sentence"]
    assert "path=" not in found["sentence"]
    assert "the gateway's own time limit ended" in judgement.sentence
    assert sum("504: the gateway's limit of 1 s ended" in line for line in lines if "no data" not in line) == 1


@pytest.mark.parametrize(("stable", "canary"), [("waits", "waits"), ("works", "waits"), ("streams", "streams")])
def test_the_limit_is_told_of_the_traffic_of_others(stable, canary):
    """
    Which the kit does not send; also where only the canary is slow, and where answers are cut after their headers.
    """
    lines = []
    with ck.Experiment(service(stable, canary), LocalCluster(timeout="0.5"), notify=lines.append) as exp:
        exp.deploy()
        exp.shift(50)

        def ask(_):
            request = urllib.request.Request(f"{exp.cluster.url}/predict", b"{}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                urllib.request.urlopen(request, timeout=10).read()

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            list(pool.map(ask, range(80)))
        exp.observe("1s")
        judgement, ending = exp.judge(), exp.abort()
    assert "the gateway's own time limit ended" in judgement.sentence
    assert ("ended 0 of the 0 failed requests of stable" in judgement.sentence) == (stable == "works")
    assert "504: the gateway's limit of 0.5 s ended" in ending.sentence
    assert sum("504: the gateway's limit of 0.5 s ended" in line for line in lines if "aborted" not in line) == 1


def test_a_stream_that_the_limit_cuts_is_lost_at_the_limit():
    """
    Its headers came in time, and it breaks off within.
    """
    with ck.Experiment(service("streams", "streams"), LocalCluster(timeout=1), notify=lambda line: None) as exp:
        exp.deploy()
        load = exp.send(20, path="/predict", payloads=[{"body": {}}], duration=1.0)
        load.wait()
    assert set(load.summary.lost) == {"broken off at the gateway's limit of 1 s"}


def test_a_servers_own_504_is_its_failure():
    """
    It is an answer, and nobody's limit.
    """
    with ck.Experiment(service("own 504", "own 504"), LocalCluster(timeout=1), notify=lambda line: None) as exp:
        exp.deploy()
        load = exp.send(40, path="/predict", payloads=[{"body": {}}], timeout=1, duration=1.0)
        load.wait()
        exp.observe("0.5s")
        judgement, ending = exp.judge(), exp.abort()
    assert (load.summary.lost, load.summary.statuses.keys()) == ({}, {"stable"})
    assert "limit ended" not in judgement.sentence
    assert "limit" not in ending.sentence
