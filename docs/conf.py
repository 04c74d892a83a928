"""Sphinx: the pages of this folder, the notebooks with their outputs, and the reference from the docstrings."""

import logging
import os
import re
import shutil
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "generated"
"""Pages that each build writes: the notebooks, and the catalogue."""

project = "canarykit"
copyright = "The canarykit developers"
release = version = metadata.version("canarykit")
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx_click"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"canarykit {release}"
html_show_sphinx = False
nb_execution_mode = "off"  # they are run before, on the simulated cluster
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say the types
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Notebooks that need nothing but this machine, and what they are run with.
SIMULATED = {"where": "simulated"}
NOTEBOOKS = {
    "01-first-canary": SIMULATED,
    "02-bad-canary": SIMULATED,
    "03-reading-the-evidence": {"runs": 40},
    "rollout-report": SIMULATED,
}
UNRUN = {"04-on-a-cluster": "It needs a cluster, so that this page has no outputs."}

PAGES = {
    "../benchmarks/detection.md": "detection.md",
    "../CHANGELOG.md": "changes.md",
    "../CONTRIBUTING.md": "architecture.md",
    "../notebooks/README.md": "teaching.md",
}
"""Files outside this folder that are pages here, in `GENERATED`."""


def write_notebooks(folder: Path) -> None:
    """Run the notebooks, or copy those that need a cluster."""
    import nbformat
    import papermill
    from traitlets.config import Config

    logging.getLogger("papermill").setLevel(logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    for name, parameters in NOTEBOOKS.items():
        source, target = ROOT / "notebooks" / f"{name}.ipynb", folder / f"{name}.ipynb"
        inputs = (source, Path(__file__), *(ROOT / "canarykit").rglob("*.py"))
        if not target.exists() or target.stat().st_mtime < max(path.stat().st_mtime for path in inputs):
            with TemporaryDirectory() as sockets:
                config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/ipc"}})
                options = {"progress_bar": False, "cwd": str(source.parent), "config": config}
                papermill.execute_notebook(source, target, parameters, **options)
    for name, why in UNRUN.items():
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        notebook.cells.insert(1, nbformat.v4.new_markdown_cell(f"*{why}*"))
        nbformat.write(notebook, folder / f"{name}.ipynb")


def write_catalogue(path: Path) -> None:
    """Write the table of what gateways and servers call their counters."""
    from canarykit.telemetry.catalogue import EXPOSITIONS

    lines = [
        "# Catalogue of gateways and servers",
        "",
        "What `metrics=` takes, and what is read there. Another one is an `Exposition` of your own: see [](../counting.md).",
        "",
        "| name | counts requests | durations | failures | port, path |",
        "|---|---|---|---|---|",
    ]
    for name, entry in EXPOSITIONS.items():
        told = [f"`{label}`" for label in (entry.code, entry.grpc, entry.flags, entry.fault, entry.failures) if label]
        where = "the gateway's" if entry.backend else f"{entry.port or 'that of the service'}, `{entry.path}`"
        lines.append(f"| `{name}` | `{entry.requests}` | `{entry.latency}` | {', '.join(told) or '–'} | {where} |")
    path.write_text("\n".join(lines) + "\n")


def write_pages(app: object) -> None:
    """Write what each build makes anew."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    GENERATED.mkdir(exist_ok=True)
    write_catalogue(GENERATED / "catalogue.md")
    write_notebooks(GENERATED / "notebooks")
    shutil.copy(ROOT / "benchmarks" / "detection.png", GENERATED / "detection.png")
    for source, page in PAGES.items():
        shutil.copy(DOCS / source, GENERATED / page)


def follow_links(app: object, name: str, source: list[str]) -> None:
    """Have links to files outside this folder lead to their page here, or to the file itself."""
    depth = "../" * name.count("/")

    def target(match: re.Match[str]) -> str:
        text, link = match.groups()
        path, _, anchor = link.partition("#")
        if path.endswith(".ipynb"):
            return f"[{text}]({depth}generated/notebooks/{Path(path).name})"
        if path in PAGES:
            return f"[{text}]({depth}generated/{PAGES[path]}{'#' + anchor if anchor else ''})"
        if path == "../benchmarks/detection.png":
            return f"[{text}]({depth}generated/detection.png)"
        inside = (DOCS / name).parent.joinpath(path).resolve().is_relative_to(DOCS.resolve())
        if path.startswith("../") and not inside:
            return f"{{download}}`{text} <{path}>`"
        return match.group()

    source[0] = re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", target, source[0])


def setup(app: object) -> None:
    """Register both with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", follow_links)
