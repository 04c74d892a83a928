"""Whatever a server starts ends with it: workers in sessions of their own, daemons that forked twice, those deaf to SIGTERM.

On the processes and the supervisor of the local cluster; one whole rollout, and those of ``tests/servers``, have a gateway too.
"""

import http.client
import os
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import canarykit as ck
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.clusters.local.gateway import Endpoint
from canarykit.clusters.local.processes import Processes
from canarykit.clusters.local.starting import Replica
from canarykit.errors import ClusterError
from canarykit.health import Health
from canarykit.model import Version
from canarykit.routers.base import apply

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans to a grandparent")

SERVER = textwrap.dedent(
    """
    import http.server, os, pathlib, signal, sys, time

    kind, port, notes = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3])

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
        def log_message(self, *args): pass

    def note():
        (notes / str(os.getpid())).write_text(kind)

    def serve():
        http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()

    def apart(work):
        # A daemon: a session of its own, two forks away, deaf.
        if os.fork():
            os.wait()
            return
        os.setsid()
        if os.fork():
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        note()
        work()

    note()
    if kind == "daemon":
        apart(lambda: time.sleep(600))
        serve()
    elif kind == "worker holds the port":
        apart(serve)
        time.sleep(600)
    elif kind == "worker starts more":
        def forever():
            while True:
                if not os.fork():
                    note()
                    time.sleep(1.0)
                    os._exit(0)
                time.sleep(0.05)
        apart(forever)
        serve()
    elif kind == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        apart(lambda: time.sleep(600))
        serve()
    """
)
KINDS = ["daemon", "worker holds the port", "worker starts more", "deaf"]


@pytest.fixture
def notes(tmp_path):
    """A folder in which each process of a server writes a file with its process id as the name."""
    folder = tmp_path / "notes"
    folder.mkdir()
    (tmp_path / "serve.py").write_text(SERVER)
    return folder


@pytest.fixture
def processes():
    """Processes, closed afterwards."""
    made = Processes("canarykit.serving")
    yield made
    made.close()


def start(processes, notes, kind="daemon", name="a"):
    """Start such a server; return its port once it and its daemon are there."""
    before = len(list(notes.iterdir()))
    argv = [sys.executable, str(notes.parent / "serve.py"), kind, "{port}", str(notes)]
    port = processes.start(name, argv, listen="port", restart=True)["port"]
    until(lambda: len(list(notes.iterdir())) >= before + 2 and answers(port))
    return port


def answers(port):
    """Whether someone answers on that port."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def alive(notes):
    """Processes of the servers that still run."""

    def runs(pid):
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [int(path.name) for path in notes.iterdir() if runs(int(path.name))]


def until(condition, seconds=20.0):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_stop_ends_all_that_a_server_started(processes, notes, kind):
    """
    When `stop` returns, no process of it runs and its port is free.
    """
    port = start(processes, notes, kind)
    processes.stop("a", 0.5)
    assert alive(notes) == []
    assert not answers(port)
    assert processes.status() == {}


@pytest.fixture
def replaceable(tmp_path):
    """A program that can be away for a while."""
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o700)
    return program


def restarts(processes):
    """How often the process "a" was started again, or should have been."""
    return processes.status()["a"]["restarts"]


def test_a_restart_that_fails_is_noted_and_tried_again(processes, replaceable):
    """
    A program that is away for a moment, as while its package is installed again.
    """
    pid = processes.start("a", [str(replaceable)], listen="port", restart=True)["pid"]
    away = replaceable.rename(replaceable.with_name("away"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: restarts(processes) >= 3)
    facts = processes.status()["a"]
    assert not facts["running"]
    assert str(replaceable) in facts["failure"]
    assert "canarykit: a ended and cannot be started again" in processes.log("a")
    away.rename(replaceable)
    until(lambda: processes.status()["a"]["running"])
    assert processes.status()["a"]["failure"] is None


def test_a_replica_that_cannot_be_started_again_is_in_trouble(processes, replaceable):
    """
    It is named, and why it does not run.
    """
    started = processes.start("a", [str(replaceable)], listen="port", restart=True)
    cluster = LocalCluster()
    cluster._processes = processes
    version = Version("v1", command=[str(replaceable), "{port}"])
    cluster._replicas["canary"] = [Replica(Endpoint("a", "v1", started["port"]), version)]
    assert cluster.health("canary") == Health()
    replaceable.unlink()
    os.kill(started["pid"], signal.SIGKILL)
    until(lambda: restarts(processes) >= 4)
    assert "times (last exit code -1), and a not running; the log of a ends with:" in cluster.health("canary").problem
    assert "cannot be started again" in cluster.health("canary").problem
    cluster._processes = None


def test_a_process_whose_start_is_tried_again_can_be_stopped(processes, replaceable):
    """
    Between two tries, and while one is made: none is made afterwards.
    """
    pid = processes.start("a", [str(replaceable)], listen="port", restart=True)["pid"]
    away = replaceable.rename(replaceable.with_name("away"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: restarts(processes) >= 2)
    processes.stop("a", 0.5)
    away.rename(replaceable)
    assert processes.status() == {}
    processes.start("a", [str(replaceable)], listen="port", restart=True)
    assert restarts(processes) == 0


def test_a_process_whose_first_start_fails_leaves_nothing(processes):
    """
    Neither a process nor its name: it may be tried again.
    """
    for _ in range(2):
        with pytest.raises(ClusterError, match="none-there"):
            processes.start("a", ["/none-there"], listen="port", restart=True)
    assert processes.status() == {}


@pytest.mark.parametrize("kind", KINDS)
def test_close_ends_all_that_servers_started(notes, kind):
    """
    The same of all servers at once, when the folder is gone too.
    """
    processes = Processes("canarykit.serving")
    ports = [start(processes, notes, kind, name) for name in "ab"]
    processes.close()
    assert alive(notes) == []
    assert not any(map(answers, ports))
    assert not processes.folder.exists()


def test_stop_leaves_the_other_replicas_alone(processes, notes):
    """
    Only its own descendants are ended, although those of another replica look the same.
    """
    start(processes, notes, name="a")
    first = set(alive(notes))
    port = start(processes, notes, name="b")
    second = set(alive(notes)) - first
    processes.stop("a")
    assert set(alive(notes)) == second
    assert len(second) == 2
    assert answers(port)


def test_a_server_that_crashes_takes_its_workers_along_before_it_is_restarted(processes, notes):
    """
    Its worker held the port; the next one can listen on it.
    """
    port = start(processes, notes, "worker holds the port")
    first = set(alive(notes))
    os.kill(processes.status()["a"]["pid"], signal.SIGKILL)
    until(lambda: processes.status()["a"]["restarts"] == 1 and len(set(alive(notes)) - first) == 2 and answers(port))
    assert not first & set(alive(notes))
    assert "in use" not in processes.log("a")


def test_a_server_that_puts_itself_into_the_background_has_ended(processes, notes):
    """
    What it leaves running is ended: nobody could watch it.
    """
    launcher = "import os, subprocess, sys, time\nsubprocess.Popen(sys.argv[1:], start_new_session=True)\n"
    launcher += f"while len(os.listdir({str(notes)!r})) < 2: time.sleep(0.01)"
    argv = [sys.executable, "-c", launcher]
    processes.start("a", [*argv, sys.executable, str(notes.parent / "serve.py"), "daemon", "{port}", str(notes)], listen="port")
    until(lambda: not processes.status()["a"]["running"])
    assert processes.status()["a"]["last_code"] == 0
    assert len(list(notes.iterdir())) == 2
    assert alive(notes) == []


def test_a_killed_keeper_takes_its_server_along(processes, notes):
    """
    The supervisor ends what the keeper left, and nothing of another keeper's; the server comes back.
    """
    start(processes, notes, name="a")
    first = set(alive(notes))
    start(processes, notes, name="b")
    others = set(alive(notes)) - first
    os.kill(processes.status()["a"]["keeper"], signal.SIGKILL)
    until(lambda: processes.status()["a"]["restarts"] >= 1 and processes.status()["a"]["running"])
    until(lambda: not first & set(alive(notes)))
    assert others <= set(alive(notes))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
def test_an_ended_supervisor_leaves_nothing(notes, number):
    """
    The keepers notice that it is gone; asked to end, it ends all by itself.
    """
    processes = Processes("canarykit.serving")
    start(processes, notes, "daemon", "a")
    start(processes, notes, "deaf", "b")
    os.kill(processes._process.pid, number)
    until(lambda: not alive(notes))
    processes.close()
    assert not processes.folder.exists()


def test_nothing_is_left_when_the_supervisor_and_all_keepers_are_killed(notes):
    """
    Nobody is left who knows the daemons, but the cgroup does, where one can be made; it is removed, too.
    """
    processes = Processes("canarykit.serving")
    group = processes._cgroup
    try:
        if group is None:
            pytest.skip("no cgroup can be made here")
        start(processes, notes, name="a")
        start(processes, notes, name="b")
        keepers = [facts["keeper"] for facts in processes.status().values()]
        assert set(alive(notes)) <= {int(pid) for pid in (group / "cgroup.procs").read_text().split()}
        supervisor = psutil.Process(processes._process.pid)
        supervisor.suspend()  # so that it cannot end what a keeper leaves before it is killed itself
        for keeper in keepers:
            os.kill(keeper, signal.SIGKILL)
        supervisor.kill()
        until(lambda: len(alive(notes)) == 2)
    finally:
        processes.close()
    until(lambda: not alive(notes))
    assert not group.exists()


def test_a_killed_kernel_leaves_nothing(notes):
    """
    The supervisor notices, and ends what servers started, wherever it hid.
    """
    kernel = textwrap.dedent(
        f"""
        import sys, time
        from canarykit.clusters.local.processes import Processes
        processes = Processes("canarykit.serving")
        argv = [sys.executable, {str(notes.parent / "serve.py")!r}, "daemon", "{{port}}", {str(notes)!r}]
        processes.start("a", argv, listen="port", restart=True)
        print(processes.folder, processes._cgroup or processes.folder, flush=True)
        time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", kernel], stdout=subprocess.PIPE, text=True)
    left = process.stdout.readline().split()
    until(lambda: len(alive(notes)) == 2)
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not alive(notes) and not any(map(os.path.exists, left)))


FORKED = """
import os, pathlib, time
def main(argv):
    notes = pathlib.Path(argv[0])
    if not os.fork():
        os.setsid()
        if os.fork():
            os._exit(0)
        (notes / str(os.getpid())).write_text("")
        time.sleep(600)
    os.wait()
    (notes / str(os.getpid())).write_text("")
    time.sleep(600)
"""


def test_servers_that_are_forked_from_one_process_are_kept_too(notes, monkeypatch):
    """
    One replica ends with its own daemon alone; the others go on when the process that forks them is killed.
    """
    (notes.parent / "forked_server.py").write_text(FORKED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(notes.parent), os.environ.get("PYTHONPATH", "")]))
    processes = Processes("forked_server")
    try:
        pids = {}
        for name in "ab":
            before = set(alive(notes))
            processes.start(name, [str(notes)], listen="fd", prefork=True, restart=True)
            until(lambda before=before: len(set(alive(notes)) - before) == 2)
            pids[name] = set(alive(notes)) - before
        processes.stop("a", 1)
        assert set(alive(notes)) == pids["b"]
        (nursery,) = (
            child.pid
            for child in psutil.Process(processes._process.pid).children()
            if "canarykit.clusters.local.prefork" in child.cmdline()
            and any(sub.pid == processes.status()["b"]["keeper"] for sub in child.children())
        )
        os.kill(nursery, signal.SIGKILL)
        processes.start("c", [str(notes)], listen="fd", prefork=True)
        until(lambda: len(alive(notes)) == 4)
        assert processes.status()["b"]["restarts"] == 0
    finally:
        processes.close()
    assert alive(notes) == []


@pytest.mark.real("envoy")
def test_a_rollout_ends_what_it_no_longer_needs(notes):
    """
    On the local cluster: a promotion ends the old stable version with its daemons, retiring the canary those of the canary, and
    the teardown the rest.
    """
    command = ["python", str(notes.parent / "serve.py"), "daemon", "{port}", str(notes)]
    versions = [ck.Version(name, command=command, ready="/") for name in ("v1", "v2")]
    cluster = ck.LocalCluster()
    try:
        cluster.deploy(ck.Service("forking", *versions))
        until(lambda: len(alive(notes)) == 8)
        first = set(alive(notes))
        apply(cluster.router, ck.TrafficSplit(100))
        cluster.promote()
        until(lambda: len(alive(notes)) == 8)
        apply(cluster.router, ck.TrafficSplit(0))
        cluster.retire_canary()
        assert len(alive(notes)) == 4
        assert not first & set(alive(notes))
    finally:
        cluster.teardown()
    assert alive(notes) == []


def rollout(notes):
    """What a rollout does with processes: two versions, a promotion, the canary retired, all torn down."""
    processes = Processes("canarykit.serving")
    ports = [start_only(processes, notes, name) for name in ("stable-0", "canary-0", "stable-1")]
    processes.stop("stable-0", 1)
    processes.stop("canary-0", 1)
    processes.close()
    return ports, processes.folder


def start_only(processes, notes, name):
    """Start a server with a daemon, and wait until it answers, for as long as a busy machine takes."""
    argv = [sys.executable, str(notes.parent / "serve.py"), "daemon", "{port}", str(notes)]
    port = processes.start(name, argv, listen="port", restart=True)["port"]
    until(lambda: answers(port), 60)
    return port


@pytest.mark.slow
def test_fifty_rollouts_leave_no_process_port_or_file(notes, monkeypatch, tmp_path):
    """
    With a server that forks; ten at a time. A double of the rest: no gateway, no traffic.
    """
    temporary = tmp_path / "t"
    temporary.mkdir()
    monkeypatch.setattr("canarykit.clusters.local.folders.short_temporary", lambda: str(temporary))
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda _: rollout(notes), range(50)))
    ports = {port for ports, _ in done for port in ports}
    assert len(list(notes.iterdir())) >= 50 * 3
    assert alive(notes) == []
    assert not [port for port in ports if answers(port)]
    assert list(temporary.iterdir()) == []
