"""Passwords and tokens in the parameters of a notebook: in no file of the report, and in nothing that is shown."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from papermill.iorw import papermill_io

from canarykit.cli import main
from canarykit.errors import ReportError
from canarykit.journal import Journal
from canarykit.report import folder
from canarykit.report.saving import MaskedStream, hidden_parameters, known_secrets, saving_masked
from canarykit.report.verdict import without_secrets

pytestmark = pytest.mark.real("jupyter")

SECRETS = ("s3cret-0f", "s3cret%2D0f", "d3fault-0f", "k3y-0f", "bWU6czNjcmV0LTBm")
PARAMETERS = """\
where: str = "kube:/ns?prometheus=http://me:d3fault-0f@host:9090"  # Where it runs
api_key: str = ""  # For the service
targets: list[str] = []  # Addresses
journal: str | None = None  # File for the record
"""
SHOW = """\
import base64, sys
print(where, api_key, targets)
print(where.partition("me:")[2].partition("@")[0], file=sys.stderr)
{"where": where, "user": base64.b64encode(b"me:" + where[30:39].encode())}
"""
ROLLOUT = """\
import canarykit as ck
service = ck.Service("s", ck.Version("v1", command=["x", "{port}"]), ck.Version("v2", command=["x", "{port}"]))
exp = ck.Experiment(service, "simulated", journal=journal)
exp.deploy()
exp.abort(f"nobody answers at {where} to {api_key}, or to {where[30:39]}")
"""
WAIT = "import time; print('waiting now', where, flush=True); time.sleep(60)"


def notebook(folder, *cells):
    """Write a notebook that takes secrets; return its path."""
    path = folder / "nb.ipynb"
    first = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[first, *map(new_code_cell, cells)]), path)
    return path


def words(path, out):
    """Words of the command line, with a secret in each of its parameters."""
    given = {
        "where": "kube:/ns?prometheus=http://me:s3cret-0f@host:9090&router=istio",
        "api_key": "k3y-0f",
        "targets": "[http%3A%2F%2Fme%3As3cret-0f%40host]",
    }
    return ["report", str(path), "--out", str(out), *(word for name in given for word in ("-p", name, given[name]))]


def none_in(out, *shown):
    """Assert that no file below a folder, and nothing that was shown, has a secret in it."""
    files = [path for path in Path(out).rglob("*") if path.is_file()]
    assert files
    for text in [*(path.read_bytes() for path in files), *(each.encode() for each in shown)]:
        for secret in SECRETS:
            assert secret.encode() not in text
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)


def executed(out):
    """Sources and outputs of the executed notebook, as text."""
    return nbformat.writes(nbformat.read(Path(out) / "nb.ipynb", as_version=4))


def test_a_run_leaves_no_secret(tmp_path):
    """
    Journal, verdict, JUnit, page, executed notebook with its metadata and outputs, the summary for CI and the terminal; the
    notebook itself had the real values.
    """
    out, summary = tmp_path / "out", tmp_path / "summary.md"
    path = notebook(tmp_path, "assert api_key == 'k3' + 'y-0f' and where[30:39] == 's3cret-' + '0f'", SHOW, ROLLOUT)
    done = CliRunner().invoke(main, words(path, out), env={"GITHUB_STEP_SUMMARY": str(summary)})
    assert done.exit_code == 10, done.stdout + done.stderr
    none_in(out, done.stdout, done.stderr, summary.read_text())
    said = "nobody answers at kube:/ns?prometheus=http://me:***@host:9090&router=istio to ***, or to ***"
    assert said in done.stdout
    assert said in Journal.read(out / "journal.sqlite").ending.sentence
    text = executed(out)
    assert "prometheus=http://me:***@host:9090&router=istio" in text
    assert "http%3A%2F%2Fme%3A***%40host" in text
    assert nbformat.reads(text, as_version=4).metadata.papermill["parameters"]["api_key"] == "***"


def test_a_cell_that_fails_leaves_no_secret(tmp_path):
    """
    Neither its message nor its traceback, which stands in the executed notebook and in the verdict.
    """
    out = tmp_path / "out"
    path = notebook(tmp_path, "raise RuntimeError(f'cannot reach {where} with {api_key}: ' + where[30:39])")
    done = CliRunner().invoke(main, words(path, out))
    assert done.exit_code == 1
    none_in(out, done.stdout, done.stderr)
    assert "cannot reach kube:/ns?prometheus=http://me:***@host:9090&router=istio with ***: ***" in done.stdout
    assert "papermill-error-cell" in executed(out)


@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGINT, signal.SIGINT), (signal.SIGKILL,)])
def test_an_interrupted_run_leaves_no_secret(tmp_path, signals):
    """
    Interrupted once, twice, or killed while a cell runs: what papermill had saved until then has none.
    """
    out, path = tmp_path / "out", notebook(tmp_path, SHOW, WAIT)
    process = subprocess.Popen(
        [sys.executable, "-m", "canarykit.cli", *words(path, out), "--die-with-parent"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    shown = ""
    for line in process.stdout:
        shown += line
        if "waiting now" in line:
            break
    for number in signals:
        os.kill(process.pid, number)
        time.sleep(0.3)
    shown += process.communicate(timeout=60)[0]
    none_in(out, shown)
    assert "waiting now kube:/ns?prometheus=http://me:***@host:9090" in shown
    assert "http://me:***@host:9090" in executed(out)


@pytest.mark.parametrize(
    ("name", "text"),
    [("api_key", "k3y-0f"), ("limit", "http://me:s3cret-0f@host"), ("limit", "http%3A%2F%2Fme%3As3cret-0f%40h")],
)
def test_a_value_that_is_refused_is_not_shown(tmp_path, name, text):
    """
    The error names the parameter, and masks what was written.
    """
    path = tmp_path / "nb.ipynb"
    cell = new_code_cell("api_key: int = 5\nlimit: int = 5\njournal = ''", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[cell]), path)
    done = CliRunner().invoke(main, ["report", str(path), "--out", str(tmp_path / "out"), "-p", name, text])
    assert done.exit_code == 2
    assert f"parameter '{name}' of nb.ipynb is int, and" in done.stderr
    assert not any(secret in done.stderr for secret in SECRETS)


@pytest.mark.parametrize(
    "words", [["judge", "a.csv", "http://me:s3cret-0f@host"], ["judge", "--alpha", "http://me:s3cret-0f@h"]]
)
def test_what_was_typed_wrongly_is_not_shown_in_full(words):
    """
    Messages about usage quote what was written, without the password.
    """
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "http://me:***@h" in done.stderr
    assert "s3cret" not in done.stderr


def test_what_is_written_down_of_parameters():
    """
    Values of names that are secrets are hidden; others keep all but the password; plain ones are the same.
    """
    given = {"hf_token": "abc", "where": "kube:a?prometheus=http://u:abc@h", "rate": 5.0, "weights": [5, 25], "journal": None}
    assert hidden_parameters(given) == given | {"hf_token": "***", "where": "kube:a?prometheus=http://u:***@h"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("api_keys", ["k3y-0fX1", "k3y-0fX2"]),
        ("token", 12345678),
        ("password", 0.12345678),
        ("credentials", {"user": "me", "openai": "k3y-0fX1"}),
        ("headers", {"authorization": "Bearer abc.def"}),
        ("providers", [{"name": "a", "api_key": "k3y-0fX1"}]),
        ("keys", ["k3y-0fX1"]),
    ],
)
def test_a_secret_of_any_type_is_hidden(name, value):
    """
    Lists, dicts and numbers of a secret's name, also when they repeat elsewhere; of a header, the token alone, too.
    """
    secrets = [secret for secret in ("k3y-0fX1", "k3y-0fX2", "12345678", "abc.def") if secret in repr(value)]
    hidden = hidden_parameters({name: value, "note": f"x {secrets[0] if name != 'password' else value} y"})
    assert not any(secret in repr(hidden) for secret in secrets)
    assert hidden["note"] == "x *** y"


@pytest.mark.parametrize(
    ("name", "value"), [("max_tokens", 512), ("token", True), ("api_keys", []), ("password", None), ("tokens", 128), ("key", 5)]
)
def test_what_is_no_secret_of_any_type_stays(name, value):
    """
    Numbers of tokens, switches and empty values are written down as they are.
    """
    assert hidden_parameters({name: value}) == {name: value}


def test_parameters_are_not_put_back_into_the_executed_notebook(tmp_path):
    """
    Neither the source of the injected cell nor the metadata has a secret that another parameter repeats, or that is a default.
    """
    given = {"api_keys": ["k3y-0f"], "where": "http://me:s3cret-0f@host", "note": "x s3cret-0f d3fault-0f y", "token": 87654321}
    source = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    cell = new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    node = new_notebook(cells=[cell], metadata={"papermill": {"parameters": given}})
    with saving_masked(tmp_path / "nb.ipynb", given, known_secrets(given) | {"d3fault-0f"}) as place:
        papermill_io.write(nbformat.writes(node), place)
    text = executed(tmp_path)
    assert not any(secret in text for secret in (*SECRETS, "87654321"))
    written = nbformat.reads(text, as_version=4)
    assert written.metadata.papermill["parameters"]["note"] == "x *** *** y"
    assert 'note = "x *** *** y"' in written.cells[0].source


@pytest.mark.parametrize("word", ["canary", "rolled back"])
def test_a_secret_that_is_a_word_of_the_report_does_not_break_it(tmp_path, word):
    """
    The report is whole, its words are what they are, and free text is masked.
    """
    out = tmp_path / "out"
    path = notebook(
        tmp_path,
        ROLLOUT.replace("nobody answers at {where} to {api_key}, or to {where[30:39]}", "it was refused for {api_key}"),
    )
    done = CliRunner().invoke(main, ["report", str(path), "--out", str(out), "-p", "api_key", word])
    assert done.exit_code == 10, done.stdout + done.stderr
    found = json.loads((out / "verdict.json").read_text())
    assert found["outcome"] == "rolled back"
    assert found["sentence"].startswith("it was refused for ***; ")
    assert found["requests"].keys() == found["versions"].keys() == {"stable", "canary"}
    assert "rolled back" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    "word",
    ["code", "cells", "stdout", "stream", "display_data", "text/plain", "injected-parameters", "python3", "completed",
     "progress", "image/png", "markdown", "error", "source"],
)  # fmt: skip
def test_a_secret_that_is_a_word_of_the_format_leaves_a_notebook(tmp_path, word):
    """
    Types of cells and outputs, names of streams, tags and the kernel stay; sources, texts, tracebacks and values do not.
    """
    outputs = [
        new_output("stream", name="stdout", text=f"a {word} b"),
        new_output("display_data", {"text/plain": f"a {word} b", "image/png": "QUJD", "application/json": {"code": "ok"}},
                   metadata={"canarykit": "progress", "note": f"a {word} b"}),
        new_output("error", ename=f"a {word} b", evalue=f"a {word} b", traceback=[f"a {word} b"]),
    ]  # fmt: skip
    cells = [
        new_code_cell(f"a {word} b", outputs=outputs, metadata={"tags": ["injected-parameters", "progress"]}),
        new_markdown_cell(f"a {word} b", attachments={"a": {"text/plain": f"a {word} b"}}),
    ]
    kernel = {"name": "python3", "display_name": "python3"}
    node = new_notebook(cells=cells, metadata={"kernelspec": kernel, "papermill": {"parameters": {}, "status": "completed"}})
    with saving_masked(tmp_path / "nb.ipynb", {}, {word}) as place:
        papermill_io.write(nbformat.writes(node), place)
    written = nbformat.read(tmp_path / "nb.ipynb", as_version=4)
    nbformat.validate(written)
    assert "a *** b" in executed(tmp_path)
    assert f"a {word} b" not in executed(tmp_path)
    assert written.cells[0].metadata.tags == ["injected-parameters", "progress"]
    assert written.cells[0].outputs[1].metadata["canarykit"] == "progress"
    assert written.cells[0].outputs[1].data["image/png"] == "QUJD"
    assert (written.metadata.kernelspec.name, written.metadata.papermill.status) == ("python3", "completed")


def test_words_of_a_verdict_stay():
    """
    Outcome, verdicts and names are what a pipeline reads; sentences and causes of losses are masked, and counts add up.
    """
    row = {"name": "errors", "verdict": "pass", "sentence": "pass a", "levels": {"stable": 1.0, "canary": 1.0}}
    found = {"outcome": "promoted", "sentence": "promoted a", "lost_by_cause": {"a b": 1, "pass b": 2}, "guardrails": [row]}
    plain = without_secrets(found, {"pass", "promoted", "errors", "canary", "outcome", "***"})
    assert (plain["outcome"], plain["sentence"], plain["lost_by_cause"]) == ("promoted", "*** a", {"a b": 1, "*** b": 2})
    assert plain["guardrails"] == [row | {"sentence": "*** a"}]


@pytest.mark.parametrize("cut", range(1, 34))
def test_a_secret_that_is_printed_in_two_pieces_is_masked(cut):
    """
    Wherever the pieces part, whatever is flushed between them; what has no end of line is shown in the end.
    """
    shown = io.StringIO()
    screen = MaskedStream(shown, {"s3cret-0f"})
    for text in ("key s3cret-0f Authorization: Bearer abc\nmore s3cret-0f",):
        for piece in (text[:cut], text[cut:]):
            assert screen.write(piece) == len(piece)
            screen.flush()
    assert shown.getvalue() == "key *** Authorization: Bearer ***\n"
    screen.end()
    assert shown.getvalue() == "key *** Authorization: Bearer ***\nmore ***"


def test_bars_that_are_drawn_over_are_shown_at_once():
    """
    A line that ends with a carriage return is whole.
    """
    shown = io.StringIO()
    MaskedStream(shown).write("50 %\r60")
    assert shown.getvalue() == "50 %\r"


def test_a_notebook_that_cannot_be_run_leaves_no_passing_line(tmp_path, monkeypatch):
    """
    On a terminal, the line that says what is done is wiped away before the error is shown.
    """
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)

    def fails(*args, **options):
        raise ReportError("no kernel")

    monkeypatch.setattr(folder, "execute", fails)
    with pytest.raises(ReportError, match="no kernel"):
        folder.report(notebook(tmp_path), tmp_path / "out", stream=shown)
    assert shown.getvalue().endswith("starting nb.ipynb\r\x1b[K")


def test_large_outputs_are_masked_once_and_pictures_are_left(tmp_path):
    """
    A program has no more than known secrets masked; text around an encoded picture is masked, and the second save is quick.
    """
    picture = f"data:image/png;base64,{'QUJD' * 300_000}"
    data = {"application/javascript": "a = b;" * 400_000 + "'s3cret-0f'", "text/html": f"token=abc1 {picture} s3cret-0f"}
    node = new_notebook(cells=[new_code_cell("", outputs=[new_output("display_data", data)])], metadata={"papermill": {}})
    text = nbformat.writes(node)
    with saving_masked(tmp_path / "nb.ipynb", {}, {"s3cret-0f"}) as place:
        papermill_io.write(text, place)
        began = time.process_time()
        papermill_io.write(text, place)
        assert time.process_time() - began < 2
    (output,) = nbformat.read(tmp_path / "nb.ipynb", as_version=4).cells[0].outputs
    assert output.data["text/html"] == f"token=*** {picture} ***"
    assert output.data["application/javascript"].endswith("b;'***'")
