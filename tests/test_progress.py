"""Progress: what stays, what passes, and where nobody watches."""

import io
import os
import pty
import subprocess
import sys
import threading
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from canarykit import progress
from canarykit.progress import METADATA, Progress, Stream


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def quick(monkeypatch):
    """A second is a hundredth here."""
    monkeypatch.setattr(progress, "_SHORT", 0.01)
    monkeypatch.setattr(progress, "_REDRAW", 0.0)


def seen(text):
    """Lines that are left on a terminal after all that was written."""
    lines = []
    for line in text.split("\n"):
        lines.append(line.rpartition("\r\x1b[K")[2])
    return [line for line in lines if line]


def test_a_terminal_has_one_line_that_is_replaced(monkeypatch):
    """
    What stays is left; what passed is not; a line is never wider than the terminal.
    """
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    screen = Stream(terminal)
    screen.say("deployed")
    for step in range(50):
        screen.passing(f"watching {step:03d} of 100, and so on")
        assert seen(terminal.getvalue())[-1] == f"watching {step:03d} of 10…"
    screen.write("printed\n")
    screen.passing("more")
    screen.end()
    assert seen(terminal.getvalue()) == ["deployed", "printed"]


def test_a_log_has_plain_lines_and_few():
    """
    No control characters; a passing line only when nothing was written for a while.
    """
    log = io.StringIO()
    screen = Stream(log, every=0.05)
    screen.say("deployed")
    for _ in range(100):
        screen.passing("watching")
    assert log.getvalue() == "deployed\n"
    time.sleep(0.06)
    screen.passing("watching still")
    screen.passing("watching still")
    screen.end()
    assert log.getvalue() == "deployed\nwatching still\n"


def test_what_is_short_shows_nothing(capsys):
    """
    Less than a second: no line comes and goes.
    """
    said = Progress()
    with said.during("deploying"):
        said.passing("almost")
    said.passing("never")
    assert capsys.readouterr().out == ""


def test_what_takes_long_is_shown_with_its_seconds(quick, monkeypatch):
    """
    It ticks by itself, until more is told; what is inside comes first; nothing is left, and no thread.
    """
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    said = Progress()
    with said.during("carrying out the plan"):
        time.sleep(0.1)
        assert "carrying out the plan: 0 s" in terminal.getvalue()
        said.passing("step 1 of 3")
        after = len(terminal.getvalue())
        time.sleep(0.1)
        assert terminal.getvalue()[after:] == ""
        with said.during("promoting"):
            time.sleep(0.1)
        assert "promoting: 0 s" in terminal.getvalue()
    said.say("promoted")
    assert seen(terminal.getvalue()) == ["promoted"]
    time.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if thread.name == "canarykit-progress"]


def test_it_ends_when_what_is_done_fails(quick, monkeypatch):
    """
    The line goes away, and the error comes through.
    """
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    said = Progress()
    with pytest.raises(ZeroDivisionError), said.during("deploying"):
        time.sleep(0.05)
        _ = 1 / 0
    assert seen(terminal.getvalue()) == []


def test_a_function_of_ones_own_gets_every_line(quick, monkeypatch):
    """
    Lines that stay at once; those that pass seldom.
    """
    monkeypatch.setattr(progress, "_OFTEN", 0.0)
    told = []
    said = Progress(told.append)
    said.say("deployed")
    with said.during("watching"):
        said.passing("too soon")
        time.sleep(0.02)
    assert told[0] == "deployed"
    assert "too soon" not in told


SOURCE = """
import time
from canarykit import progress
progress._SHORT = 0.05
said = progress.Progress()
with said.during("watching"):
    for number in range(200):
        said.passing(f"look {number}")
        time.sleep(0.005)
        if number == 100:
            said.say("half of it")
"""


@pytest.mark.real("jupyter")
def test_a_notebook_has_one_output_that_changes(tmp_path):
    """
    Hundreds of looks leave one output; whoever runs the notebook sees them pass on the terminal, plain lines in a log.
    """
    from canarykit.report.execute import execute

    source, executed = tmp_path / "n.ipynb", tmp_path / "done.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(SOURCE)]), source)
    terminal = Terminal()
    assert execute(source, executed, {}, stream=Stream(terminal)) is None
    (cell,) = (cell for cell in nbformat.read(executed, as_version=4).cells if "watching" in cell.source)
    shown, printed = sorted(cell.outputs, key=lambda output: output.output_type)
    assert (shown.data, shown.metadata) == ({"text/plain": "watching took 1 s"}, METADATA)
    assert printed.text == "half of it\n"
    passed = terminal.getvalue().split("\r\x1b[K")
    assert 2 <= sum(line.startswith("look ") for line in passed) <= 60
    log = io.StringIO()
    execute(source, executed, {}, stream=Stream(log))
    assert log.getvalue() == "half of it\n"


def test_on_a_real_terminal_nothing_passing_is_left(tmp_path):
    """
    A script on a pseudo-terminal: carriage returns there, and none in a pipe.
    """
    script = tmp_path / "script.py"
    script.write_text(SOURCE)
    main, other = pty.openpty()
    process = subprocess.Popen([sys.executable, str(script)], stdout=other)
    os.close(other)
    written = b""
    while True:
        try:
            read = os.read(main, 4096)
        except OSError:
            break
        if not read:
            break
        written += read
    os.close(main)
    assert process.wait(20) == 0
    text = written.decode().replace("\r\n", "\n")
    assert "\r\x1b[Klook " in text
    assert seen(text) == ["half of it"]
    piped = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert piped.stdout == "half of it\n"
