"""The guard as a process: it starts or says why not, and is started again when it ends before its work is done."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import yaml

from canarykit.clusters.kube import guard
from canarykit.clusters.kube.api.client import Client
from canarykit.clusters.kube.guard import Guard
from canarykit.errors import ClusterError

pytest.importorskip("kubernetes")

ASKED = {"router": "gateway-api", "url": "http://127.0.0.1:1", "gateway": "infra/web", "hostname": None, "route": None}
BINDING = {"asked": ASKED, "port": 80, "pod_port": 8080, "replicas": 2, "ready": "/ready"}
LEASE = SimpleNamespace(name="digits-rollout", holder="here-1-a", seconds=60)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """It is started again without a pause."""
    monkeypatch.setattr(guard, "_PAUSES", (0.01, 60.0))


@pytest.fixture
def told():
    """Lines of progress."""
    return []


@pytest.fixture
def guarded(told):
    """Make guards of processes that run these lines of Python, the last for ever; they are stopped afterwards."""
    made = []

    def make(*lines):
        left = list(lines)

        def launch():
            line = left.pop(0) if len(left) > 1 else left[0]
            if line is None:
                raise ClusterError("no guard can be started on this machine: no memory")
            return subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE)

        made.append(Guard(launch, told.append))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@pytest.fixture
def listener():
    """An API server that answers nobody."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        made.settimeout(20)
        yield made


@pytest.fixture
def client(listener, tmp_path, monkeypatch):
    """A client of that API server, by a kubeconfig whose current context is another soon after."""
    path = tmp_path / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{listener.getsockname()[1]}"}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in ("here", "there")],
    }
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    made = Client(None, "ns", patience=0.1)
    path.write_text(yaml.safe_dump({**config, "current-context": "there"}))
    return made


def until(condition, seconds=20):
    """Wait for something."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def tenders():
    """Threads that wait for guards."""
    return [thread for thread in threading.enumerate() if thread.name == "canarykit-guard"]


def test_a_guard_that_died_is_started_again_and_told(guarded, told):
    """
    Somebody killed it: the rollout is guarded again at once.
    """
    waits = "import time; time.sleep(600)"
    made = guarded(waits)
    first = made.process
    os.kill(first.pid, signal.SIGKILL)
    until(lambda: made.process is not first)
    assert told == ["the guard, which returns traffic when this process dies, has ended (signal 9): it is started again"]
    assert made.process.poll() is None


def test_a_guard_that_fails_each_time_says_so_once(guarded, told):
    """
    For as long as the reason is the same; it is tried again and again, also where no process can be started.
    """
    fails = "import sys; print('no such context'); sys.exit(1)"
    guarded(fails, fails, fails, None, None, "import time; time.sleep(600)")
    until(lambda: len(told) == 2)
    time.sleep(0.3)
    assert ["no such context" in told[0], "no memory" in told[1], len(told)] == [True, True, 2]


def test_a_guard_that_has_done_its_work_is_left_alone(guarded, told):
    """
    It has acted, or the lease is somebody else's.
    """
    made = guarded("")
    first = made.process
    until(lambda: not tenders())
    assert (made.process, told) == (first, [])


def test_a_guard_that_has_done_its_work_may_be_needed_again(guarded, told):
    """
    Somebody took the lease and went, and it is held here again; one that watches is left alone.
    """
    made = guarded("", "import time; time.sleep(600)")
    first = made.process
    until(lambda: not tenders())
    made.watch_again()
    second = made.process
    made.watch_again()
    assert (second is not first, made.process, second.poll(), told) == (True, second, None, [])


def test_a_guard_that_is_stopped_stays_so(guarded, told):
    """
    Not told of, and nothing is left of it; one that waits to be started again is not either.
    """
    made = guarded("import time; time.sleep(600)")
    made.stop()
    until(lambda: not tenders())
    assert made.process.poll() == -signal.SIGTERM
    assert told == []
    made = guarded("import sys; sys.exit(3)")
    until(lambda: told)
    made.stop()
    until(lambda: not tenders())
    assert "status 3" in told[0]


def test_who_is_told_does_not_end_the_watch(guarded, told, monkeypatch):
    """
    A notebook whose output has gone.
    """
    made = guarded("import time; time.sleep(600)")
    made._tell = lambda line: told.append(line) or 1 / 0
    first = made.process
    first.kill()
    until(lambda: made.process is not first)
    assert len(told) == 1


def test_the_guard_reads_the_kubeconfig_that_was_meant(client, listener, told, tmp_path, monkeypatch):
    """
    The context and the file of the beginning, whatever is current and set now; it has what it needs, and watches.
    """
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    seen = []
    monkeypatch.setattr(
        guard, "_launched", lambda facts, files, real=guard._launched: seen.append((facts, files)) or real(*seen[-1])
    )
    made = Guard.start(LEASE, client, "digits", BINDING, told.append)
    try:
        assert seen[0][0]["context"] == "here"
        assert seen[0][1] == {"KUBECONFIG": str(tmp_path / "kubeconfig")}
        with listener.accept()[0] as asks:
            asks.settimeout(20)
            assert asks.recv(1000).startswith(b"GET /apis/coordination.k8s.io/v1/namespaces/ns/leases/digits-rollout ")
        assert told == []
    finally:
        made.stop()


@pytest.mark.parametrize(
    ("facts", "says"), [({"url": None, "router": "istio"}, "give url="), ({"router": "strange"}, "strange")]
)
def test_a_guard_that_cannot_start_is_told(client, told, facts, says):
    """
    What it would need to act it looks for at once, and says what is wrong.
    """
    made = Guard.start(LEASE, client, "digits", {**BINDING, "asked": {**ASKED, **facts}}, told.append)
    try:
        until(lambda: told)
        assert says in told[0]
    finally:
        made.stop()


def test_a_kubeconfig_that_has_gone_is_told(client, told):
    """
    A rollout that would go on unguarded says so.
    """
    os.remove(os.environ["KUBECONFIG"])
    made = Guard.start(LEASE, client, "digits", BINDING, told.append)
    try:
        until(lambda: told)
        assert "no cluster is configured" in told[0]
    finally:
        made.stop()
