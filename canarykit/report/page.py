"""The page that a person reads: the verdict first, then what the notebook shows. Needs no network."""

from __future__ import annotations

import html
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from canarykit.model import SYMBOLS
from canarykit.progress import METADATA

__all__ = ["page"]

_HIDDEN = ("parameters", "injected-parameters", "check", "progress", "verdict", "panel", "papermill-error-cell-tag")
"""Tags of cells that a report leaves out; the page says the verdict itself."""


def page(executed: Path, found: dict[str, Any]) -> str:
    """Return the whole page.

    Parameters
    ----------
    executed : Path
        The executed notebook.
    found : dict
        The result of `canarykit.report.verdict.verdict`.
    """
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    title = _title(notebook)
    style = files("canarykit.report").joinpath("report.css").read_text()
    text = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(found['outcome'])}: {html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{_head(title, found)}\n{_body(notebook)}\n</main>\n</body>\n</html>\n"
    )
    return re.sub(r"(?<=\d) %", "\u00a0%", text)  # a number and its sign stay on one line


def _title(notebook: Any) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return str(cell.source.splitlines()[0][2:])
    return "Rollout"


def _head(title: str, found: dict[str, Any]) -> str:
    outcome, versions = found["outcome"], found["versions"]
    facts = {}
    if versions:
        facts["compared"] = f"{versions['stable']} (stable) with {versions['canary']} (canary)"
        reached = max((step["asked"] for step in found["steps"]), default=0)
        facts["weight reached"] = f"{reached:g} %"
        stable, canary = found["requests"]["stable"], found["requests"]["canary"]
        facts["requests judged"] = f"{stable + canary:,}, {canary:,} of them by the canary"
        causes = ", ".join(f"{count:,} {cause}" for cause, count in found["lost_by_cause"].items())
        facts["requests lost"] = f"{found['lost']:,}" + (f" ({causes})" if causes else "")
    if found["duration_s"] is not None:
        facts["duration"] = f"{found['duration_s']:.0f} s"
    if found["sender_overloaded"]:
        unsent = f" and could not send {found['unsent']:,} requests" if found["unsent"] else ""
        facts["warning"] = f"the sender of the traffic fell behind its own schedule{unsent}: do not believe latencies"
    rows = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts.items())
    sentence, _, rest = found["sentence"].partition("\n")
    quoted = f"<pre>{html.escape(rest)}</pre>" if rest else ""
    kind = outcome.replace(" ", "-")
    simulated = "<p><strong>Simulated: nothing here was measured.</strong></p>" if found["simulated"] else ""
    return (
        f"<header>\n<h1>{html.escape(title)}</h1>\n"
        f'<section class="verdict {kind}" aria-label="Verdict"><p class="word">{SYMBOLS[outcome]} {outcome}</p>\n'
        f'<p class="sentence">{html.escape(_capital(sentence))}</p>{quoted}{simulated}</section>\n<dl>{rows}</dl>\n</header>'
    )


def _capital(sentence: str) -> str:
    return f"The {sentence[4:]}" if sentence.startswith("the ") else sentence


def _body(notebook: Any) -> str:
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import TagRemovePreprocessor
    from traitlets.config import Config

    shown = notebook.copy()
    shown.cells = [_without_noise(_without_title(cell)) for cell in _until_failure(notebook.cells)]
    exporter = HTMLExporter(config=Config({"HTMLExporter": {"exclude_input": True}}), template_name="basic")
    exporter.register_preprocessor(TagRemovePreprocessor(remove_cell_tags=_HIDDEN), enabled=True)
    body, _ = exporter.from_notebook_node(shown)
    return _scrolling(str(body))


def _scrolling(body: str) -> str:
    """Let what is wider than a telephone scroll in a place of its own, which the keyboard reaches, named by its heading."""
    heading = "Rollout"

    def place(match: re.Match[str]) -> str:
        nonlocal heading
        if match["heading"] is not None:
            heading = re.sub(r"<a .*?</a>|<[^>]*>", "", match["heading"]).replace('"', "&quot;")
            return match[0]
        return f'<div class="wide" role="group" tabindex="0" aria-label="{heading}">{match[0]}</div>'

    return re.sub(r"<h2[^>]*>(?P<heading>.*?)</h2>|<table.*?</table>|<img [^>]*>", place, body, flags=re.DOTALL)


def _until_failure(cells: list[Any]) -> list[Any]:
    """Cells up to the one that failed: prose about what never ran would read as if it had."""
    for number, cell in enumerate(cells):
        if cell.cell_type == "code" and any(output.output_type == "error" for output in cell.outputs):
            return cells[:number]
    return cells


def _without_noise(cell: Any) -> Any:
    """Leave out what was shown to whoever waited, and lines with nothing in them: they would be an empty box."""
    if cell.cell_type != "code":
        return cell
    rest = cell.copy()
    rest.outputs = [
        output
        for output in cell.outputs
        if output.get("metadata") != METADATA and (output.output_type != "stream" or output.text.strip())
    ]
    return rest


def _without_title(cell: Any) -> Any:
    if cell.cell_type != "markdown" or not cell.source.startswith("# "):
        return cell
    rest = cell.copy()
    rest.source = cell.source.partition("\n")[2].strip()
    return rest
