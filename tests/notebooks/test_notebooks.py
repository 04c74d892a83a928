"""The rules of the notebooks, and that each runs."""

import ast
import json
import re
import statistics
from pathlib import Path

import nbformat
import papermill
import papermill.cli
import pytest

import canarykit as ck
from canarykit.report import report
from canarykit.report.execute import known_parameters

NOTEBOOKS = sorted((Path(__file__).parent.parent.parent / "notebooks").glob("*.ipynb"))
REPORTS = {"rollout-report"}
LESSONS = {"03-reading-the-evidence"}
"""Those that roll nothing out: they need no gateway and keep no journal."""
CLUSTER = {"04-on-a-cluster"}
"""Those that need a cluster: tests/cluster runs them."""
# Parameters with which each runs in the tests, on the real local default.
PARAMETERS = {
    "01-first-canary": {"rate": "200", "watch": "6s"},
    "02-bad-canary": {"rate": "150", "hold": "6s"},
    "rollout-report": {"rate": "150", "hold": "6s"},
}
OUTCOMES = {"02-bad-canary": "rolled back"}
"""How those end that are not promoted."""


def read(path):
    """A notebook's cells."""
    return nbformat.read(path, as_version=4).cells


def code(path):
    """Its code cells."""
    return [cell for cell in read(path) if cell.cell_type == "code"]


every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@every
def test_sources_are_stored_stripped(path):
    """
    No outputs, no counts, ids that stay, one space of indentation, a final line break.
    """
    text = path.read_text()
    assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    for cell in code(path):
        assert cell.outputs == []
        assert cell.execution_count is None
    assert len({cell.id for cell in read(path)}) == len(read(path))


@every
def test_cells_are_small(path):
    """
    Code cells have a median of 4 lines at most, none over 12, no function, no shell, no magic.
    """
    lengths = [len(cell.source.splitlines()) for cell in code(path)]
    assert statistics.median(lengths) <= 4
    assert max(lengths) <= 12
    for cell in code(path):
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in ast.walk(tree))


@every
def test_the_number_of_cells_fits_its_life(path):
    """
    A tutorial has 15 to 40 cells and about as much prose as code; a report has fewer than 20 cells.
    """
    cells = read(path)
    prose = len(cells) - len(code(path))
    if path.stem in REPORTS:
        assert len(cells) < 20
    else:
        assert 15 <= len(cells) <= 40
        assert 0.6 <= prose / len(code(path)) <= 1.6


@every
def test_parameters_are_typed_literals_with_help(path):
    """
    The first code cell; each parameter has a type, a literal, and a trailing comment that becomes help.
    """
    first = code(path)[0]
    assert first.metadata.tags == ["parameters"]
    for line in first.source.splitlines():
        assert re.fullmatch(r"\w+: (str|int|float|bool|list) = .+  # .{10,}", line), line
        ast.literal_eval(ast.parse(line).body[0].value)
    known = known_parameters(path)
    assert "journal" in known or path.stem in LESSONS
    assert all(parameter["help"] and parameter["inferred_type_name"] for parameter in known.values())


@every
def test_help_reads_well(path, capsys):
    """
    `papermill --help-notebook` lists each parameter on one line of its own, with type, default and a capitalised sentence.
    """
    with pytest.raises(SystemExit):
        papermill.cli.papermill([str(path), "--help-notebook"])
    text = capsys.readouterr().out
    assert "Can't infer" not in text
    for name, parameter in known_parameters(path).items():
        assert re.match("[A-Z]", parameter["help"]), parameter["help"]
        declared = rf"{name}: {parameter['inferred_type_name']} \(default {re.escape(parameter['default'])}\)"
        assert re.search(rf"^  {declared}\s+{re.escape(parameter['help'])}$", text, flags=re.MULTILINE), text


@every
def test_imports_are_few(path):
    """
    `import canarykit as ck` and at most two more.
    """
    lines = [line for cell in code(path) for line in cell.source.splitlines() if re.match(r"(import|from) ", line)]
    assert "import canarykit as ck" in lines
    assert len(lines) <= 3


@every
def test_there_is_one_title_and_a_check_at_the_end(path):
    """
    One H1, first; the last cell is tagged `check` and asserts.
    """
    cells = read(path)
    titles = [
        line for cell in cells if cell.cell_type == "markdown" for line in cell.source.splitlines() if line.startswith("# ")
    ]
    assert len(titles) == 1
    assert cells[0].source.startswith(titles[0])
    assert cells[-1].metadata.tags == ["check"]
    assert "assert " in cells[-1].source


def shown(path):
    """What the cells of an executed notebook show; none may be an error or a widget, and pictures have words."""
    outputs = [output for cell in code(path) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    data = [output.data for output in outputs if "data" in output]
    assert not any("application/vnd.jupyter.widget-view+json" in each for each in data)
    assert "widgets" not in nbformat.read(path, as_version=4).metadata
    images = re.findall(r"<img [^>]*>", " ".join(each.get("text/html", "") for each in data))
    assert images
    assert all(re.search(r'alt="[^"]{40,}"', image) for image in images)
    return data


def as_expected(path):
    """Which of the bad canaries were first seen by what they were made to be bad in, as the last cell says."""
    said = "".join(output.text for output in code(path)[-1].outputs)
    assert len(said.splitlines()) == 3, said
    return re.findall(r"^(.*) was seen first$", said, flags=re.MULTILINE)


@pytest.mark.real("envoy")
@pytest.mark.real("jupyter")
@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem not in LESSONS | CLUSTER], ids=lambda path: path.stem)
def test_it_runs_unattended_on_the_local_default(path, tmp_path):
    """
    By papermill, with nobody watching, on real parts: it ends as it says, no cell failed, images with alt text, no widget.
    """
    done = report(path, tmp_path, PARAMETERS[path.stem])
    assert done.ending.outcome == OUTCOMES.get(path.stem, "promoted"), done.ending
    data = shown(tmp_path / path.name)
    if path.stem == "02-bad-canary":  # real answers were counted by what was said
        assert any("most frequent mistake" in each.get("text/html", "") for each in data)
        # The tests keep the machine busy, and a version whose process waits is slow: one of the three may be seen by that.
        assert len(as_expected(tmp_path / path.name)) >= 2


SIMULATED = {"01-first-canary", "02-bad-canary", "rollout-report"}
"""Those that can be played with random numbers, and then end as they do live."""


@pytest.mark.real("jupyter")
@pytest.mark.parametrize("path", [path for path in NOTEBOOKS if path.stem in SIMULATED], ids=lambda path: path.stem)
def test_it_runs_in_class_without_a_cluster(path, tmp_path):
    """
    Simulated, every check of the notebook holds, and every picture and the report say that nothing was measured.
    """
    done = report(path, tmp_path, {"where": "simulated"})
    assert done.ending.outcome == OUTCOMES.get(path.stem, "promoted"), done.ending
    data = shown(tmp_path / path.name)
    pictures = re.findall(r'<img alt="([^"]*)"', " ".join(each.get("text/html", "") for each in data))
    assert all("Simulated: " in words for words in pictures)
    if path.stem == "02-bad-canary":
        assert as_expected(tmp_path / path.name) == ["p95 latency", "error rate", "wrong answers"]
    assert json.loads((tmp_path / "verdict.json").read_text())["simulated"] is True
    assert "Simulated: nothing here was measured." in (tmp_path / "report.html").read_text()


@pytest.mark.real("jupyter")
@pytest.mark.parametrize(
    ("canary", "outcome"), [("slow", "rolled back"), ("failing", "rolled back"), ("stable", "promoted")]
)
def test_a_simulated_canary_behaves_as_its_model_would(canary, outcome, tmp_path):
    """
    The report's parameter `canary` names the scenario, unless `where` does.
    """
    (path,) = (path for path in NOTEBOOKS if path.stem == "rollout-report")
    done = report(path, tmp_path, {"where": "simulated", "canary": canary})
    assert done.ending.outcome == outcome, done.ending


@pytest.mark.slow
def test_a_class_of_forty_sees_what_the_page_for_teachers_says(service):
    """
    The same version twice on forty laptops, each with its own seed: two are rolled back, none is left without an end.
    """
    guardrails = [ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy()]
    plan, outcomes = ck.RolloutPlan.of(5, 25, 50, hold="8s", budget="4min"), []
    for seat in range(40):
        exp = ck.Experiment(
            service, f"simulated:same?seed={seat}", guardrails=guardrails, plan=plan, notify=lambda line: None
        )
        exp.deploy()
        exp.send(120.0)
        exp.observe("3s")
        outcomes.append(exp.run().outcome)
    assert (outcomes.count("rolled back"), outcomes.count("promoted")) == (2, 38)
    assert "(of seats 0 to 39 it is two)" in " ".join((NOTEBOOKS[0].parent / "README.md").read_text().split())


def test_every_notebook_is_described_for_teachers():
    """
    The page names each notebook and nothing that is not there.
    """
    text = (NOTEBOOKS[0].parent / "README.md").read_text()
    assert set(re.findall(r"\(([\w-]+)\.ipynb\)", text)) == {path.stem for path in NOTEBOOKS}


@pytest.mark.real("jupyter")
@pytest.mark.parametrize("name", sorted(LESSONS))
@pytest.mark.parametrize("seed", [1, 5])
def test_a_lesson_runs_in_seconds_and_keeps_its_promises(name, seed, tmp_path):
    """
    Executed as it stands and with another seed: its checks hold, and both ways to look are told apart.
    """
    (path,) = (path for path in NOTEBOOKS if path.stem == name)
    executed = tmp_path / path.name
    papermill.execute_notebook(path, executed, {"seed": seed, "runs": 60}, progress_bar=False)
    data = shown(executed)
    assert any("inconclusive" in each.get("text/html", "") for each in data)
    assert any("sooner still mirrored" in each.get("text/html", "") for each in data)
