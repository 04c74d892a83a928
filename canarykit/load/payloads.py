"""What is sent, and which answer is right."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canarykit.errors import PlanError

__all__ = ["NO_BODY", "Payload", "classes_of", "payloads"]

_MOST_CLASSES = 20
_KEYS = frozenset({"body", "body_base64", "label", "content_type"})

NO_BODY = object()
"""In place of a body, where a request has none. None is JSON's null."""
_FORM = 'write one object on each line, such as {"body": {"prompt": "Hello"}, "label": 3}'


@dataclass(frozen=True, slots=True)
class Payload:
    """What one request sends.

    Parameters
    ----------
    body : object
        Bytes are sent as they are, all else as JSON; `NO_BODY` is none.
    label : object, optional
        The right answer; None when it is not known.
    content_type : str, optional
        Content type of this body.
    """

    body: Any
    label: Any = None
    content_type: str | None = None


def payloads(source: str | Path | Sequence[Mapping[str, Any]] | None, *, body_needed: bool = True) -> list[Payload]:
    """Read what to send.

    Parameters
    ----------
    source : str, Path or sequence of mappings, optional
        ``"digits"``: the held-out handwritten digits with their labels. A path: JSON lines in UTF-8, each with ``body``, or
        ``body_base64`` (bytes in Base64), and optionally ``label`` and ``content_type``; empty lines are passed over. Or such
        mappings themselves, whose ``body`` may be bytes. By default the digits; no body where none is needed.
    body_needed : bool
        Whether each request has a body.

    Raises
    ------
    PlanError
        It is none of these, or empty; says which line is wrong.
    """
    if source is None and not body_needed:
        return [Payload(NO_BODY)]
    if source is None or source == "digits":
        return _digits()
    if isinstance(source, str | Path):
        read = [_payload(where, written, body_needed) for where, written in _lines(Path(source))]
    else:
        read = [_payload(f"payload {number}", written, body_needed) for number, written in enumerate(source, start=1)]
    if not read:
        raise PlanError("there are no payloads to send")
    return read


def classes_of(labels: Sequence[Any]) -> tuple[Any, ...]:
    """Distinct labels, in order, when they are classes: a few texts or whole numbers, and not more. Empty otherwise."""
    given = [label for label in labels if label is not None]
    # Before they are put into a set: lists and objects cannot be.
    if any(not isinstance(label, str | int | float) or isinstance(label, bool) for label in given):
        return ()
    known = {label for label in given if isinstance(label, str | int)}
    if not 2 <= len(known) <= _MOST_CLASSES or any(label not in known for label in given):
        return ()
    return tuple(sorted(known, key=lambda label: (isinstance(label, str), label)))


def _digits() -> list[Payload]:
    from canarykit.serving import digits

    images, labels = digits.held_out()
    tensors = [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": image.tolist()} for image in images]
    return [Payload({"inputs": [tensor]}, int(label)) for tensor, label in zip(tensors, labels, strict=True)]


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each object of a file is, and the object."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f'payloads are "digits", or a file of JSON lines in UTF-8; {path} cannot be read: {error}') from error
    # At line feeds only: `splitlines` also splits at U+2028 and others, which texts may hold.
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip(" \t\r"):
            continue
        where = f"line {number} of {path}"
        try:
            yield where, json.loads(line, strict=False, parse_constant=_no_number)
        except ValueError as error:
            raise PlanError(f"{where} is no JSON: {error}. {_how(text)}") from error
        except RecursionError as error:
            raise PlanError(f"{where} has too many arrays or objects within each other") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number that JSON has")


def _how(text: str) -> str:
    """What to do about a file that holds no JSON lines."""
    begin = text.lstrip()[:1]
    if begin == "[":
        return "The file is one JSON array: " + _FORM
    if begin == "{":
        return "An object must not go over several lines: " + _FORM
    return "CSV and other formats are not read: " + _FORM


def _payload(where: str, written: Any, body_needed: bool) -> Payload:
    if isinstance(written, list):
        raise PlanError(f"{where} is an array: {_FORM}")
    bodies = {"body", "body_base64"} & set(written) if isinstance(written, Mapping) else set()
    if not isinstance(written, Mapping) or len(bodies) > 1 or (body_needed and not bodies) or not set(written) <= _KEYS:
        needed = 'with "body" or "body_base64", and optionally' if body_needed else 'with any of "body" or "body_base64",'
        raise PlanError(f'{where} must be an object {needed} "label" and "content_type"')
    body = _bytes(where, written["body_base64"]) if "body_base64" in written else written.get("body", NO_BODY)
    if isinstance(body, bytearray | memoryview):
        body = bytes(body)
    told = {"label": written.get("label")} | ({} if body is NO_BODY or isinstance(body, bytes) else {"body": body})
    try:
        json.dumps(told, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise PlanError(
            f"{where} cannot be written as JSON: {error}; give plain numbers, texts, lists and dicts, or bytes as a whole body"
        ) from error
    return Payload(body, told["label"], written.get("content_type"))


def _bytes(where: str, text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise PlanError(f'"body_base64" of {where} is no Base64: {error}') from error
