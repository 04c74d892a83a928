"""Folders of local clusters: those that nobody was left to remove are removed, and no others."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from canarykit.clusters.local import folders
from canarykit.clusters.local.processes import Processes
from canarykit.errors import ClusterError


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A place for such folders that is the test's own."""
    monkeypatch.setattr(folders, "short_temporary", lambda: str(tmp_path))
    return tmp_path


def ended():
    """Identity of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = folders._identity(process.pid)
    process.communicate(b"\n")
    return identity


def made(temporary, name, *owners):
    """A folder with a mark that names these owners."""
    folder = temporary / name
    (folder / "logs").mkdir(parents=True)
    (folder / "owners").write_text("".join(json.dumps(owner) + "\n" for owner in owners))
    return folder


def test_a_folder_whose_owners_have_ended_is_removed(temporary):
    """
    With what is in it.
    """
    left = made(temporary, "canarykit-left", ended(), ended())
    folders.sweep()
    assert not left.exists()


def test_a_folder_is_left_alone_unless_all_of_its_owners_have_surely_ended(temporary):
    """
    One of them lives, or they are of another machine or container; or there is no mark that can be read.
    """
    gone, here = ended(), folders._identity(os.getpid())
    kept = [
        made(temporary, "canarykit-lives", gone, here),
        made(temporary, "canarykit-elsewhere", {**gone, "where": ["another"]}),
        made(temporary, "canarykit-nobody"),
        made(temporary, "other-left", gone),
    ]
    (temporary / "canarykit-unmarked").mkdir()
    foreign = made(temporary, "canarykit-foreign")
    (foreign / "owners").write_text("[1]\n{}\n")
    torn = made(temporary, "canarykit-torn", gone)
    (torn / "owners").write_text('{"pid": 1')
    target = made(temporary, "target", gone)
    (temporary / "canarykit-link").symlink_to(target)
    (temporary / "canarykit-file").write_text("")
    folders.sweep()
    assert all(folder.exists() for folder in [*kept, temporary / "canarykit-unmarked", torn, foreign, target / "owners"])


def test_a_folder_of_another_user_is_left_alone(temporary, monkeypatch):
    """
    Whatever its mark says.
    """
    left = made(temporary, "canarykit-left", ended())
    monkeypatch.setattr(os, "getuid", lambda: left.stat().st_uid + 1)
    folders.sweep()
    assert left.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="when a process began is known on Linux only")
def test_a_later_process_of_the_same_number_is_no_owner(temporary):
    """
    Numbers of processes are used again.
    """
    left = made(temporary, "canarykit-left", {**folders._identity(os.getpid()), "began": "1"})
    folders.sweep()
    assert not left.exists()


def test_the_next_cluster_removes_what_a_killed_one_left(temporary):
    """
    Its kernel and its supervisor were killed at the same time.
    """
    code = """
import os, sys, signal
from canarykit.clusters.local import folders
folders.short_temporary = lambda: sys.argv[1]
from canarykit.clusters.local.processes import Processes
processes = Processes("canarykit.serving")
print(processes.folder, flush=True)
os.kill(processes._process.pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", code, str(temporary)], stdout=subprocess.PIPE, text=True, timeout=60)
    left = Path(run.stdout.strip())
    assert left.exists()
    until = time.monotonic() + 20
    while not folders._is_left(left / "owners"):  # a process that is killed takes a moment to end
        assert time.monotonic() < until
        time.sleep(0.01)
    processes = Processes("canarykit.serving")
    try:
        assert not left.exists()
        folders.sweep()
        assert processes.folder.exists()
    finally:
        processes.close()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("fault", ["no answer", "no process"])
def test_a_supervisor_that_does_not_start_leaves_nothing(temporary, monkeypatch, fault):
    """
    Neither a folder nor a process nor a cgroup.
    """
    groups = []
    monkeypatch.setattr("canarykit.clusters.local.cgroup.make", lambda name: temporary / "group")
    monkeypatch.setattr("canarykit.clusters.local.cgroup.end", groups.append)
    if fault == "no answer":
        monkeypatch.setattr(sys, "executable", "/bin/true")
    else:
        monkeypatch.setattr(sys, "executable", "/none/there")
    with pytest.raises(ClusterError if fault == "no answer" else FileNotFoundError):
        Processes("canarykit.serving")
    assert list(temporary.iterdir()) == []
    assert groups == [temporary / "group"]
