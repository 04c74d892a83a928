"""Model servers that others built: the lines of docs/servers.md, run as they stand there.

`make servers` installs the servers. Each serves two versions on the local cluster, takes labelled traffic through the gateway,
is rolled out up to the promotion, and leaves nothing behind.
"""

import os
import re
import subprocess
from pathlib import Path

import psutil
import pytest

import canarykit as ck

pytestmark = [pytest.mark.real("envoy"), pytest.mark.real("servers"), pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / ".venv-servers"
BLOCK = re.compile(r"^```\w+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section):
    """Code of a section of the page, by the name that stands behind its language."""
    page = (ROOT / "docs" / "servers.md").read_text()
    before, *sections = re.split(r"^## ", page, flags=re.MULTILINE)
    (found,) = [text for text in [f"\n{before}", *sections] if text.partition("\n")[0] == section]
    return dict(BLOCK.findall(found))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory for servers, and folders of their own for what they write elsewhere."""
    work = tmp_path / "work"
    for path in (work, tmp_path / "home", tmp_path / "t"):
        path.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr("canarykit.clusters.local.folders.short_temporary", lambda: str(tmp_path / "t"))
    return work


def started(folder):
    """Processes that run in that folder, but for this one: servers, their workers, Envoy, whoever started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def listening(processes):
    """Ports that processes listen on."""
    return {c.laddr.port for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def save(section, folder):
    """Write the files of a section; return the code of its notebook."""
    found = blocks(section)
    notebook = found.pop("notebook", "")
    for name, text in found.items():
        (folder / name).write_text(text)
    return notebook


def prepared(folder):
    """What the examples share: the model as a file, and the notebook's names."""
    shared = blocks("")
    (folder / "sentiment.py").write_text(shared["sentiment.py"])
    names = {}
    exec(shared["reviews"], names)
    return names


def ask(section, url, folder):
    """Run a client of the section that is called so; return what it prints."""
    (folder / f"{section}.py").write_text(blocks("Triton's client")[f"{section}.py"])
    client = [PROGRAMS / "others" / "bin" / "python", f"{section}.py", url]
    ended = subprocess.run(client, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize(
    ("section", "environment", "family"),
    [
        ("FastAPI", "others", 4 * 1),
        ("LitServe", "others", 4 * 3),
        ("MLServer", "others", 4 * 2),
        ("BentoML", "bentoml", 4 * 3),
    ],
)
def test_a_server_is_rolled_out_as_the_page_says(folder, section, environment, family):
    """
    Both versions come up, every request is answered and right answers are counted, the better one is promoted, and no
    process, port or file of the kit is left.
    """
    names = prepared(folder) | {"BIN": PROGRAMS / environment / "bin"}
    notebook = save(section, folder)
    made = []

    class Quiet(ck.Experiment):
        def __init__(self, *args, **options):
            super().__init__(*args, notify=lambda line: None, **options)
            made.append(self)

        def run(self, *args, **options):
            seen.extend(started(folder))
            return super().run(*args, **options)

    seen = []
    names["ck"] = type("Kit", (), {**{name: getattr(ck, name) for name in ("Version", "Service")}, "Experiment": Quiet})
    try:
        exec(compile(notebook, f"docs/servers.md, {section}", "exec"), names)
        exp, ending = made[0], names["ending"]
        assert ending.outcome == "promoted", ending
        traffic = exp.stop_sending()
        assert (traffic.lost, traffic.sent > 200) == ({}, True)
        compared = {verdict.comparison.metric: verdict.comparison for verdict in exp.judge().verdicts}
        assert compared["accuracy"].requests[1] > 50
        assert compared["accuracy"].levels == pytest.approx((0.75, 1.0), abs=0.15)
        if section == "MLServer":
            assert ask("ask_reviews", exp.cluster.url, folder) == "positive"
        ports = listening(started(folder))
    finally:
        for exp in made:
            exp.teardown()
    assert len(seen) >= family  # servers and workers, besides whoever keeps them
    assert len(ports) >= 3  # the gateway and two replicas
    assert started(folder) == []
    assert not [process for process in seen if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not ports & {c.laddr.port for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert not list((folder.parent / "t").glob("canarykit-*"))


def test_tritons_client_asks_the_kits_own_server(folder, models):
    """
    In its default form, with binary tensors.
    """
    version = ck.Version("v1", model=models["good"])
    cluster = ck.LocalCluster()
    try:
        cluster.deploy(ck.Service("digits", version, version, replicas=1))
        assert ask("ask_digits", cluster.url, folder).isdecimal()
    finally:
        cluster.teardown()
