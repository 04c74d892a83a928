"""The panel in a real kernel: clicks while a cell runs, and no widget where nobody can operate one."""

import queue
import time

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

pytestmark = pytest.mark.real("jupyter")

EXPERIMENT = """
import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
never = ["never", "{port}"]
exp = ck.Experiment(ck.Service("digits", ck.Version("v1", command=never), ck.Version("v2", command=never)), SimulatedCluster())
exp.deploy()
exp.send(100)
"""
WIDGET = "application/vnd.jupyter.widget-view+json"


class Browser:
    """What JupyterLab does, without its pictures."""

    def __init__(self, manager, client):
        self.manager, self.client, self.comms, self.shown = manager, client, {}, {}

    def run(self, code, *, wait=True):
        """Run a cell, as at a front end with a person before it."""
        asked = self.client.execute(code, allow_stdin=True)
        return self.follow(lambda message: self._idle(message, asked)) if wait else asked

    @staticmethod
    def _idle(message, asked):
        return message["parent_header"].get("msg_id") == asked and message["content"].get("execution_state") == "idle"

    def follow(self, done, seconds=30):
        """Take in what the kernel says until something is seen; return all of it."""
        seen, end = [], time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                message = self.client.get_iopub_msg(timeout=0.2)
            except queue.Empty:
                continue
            seen.append(message)
            kind, content = message["msg_type"], message["content"]
            if kind in ("comm_open", "comm_msg"):
                self.comms.setdefault(content["comm_id"], {}).update(content["data"].get("state", {}))
            if kind == "error":
                raise AssertionError("\n".join(content["traceback"]))
            if done(message):
                return seen
        raise AssertionError(f"not seen within {seconds} s; the panel's message was {self.text('canarykit-status')}")

    def model(self, name):
        """Comm of the widget with that class."""
        return next(comm for comm, state in self.comms.items() if name in state.get("_dom_classes", ()))

    def text(self, name):
        """What an HTML widget shows."""
        return next((state.get("value", "") for state in self.comms.values() if name in state.get("_dom_classes", ())), "")

    def subshell(self):
        """Ask for a thread beside that of the cells; None when this kernel has none (ipykernel 6)."""
        session = self.client.session
        self.client.control_channel.send(session.msg("create_subshell_request", {}))
        try:
            return self.client.get_control_msg(timeout=5)["content"].get("subshell_id")
        except queue.Empty:
            return None

    def click(self, name, subshell):
        """Click a button."""
        content = {"comm_id": self.model(name), "data": {"method": "custom", "content": {"event": "click"}}}
        message = self.client.session.msg("comm_msg", content)
        message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)


@pytest.fixture
def browser():
    """A kernel with a person before it."""
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        yield Browser(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_abort_works_while_a_cell_runs(browser):
    """
    As JupyterLab 4.4 sends it, to a thread of its own: the rollout has ended long before the cell does.
    """
    browser.run(EXPERIMENT)
    shown = browser.run("panel = ck.Panel(exp)\npanel")
    assert any(WIDGET in message["content"].get("data", {}) for message in shown if message["msg_type"] == "execute_result")
    subshell = browser.subshell()
    if subshell is None:
        pytest.skip("this ipykernel has no subshells: clicks wait for the cell")
    browser.run("exp.shift(25)")
    asked = browser.run("import time\ntime.sleep(30)\n'slept'", wait=False)
    time.sleep(3)  # long enough for a poll to have written to the widgets meanwhile
    start = time.monotonic()
    browser.click("canarykit-abort", subshell)
    seen = browser.follow(lambda message: "Abort?" in browser.text("canarykit-question-text"))
    browser.click("canarykit-yes", subshell)
    seen += browser.follow(lambda message: "✗ rolled back" in browser.text("canarykit-head"))
    assert time.monotonic() - start < 15
    assert not any(browser._idle(message, asked) for message in seen)


def test_a_panel_prints_nothing_into_the_notebook(browser):
    """
    What it does is said in the panel; cells stay as they were.
    """
    browser.run(EXPERIMENT)
    browser.run("panel = ck.Panel(exp)\npanel")
    browser.run("panel.view.slider.value = 25\npanel.view.apply.click()")
    seen = browser.follow(lambda message: "applied 25 %" in browser.text("canarykit-status"))
    assert not [message for message in seen if message["msg_type"] in ("stream", "display_data")]


def test_nobody_watching_gets_a_table_and_no_widget():
    """
    papermill, nbconvert and whatever else runs notebooks by nbclient: a table, and no widget anywhere in the file.
    """
    cells = [nbformat.v4.new_code_cell(code) for code in (EXPERIMENT, "exp.shift(25); exp.observe('20s')", "ck.Panel(exp)")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    (output,) = notebook.cells[-1].outputs
    assert "<table" in output.data["text/html"] and "25 %" in output.data["text/plain"]
    assert "widget" not in nbformat.writes(notebook)
