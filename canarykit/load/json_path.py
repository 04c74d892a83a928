"""Where in an answer the value stands that is compared with a label: a path of keys and positions. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from canarykit.errors import PlanError

__all__ = ["OPEN_INFERENCE", "Missing", "parsed", "value_at"]

OPEN_INFERENCE = "outputs.0.data.0"
"""First value of the first output, as servers of the Open Inference Protocol answer."""

WHOLE = "."
"""The whole body."""

_STEP = re.compile(r'"(?:[^"\\]|\\.)*"|(?:[^."\\]|\\.)+', re.DOTALL)
_OTHER_FORMS = re.compile(r"\$|.*\[(-?\d*|\*|'.*')\]", re.DOTALL)
"""How a key looks that is a piece of JSONPath, or of Python."""
_HOW = (
    'write keys and positions with dots between, such as "label" or "choices.0.message.content"; a key with a dot in it is '
    'written "a\\.b" or in double quotes, and "." is the whole body'
)
_SHOWN_KEYS, _SHOWN_SIGNS = 8, 40


class Missing(LookupError):
    """There is no value at a path; the text says what is there instead."""


def parsed(path: str) -> tuple[str, ...]:
    r"""Return the steps of a path.

    Parameters
    ----------
    path : str
        Keys and positions with dots between: ``"label"``, ``"outputs.0.data.0"``. A dot within a key has a backslash before
        it, or the key stands in double quotes: ``r"a\.b"``, ``'"a.b".0'``. ``"."`` is the whole body.

    Raises
    ------
    PlanError
        It is no path.
    """
    if not isinstance(path, str) or not path:
        raise PlanError(f"answer= is a path into the JSON of an answer, not {path!r}: {_HOW}")
    if path == WHOLE:
        return ()
    steps, at = [], 0
    while True:
        step = _STEP.match(path, at)
        if step is None or (step.end() < len(path) and path[step.end()] != "."):
            raise PlanError(f"answer={path!r} is no path, from {path[at:]!r} on: {_HOW}")
        quoted = step[0].startswith('"')
        if not quoted and _OTHER_FORMS.match(step[0]):
            raise PlanError(f"answer={path!r} is written as in JSONPath or Python: {_HOW}")
        steps.append(re.sub(r"\\(.)", r"\1", step[0][1:-1] if quoted else step[0], flags=re.DOTALL))
        if step.end() == len(path):
            return tuple(steps)
        at = step.end() + 1


def value_at(steps: tuple[str, ...], body: Any) -> Any:
    """Return the value at a path.

    Parameters
    ----------
    steps : tuple of str
        As `parsed` returns them.
    body : object
        Parsed JSON.

    Raises
    ------
    Missing
        There is none, or null; says what is there, in bounded length.
    """
    value = body
    for number, step in enumerate(steps):
        try:
            value = _member(value, step)
        except LookupError:
            where = "the body" if number == 0 else f"{_path(steps[:number])}"
            raise Missing(f"no answer at {_path(steps)}: {where} {_has(value)}") from None
    if value is None:
        raise Missing(f"no answer at {_path(steps)}: null stands there")
    return value


def _member(value: Any, step: str) -> Any:
    if isinstance(value, list) and step.isascii() and step.isdigit() and len(step) <= 9:
        return value[int(step)]
    if isinstance(value, dict):
        return value[step]
    raise LookupError(step)


def _path(steps: tuple[str, ...]) -> str:
    return repr(".".join(re.sub(r"([.\\\"])", r"\\\1", step) for step in steps) or WHOLE)


def _has(value: Any) -> str:
    """What stands where a path does not go on."""
    if isinstance(value, dict):
        keys = [key if len(key) <= _SHOWN_SIGNS else f"{key[:_SHOWN_SIGNS]}…" for key in list(value)[:_SHOWN_KEYS]]
        more = ["…"] if len(value) > _SHOWN_KEYS else []
        keys = [json.dumps(key, ensure_ascii=False)[1:-1] for key in keys]
        return f"has the keys {', '.join(keys + more)}" if value else "is an object without keys"
    if isinstance(value, list):
        return f"is a list of {len(value):,}"
    return f"is {'text' if isinstance(value, str) else 'null' if value is None else 'a number, true or false'}"
