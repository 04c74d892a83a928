"""The notebooks that run on a cluster, by papermill, as a service account that may do no more than deploy/rbac.yaml."""

import json
import re
from pathlib import Path
from urllib.parse import urlencode

import cluster_parts as parts
import nbformat
import pytest

from canarykit.report import report

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = [pytest.mark.real("cluster"), pytest.mark.real("gateway"), pytest.mark.real("jupyter"), pytest.mark.slow]


@pytest.fixture
def where(namespace):
    """The cluster, as the one parameter of a notebook."""
    gateway, url = parts.gateway()
    options = {"gateway": gateway, "url": url, "hostname": f"{namespace}.test"}
    if parts.WORKLOAD.server_image:
        options["server_image"] = parts.WORKLOAD.server_image
    return f"kube:/{namespace}?{urlencode(options)}"


def test_the_report_is_made_by_the_same_notebook(where, admin, tmp_path):
    """
    One parameter changed: the rollout on a cluster leaves the report that one on a laptop leaves, and nothing else.
    """
    parameters = {"where": where, "rate": "150", "hold": "4s", "margin": "2.0"}
    done = report(NOTEBOOKS / "rollout-report.ipynb", tmp_path, parameters)
    assert done.ending.outcome == "promoted", done.ending
    found = json.loads((tmp_path / "verdict.json").read_text())
    assert found["lost"] == 0
    assert [step["asked"] for step in found["steps"]] == [5, 25, 50, 100, 0]
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", (tmp_path / "report.html").read_text())  # pictures spell all words
    assert "token" not in text.lower().replace("tokens", "")
    assert parts.left_behind(admin) == []


def test_the_tutorial_runs_as_it_stands(where, admin, tmp_path):
    """
    The plan, the addresses, the traffic, the verdict: each cell, and its checks.
    """
    notebook = "04-on-a-cluster.ipynb"
    done = report(NOTEBOOKS / notebook, tmp_path, {"where": where, "watch": "5s"})
    assert done.ending.outcome in ("promoted", "rolled back"), done.ending
    cells = nbformat.read(tmp_path / notebook, as_version=4).cells
    shown = " ".join(str(output) for cell in cells if cell.cell_type == "code" for output in cell.outputs)
    assert "7 objects: 7 to create" in shown
    assert "http://127.0.0.1:" in shown
    assert parts.left_behind(admin) == []
