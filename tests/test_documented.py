"""Every block of code in the README and in the docs is run by a test, or says beside it why not."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import canarykit as ck

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "notebooks" / "README.md"]
BLOCK = re.compile(r"^(?:<!-- (?P<mark>.+?) -->\n)?```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """Mark, kind and text of each block of a page, but for the directives of Sphinx."""
    found = [match.groups() for match in BLOCK.finditer((ROOT / page).read_text())]
    return [each for each in found if not each[1].startswith("{")]


def block(page, begins):
    """Text of the block of a page that begins so."""
    (found,) = [text for _, _, text in blocks(page) if text.startswith(begins)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_says_what_runs_it_or_why_nothing_does(page):
    """
    A comment before it, which no reader of the page sees; a test that is named there reads the page.
    """
    name = page.relative_to(ROOT)
    for mark, _, text in blocks(name):
        assert mark is not None, f"{name}: a block without a mark: {text[:60]!r}"
        how, _, what = mark.partition(" ")
        assert mark.startswith(("run by ", "not run: ")), mark
        if how == "run":
            test = ROOT / what.removeprefix("by ")
            assert name.name in test.read_text(), f"{test} does not read {name}"


@pytest.mark.real("envoy")
@pytest.mark.parametrize(("page", "begins"), [("README.md", "import canarykit as ck\nfrom"), ("docs/quickstart.md", "import")])
def test_the_first_lines_run(page, begins, capsys):
    """
    As they stand, but for times of minutes.
    """
    code = block(page, begins).replace('"2min"', '"2s", budget="90s"').replace('"30s"', '"2s"')
    names = {}
    try:
        exec(compile(code, page, "exec"), names)
        assert names["exp"].ending.outcome == "promoted"
    finally:
        if "exp" in names:
            names["exp"].teardown()


def test_the_pictures_for_the_blackboard_are_drawn(simulated):
    """
    The lines of notebooks/README.md, on a simulated rollout.
    """
    exp = simulated(plan=ck.RolloutPlan.of(50, hold="5s", budget="1min"))
    exp.run()
    code = block("notebooks/README.md", "history = exp.history()")
    names = {"exp": exp, "ck": ck}
    for line in code.splitlines():
        exec(compile(line, "notebooks/README.md", "single"), names)


def test_a_harm_budget_runs_as_the_page_says(simulated):
    """
    The lines of docs/pacing.md, and its file is the same plan with another budget of time.
    """
    exp = simulated(rate=200)
    names = {"exp": exp, "ck": ck}
    exec(compile(block("docs/pacing.md", "plan = ck"), "docs/pacing.md", "exec"), names)
    assert names["ending"].outcome == "promoted"
    read = ck.RolloutPlan.from_yaml(block("docs/pacing.md", "pace:"))
    assert read == names["plan"].model_copy(update={"budget": 1200.0})


COUNTS = block("docs/command-line.md", "window,version")
FILES = {
    "histogram": "window,version,cell,count\n"
    + "".join(f"1,{v},{e},{n}\n" for v in ("stable", "canary") for e, n in ((0.1, 90), ("inf", 1))),
    "score": "window,version,cell,count\n" + "".join(f"1,{v},{s},50\n" for v in ("stable", "canary") for s in (0.2, 0.8)),
    "rate": COUNTS,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "begins"),
    [
        ("README.md", "canarykit report"),
        ("docs/command-line.md", "canarykit judge FILE.csv"),
        ("docs/pacing.md", "canarykit power"),
    ],
)
def test_the_commands_run(page, begins, tmp_path):
    """
    Each line of the README and of docs/command-line.md, on files as they describe them; a rollout is simulated here.
    """
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    for line in block(page, begins).splitlines():
        words = shlex.split(line, comments=True)
        kind = words[words.index("--kind") + 1] if "--kind" in words else "rate"
        (tmp_path / "FILE.csv").write_text(FILES[kind])
        more = ["-p", "where", "simulated"] if words[1] == "report" else []
        command = [str(Path(sys.executable).parent / words[0]), *words[1:], *more]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode in (0, 10, 20, 30), (line, done.stdout, done.stderr)
        assert done.stdout.strip()
        if words[1] == "report":
            assert done.returncode == 10, "a slow canary is rolled back"
