"""What an address such as ``"local?ready_within=300"`` says."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints
from urllib.parse import parse_qsl

from canarykit.clusters.local.cluster import LocalCluster
from canarykit.errors import PlanError

__all__ = ["from_address"]

_SAID = {bool: "true or false", int: "a whole number", float: "a number"}


def from_address(where: str) -> LocalCluster:
    """Return the cluster of ``"local?option=value&..."``; the options are those of `LocalCluster`.

    Raises
    ------
    PlanError
        An option is not known, has no value or an impossible one, or is there twice.
    """
    _, _, query = where.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    known = list(inspect.signature(LocalCluster).parameters)
    # Errors name known options alone: what stands in an address by mistake may be a password.
    if any(name not in known for name, _ in pairs):
        raise PlanError(f"the address of the local cluster has an option that is not known: there are {', '.join(known)}")
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"the address of the local cluster has the option {', '.join(twice)} twice: leave one out")
    types = get_type_hints(LocalCluster.__init__)
    return LocalCluster(**{name: _value(name, text, types[name]) for name, text in pairs})


def _value(name: str, text: str, kind: Any) -> Any:
    """Return a value as the option takes it: a number where it can be one."""
    if not text:
        raise PlanError(f"the address of the local cluster says no value of {name}: write {name}=…, or leave it out")
    kinds = get_args(kind) or (kind,)
    if bool in kinds and text in ("true", "false"):
        return text == "true"
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    wanted = " or ".join(said for kind, said in _SAID.items() if kind in kinds)
    raise PlanError(f"{name}= in the address of the local cluster must be {wanted}")
