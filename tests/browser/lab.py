"""A real JupyterLab of our own: on loopback, in folders of its own, ended with everything it started."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from canarykit.clusters.local.parent_death import die_with_parent

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = ROOT / "notebooks"
_QUIET = [
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
]
"""JupyterLab asks its own home for news, updates and extensions: not from tests. Nor does it ask whether it may."""


@dataclass(frozen=True)
class Lab:
    """A server that runs: where it listens, its token, and the folder it shows."""

    url: str
    token: str
    folder: Path

    def address(self, name):
        """Where a notebook of the folder opens."""
        return f"{self.url}lab/tree/{name}?token={self.token}"

    def write(self, name, *sources):
        """Put a notebook of these code cells into the folder; return its name."""
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), self.folder / name)
        return name

    def copy(self, path, **parameters):
        """Put a copy of a notebook into the folder, with parameters as papermill sets them; return its name."""
        notebook = load_notebook_node(str(path))
        if parameters:
            notebook = parameterize_notebook(notebook, parameters)
        nbformat.write(notebook, self.folder / path.name)
        return path.name


def private(folder):
    """Environment in which Jupyter keeps everything under a folder, and takes nothing from the user's own."""
    kinds = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
    }
    for kind in kinds.values():
        (folder / kind).mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return os.environ | {name: str(folder / kind) for name, kind in kinds.items()}


@contextlib.contextmanager
def jupyterlab(folder):
    """Run JupyterLab while the block lasts."""
    work = folder / "work"
    work.mkdir(parents=True)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser", *_QUIET]
    command += ["--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={work}"]
    with (folder / "log").open("w") as log, running(command, private(folder), log) as process:
        info = wait_for(lambda: served(folder / "runtime", process), doing=f"JupyterLab to listen, see {folder / 'log'}")
        yield Lab(info["url"], info["token"], work)


@contextlib.contextmanager
def running(command, environment, log, cwd=None):
    """Run a Jupyter server; end it, and with it its kernels and what they run, even if we are killed."""
    if os.geteuid() == 0:
        command = [*command, "--allow-root"]
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=functools.partial(die_with_parent, os.getpid()),
    )
    try:
        yield process
    finally:
        process.terminate()  # shuts its kernels down first, and they end what they run
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def served(runtime, process):
    """What a server says of itself in its private folder, once it listens."""
    assert process.poll() is None, f"JupyterLab ended with {process.returncode}"
    for path in runtime.glob("jpserver-*.json"):
        with contextlib.suppress(json.JSONDecodeError):  # half written
            return json.loads(path.read_text())
    return None


def wait_for(condition, *, doing, within=60.0):
    """Wait until something holds; return what it returned."""
    end = time.monotonic() + within
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {within:g} s for {doing}"
        time.sleep(0.05)
    return found
