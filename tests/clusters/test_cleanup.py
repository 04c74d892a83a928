"""SIGKILL runs no clean-up, and nothing may be left behind all the same."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent
WITHIN = 10.0

KERNEL = """
import sys, time
import canarykit as ck
exp = ck.Experiment(ck.Service("digits", ck.Version("v1", model=sys.argv[1]), ck.Version("v2", model=sys.argv[1])))
exp.deploy()
exp.send(100)
exp.shift(50)
print("folder", exp.cluster._processes.folder, flush=True)
time.sleep(120)
"""


def wait_for(stream, text):
    """Read lines until one holds the text; return it."""
    seen = []
    for line in stream:
        seen.append(line)
        if text in line:
            return line
    raise AssertionError("it ended before it was killed:\n" + "".join(seen))


def traces(pid):
    """What belongs to a process: all its descendants, and the ports that they listen on."""
    family = psutil.Process(pid).children(recursive=True)
    ports = {c.laddr.port for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return family, ports


def lives(process):
    """Whether a process still runs; one that nobody has waited for yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def left(family, ports, folders):
    """What is still there."""
    alive = [p.pid for p in family if lives(p)]
    listening = {c.laddr.port for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return alive + sorted(ports & listening) + [str(f) for f in folders if f.exists()]


def assert_gone(family, ports, folders):
    """Nothing is left within the bound."""
    end = time.monotonic() + WITHIN
    while (still := left(family, ports, folders)) and time.monotonic() < end:
        time.sleep(0.05)
    assert still == []


@pytest.mark.real("envoy")
def test_a_killed_kernel_leaves_nothing_behind(models):
    """
    No process, port, socket or folder, two seconds after SIGKILL of the process that made the cluster.
    """
    process = subprocess.Popen([sys.executable, "-c", KERNEL, str(models["good"])], stdout=subprocess.PIPE, text=True)
    folder = Path(wait_for(process.stdout, "folder").split()[1])
    family, ports = traces(process.pid)
    assert len(family) >= 7  # supervisor, Envoy, the forking process, four replicas, the sender
    assert len(ports) >= 5
    assert folder.exists()
    process.kill()
    process.wait()
    process.stdout.close()
    assert_gone(family, ports, [folder])


@pytest.mark.real("envoy")
@pytest.mark.real("jupyter")
def test_a_killed_demo_leaves_nothing_behind(tmp_path):
    """
    The same for the process that runs `make demo`, though the kernel is not its child.
    """
    runner = [sys.executable, "-m", "canarykit.cli", "report", "notebooks/rollout-report.ipynb", "--out", str(tmp_path / "out")]
    # A parent that is killed, as make would be, with the command as its child.
    parent = f"import subprocess; subprocess.run({[*runner, '--die-with-parent']!r}, cwd={str(ROOT)!r})"
    temporary = tmp_path / "t"
    temporary.mkdir()
    env = {**os.environ, "TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-u", "-c", parent], stdout=subprocess.PIPE, text=True, env=env)
    wait_for(process.stdout, "5 % to the canary")
    family, ports = traces(process.pid)
    folders = {Path(p.cwd()) for p in family if Path(p.cwd()).name.startswith("canarykit-")}
    sockets = {Path(c.laddr).parent for p in family for c in p.net_connections("unix") if c.laddr and "canarykit-" in c.laddr}
    assert len(family) >= 9
    assert sockets
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert_gone(family, ports, [*folders, *sockets])
    assert not list(temporary.glob("canarykit-*"))
