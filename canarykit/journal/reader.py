"""JournalReader: what a journal holds."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from canarykit.errors import JournalError
from canarykit.model import ROLES, Counts, Ending, Guardrail, TrafficSplit, Window

__all__ = ["FORMAT", "JournalReader", "errors"]

FORMAT = 2
"""Of the tables; a journal of another one is not read."""


class JournalReader:
    """A journal as it is read, also while it is written.

    Parameters
    ----------
    path : Path, optional
        Its file; None when it is in memory.
    """

    _db: sqlite3.Connection

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, threading.RLock()

    @staticmethod
    def read(path: str | os.PathLike[str]) -> JournalReader:
        """Open a journal to read, also while it is written.

        Raises
        ------
        JournalError
            There is none, or it is something else.
        """
        file = Path(path)
        if not file.is_file():
            raise JournalError(f"there is no journal {file}")
        journal = JournalReader(file)
        with journal._errors("read"):
            journal._open_to_read()
            (version,) = journal._db.execute("PRAGMA user_version").fetchone()
        if version != FORMAT:
            journal._db.close()
            raise JournalError(f"{file} is no journal of this version of canarykit (format {version}, not {FORMAT})")
        return journal

    def close(self) -> None:
        """Read no more."""
        with self._lock, self._errors("close"):
            self._db.close()

    # Reading -----------------------------------------------------------------------------------------------------------

    @property
    def facts(self) -> dict[str, Any]:
        """What is compared, and how; guardrails are `Guardrail` values under `guardrails`."""
        return {key: json.loads(value) for key, value in self._rows("SELECT key, value FROM facts")}

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """Guardrails of the rollout."""
        written = self.facts.get("guardrails")
        if written is None:
            raise JournalError(f"{self._name} holds no rollout yet: nothing was deployed")
        return tuple(map(Guardrail.of, written))

    def judged(self) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        """How windows were judged: the number of the last one, all news, and the evidence after it; 0 and nothing before."""
        found = self._rows("SELECT window, state FROM evidence")
        if not found:
            return 0, [], {}
        window, state = found[0]
        news = self._rows("SELECT news FROM judged WHERE window <= ? ORDER BY window", (window,))  # someone may write meanwhile
        return window, [json.loads(each) for (each,) in news], json.loads(state)

    def windows(self, after: int = 0) -> Iterator[Window]:
        """Yield all windows, oldest first, or those after the one of this number."""
        query = "SELECT id, start, end, weight, left_out, note, judged FROM windows WHERE id > ? ORDER BY id"
        rows = self._rows(query, (after,))
        sizes = self.facts.get("tables", {})  # after the rows: someone may write meanwhile
        for number, start, end, weight, left_out, note, judged in rows:
            counts: dict[str, Counts] = {}
            instances: dict[str, dict[str, Counts]] = {}
            for name, who, cells in self._rows("SELECT name, who, cells FROM counts WHERE window = ?", (number,)):
                dense = _dense(cells, sizes[name])
                if who in ROLES:
                    table = counts.setdefault(name, np.zeros((2, sizes[name]), dtype=np.int64))
                    table[ROLES.index(who)] = dense
                else:
                    instances.setdefault(name, {})[who] = dense
            yield Window(start, end, TrafficSplit(weight), counts, instances, left_out, note, bool(judged))

    def weights(self) -> list[dict[str, float]]:
        """Changes of weight: time, asked, before, seconds."""
        names = ("time", "asked", "before", "seconds")
        return [dict(zip(names, row, strict=True)) for row in self._rows("SELECT * FROM weights ORDER BY time")]

    def events(self) -> list[dict[str, Any]]:
        """What happened: time, kind, text."""
        rows = self._rows("SELECT time, kind, text FROM events ORDER BY time")
        return [dict(zip(("time", "kind", "text"), row, strict=True)) for row in rows]

    def loads(self) -> list[dict[str, Any]]:
        """Summary of each traffic sender."""
        return [json.loads(summary) for (summary,) in self._rows("SELECT summary FROM loads ORDER BY id")]

    @property
    def ending(self) -> Ending | None:
        """How it ended; None when it has not."""
        written = self.facts.get("ending")
        return None if written is None else Ending(written["outcome"], written["sentence"])

    # Inside ------------------------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return "the journal in memory" if self.path is None else str(self.path)

    def _open_to_read(self) -> None:
        assert self.path is not None
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        self._db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._errors("read"), self._lock:
            return self._db.execute(query, values).fetchall()

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return errors(doing, self._name)


@contextmanager
def errors(doing: str, name: str) -> Iterator[None]:
    """Raise `JournalError` for what SQLite raises, with the name of the journal and what was being done."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(
            f"cannot {doing} {name}: {error}; what was written before is safe. Is the disk full, or the file "
            "moved, closed or no journal?"
        ) from error


def _dense(cells: str, size: int) -> Counts:
    dense = np.zeros(size, dtype=np.int64)
    for index, count in json.loads(cells).items():
        dense[int(index)] = count
    return dense
