"""Parts of the kit that not every installation has: who lacks one is told what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra installs.

    Parameters
    ----------
    name : str
        Name of the extra: ``"local"``, ``"notebook"``, ``"kube"``.

    Raises
    ------
    ImportError
        It is not installed; says how to install it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if str(error.name).startswith("canarykit"):
            raise
        raise ImportError(f"this needs {error.name}: pip install 'canarykit[{name}]'", name=error.name) from error
