"""Run a notebook through papermill, and leave a folder that a person and a pipeline can read."""

from typing import Any

__all__ = ["Report", "report"]


def __getattr__(name: str) -> Any:
    # papermill takes seconds to import, and judging a journal does not need it.
    if name in __all__:
        from canarykit.report import folder as module

        return getattr(module, name)
    raise AttributeError(name)
