"""Follow a log file that grows without end: whole lines only, and rotated so that it does not fill the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

__all__ = ["LogTail"]

ROTATE_AT = 16 << 20
_LINGER = 1.0


class LogTail:
    """New lines of a log since the last read.

    Parameters
    ----------
    path : Path
        Need not exist yet.
    reopen : callable
        Has the writer open a new file under the same name.
    rotate_at : int
        Bytes at which the file is replaced.
    """

    def __init__(self, path: Path, reopen: Callable[[], object], rotate_at: int = ROTATE_AT) -> None:
        self._path, self._reopen, self._rotate_at = path, reopen, rotate_at
        self._file: IO[bytes] | None = None
        self._old: IO[bytes] | None = None
        self._old_until = 0.0
        self._rest: dict[int, bytes] = {}

    def lines(self) -> Iterator[str]:
        """Yield whole new lines, without their ends."""
        if self._old is not None:
            # The writer may finish a last write to the file that was moved away.
            yield from self._new_lines(self._old)
            if time.monotonic() > self._old_until:
                self._old.close()
                self._old = None
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return
        yield from self._new_lines(self._file)
        if self._old is None and self._file.tell() > self._rotate_at:
            self._rotate()

    def _new_lines(self, file: IO[bytes]) -> Iterator[str]:
        block = self._rest.pop(id(file), b"") + file.read()
        *whole, rest = block.split(b"\n")
        if rest:
            self._rest[id(file)] = rest
        for line in whole:
            yield line.decode(errors="replace")

    def _rotate(self) -> None:
        moved = self._path.with_suffix(".old")
        self._path.rename(moved)
        self._reopen()
        moved.unlink()  # we hold it open until it is read to its end
        self._old, self._old_until, self._file = self._file, time.monotonic() + _LINGER, None
