"""Models as skops files: nothing is ever unpickled."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from canarykit.errors import PlanError

__all__ = ["OWN_TYPES", "load", "save", "types_in"]

OWN_TYPES = ("canarykit.serving.faults.InkLimit",)
"""Types that the kit itself ships, trusted like scikit-learn's."""


def save(estimator: Any, path: Path) -> None:
    """Write a fitted estimator; equal estimators give equal files, whenever and wherever they are written.

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
        path.write_bytes(_canonical(skops.io.dumps(estimator)))
    except Exception as error:
        raise PlanError(f"cannot write the model {type(estimator).__name__} as a skops file: {error}") from error


def _canonical(content: bytes) -> bytes:
    """Number the parts of a skops file by their order: skops names them after addresses in memory, and zip keeps the time."""
    numbers: dict[Any, int] = {}
    names: dict[str, str] = {}

    def renumbered(node: Any) -> Any:
        if isinstance(node, list):
            return [renumbered(inside) for inside in node]
        if not isinstance(node, dict):
            return node
        new = {key: renumbered(inside) for key, inside in node.items()}
        if isinstance(node.get("__id__"), int):
            new["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
        if isinstance(node.get("file"), str):
            new["file"] = names.setdefault(node["file"], f"{len(names)}{Path(node['file']).suffix}")
        return new

    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        schema = renumbered(json.loads(old.read("schema.json")))
        for before, after in names.items():
            new.writestr(zipfile.ZipInfo(after), old.read(before), zipfile.ZIP_DEFLATED)
        new.writestr(zipfile.ZipInfo("schema.json"), json.dumps(schema), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


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
