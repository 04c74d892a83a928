"""Start-up tells the truth: what is ready, what waiting may mend, and what it will not."""

import http.server
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from canarykit.clusters.local import starting
from canarykit.clusters.local.descendants import busy_seconds
from canarykit.clusters.local.gateway import Endpoint
from canarykit.clusters.local.listening import Address, parsed
from canarykit.clusters.local.probe import probe, serves
from canarykit.clusters.local.processes import Processes
from canarykit.clusters.local.readiness import Observation, Steadiness, patience
from canarykit.clusters.local.starting import Replica, ended_after_ready, wait_ready
from canarykit.clusters.local.taken import complains
from canarykit.errors import ClusterError, PlanError
from canarykit.model import Service, Version

HERE, THERE = Address("127.0.0.1", 4000), Address("0.0.0.0", 8000)
linux = pytest.mark.skipif(sys.platform != "linux", reason="which process listens where is known on Linux only")


def steady(*looks, after=5.0):
    """Whether the last of some looks makes it steady."""
    steadiness = Steadiness(after)
    return [steadiness.take(look) for look in looks][-1]


@pytest.mark.parametrize(
    ("answer", "listens", "reported"),
    [
        (404, (), True),
        (401, (), True),
        (307, (), True),
        (204, (), True),
        ("it speaks HTTP/2", (), True),
        (500, (), False),
        (503, (), False),
        (400, (), False),
        (425, (), False),
        (429, (), False),
        (None, (), False),
        (None, (THERE,), True),
        (None, (HERE,), False),
        (None, (HERE, THERE), False),
        (None, (Address("::1", 4000),), True),
        (None, (Address("0.0.0.0", 4001),), False),
    ],
)
def test_what_waiting_does_not_mend_is_reported_once_it_is_steady(answer, listens, reported):
    """
    A refusal or another address that stays the same; nothing that means "loading", and no port that was asked for by name.
    """
    looks = [Observation(at, answer, listens, port=4000, named=frozenset({4001})) for at in (0.0, 4.9, 5.0)]
    assert not steady(*looks[:2])
    assert steady(*looks) is reported


def test_what_changes_is_not_steady():
    """
    A server that answers 404, then 503, then 404 loads; so does one that opens a port after another.
    """
    assert not steady(Observation(0, 404), Observation(3, 503), Observation(5, 404))
    assert not steady(Observation(0, None, (THERE,)), Observation(5, None, (THERE, Address("0.0.0.0", 8001))))


def test_a_server_that_works_is_not_steady():
    """
    Whatever it answers meanwhile: it may read a large model. It is reported once it has been idle for as long.
    """
    working = [Observation(0, 404, busy=0), Observation(5, 404, busy=4)]
    assert not steady(*working)
    assert not steady(*working, Observation(8, 404, busy=4.1))
    assert steady(*working, Observation(10, 404, busy=4.1))


def test_patience_is_a_share_of_the_limit():
    """
    A sixth, but at least 5 s: who says that a version takes 10 minutes does not want it ended after 10 s.
    """
    assert [patience(seconds) for seconds in (3, 30, 60, 600)] == [5, 5, 10, 100]


def test_listening_sockets_are_read_from_the_kernels_table():
    """
    IPv4 and IPv6; sockets that are connected or closed are none.
    """
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    rest = "00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 {} 1 0 100 0 0 10 0\n"
    table = head + "   0: 0100007F:1F90 " + rest.format("0A", 77) + "   1: 0100007F:1F91 " + rest.format("01", 78)
    expected = {"77": Address("127.0.0.1", 8080)}
    six = head + "   0: 00000000000000000000000001000000:1F92 " + rest.format("0A", 79)
    if sys.byteorder == "little":
        assert parsed(table) == expected
        assert parsed(six) == {"79": Address("::1", 8082)}
        assert str(parsed(six)["79"]) == "[::1]:8082"


SERVER = textwrap.dedent(
    """
    import http.server, os, socket, sys, time
    status, port, host = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(eval(os.environ.get("THEN", "status")))
            self.send_header("content-length", "0"); self.end_headers()
        def log_message(self, *args): pass
    began = time.monotonic()
    Server((host, port), Handler).serve_forever()
    """
)


@pytest.fixture
def begin():
    """Start servers; return what `wait_ready` takes."""
    processes = Processes("canarykit.serving")

    def make(*words, name="stable-0", env=None, ports=(), code=SERVER):
        version = Version("v1", command=[sys.executable, "-c", code, *words, "{port}"], ready="/readyz", env=env or {})
        facts = processes.start(name, version.command, env=env, listen="port", ports=ports, restart=True)
        return processes, Replica(Endpoint(name, "v1", facts["port"]), version)

    yield make
    processes.close()


@pytest.fixture
def impatient(monkeypatch):
    """Half a second of patience, for tests."""
    monkeypatch.setattr(starting, "patience", lambda within: 0.5)


def complaint(processes, *replicas, within=30.0):
    """What is said of replicas that do not come up, and after how long."""
    begun = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        wait_ready(processes, replicas, "http", within)
    return str(caught.value), time.monotonic() - begun


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (404, "answers 404 to /readyz: it has no such path; set ready="),
        (401, "answers 401 to /readyz: that path wants credentials; set ready="),
        (405, "answers 405 to /readyz: that path takes no GET; set ready="),
        (307, "answers 307 to /readyz: that is a redirect; set ready="),
        (204, "answers 204 to /readyz: only 200 means ready"),
    ],
)
def test_a_refusal_is_reported_long_before_the_limit(begin, impatient, status, said):
    """
    With what to do about it.
    """
    processes, replica = begin(str(status), "{port}", "127.0.0.1")
    text, seconds = complaint(processes, replica)
    assert said in text
    assert seconds < 25


def test_a_refusal_is_reported_of_whichever_replica_gives_it(begin, impatient):
    """
    Also of the second one, while the first one loads.
    """
    processes, loading = begin("503", "{port}", "127.0.0.1")
    _, refusing = begin("403", "{port}", "127.0.0.1", name="canary-0")
    text, seconds = complaint(processes, loading, refusing)
    assert "canary-0 (version 'v1') answers 403" in text
    assert seconds < 25


@pytest.mark.parametrize("status", [500, 502, 503, 400, 425, 429])
def test_a_server_that_loads_is_waited_for(begin, impatient, status):
    """
    Longer than the patience with other answers.
    """
    env = {"THEN": "200 if time.monotonic() - began > 1.5 else status"}
    processes, replica = begin(str(status), "{port}", "127.0.0.1", env=env)
    wait_ready(processes, [replica], "http", 30.0)


def test_a_404_before_the_routes_are_there_is_waited_for(begin):
    """
    With the real patience, which is longer than such a start takes.
    """
    processes, replica = begin("404", "{port}", "127.0.0.1", env={"THEN": "200 if time.monotonic() - began > 2 else 404"})
    wait_ready(processes, [replica], "http", 30.0)


def test_a_200_that_arrives_as_the_limit_ends_is_ready(begin, monkeypatch):
    """
    The last answer counts: it was asked for within the limit, or right at its end.
    """
    processes, replica = begin("200", "{port}", "127.0.0.1")

    def slow(*asked):
        time.sleep(1.0)
        return 200

    monkeypatch.setattr(starting, "probe", slow)
    wait_ready(processes, [replica], "http", 0.5)


@linux
@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("127.0.0.1", r"listens on 127\.0\.0\.1:{port}, not on 127\.0\.0\.1:\d+: use {{port}} in command="),
        ("0.0.0.0", r"listens on 0\.0\.0\.0:{port}, not on 127\.0\.0\.1:\d+: use {{port}} in command="),
    ],
)
def test_another_port_is_named(begin, impatient, host, said):
    """
    Long before the limit.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, replica = begin("200", str(port), host)
    text, seconds = complaint(processes, replica)
    assert re.search(said.format(port=port), text), text
    assert seconds < 25


@linux
def test_another_address_is_named(begin, impatient):
    """
    The port is right, but on an address at which nobody asks.
    """
    processes, replica = begin("200", "{port}", "127.0.0.2")
    text, seconds = complaint(processes, replica)
    assert re.search(r"listens on 127\.0\.0\.2:(\d+), not on 127\.0\.0\.1:\1: have it listen on 127\.0\.0\.1", text), text
    assert seconds < 25


@linux
def test_a_server_that_listens_and_says_nothing_is_no_closed_port(begin):
    """
    The message says which of the two it is.
    """
    silent = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(60)"
    processes, replica = begin("{port}", code=silent)
    text, _ = complaint(processes, replica, within=3.0)
    assert re.search(r"listens on 127\.0\.0\.1:\d+ and gives no answer to GET /readyz within 2 s", text), text


AUXILIARY = textwrap.dedent(
    """
    import http.server, socket, sys, threading, time
    kind, port = sys.argv[1], int(sys.argv[2])
    class Ready(http.server.BaseHTTPRequestHandler):
        content = "text/html"
        def do_GET(self):
            self.send_response(200); self.send_header("content-type", self.content)
            self.send_header("content-length", "0"); self.end_headers()
        def log_message(self, *args): pass
    class Metrics(Ready):
        content = "text/plain; version=0.0.4; charset=utf-8"
    if kind == "metrics":
        further = http.server.HTTPServer(("127.0.0.1", 0), Metrics)
        threading.Thread(target=further.serve_forever, daemon=True).start()
    else:
        further = socket.create_server(("127.0.0.1", 0))
        def refuse():
            while True: further.accept()[0].close()
        if kind == "closing": threading.Thread(target=refuse, daemon=True).start()
    time.sleep(3)
    http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
    """
)


@linux
@pytest.mark.parametrize("kind", ["silent", "closing", "metrics"])
def test_a_server_that_is_idle_behind_an_auxiliary_port_is_waited_for(begin, impatient, kind):
    """
    As one that downloads its model, with a port for its workers or for metrics: that says nothing about where it will serve.
    """
    processes, replica = begin(kind, code=AUXILIARY)
    wait_ready(processes, [replica], "http", 30.0)


@linux
def test_an_auxiliary_port_is_named_as_a_guess_when_the_limit_ends(begin, impatient):
    """
    It may be the wrong one, and it may be that the server still loads.
    """
    processes, replica = begin("silent", code=AUXILIARY.replace("sleep(3)", "sleep(60)"))
    text, _ = complaint(processes, replica, within=1.5)
    assert re.search(
        r"does not listen on 127\.0\.0\.1:\d+\. It listens on 127\.0\.0\.1:\d+: if it serves there, use {port}", text
    ), text
    assert "set a longer ready_within=" in text


@pytest.mark.parametrize("asked", [probe, lambda port, path: serves(Address("127.0.0.1", port), path)], ids=["probe", "serves"])
def test_a_probe_takes_the_whole_answer(asked):
    """
    A server whose answer is cut off logs a traceback for each of our questions.
    """
    failed = []

    class Large(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            for _ in range(40):
                self.wfile.write(b"x" * 10_000)
                time.sleep(0.002)

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            failed.append(sys.exc_info()[1])

    with Server(("127.0.0.1", 0), Large) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert asked(server.server_port, "/")
        server.shutdown()
    assert failed == []


def test_a_probe_gives_a_status_whose_body_does_not_end():
    """
    Within its time limit: some servers stream on any path.
    """

    class Endless(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert probe(server.server_port, "/") == 200
        server.shutdown()


def test_a_log_is_quoted_without_our_own_questions(begin):
    """
    An access log that notes each of them would leave no room for the cause.
    """
    noting = SERVER.replace("def log_message(self, *args): pass", "").replace(
        "began =", "print('no model', flush=True); began ="
    )
    processes, replica = begin("503", "{port}", "127.0.0.1", code=noting)
    text, _ = complaint(processes, replica, within=3.0)
    assert "GET /readyz HTTP" in processes.log("stable-0")
    assert "its log ends with:\nno model\n" in text


def test_a_server_that_goes_into_the_background_is_told_to_stay(begin):
    """
    It ended with exit code 0, which is no fault that its log shows.
    """
    processes, replica = begin("{port}", code="import sys; sys.exit(0)")
    text, _ = complaint(processes, replica)
    assert "ended 3 times by itself, last with exit code 0: a command must stay in the foreground" in text


TWO_PORTS = textwrap.dedent(
    """
    import http.server, os, socket, sys
    further = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            told = " ".join(f"{name}={os.environ.get(name)}" for name in ("PORT", "PORT_METRICS", "METRICS_AT"))
            self.send_response(200); self.send_header("x-told", told)
            self.send_header("content-length", "0"); self.end_headers()
        def log_message(self, *args): pass
    http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
    """
)


@linux
def test_a_port_that_another_replica_has_taken_is_the_cause(begin):
    """
    Two replicas with one fixed port: the second one's error names the first.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes, first = begin(str(port), "{port}", code=TWO_PORTS)
    wait_ready(processes, [first], "http", 30.0)
    _, second = begin(str(port), "{port}", code=TWO_PORTS, name="canary-0")
    text, _ = complaint(processes, second)
    assert f"port {port} is in use by stable-0: use {{port}}, or {{port:NAME}} for a further port, in place of {port}" in text


@linux
def test_a_port_that_another_process_has_taken_is_the_cause(begin):
    """
    Its program and process id are named.
    """
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        processes, replica = begin(str(port), "{port}", code=TWO_PORTS)
        text, _ = complaint(processes, replica)
    assert re.search(rf"port {port} is in use by \S.* \(process {os.getpid()}\)", text), text


@linux
def test_a_number_is_no_port_before_the_log_complains(begin):
    """
    That of a backend, or a limit of tokens, for which someone happens to listen.
    """
    with socket.create_server(("127.0.0.1", 0)) as backend:
        port = str(backend.getsockname()[1])
        env = {"BACKEND_URL": f"http://127.0.0.1:{port}", "THEN": "503"}
        processes, replica = begin("503", "{port}", "127.0.0.1", "--max-tokens", port, env=env)
        text, _ = complaint(processes, replica, within=2.0)
    assert "in use" not in text


@linux
def test_a_backend_is_no_taken_port_of_a_server_that_complains_about_another(begin):
    """
    The complaint names no port, and nobody of ours holds the one that is named elsewhere.
    """
    with socket.create_server(("127.0.0.1", 0)) as backend:
        code = "import sys; sys.exit('bind: address already in use')"
        env = {"BACKEND_URL": f"http://127.0.0.1:{backend.getsockname()[1]}"}
        processes, replica = begin("{port}", code=code, env=env)
        text, _ = complaint(processes, replica)
    assert "is in use by" not in text
    assert "its log says that an address is in use: use {port} or {port:NAME} for each port" in text


@linux
def test_a_port_that_only_the_servers_code_names_is_found_where_another_replica_listens(begin):
    """
    Neither the complaint nor the command says it.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = TWO_PORTS.replace("int(sys.argv[1])", str(port)).replace(
        "import http.server", "print('starts', flush=True); import http.server"
    )
    processes, first = begin("-", "{port}", code=code)
    wait_ready(processes, [first], "http", 30.0)
    _, second = begin("{port}", code="import sys; sys.exit('bind: address already in use')", name="canary-0")
    text, _ = complaint(processes, second)
    assert f"other replicas listen on {port} (stable-0)" in text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("OSError: [Errno 98] Address already in use", True),
        ("listen tcp 127.0.0.1:8000: bind: address already in use", True),
        ("Error: listen EADDRINUSE :::8000", True),
        ("Port 8000 is already in use", True),
        ("[ERROR] Connection in use: ('127.0.0.1', 8000)", True),
        ("GPU 0 memory in use: 8000 MiB", False),
        ("device cuda:0 is in use", False),
        ("compiled kernels in use: 8000", False),
        ("errno 980", False),
        ("address 0x8000 used", False),
    ],
)
def test_a_complaint_about_a_port_is_no_other_one(line, said):
    """
    Memory and devices are in use, too.
    """
    if sys.platform == "darwin":
        line = line.replace("Errno 98", "Errno 48")
    assert complains(line) is said


def test_an_end_before_a_replica_was_ready_is_none_after(begin, tmp_path):
    """
    A server that needed two tries is no server that ended once it was ready.
    """
    mark = tmp_path / "tried"
    code = f"import pathlib\nmark = pathlib.Path({str(mark)!r})\nif not mark.exists(): mark.touch(); raise SystemExit(1)\n"
    processes, replica = begin("200", "{port}", "127.0.0.1", code=code + SERVER)
    before = wait_ready(processes, [replica], "http", 30.0)
    assert before == {"stable-0": 1}
    assert ended_after_ready(processes, [replica], before) is None
    os.kill(processes.status()["stable-0"]["pid"], signal.SIGKILL)
    end = time.monotonic() + 20
    while processes.status()["stable-0"]["restarts"] < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "ended by itself, 1 times so far, last with exit code -9" in ended_after_ready(processes, [replica], before)


def test_a_named_port_is_each_replicas_own(begin):
    """
    In the command, in the environment, and as a variable.
    """
    import urllib.request

    told = []
    for name in ("stable-0", "canary-0"):
        env = {"METRICS_AT": "127.0.0.1:{port:metrics}"}
        processes, replica = begin("{port:metrics}", "{port}", code=TWO_PORTS, name=name, env=env, ports=["metrics"])
        wait_ready(processes, [replica], "http", 30.0)
        port, further = replica.endpoint.port, processes.status()[name]["ports"]["metrics"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
            assert response.headers["x-told"] == f"PORT={port} PORT_METRICS={further} METRICS_AT=127.0.0.1:{further}"
        told += [port, further]
    assert len(set(told)) == 4


def test_a_port_may_be_told_by_the_environment_alone():
    """
    That of the version or of the service. A command that takes it nowhere is refused, and so is a name that is none.
    """
    bare, told = ["mlserver", "start", "."], {"MLSERVER_HTTP_PORT": "{port}"}
    Service("a", Version("v1", command=bare, env=told), Version("v2", command=bare, env=told))
    Service("a", Version("v1", command=bare), Version("v2", command=bare), env=told)
    for env, all_env in (({"MLSERVER_HTTP_PORT": "{port:http}"}, {}), ({}, {}), ({"MLSERVER_HTTP_PORT": "8080"}, told)):
        with pytest.raises(PlanError, match=r"command of version 'v2' has no \{port\}"):
            Service("a", Version("v1", command=bare, env=told), Version("v2", command=bare, env=env), env=all_env)
    right = Version("v1", command=["serve", "{port}"])
    with pytest.raises(PlanError, match=r"\{port:1\} of env= of service 'a' names no port"):
        Service("a", right, right, env={"METRICS": "{port:1}"})
    image = Version("v1", image="x")
    Service("a", image, image, env={"TEMPLATE": "{port:1}"})
    for wrong in ("{port:}", "{port:8080}", "{port:a b}", "{port:open"):
        with pytest.raises(PlanError, match=rf"{re.escape(wrong)} of version 'v1' names no port"):
            Version("v1", command=["serve", "{port}", wrong])
    for wrong in ([], ["serve", "{port}", 8080]):
        with pytest.raises(PlanError, match="must be a list of words, each of them text"):
            Version("v1", command=wrong)


@linux
def test_work_of_processes_that_have_ended_counts():
    """
    A server that starts short programs one after another is not idle.
    """
    before = busy_seconds([os.getpid()])
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert busy_seconds([os.getpid()]) - before >= 0.4
