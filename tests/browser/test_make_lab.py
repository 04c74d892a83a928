"""`make lab` opens the first notebook, for a person who knows nothing else."""

import shlex
import subprocess

import pytest
from lab import ROOT, private, running, wait_for
from opened import Opened

pytestmark = [pytest.mark.real("browser"), pytest.mark.real("jupyter")]
_IMPORT = """async () => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const reply = await kernel.requestExecute({code: 'import canarykit; canarykit.Panel'}).done;
  return reply.content.status;
}"""


def test_it_opens_the_first_notebook_with_a_kernel_that_has_the_kit(page, tmp_path):
    """
    The browser is sent to 01-first-canary, whose kernel finds the kit.
    """
    if not (ROOT / ".venv" / ".ready").exists():
        pytest.skip("make has no .venv here, and would take minutes to make one: make .venv/.ready")
    told = subprocess.run(["make", "--dry-run", "--silent", "lab"], cwd=ROOT, capture_output=True, text=True, check=True)
    _exec, *command = shlex.split(told.stdout.splitlines()[-1])
    sent = tmp_path / "sent"
    browser = tmp_path / "browser"  # what Jupyter takes for the person's browser
    browser.write_text(f'#!/bin/sh\necho "$1" > {shlex.quote(str(sent))}\n')
    browser.chmod(0o700)
    environment = private(tmp_path / "jupyter") | {"BROWSER": f"{browser} %s"}
    log = tmp_path / "log"
    with log.open("w") as file, running([*command, "--expose-app-in-browser"], environment, file, ROOT):
        address = wait_for(lambda: sent.exists() and sent.read_text().strip(), doing=f"a browser to be opened, see {log}")
        page.goto(address)
        notebook = Opened(page, "01-first-canary.ipynb")
        assert notebook.cells()[0]["source"].startswith("where: str")
        assert page.evaluate(_IMPORT) == "ok"
        page.goto("about:blank")  # before its server ends
