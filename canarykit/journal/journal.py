"""Journal: the record of a rollout, as it is written."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from canarykit.errors import JournalError
from canarykit.journal.reader import FORMAT, JournalReader
from canarykit.masking import masked, masked_values
from canarykit.model import ROLES, Counts, Ending, Guardrail, Window

__all__ = ["Journal", "transaction"]

_TABLES = """
CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE windows (id INTEGER PRIMARY KEY, start REAL NOT NULL, end REAL NOT NULL, weight REAL NOT NULL,
                      left_out INTEGER NOT NULL, note TEXT NOT NULL, judged INTEGER NOT NULL);
CREATE TABLE counts (window INTEGER NOT NULL REFERENCES windows, name TEXT NOT NULL, who TEXT NOT NULL,
                     cells TEXT NOT NULL);
CREATE INDEX counts_of_window ON counts (window);
CREATE TABLE weights (time REAL NOT NULL, asked REAL NOT NULL, before REAL NOT NULL, seconds REAL NOT NULL);
CREATE TABLE events (time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE loads (id INTEGER PRIMARY KEY, summary TEXT NOT NULL);
CREATE TABLE judged (window INTEGER PRIMARY KEY, news TEXT NOT NULL);
CREATE TABLE evidence (one INTEGER PRIMARY KEY CHECK (one = 1), window INTEGER NOT NULL, state TEXT NOT NULL);
"""


class Journal(JournalReader):
    """Record of one rollout.

    Parameters
    ----------
    path : path, optional
        A new file, readable by its owner alone; in memory by default.

    Raises
    ------
    JournalError
        There is a file already, or it cannot be written. Writing raises it too, when the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(None if path is None else Path(path))
        self._sizes: dict[str, int] = {}
        if self.path is not None:
            self._create_file(self.path)
        with self._errors("open"):
            self._db = sqlite3.connect(self.path or ":memory:", check_same_thread=False, isolation_level=None)
            if self.path is not None:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA user_version = {FORMAT}")
            self._db.executescript(_TABLES)

    @staticmethod
    def _create_file(path: Path) -> None:
        try:
            path.touch(0o600, exist_ok=False)
        except FileExistsError:
            raise JournalError(
                f"{path} exists already, and a journal records one rollout: remove it, or choose another path"
            ) from None
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error

    def begin(self, facts: Mapping[str, Any], guardrails: Sequence[Guardrail]) -> None:
        """Record what is compared, and how. What was judged by other guardrails is forgotten, and the windows stay."""
        written = {**masked_values(facts), "guardrails": [_written(guardrail) for guardrail in guardrails]}
        before = self.facts.get("guardrails")
        with self._errors("write"), self._lock, transaction(self._db):
            if json.loads(json.dumps(written["guardrails"])) != before:
                self._db.execute("DELETE FROM judged")
                self._db.execute("DELETE FROM evidence")
            self._put(written)

    def add_facts(self, facts: Mapping[str, Any]) -> None:
        """Record what has become known about what is compared."""
        with self._errors("write"), self._lock, transaction(self._db):
            self._put(masked_values(facts))

    def add_window(self, window: Window) -> int:
        """Append a window with all its counts; return its number."""
        with self._errors("write"), self._lock, transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO windows (start, end, weight, left_out, note, judged) VALUES (?, ?, ?, ?, ?, ?)",
                (window.start, window.end, window.split.canary, window.left_out, masked(window.note), window.judged),
            )
            of_roles = {name: dict(zip(ROLES, table, strict=True)) for name, table in window.counts.items()}
            rows = [
                (cursor.lastrowid, name, who, _sparse(cells))
                for name, each in [*of_roles.items(), *window.instances.items()]
                for who, cells in each.items()
            ]
            self._db.executemany("INSERT INTO counts VALUES (?, ?, ?, ?)", rows)
            self._note_sizes(window)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def add_judged(self, window: int, news: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Record how the windows up to this one were judged.

        Parameters
        ----------
        window : int
            Number of the last of them.
        news : mapping
            Data of `canarykit.digest.Digest.news`.
        state : mapping
            Evidence of the judge, by `Judge.state`.
        """
        with self._errors("write"), self._lock, transaction(self._db):
            self._db.execute("INSERT INTO judged VALUES (?, ?)", (window, json.dumps(news)))
            self._db.execute("INSERT OR REPLACE INTO evidence VALUES (1, ?, ?)", (window, json.dumps(state)))

    def add_weight(self, time: float, asked: float, seconds: float, before: float) -> None:
        """Append a change of weight: percent asked, seconds until it was in force, percent before."""
        self._write("INSERT INTO weights VALUES (?, ?, ?, ?)", [(time, asked, before, seconds)])

    def add_event(self, time: float, kind: str, text: str) -> None:
        """Append something that happened, in words."""
        self._write("INSERT INTO events VALUES (?, ?, ?)", [(time, kind, masked(text))])

    def set_load(self, number: int, summary: Mapping[str, Any]) -> None:
        """Record what became of the requests of one traffic sender so far."""
        self._write("INSERT OR REPLACE INTO loads VALUES (?, ?)", [(number, json.dumps(_plain(masked_values(summary))))])

    def end(self, ending: Ending, time: float) -> None:
        """Record how it ended."""
        written = {**masked_values(asdict(ending)), "time": time}
        self._write("INSERT OR REPLACE INTO facts VALUES ('ending', ?)", [(json.dumps(written),)])

    def close(self) -> None:
        """Write no more, and leave one file that holds all. It can still be read. May be called again."""
        if self.path is None:
            return
        with self._lock, self._errors("close"):
            # Someone else may read it just now: then the last reader tidies up.
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("PRAGMA journal_mode = DELETE")
            self._db.close()
            self._open_to_read()

    # Inside ------------------------------------------------------------------------------------------------------------

    def _note_sizes(self, window: Window) -> None:
        sizes = {name: int(table.shape[1]) for name, table in window.counts.items()}
        if not sizes.keys() <= self._sizes.keys():
            self._sizes |= sizes
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('tables', ?)", (json.dumps(self._sizes),))

    def _put(self, facts: Mapping[str, Any]) -> None:
        rows = [(key, json.dumps(value)) for key, value in facts.items()]
        self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._errors("write"), self._lock, transaction(self._db):
            self._db.executemany(statement, rows)


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Write all of it, or nothing."""
    db.execute("BEGIN")
    try:
        yield
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _sparse(cells: Counts) -> str:
    return json.dumps({str(index): int(cells[index]) for index in np.flatnonzero(cells)})


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is unknown is null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in summary.items()}


def _written(guardrail: Guardrail) -> dict[str, Any]:
    written = asdict(guardrail)
    # JSON has no infinity either.
    written["metric"]["cells"] = ["inf" if cell == math.inf else cell for cell in guardrail.metric.cells]
    return written
