"""Label selectors, evaluated as the API server does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["equal", "matches"]


def equal(wanted: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether labels have all of these values, as of a Service's selector; one that says nothing selects nothing."""
    return bool(wanted) and all(labels.get(key) == value for key, value in (wanted or {}).items())


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects these labels.

    Parameters
    ----------
    selector : mapping or None
        With ``matchLabels`` and ``matchExpressions``, all of which must hold. Empty selects everything, None nothing.
    labels : mapping of str to str
        Labels of a pod.
    """
    if selector is None:
        return False
    pairs: Mapping[str, str] = selector.get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in pairs.items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":  # also of a pod that lacks the label
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:  # of a newer API server: nobody knows, so that it is told rather than passed over
            return True
