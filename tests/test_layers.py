"""Imports point down: values, pure core, edges, pictures, conductor, shell."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "canarykit"

# Room -> rooms of the package that it may import, beside errors and model, which all may.
ALLOWED = {
    "errors": {"masking"},
    "model": {"masking", "placeholders"},
    "statuses": set(),
    "masking": set(),
    "extras": set(),
    "placeholders": set(),
    "protocol": set(),
    "encodings": set(),
    "interrupts": set(),
    "polling": {"interrupts"},
    "web": {"protocol"},
    "places": set(),
    "health": set(),
    "formatting": set(),
    "metrics": set(),
    "plan": set(),
    "analysis": {"formatting"},
    "pacing": {"analysis", "plan"},
    "rollout": {"analysis", "pacing", "plan"},
    "forecast": {"analysis", "metrics", "plan", "rollout"},
    "progress": set(),
    "journal": {"masking"},
    "routers": {"interrupts", "places", "polling", "protocol", "web"},
    "telemetry": {"load", "metrics", "places", "statuses", "polling", "protocol", "web"},
    "serving": {"encodings", "metrics", "protocol"},
    "load": {"encodings", "masking", "metrics", "statuses", "protocol", "serving"},
    "clusters": {
        "health",
        "interrupts",
        "load",
        "masking",
        "metrics",
        "placeholders",
        "places",
        "plan",
        "polling",
        "routers",
        "serving",
        "statuses",
        "telemetry",
        "protocol",
        "web",
    },
    "compat": {"analysis"},
    "counts": {"analysis", "compat", "metrics"},
    "bins": {"analysis"},
    "digest": {"analysis", "bins"},
    "history": {"analysis", "bins", "digest", "journal", "metrics"},
    "charts": {"analysis", "formatting", "history", "metrics"},
    "teaching": {"analysis", "charts", "compat", "forecast", "plan"},
    "pulumi": {"clusters", "places", "protocol", "routers"},
    "session": {
        "analysis",
        "charts",
        "clusters",
        "digest",
        "health",
        "history",
        "interrupts",
        "journal",
        "load",
        "masking",
        "metrics",
        "plan",
        "polling",
        "progress",
        "rollout",
        "routers",
        "statuses",
        "telemetry",
    },
    "panel": {"charts", "clusters", "formatting", "history", "load", "polling", "progress", "rollout", "session"},
    "report": {"clusters", "history", "journal", "masking", "progress"},
    "cli": {
        "analysis",
        "clusters",
        "compat",
        "counts",
        "forecast",
        "history",
        "journal",
        "load",
        "masking",
        "plan",
        "report",
        "telemetry",
    },
}
FOREIGN = {
    "ipywidgets": {"panel"},
    "matplotlib": {"charts", "teaching"},
    "papermill": {"report"},
    "click": {"cli"},
    "sklearn": {"serving"},
    "skops": {"serving"},
    "starlette": {"serving"},
    "aiohttp": {"load"},
    "sqlite3": {"journal"},
    "kubernetes": {"clusters"},
    "pydantic": {"plan"},
    "pulumi": {"pulumi"},
    "pulumi_kubernetes": {"pulumi"},
}


def room_of(path):
    """Top-level room of a module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Full names of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    """
    A module imports only from rooms below its own, and a library only in the room that exists for it.
    """
    room = room_of(path)
    assert room in ALLOWED, f"a new room {room!r}: say here what it may import"
    for name in imports_of(path):
        top, *rest = name.split(".")
        if top == "canarykit" and rest:
            assert rest[0] in ALLOWED[room] | {room, "errors", "extras", "model", "__version__"}, name
        assert room in FOREIGN.get(top, {room}), name


def test_no_room_imports_in_a_circle():
    """
    What is allowed has an order.
    """
    below = dict(ALLOWED)
    ready = set()
    while below:
        free = {room for room, allowed in below.items() if allowed <= ready}
        assert free, f"a circle among {sorted(below)}"
        ready |= free
        below = {room: allowed for room, allowed in below.items() if room not in free}


def test_pieces_of_an_experiment_use_only_earlier_ones():
    """
    What an experiment is made of has an order, too.
    """
    order = [
        "__init__",
        "journal_writer",
        "events",
        "handover",
        "snapshot",
        "lifecycle",
        "gateway_state",
        "own_answers",
        "assessment",
        "traffic",
        "losses",
        "replicas",
        "tracker",
        "promotion",
        "returning",
        "control",
        "loop",
        "experiment",
    ]
    assert sorted(order) == sorted(path.stem for path in (PACKAGE / "session").glob("*.py")), "a new piece: say where it is"
    for path in (PACKAGE / "session").glob("*.py"):
        used = {name.split(".")[2] for name in imports_of(path) if name.startswith("canarykit.session.")}
        assert used <= set(order[: order.index(path.stem)]), path.stem


def test_functions_and_classes_can_be_read_at_once():
    """
    No function is longer than 60 lines with its description; no class but `Experiment` has more than 15 public methods.
    """
    long, wide = [], []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{path.relative_to(PACKAGE)}: {node.name}")
            elif isinstance(node, ast.ClassDef) and node.name != "Experiment":
                methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef) and each.name[0] != "_"}
                if len(methods) > 15:
                    wide.append(f"{path.relative_to(PACKAGE)}: {node.name} has {len(methods)}")
    assert (long, wide) == ([], [])


def test_importing_the_package_loads_nothing_heavy():
    """
    `import canarykit` loads none of the libraries that take long.
    """
    heavy = ["numpy", "scipy", "pandas", "matplotlib", "sklearn", "kubernetes", "ipywidgets", "pydantic", "aiohttp"]
    heavy += ["pulumi", "sqlite3"]
    code = f"import sys, canarykit; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_two_files_of_tests_have_one_name():
    """
    pytest refuses the second one of a name, and only where both are collected.
    """
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
