"""Models as skops files: nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canarykit.errors import PlanError

__all__ = ["OWN_TYPES", "load", "save", "types_in"]

OWN_TYPES = ("canarykit.serving.faults.InkLimit",)
"""Types that the kit itself ships, trusted like scikit-learn's."""


def save(estimator: Any, path: Path) -> None:
    """Write a fitted estimator.

    Raises
    ------
    PlanError
        Its class lives in the notebook, or it cannot be written.
    """
    import skops.io

    if type(estimator).__module__ == "__main__":
        raise PlanError(
            f"the class {type(estimator).__name__} lives in this notebook, where the model server cannot import it: "
            "move it to a module that is installed"
        )
    try:
        skops.io.dump(estimator, path, compression=zipfile.ZIP_DEFLATED)
    except Exception as error:
        raise PlanError(f"cannot write the model {type(estimator).__name__} as a skops file: {error}") from error


def types_in(path: Path) -> list[str]:
    """Names of the types in a model file that are not trusted by default."""
    import skops.io

    try:
        return list(skops.io.get_untrusted_types(file=path))
    except Exception as error:
        raise PlanError(f"model file {path} is not a skops file: {error or type(error).__name__}") from error


def load(path: Path, trusted: Sequence[str] = ()) -> Any:
    """Read an estimator.

    Parameters
    ----------
    path : Path
        A skops file.
    trusted : sequence of str
        Types that may be loaded beside scikit-learn's and the kit's own.

    Raises
    ------
    PlanError
        The file is missing, is none of skops, is damaged, or holds types that are not trusted.
    """
    import skops.io

    if not path.is_file():
        raise PlanError(f"there is no model file {path}")
    if not zipfile.is_zipfile(path):
        raise PlanError(f"{path} is not a skops file: save the model with skops.io.dump(model, path)")
    strange = sorted(set(types_in(path)) - {*OWN_TYPES, *trusted})
    if strange:
        raise PlanError(
            f"model file {path} holds types that are not trusted: {', '.join(strange)}; "
            "if you know them, name them in Version(trusted=[...])"
        )
    try:
        return skops.io.load(path, trusted=types_in(path))
    except Exception as error:
        raise PlanError(f"model file {path} does not load: {error}") from error
