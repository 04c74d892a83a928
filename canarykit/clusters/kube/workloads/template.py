"""A team's patch of the kit's pod template, merged as the API server merges strategic patches. Pure but for the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from canarykit.errors import PlanError

__all__ = ["merged", "read_template"]

_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name", "volumes": "name", "env": "name",
    "ports": "containerPort", "volumeMounts": "mountPath", "volumeDevices": "devicePath", "imagePullSecrets": "name",
    "hostAliases": "ip", "topologySpreadConstraints": "topologyKey", "resourceClaims": "name",
}  # fmt: skip
"""Lists whose elements are merged by one of their fields, as the API of Kubernetes says; all others are replaced."""


def read_template(given: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """Read a patch of a pod template.

    Parameters
    ----------
    given : mapping, str or path
        ``{"metadata": …, "spec": …}``, or a YAML file with that.

    Raises
    ------
    PlanError
        The file cannot be read, or holds something else.
    """
    found: Any = given
    if isinstance(given, str | Path):
        try:
            found = yaml.safe_load(Path(given).expanduser().read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise PlanError(f"template={str(given)!r} cannot be read: {error}") from None
    if not isinstance(found, Mapping) or not found or not found.keys() <= {"metadata", "spec"}:
        shown = f"has {', '.join(map(str, found))}" if isinstance(found, Mapping) and found else "is empty, or no mapping"
        raise PlanError(f"template= is a patch of a pod template, with metadata and spec, and {shown}")
    return found


def merged(base: Mapping[str, Any], patch: Mapping[str, Any], *, where: str = "template=") -> dict[str, Any]:
    """Return an object with a strategic merge patch over it; None in the patch removes a field.

    Parameters
    ----------
    base, patch : mapping
        As plain data; both stay as they are.
    where : str
        Place of the patch, for messages.

    Raises
    ------
    PlanError
        The patch has another type at some place, or an element without the field by which its list is merged.
    """
    made = dict(base)
    for key, value in patch.items():
        there, place = made.get(key), f"{where}{'' if where.endswith('=') else '.'}{key}"
        if value is None:
            made.pop(key, None)
        elif there is not None and isinstance(there, Mapping | list) and not isinstance(value, type(there)):
            raise PlanError(f"{place} is a {type(value).__name__}, and the pod template has a {type(there).__name__} there")
        elif isinstance(value, Mapping):
            made[key] = merged(there or {}, value, where=place)
        elif isinstance(value, list) and key in _KEYS:
            made[key] = _list(there or [], value, _KEYS[key], place)
        else:
            made[key] = value
    return made


def _list(base: Sequence[Mapping[str, Any]], patch: Sequence[Any], key: str, place: str) -> list[Any]:
    found = {each.get(key): each for each in base}
    for number, value in enumerate(patch):
        if not isinstance(value, Mapping) or key not in value:
            raise PlanError(f"{place}[{number}] has no {key}, by which this list is merged")
        if value.get("$patch") == "delete":
            found.pop(value[key], None)
        else:
            found[value[key]] = merged(found.get(value[key], {}), value, where=f"{place}[{value[key]}]")
    return list(found.values())
