"""Options after the question mark of an address, ``"…?lease=30&adopt=true"``, read as the parameters of a class want them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

from canarykit.errors import PlanError

__all__ = ["options_of", "read_options"]

_WORDS = {"true": True, "false": False}


def options_of(made: Callable[..., Any]) -> dict[str, frozenset[Any]]:
    """Parameters that can be written as text, and of which kinds: str, int, float, bool, or Mapping for those of several names.

    Parameters
    ----------
    made : callable
        A class, or a function; its parameters have annotations.
    """
    hints = get_type_hints(made.__init__ if isinstance(made, type) else made)  # type: ignore[misc]
    kinds = {name: frozenset(_kinds(hints[name])) for name in inspect.signature(made).parameters if name in hints}
    return {name: found for name, found in kinds.items() if found}


def read_options(query: str, known: Mapping[str, frozenset[Any]], where: str) -> dict[str, Any]:
    """Read what follows the question mark of an address; what has ``&``, ``=`` or ``+`` in it is percent-encoded.

    An option of several names is written ``name.key=value`` for each.

    Parameters
    ----------
    query : str
        ``"lease=30&adopt=true"``.
    known : mapping of str to set of types
        As `options_of` returns them.
    where : str
        The thing that has this address, for messages.

    Raises
    ------
    PlanError
        An option is not known, has no value or one of another type, or is there twice.
    """
    # Errors name options alone: a value may hold a password, and errors end up in logs.
    pairs = parse_qsl(query, keep_blank_values=True)
    names = [name for name, _ in pairs]
    if strange := sorted({name for name in names if not _is_known(name, known)}):
        # After a password with an & in it, the rest of the password looks like a name.
        named = "an option that is not known" if "@" in query else f"no option {', '.join(strange)}"
        there = ", ".join(shown for name, kinds in known.items() for shown in _shown(name, kinds))
        raise PlanError(f"the address of {where} has {named}: there are {there}; an & within a value is written %26")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"the address of {where} has the option {', '.join(twice)} twice: leave one out")
    if empty := sorted(name for name, text in pairs if not text):
        raise PlanError(f"the address of {where} says no value of {', '.join(empty)}: write {empty[0]}=…, or leave it out")
    read: dict[str, Any] = {}
    for name, text in pairs:
        option, _, key = name.partition(".")
        if key and option in names:
            several = " or ".join(f"{other}=" for other in names if other.startswith(f"{option}."))
            raise PlanError(f"the address of {where} has both {option}= and {several}: leave one out")
        if key:
            read.setdefault(option, {})[key] = text
        else:
            read[option] = _value(name, text, known[name], where)
    return read


def _is_known(name: str, known: Mapping[str, frozenset[Any]]) -> bool:
    option, dot, key = name.partition(".")
    kinds = known.get(option, frozenset())
    return bool(key and Mapping in kinds) if dot else bool(kinds - {Mapping})


def _shown(name: str, kinds: frozenset[Any]) -> list[str]:
    return [name] * bool(kinds - {Mapping}) + [f"{name}.KEY"] * (Mapping in kinds)


def _kinds(hint: Any) -> set[Any]:
    """Kinds of text that a parameter takes; none when it takes no text."""
    if hint in (str, int, float, bool):
        return {hint}
    if get_origin(hint) is Literal:
        return {type(value) for value in get_args(hint)}
    if get_origin(hint) is Mapping and get_args(hint)[1] is str:
        return {Mapping}
    if get_origin(hint) is Union or isinstance(hint, type(int | str)):
        return set().union(*(_kinds(each) for each in get_args(hint) if each is not NoneType))
    return set()


def _value(name: str, text: str, kinds: frozenset[Any], where: str) -> Any:
    if bool in kinds and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                continue
    if str in kinds:
        return text
    wanted = {bool: "true or false", float: "a number", int: "a whole number"}
    raise PlanError(f"{name}= in the address of {where} takes {next(said for kind, said in wanted.items() if kind in kinds)}")
