"""What is sent, and which answer is right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canarykit.errors import PlanError

__all__ = ["Payload", "classes_of", "payloads"]

_MOST_CLASSES = 20


@dataclass(frozen=True, slots=True)
class Payload:
    """One request body.

    Parameters
    ----------
    body : object
        Sent as JSON.
    label : object, optional
        The right answer (the first value of the first output); None when it is not known.
    """

    body: Any
    label: Any = None


def payloads(source: str | Path | Sequence[Mapping[str, Any]]) -> list[Payload]:
    """Read what to send.

    Parameters
    ----------
    source : str, Path or sequence of mappings
        ``"digits"``: the held-out handwritten digits with their labels. A path: JSON lines, each with ``body`` and
        optionally ``label``. Or such mappings themselves.

    Raises
    ------
    PlanError
        It is none of these, or empty; says which line is wrong.
    """
    if source == "digits":
        return _digits()
    if isinstance(source, str | Path):
        source = _lines(Path(source))
    read = [_payload(number, written) for number, written in enumerate(source, start=1)]
    if not read:
        raise PlanError("there are no payloads to send")
    return read


def classes_of(labels: Sequence[Any]) -> tuple[Any, ...]:
    """Distinct labels, in order, when they are classes: a few texts or whole numbers, and not more. Empty otherwise."""
    known = {label for label in labels if isinstance(label, str | int) and not isinstance(label, bool)}
    if not 2 <= len(known) <= _MOST_CLASSES or any(label is not None and label not in known for label in labels):
        return ()
    return tuple(sorted(known, key=lambda label: (isinstance(label, str), label)))


def _digits() -> list[Payload]:
    from canarykit.serving import digits

    images, labels = digits.held_out()
    tensors = [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": image.tolist()} for image in images]
    return [Payload({"inputs": [tensor]}, int(label)) for tensor, label in zip(tensors, labels, strict=True)]


def _lines(path: Path) -> list[Any]:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f'payloads are "digits", or a file of JSON lines; {path} cannot be read: {error}') from error
    read = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            read.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise PlanError(f"line {number} of {path} is no JSON: {error}") from error
    return read


def _payload(number: int, written: Any) -> Payload:
    if not isinstance(written, Mapping) or "body" not in written or not set(written) <= {"body", "label"}:
        raise PlanError(f'payload {number} must be an object with "body" and optionally "label"')
    return Payload(written["body"], written.get("label"))
