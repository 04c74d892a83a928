"""Which processes listen on which TCP ports, as Linux lists them in /proc."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Address", "holders", "listening", "parsed"]

_PROC = Path("/proc")
_LISTEN = "0A"


class Address(NamedTuple):
    """Where a process listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parsed(table: str) -> dict[str, Address]:
    """Addresses of listening sockets in the text of /proc/net/tcp or tcp6, by inode."""
    found = {}
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == _LISTEN:
            host, _, port = fields[1].partition(":")
            found[fields[9]] = Address(_host(host), int(port, 16))
    return found


def _host(text: str) -> str:
    """Address that the kernel writes as hexadecimal words in the machine's own byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words))


def listening(pids: Iterable[int]) -> list[Address]:
    """Where these processes listen, in order; empty where there is no /proc, or where they are another user's."""
    table = _sockets()
    return sorted({table[inode] for pid in pids for inode in _inodes(pid) if inode in table}, key=lambda each: each[::-1])


def holders(port: int) -> list[int]:
    """Processes that listen on that port, as far as we may see."""
    inodes = {inode for inode, address in _sockets().items() if address.port == port}
    pids = [int(name) for name in os.listdir(_PROC) if name.isdecimal()] if inodes else []
    return [pid for pid in pids if inodes & set(_inodes(pid))]


def _sockets() -> dict[str, Address]:
    found: dict[str, Address] = {}
    for name in ("tcp", "tcp6"):
        try:
            found |= parsed((_PROC / "net" / name).read_text())
        except OSError:  # no Linux, or no IPv6
            continue
    return found


def _inodes(pid: int) -> list[str]:
    folder = _PROC / str(pid) / "fd"
    found = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for name in names:
        try:
            target = os.readlink(folder / name)
        except OSError:
            continue
        if target.startswith("socket:["):
            found.append(target[8:-1])
    return found
