"""Whose port it is that a server did not get, judged by what its log says."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from canarykit.clusters.local.descendants import descendants
from canarykit.clusters.local.listening import holders, listening

__all__ = ["complains", "taken_port"]

_ERRNO = 48 if sys.platform == "darwin" else 98
_IN_USE = re.compile(
    rf"\baddress (?:is )?(?:already )?in use\b|\bEADDRINUSE\b|\b(?:errno|os error) {_ERRNO}\b"
    r"|\bport \d+ is (?:already )?in use\b|\bconnection in use\b",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\d.])\d{2,5}(?![\d.])")


def complains(line: str) -> bool:
    """Whether a line says that an address or a port is in use; memory and devices may be in use, too."""
    return _IN_USE.search(line) is not None


def taken_port(log: Iterable[str], words: Iterable[str], name: str, status: Mapping[str, Mapping[str, Any]]) -> str:
    """Say which port another process holds that a server wanted; empty text when its log has no complaint of that kind.

    Parameters
    ----------
    log : iterable of str
        Last lines of the server's log.
    words : iterable of str
        Its command and its environment. Numbers in them are ports only if another replica listens there.
    name : str
        The server's name in `status`.
    status : mapping
        Facts of all servers, as of `Processes.status`.
    """
    complaints = [line for line in log if complains(line)]
    if not complaints:
        return ""
    family = {each: _family(facts) for each, facts in status.items()}
    for port in _numbers(complaints):
        if others := [pid for pid in holders(port) if pid not in family[name]]:
            return _advice(port, _holder(others, family))
    rest = {each: pids for each, pids in family.items() if each != name}
    held = {address.port: each for each, pids in rest.items() for address in listening(pids)}
    for port in _numbers(words):
        if port in held:
            return _advice(port, held[port])
    given = {port for facts in status.values() for port in (facts["port"], *facts["ports"].values())}
    if fixed := sorted(set(held) - given):
        places = " and ".join(f"{port} ({held[port]})" for port in fixed)
        return f"; its log says that an address is in use: other replicas listen on {places}: use {{port:NAME}} for such a port"
    return "; its log says that an address is in use: use {port} or {port:NAME} for each port"


def _family(facts: Mapping[str, Any]) -> list[int]:
    return [facts["keeper"], *descendants(facts["keeper"])] if facts["keeper"] else []


def _advice(port: int, holder: str) -> str:
    advice = f"use {{port}}, or {{port:NAME}} for a further port, in place of {port} in command= and env="
    return f"; port {port} is in use by {holder}: {advice}"


def _numbers(texts: Iterable[str]) -> list[int]:
    found = dict.fromkeys(int(match[0]) for text in texts for match in _NUMBER.finditer(text))
    return [number for number in found if 0 < number < 65536]


def _holder(pids: Collection[int], family: Mapping[str, Sequence[int]]) -> str:
    """Name a process: that of the replica whose it is, or its program and process id."""
    for name, own in family.items():
        if set(pids) & set(own):
            return name
    pid = min(pids)
    try:
        program = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        program = "a process"
    return f"{program} (process {pid})"
