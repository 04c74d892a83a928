"""What a deployment would change: the objects that are there against what the server says would come of a write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

__all__ = ["Change", "Changes", "difference"]

_NOT_OURS = ("status", "metadata.managedFields", "metadata.resourceVersion", "metadata.generation", "metadata.uid",
             "metadata.creationTimestamp")  # fmt: skip
_LONGEST = 60


@dataclass(frozen=True, slots=True)
class Change:
    """One object that would be written.

    Parameters
    ----------
    kind, name : str
        Of the object.
    action : {"create", "change", "leave"}
        What would be done.
    fields : tuple of str
        ``"spec.replicas: 2 → 3"``, one per field that would change.
    """

    kind: str
    name: str
    action: Literal["create", "change", "leave"]
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.action} {self.kind} {self.name}", *(f"    {line}" for line in self.fields)])


class Changes(tuple[Change, ...]):
    """All objects that would be written; shows as a list in words."""

    def __str__(self) -> str:
        counts = [(sum(change.action == action for change in self), action) for action in ("create", "change", "leave")]
        head = ", ".join(f"{count} to {action}" for count, action in counts if count)
        return "\n".join([f"{len(self)} objects: {head}; nothing is written yet", *(f"  {change}" for change in self)])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"


def difference(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Change:
    """Compare an object as it is with what the server says would become of it."""
    kind, name = after["kind"], after["metadata"]["name"]
    if before is None:
        return Change(kind, name, "create")
    old, new = dict(_leaves(before)), dict(_leaves(after))
    fields = tuple(
        f"{path}: {_short(old.get(path))} → {_short(new.get(path))}"
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


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
