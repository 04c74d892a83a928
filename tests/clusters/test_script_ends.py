"""A script on the local default that is told to end: traffic is back on stable, the record says so, and nothing is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from test_cleanup import assert_gone, traces, wait_for

from canarykit.journal import Journal

pytestmark = pytest.mark.real("envoy")

SCRIPT = """
import sys, threading, time
import canarykit as ck
model, journal, handles = sys.argv[1:]
if handles == "its own":
    import signal
    signal.signal(signal.SIGTERM, lambda *args: print("told to end", flush=True))
versions = ck.Version("v1", model=model), ck.Version("v2", model=model)
exp = ck.Experiment(ck.Service("digits", *versions, replicas=1), journal=journal, guardrails=[ck.metrics.error_rate()])
exp.deploy()
exp.send(100)
print("folder", exp.cluster._processes.folder, flush=True)
def say():
    while exp.cluster.router.observed().canary != 25:
        time.sleep(0.05)
    print("weight", flush=True)
threading.Thread(target=say, daemon=True).start()
exp.run(ck.RolloutPlan.of(25, 50, hold="3s" if handles == "its own" else "10min", min_requests=10, budget="5s"))
print("went on", flush=True)
"""


@pytest.fixture
def script(models, tmp_path):
    """Start the script, and wait until the canary has a quarter; it, its folder and its journal."""
    started = []

    def start(handles):
        words = [str(models["stable"]), str(tmp_path / "journal"), handles]
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, *words], stdout=subprocess.PIPE, text=True)
        started.append(process)
        folder = wait_for(process.stdout, "folder").split()[1]
        wait_for(process.stdout, "weight")
        return process, folder, tmp_path / "journal"

    yield start
    for process in started:
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"])
def test_a_script_that_is_told_to_end_returns_traffic_first(script, number, code):
    """
    The exit code is the one that shells give, and the rest of the script does not run.
    """
    process, folder, journal = script("nothing")
    family, ports = traces(process.pid)
    os.kill(process.pid, number)
    assert "went on" not in process.stdout.read()
    assert process.wait(60) == code
    record = Journal.read(journal)
    assert record.ending.outcome == "inconclusive"
    assert record.ending.sentence.startswith(f"ended by {signal.Signals(number).name} after")
    assert "all traffic was back on stable after" in record.ending.sentence
    assert_gone(family, ports, [Path(folder)])


def test_a_script_that_handles_it_goes_on(script):
    """
    It decides itself what becomes of its rollout.
    """
    process, _, journal = script("its own")
    assert psutil.Process(process.pid).is_running()
    os.kill(process.pid, signal.SIGTERM)
    said = process.stdout.read()
    assert ("told to end" in said, "went on" in said, process.wait(60)) == (True, True, 0)
    assert not Journal.read(journal).ending.sentence.startswith("ended by")
