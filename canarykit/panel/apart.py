"""Writing to widgets apart from any cell, so that clicks on them never wait for one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from canarykit.progress import kernel

__all__ = ["apart"]

T = TypeVar("T")


def apart(write: Callable[..., T], *args: Any) -> T:
    """Call a function that makes or changes widgets.

    JupyterLab (4.4 and later) sends clicks to a thread of the kernel beside the one that runs cells. But ipykernel 7.4 hands
    a click to the thread of the request under which the widget was last written; a widget that is made in a cell, or written
    by a thread that the kernel takes for a part of the cell, would answer only when no cell runs. What is written under no
    request leaves the choice to JupyterLab.
    """
    parent = getattr(kernel(), "_shell_parent", None)
    context = copy_context()
    if isinstance(parent, ContextVar):  # ipykernel 7; older ones have one thread for everything
        context.run(parent.set, {})
    return context.run(write, *args)
