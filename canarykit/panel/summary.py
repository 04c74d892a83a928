"""What stands in place of a panel where nobody can operate one."""

from __future__ import annotations

from html import escape
from typing import Any

from canarykit.formatting import EXPLAINED
from canarykit.panel.state import PanelState
from canarykit.progress import kernel

__all__ = ["operated", "summary", "table"]


def operated() -> bool:
    """Whether a person sits at the notebook.

    papermill, nbconvert and nbclient say with each cell that nobody can answer (``allow_stdin``); JupyterLab, Notebook and
    VS Code say the opposite. A terminal or a script has no kernel.
    """
    here = kernel()
    if here is None:
        return False
    content: dict[str, Any] = here.get_parent("shell").get("content", {})
    return bool(content.get("allow_stdin", False))


def summary(state: PanelState) -> dict[str, str]:
    """The same as a table, in HTML and as text."""
    simulated = " (simulated)" if state.simulated else ""
    lines = [
        f"{state.service}{simulated}: {state.stable} stable, {state.canary} canary; {state.phase}",
        f"canary weight {state.asked}, served {state.served}",
        state.verdict,
    ]
    text = [*lines, *("  ".join(row) for row in (state.columns, *state.rows))]
    return {
        "text/html": "".join(f"<p>{escape(line)}</p>" for line in lines) + table(state),
        "text/plain": "\n".join(text),
    }


def table(state: PanelState) -> str:
    """Guardrails as an HTML table, whose cells know their column."""
    head = "".join(
        f'<th scope="col" class="canarykit-{_name(column)}"{_tooltip(column)}>{escape(column)}</th>' for column in state.columns
    )
    body = ""
    for name, *cells in state.rows:
        named = zip(state.columns[1:], cells, strict=True)
        rest = "".join(f'<td data-label="{escape(column)}"{_tooltip(column)}>{escape(cell)}</td>' for column, cell in named)
        body += f'<tr><th scope="row">{escape(name)}</th>{rest}</tr>'
    return f'<table class="canarykit-rows"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _tooltip(column: str) -> str:
    told = EXPLAINED.get(column.partition(" (")[0])
    return f' title="{escape(told)}"' if told else ""


def _name(column: str) -> str:
    return column if column in ("stable", "canary") else "other"
