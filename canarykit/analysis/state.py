"""What evidence knows, as plain data for JSON, and back without loss. Pure."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np

from canarykit.model import Comparison

__all__ = ["Stateful", "comparison_of", "plain"]


class Stateful:
    """Values whose attributes named in `_STATE` are all that changes after they were made.

    An object that was made with the same arguments and restored from the state goes on as the original would: numbers go
    through JSON without loss.
    """

    _STATE: ClassVar[tuple[str, ...]]

    def state(self) -> dict[str, Any]:
        """What it knows, as plain data for strict JSON; infinite numbers and NaN are text."""
        return {name.strip("_"): plain(getattr(self, name)) for name in self._STATE}

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Take over what another one of the same kind knew; return itself.

        Raises
        ------
        ValueError
            It was of another kind: something is missing, has another shape, or is NaN.
        """
        for name in self._STATE:
            if name.strip("_") not in state:
                raise ValueError(f"the state of {type(self).__name__} has no {name.strip('_')}")
            try:
                setattr(self, name, _restored(getattr(self, name), state[name.strip("_")]))
            except (TypeError, AttributeError) as error:
                raise ValueError(f"the state of {type(self).__name__} has another {name.strip('_')}: {error}") from error
        return self

    def copy(self) -> Self:
        """Return another one that knows the same; what either takes in later changes nothing in the other."""
        other = copy.copy(self)
        for name in self._STATE:
            setattr(other, name, _copied(getattr(self, name)))
        return other


def _copied(value: Any) -> Any:
    if isinstance(value, Stateful | np.ndarray):
        return value.copy()
    if isinstance(value, list | tuple):
        return type(value)(map(_copied, value))
    return copy.copy(value)


def plain(value: Any) -> Any:
    """As plain data for strict JSON."""
    if isinstance(value, Stateful):
        return value.state()
    if isinstance(value, np.ndarray):
        return value.tolist() if np.isfinite(value).all() else [plain(inner) for inner in value.tolist()]
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, list | tuple | deque):
        return [plain(inner) for inner in value]
    return {key: plain(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _restored(like: Any, value: Any) -> Any:
    """A value of the kind that `like` is, from plain data."""
    if isinstance(like, Stateful):
        return like.restore(value)
    if isinstance(like, np.ndarray):
        array = np.array(_numbers(value), dtype=float)
        if array.shape != like.shape:
            raise ValueError(f"an array of shape {array.shape}, not {like.shape}")
        if np.isnan(array).any():  # evidence that is NaN would never alarm
            raise ValueError("an array that holds NaN")
        return array.astype(like.dtype)
    if isinstance(like, list | tuple) and any(isinstance(inner, Stateful | tuple) for inner in like):
        if len(like) != len(value):
            raise ValueError(f"{len(value)} parts, not {len(like)}")
        return type(like)(_restored(inner, given) for inner, given in zip(like, value, strict=True))
    if isinstance(like, float):
        if math.isnan(number := float(value)):
            raise ValueError("a number that is NaN")
        return number
    if isinstance(like, deque):
        return deque(_frozen(value), maxlen=like.maxlen)
    return list(_frozen(value)) if isinstance(like, list) else _frozen(value)


def _numbers(value: Any) -> Any:
    """With numbers for their text: infinite ones and NaN."""
    if isinstance(value, list):
        return [_numbers(inner) for inner in value]
    return float(value) if isinstance(value, str) else value


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    return {key: _frozen(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def comparison_of(written: Mapping[str, Any]) -> Comparison:
    """Return the comparison of whose fields `plain` made this."""
    facts: dict[str, Any] = {}
    for name, value in written.items():
        number = int if name in ("events", "requests") else float
        facts[name] = value if name == "metric" else tuple(map(number, value)) if isinstance(value, list) else number(value)
    return Comparison(**facts)
