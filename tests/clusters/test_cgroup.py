"""A cgroup around what the local cluster starts, in a folder that stands for the kernel's."""

import os

from canarykit.clusters.local import cgroup


def mounted(tmp_path, monkeypatch, group="/user.slice"):
    """Stand-ins for /proc and for the file system of cgroups; return the folder of our own cgroup."""
    root = tmp_path / "cgroup"
    own = root / group.lstrip("/")
    own.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"4:memory:/other\n0::{group}\n")
    (tmp_path / "self" / "mounts").write_text(
        f"proc /proc proc rw 0 0\ncgroup /x cgroup rw 0 0\ncgroup2 {root} cgroup2 rw 0 0\n"
    )
    monkeypatch.setattr(cgroup, "_PROC", tmp_path)
    return own


def test_without_cgroups_there_is_none(tmp_path, monkeypatch):
    """
    No /proc, no mount of version 2, a kernel that cannot end a cgroup at once.
    """
    monkeypatch.setattr(cgroup, "_PROC", tmp_path)
    assert cgroup.make("canarykit-a") is None
    own = mounted(tmp_path, monkeypatch)
    assert cgroup.make("canarykit-a") is None
    assert not list(own.iterdir())
    (tmp_path / "self" / "mounts").write_text("cgroup /x cgroup rw 0 0\n")
    assert cgroup.make("canarykit-a") is None


def test_what_was_left_is_removed_and_what_is_new_is_not(tmp_path, monkeypatch):
    """
    An old empty one is; one that somebody has just made, and another program's, are not.
    """
    own = mounted(tmp_path, monkeypatch)
    for name in ("canarykit-old", "canarykit-new", "docker-old"):
        (own / name).mkdir()
    for name in ("canarykit-old", "docker-old"):
        os.utime(own / name, (0, 0))
    cgroup.make("canarykit-mine")
    assert {path.name for path in own.iterdir()} == {"canarykit-new", "docker-old"}
