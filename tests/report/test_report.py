"""One notebook in, one folder out: whole runs through papermill, and what each leaves."""

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_notebook

import canarykit as ck
from canarykit.cli import main
from canarykit.history import replay

ROOT = Path(__file__).parent.parent.parent
ROLLOUT = ROOT / "notebooks" / "rollout-report.ipynb"
FILES = ["journal.sqlite", "junit.xml", "report.html", "rollout-report.ipynb", "verdict.json"]

pytestmark = pytest.mark.real("jupyter")


def run(*words, **options):
    """Run the command line; return what it did."""
    return CliRunner().invoke(main, [str(word) for word in words], prog_name="canarykit", **options)


class Page(HTMLParser):
    """What a browser would load and show."""

    def __init__(self, path):
        super().__init__()
        self.loads, self.images, self.words, self.tables = [], [], [], 0
        self._muted = 0
        self.feed(path.read_text())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.loads += [values[name] for name in ("src", "href") if name in values]
        self.tables += tag == "table"
        self._muted += tag in ("style", "script")
        if tag == "img":
            self.images.append(values.get("alt"))

    def handle_endtag(self, tag):
        self._muted -= tag in ("style", "script")

    def handle_data(self, data):
        if not self._muted:
            self.words.append(data)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Reports of three simulated rollouts, by scenario."""
    made = {}
    for scenario in ("good", "failing", "no-traffic"):
        out = tmp_path_factory.mktemp(scenario) / "report"
        summary = out.parent / "summary.md"
        done = run(
            "report", ROLLOUT, "--out", out, "-p", "where", f"simulated:{scenario}", "-p", "budget", "2h",
            "-p", "rate", "2000", env={"GITHUB_STEP_SUMMARY": str(summary)},
        )  # fmt: skip
        made[scenario] = (done, out, summary)
    return made


@pytest.mark.parametrize(
    ("scenario", "code", "outcome"), [("good", 0, "promoted"), ("failing", 10, "rolled back"), ("no-traffic", 30, "no data")]
)
def test_exit_codes_and_files(simulated, scenario, code, outcome):
    """
    0 promoted, 10 rolled back, 30 no data; the folder holds all five files, private, and the last lines say where.
    """
    done, out, _ = simulated[scenario]
    assert done.exit_code == code, done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert all(path.stat().st_mode & 0o077 == 0 for path in [out, *out.iterdir()])
    assert f"{outcome}: " in done.stdout
    assert f"report: {out / 'report.html'}" in done.stdout
    assert json.loads((out / "verdict.json").read_text())["exit_code"] == code


def test_progress_is_seen_on_the_terminal(simulated):
    """
    The notebook's printed lines come as they are printed.
    """
    done, _, _ = simulated["good"]
    assert "5 % to the canary, in force after 2 ms" in done.stdout


def test_the_page_needs_no_network(simulated):
    """
    Nothing is loaded from anywhere: images are in the page, there are no scripts, and no link leaves it.
    """
    for _, out, _ in simulated.values():
        page = Page(out / "report.html")
        assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.loads)
        assert "<script" not in (out / "report.html").read_text()
        assert "@import" not in (out / "report.html").read_text()


def test_the_page_says_the_verdict_first(simulated):
    """
    Title, outcome, sentence, then who was compared; every image has its alternative text; a table of guardrails.
    """
    _, out, _ = simulated["failing"]
    page, found = Page(out / "report.html"), json.loads((out / "verdict.json").read_text())
    assert page.text.find("rolled back") < page.text.find(found["sentence"][4:]) < page.text.find("compared")
    assert "error rate" in found["sentence"]
    assert page.images
    assert all(page.images)
    assert page.tables >= 4
    assert page.text.find("Simulated: nothing here was measured") < page.text.find("compared")
    assert "import canarykit" not in page.text


def test_its_numbers_agree_with_the_journal(simulated):
    """
    Requests, weights, evidence and sentences of verdict.json and of the page are those of the journal.
    """
    for _, out, _ in simulated.values():
        found, page = json.loads((out / "verdict.json").read_text()), Page(out / "report.html")
        journal = ck.Journal.read(out / "journal.sqlite")
        history = replay(journal)
        stable, canary = history.requests
        counted = sum(w.counts["outcome"].sum() for w in journal.windows() if w.judged and 0 < w.split.share < 1)
        assert stable + canary == counted == sum(found["requests"].values())
        assert [step["asked"] for step in found["steps"]] == [change["asked"] for change in journal.weights()]
        assert journal.ending.sentence == found["sentence"]
        assert f"{stable + canary:,}, {canary:,} of them by the canary" in page.text
        for guardrail, verdict in zip(found["guardrails"], history.judgement.verdicts, strict=True):
            assert guardrail["verdict"] == verdict.status
            assert guardrail["log_e"] == pytest.approx(verdict.comparison.log_e)
            assert set(guardrail) >= {"name", "verdict", "counts", "effect", "interval", "log_e", "alarm_at", "sentence"}


def test_junit_tells_a_pipeline(simulated):
    """
    One case for the rollout, one for each guardrail, one for lost requests.
    """
    suite = xml.parse(simulated["failing"][1] / "junit.xml").getroot()
    cases = {case.get("name"): [child.tag for child in case] for case in suite}
    assert cases["rollout"] == cases["guardrail error rate"] == ["failure"]
    assert cases["no request lost"] == []
    assert int(suite.get("failures")) == 2
    assert [c.tag for case in xml.parse(simulated["good"][1] / "junit.xml").getroot() for c in case] == []


def test_a_summary_for_the_page_of_a_run(simulated):
    """
    Where the environment names a file for it, a Markdown table is added there.
    """
    text = simulated["failing"][2].read_text()
    assert text.startswith("### ✗ rolled back")
    assert "| error rate |" in text
    assert "Simulated: nothing here was measured." in text


def test_a_journal_is_judged_again_from_the_shell(simulated, tmp_path):
    """
    `canarykit judge`: its own margins, others, JSON, and exit codes by verdict.
    """
    journal = simulated["failing"][1] / "journal.sqlite"
    shell = subprocess.run([sys.executable, "-m", "canarykit.cli", "judge", str(journal)], capture_output=True, check=False)
    done = run("judge", journal)
    assert shell.returncode == done.exit_code == 10
    assert done.stdout.startswith("fail: the canary's error rate")
    lenient = run("judge", journal, "--tolerate", "error rate=500", "--margin", "error rate=1000", "--json")
    assert json.loads(lenient.stdout)["guardrails"][0]["tolerate"] == 500
    assert lenient.exit_code in (0, 20)
    assert run("judge", simulated["good"][1] / "journal.sqlite").exit_code == 0
    assert run("judge", simulated["no-traffic"][1] / "journal.sqlite").exit_code == 30
    for words, code, complaint in (
        ([tmp_path / "missing.sqlite"], 1, "there is no file"),
        ([journal, "--margin", "p50 latency=2"], 2, "no guardrail 'p50 latency'"),
        ([journal, "--margin", "wide"], 2, "takes a number"),
        ([journal, "--margin", "0.5"], 2, "margin"),
    ):
        done = run("judge", *words)
        assert (done.exit_code, done.stdout) == (code, "")
        assert complaint in done.stderr


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["-p", "wieght", "5"], 2, "has no parameter 'wieght'; it takes budget, canary"),
        (["-p", "rate", "fast"], 2, "parameter 'rate' of rollout-report.ipynb is float"),
        (["--colour"], 2, "No such option"),
        (["--expect", "glory"], 2, "Invalid value for '--expect'"),
    ],
)
def test_wrong_usage_runs_nothing(tmp_path, words, code, complaint):
    """
    Exit code 2, a sentence, and no folder.
    """
    done = run("report", ROLLOUT, "--out", tmp_path / "out", *words)
    assert done.exit_code == code
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()


def test_what_is_no_notebook_is_refused(tmp_path):
    """
    Missing, not JSON, without a parameter for the journal.
    """
    other = tmp_path / "other.ipynb"
    other.write_text("{}")
    plain = tmp_path / "plain.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), plain)
    for notebook, code, complaint in (
        (tmp_path / "missing.ipynb", 1, "there is no notebook"),
        (other, 1, "is not a notebook"),
        (plain, 2, "takes no parameter 'journal'"),
    ):
        done = run("report", notebook, "--out", tmp_path / "out")
        assert done.exit_code == code
        assert complaint in done.stderr


def test_a_failed_cell_leaves_a_report_that_says_so(tmp_path):
    """
    What failed, where traffic is, and exit code 1; the rest of the notebook is not shown as if it had run.
    """
    done = run("report", ROLLOUT, "--out", tmp_path, "-p", "where", "simulated:good", "-p", "margin", "0.5")
    assert done.exit_code == 1
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert found["outcome"] == "failed"
    assert "PlanError: error rate: margin (0.5) must be above tolerate" in found["sentence"]
    page = Page(tmp_path / "report.html")
    assert "no traffic was ever sent to the canary" in page.text
    assert "How it was judged" not in page.text
    assert xml.parse(tmp_path / "junit.xml").getroot().get("errors") == "1"


def test_an_expected_rollback_is_a_success(tmp_path):
    """
    With --expect the exit code says whether it ended as expected.
    """
    words = ["report", ROLLOUT, "--out", tmp_path, "-p", "where", "simulated:slow", "--expect"]
    assert run(*words, "rolled back").exit_code == 0
    done = run(*words, "promoted")
    assert done.exit_code == 1
    assert "expected it to be promoted, and it is rolled back" in done.stderr


@pytest.mark.real("envoy")
def test_ctrl_c_returns_traffic_to_stable_and_leaves_a_report(tmp_path):
    """
    On the local default, in the middle of a rollout: inconclusive, exit code 20, and the report says so.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "canarykit.cli", "report", str(ROLLOUT), "--out", str(tmp_path)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    for line in process.stdout:
        if "5 % to the canary" in line:
            os.kill(process.pid, signal.SIGINT)
            break
    output = process.stdout.read()
    assert process.wait(60) == 20, output
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert re.match(r"interrupted after \d+ requests; all traffic was back on stable after \d+ ms", found["sentence"])
    assert found["lost"] == 0
    assert found["steps"][-1]["asked"] == 0
    assert "interrupted after" in Page(tmp_path / "report.html").text


@pytest.mark.real("envoy")
@pytest.mark.slow
@pytest.mark.parametrize(("canary", "why"), [("slow", "p95 latency"), ("failing", "error rate"), ("wrong", "wrong answers")])
def test_each_bad_canary_is_rolled_back_on_the_local_default(tmp_path, canary, why):
    """
    Real processes, a real gateway, real traffic: the first sentence of the report says why; nothing is lost.
    """
    done = run("report", ROLLOUT, "--out", tmp_path, "-p", "canary", canary)
    assert done.exit_code == 10, done.stdout + done.stderr
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert why in found["sentence"].partition(";")[0]
    assert (found["lost"], found["steps"][-1]["asked"]) == (0, 0)
