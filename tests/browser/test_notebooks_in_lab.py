"""Each notebook, run by a person in a real JupyterLab."""

import pytest
from lab import NOTEBOOKS
from opened import CellFailed

pytestmark = [pytest.mark.real("browser"), pytest.mark.real("jupyter"), pytest.mark.slow]
# Parameters with which each runs in class: simulated, in seconds. On real parts they run in tests/notebooks.
IN_CLASS = {
    "01-first-canary": {"where": "simulated", "rate": 2000.0},
    "02-bad-canary": {"where": "simulated"},
    "03-reading-the-evidence": {},
    "rollout-report": {"where": "simulated"},
}


@pytest.mark.parametrize("name", IN_CLASS)
def test_it_runs_from_top_to_bottom(lab, open_notebook, name):
    """
    Run All: no cell fails, and the browser's console shows no error.
    """
    notebook = open_notebook(lab.copy(NOTEBOOKS / f"{name}.ipynb", **IN_CLASS[name]))
    notebook.run_all()
    assert all(cell["count"] for cell in notebook.cells())


def test_a_cell_that_fails_is_noticed(lab, open_notebook):
    """
    These tests fail when a cell does.
    """
    notebook = open_notebook(lab.write("failing.ipynb", "1 + 1", "1 / 0"))
    with pytest.raises(CellFailed, match="ZeroDivisionError"):
        notebook.run_all()


def test_an_error_on_the_console_is_noticed(tab, page):
    """
    These tests fail when the browser's console shows an error.
    """
    _, errors, _ = tab
    with page.expect_console_message():
        page.evaluate("() => console.error('something broke')")
    assert "something broke" in errors.pop()
