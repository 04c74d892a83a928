"""What a deployment would change: the objects that are there against what the server says would come of a write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from canarykit.masking import HIDDEN, looks_secret, masked

__all__ = ["Change", "Changes", "difference"]

_NOT_OURS = ("status", "metadata.managedFields", "metadata.resourceVersion", "metadata.generation", "metadata.uid",
             "metadata.creationTimestamp")  # fmt: skip
_LONGEST = 60
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""Annotation that repeats the whole object, with all values of its environment."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object that would be written.

    Parameters
    ----------
    kind, name : str
        Kind and name of the object.
    action : {"create", "change", "leave"}
        The planned action.
    fields : tuple of str
        ``"spec.replicas: 2 → 3"``, one per field that would change. Values that look like secrets are hidden.
    """

    kind: str
    name: str
    action: Literal["create", "change", "leave"]
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.action} {self.kind} {self.name}", *(f"    {line}" for line in self.fields)])


class Changes(tuple[Change, ...]):
    """All objects that would be written; shows as a list in words.

    Parameters
    ----------
    changes : iterable of Change
        One for each object.
    notes : iterable of str
        Notes about the rest of the namespace: what is refused, and what selects the pods beside the kit's own objects.
    """

    notes: tuple[str, ...]

    def __new__(cls, changes: Iterable[Change] = (), notes: Iterable[str] = ()) -> Changes:
        """Take the changes as they are."""
        made = super().__new__(cls, changes)
        made.notes = tuple(notes)
        return made

    def __str__(self) -> str:
        counts = [(sum(change.action == action for change in self), action) for action in ("create", "change", "leave")]
        head = ", ".join(f"{count} to {action}" for count, action in counts if count)
        lines = [f"{len(self)} objects: {head}; nothing is written yet", *(f"  {change}" for change in self)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Change:
    """Compare an object as it is with what the server says would become of it."""
    kind, name = after["kind"], after["metadata"]["name"]
    if before is None:
        return Change(kind, name, "create")
    old, new = dict(_leaves(before)), dict(_leaves(after))
    hidden = _hidden(before) | _hidden(after)
    fields = tuple(
        _field(path, old.get(path), new.get(path), path in hidden)
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    )
    return Change(kind, name, "change" if fields else "leave", fields)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if path in _NOT_OURS:
        return
    if isinstance(value, Mapping):
        for key, inside in value.items():
            yield from _leaves(inside, f"{path}.{key}" if path else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inside in enumerate(value):
            named = inside.get("name", number) if isinstance(inside, Mapping) else number
            yield from _leaves(inside, f"{path}[{named}]")
    else:
        yield path, value


def _hidden(value: Any, path: str = "") -> frozenset[str]:
    """Paths of values that must not be shown: of what has a secret's name, or follows a secret's flag."""
    found: set[str] = set()
    if isinstance(value, Mapping):
        if "name" in value and "value" in value and looks_secret(str(value["name"])):
            found.add(f"{path}.value")
        secret = value.get("kind") == "Secret"
        for key, inside in value.items():
            place = f"{path}.{key}" if path else str(key)
            found |= _hidden(inside, place) | ({place} if key == _APPLIED else set())
            if secret and key in ("data", "stringData"):
                found |= {leaf for leaf, _ in _leaves(inside, key)}
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inside in enumerate(value):
            before = value[number - 1] if number else None
            if isinstance(before, str) and before.startswith("-") and "=" not in before and looks_secret(before):
                found.add(f"{path}[{number}]")
            named = inside.get("name", number) if isinstance(inside, Mapping) else number
            found |= _hidden(inside, f"{path}[{named}]")
    return frozenset(found)


def _field(path: str, old: Any, new: Any, hidden: bool) -> str:
    before, after = _said(old, hidden), _said(new, hidden)
    return f"{path}: {before} → {after}{' (what differs is not shown)' if before == after else ''}"


def _said(value: Any, hidden: bool) -> str:
    if value is None:
        return "nothing"
    text = HIDDEN if hidden else masked(str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
