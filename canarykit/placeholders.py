"""What stands for a port in a command and in an environment: ``{port}`` and ``{port:NAME}``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["filled", "malformed", "port_names", "port_variables"]

_PORT = re.compile(r"\{port(?::([A-Za-z][A-Za-z0-9_-]*))?\}")
_ANY = re.compile(r"\{port:[^{}]*\}?")


def malformed(texts: Iterable[str]) -> str | None:
    """Return the first ``{port:…}`` that names no port; a name has letters, digits, - and _, and begins with a letter."""
    found = (match[0] for text in texts for match in _ANY.finditer(text))
    return next((each for each in found if not _PORT.fullmatch(each)), None)


def port_names(texts: Iterable[str]) -> list[str]:
    """Names of ``{port:NAME}`` in some texts, each once, in their order."""
    found = (match[1] for text in texts for match in _PORT.finditer(text))
    return list(dict.fromkeys(name for name in found if name))


def filled(text: str, *, port: int | None, ports: Mapping[str, int], fd: int | None = None) -> str:
    """Return a text with numbers in place of ``{port}``, ``{port:NAME}`` and ``{fd}``; what is not known stays as it is."""

    def number(match: re.Match[str]) -> str:
        known = ports.get(match[1]) if match[1] else port
        return match[0] if known is None else str(known)

    text = _PORT.sub(number, text)
    return text if fd is None else text.replace("{fd}", str(fd))


def port_variables(port: int | None, ports: Mapping[str, int]) -> dict[str, str]:
    """Environment that tells a server its ports: ``PORT``, and ``PORT_NAME`` for each named one."""
    named = {f"PORT_{name.upper().replace('-', '_')}": str(number) for name, number in ports.items()}
    return named if port is None else {"PORT": str(port), **named}
