"""The journal: an append-only record of one rollout, in one SQLite file.

It can be opened while it is written, and judged again later under other margins. Passwords and tokens in its texts are
masked (`canarykit.masking`). Tables:

============  =========================================================================================
``facts``     key, value (JSON): service, versions, guardrails, plan, …
``windows``   id, start, end (seconds since the epoch), weight (percent), left_out, note, judged
``counts``    window, name (``outcome``, ``latency``, ``answers``), who (``stable``, ``canary``, or a
              replica such as ``canary-1``), cells (JSON object: index of the cell → requests)
``weights``   time, asked (percent), before (percent), seconds until in force
``events``    time, kind, text
``loads``     id, summary (JSON) of each traffic sender so far
``judged``    window, news (JSON): how the windows up to there were judged, and their sums (`canarykit.digest`)
``evidence``  window, state (JSON): the judge's evidence after the last window of ``judged``
============  =========================================================================================
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from canarykit.errors import JournalError
from canarykit.masking import masked, masked_values
from canarykit.model import ROLES, Counts, Ending, Guardrail, Metric, TrafficSplit, Window

__all__ = ["Journal"]

_FORMAT = 2
_JUDGED_BY = ("guardrails", "tables", "versions", "plan", "alpha", "split", "dispersion", "classes", "simulated")
"""Facts that the judgement and its tables are made from: words and numbers, no sentences."""
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


class Journal:
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
        self.path = None if path is None else Path(path)
        self._sizes: dict[str, int] = {}
        self._lock = threading.RLock()
        if self.path is not None:
            self._create_file(self.path)
        with self._errors("open"):
            self._db = sqlite3.connect(self.path or ":memory:", check_same_thread=False, isolation_level=None)
            if self.path is not None:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA user_version = {_FORMAT}")
            self._db.executescript(_TABLES)

    @staticmethod
    def _create_file(path: Path) -> None:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise JournalError(
                f"{path} exists already, and a journal records one rollout: remove it, or choose another path"
            ) from None
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Journal:
        """Open a journal to read, also while it is written.

        Raises
        ------
        JournalError
            There is none, or it is something else.
        """
        file = Path(path)
        if not file.is_file():
            raise JournalError(f"there is no journal {file}")
        journal = cls.__new__(cls)
        journal.path, journal._lock, journal._sizes = file, threading.RLock(), {}
        with journal._errors("read"):
            journal._open_to_read()
            (version,) = journal._db.execute("PRAGMA user_version").fetchone()
        if version != _FORMAT:
            journal._db.close()
            raise JournalError(f"{file} is no journal of this version of canarykit (format {version}, not {_FORMAT})")
        return journal

    def _open_to_read(self) -> None:
        assert self.path is not None
        uri = f"{self.path.resolve().as_uri()}?mode=ro"
        self._db = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)

    # Writing -----------------------------------------------------------------------------------------------------------

    def begin(self, facts: Mapping[str, Any], guardrails: Sequence[Guardrail]) -> None:
        """Record what is compared, and how. What was judged by other guardrails is forgotten, and the windows stay."""
        written = {**masked_values(facts), "guardrails": [_written(guardrail) for guardrail in guardrails]}
        before = self.facts.get("guardrails")
        with self._errors("write"), self._lock, self._transaction():
            if json.loads(json.dumps(written["guardrails"])) != before:
                self._db.execute("DELETE FROM judged")
                self._db.execute("DELETE FROM evidence")
            rows = [(key, json.dumps(value)) for key, value in written.items()]
            self._db.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def add_window(self, window: Window) -> int:
        """Append a window with all its counts; return its number."""
        with self._errors("write"), self._lock, self._transaction():
            cursor = self._db.execute(
                "INSERT INTO windows (start, end, weight, left_out, note, judged) VALUES (?, ?, ?, ?, ?, ?)",
                (window.start, window.end, window.split.canary, window.left_out, masked(window.note), window.judged),
            )
            rows: list[tuple[int | None, str, str, str]] = [
                (cursor.lastrowid, name, who, _sparse(cells))
                for name, table in window.counts.items()
                for who, cells in zip(ROLES, table, strict=True)
            ]
            rows += [
                (cursor.lastrowid, name, who, _sparse(cells))
                for name, instances in window.instances.items()
                for who, cells in instances.items()
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
        with self._errors("write"), self._lock, self._transaction():
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

    @classmethod
    def mask(cls, path: str | os.PathLike[str], known: Collection[str]) -> None:
        """Mask known secrets in the texts of a journal that nobody writes any more; no other bytes of the file hold them.

        Sentences of events, notes and the ending, and texts of facts and loads are masked. What a judgement needs is not:
        guardrails, tables, kinds of events, names of versions.

        Parameters
        ----------
        path : path
            Path of the journal.
        known : collection of str
            Secrets that are masked wherever they stand.

        Raises
        ------
        JournalError
            There is none, it is something else, or somebody else has it open.
        """
        cls.read(path).close()
        journal = cls.__new__(cls)
        journal.path, journal._lock, journal._sizes = Path(path), threading.RLock(), {}
        with journal._errors("mask"), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as journal._db:
            journal._db.execute("PRAGMA secure_delete = ON")
            journal._db.execute("PRAGMA temp_store = MEMORY")
            journal._db.execute("PRAGMA journal_mode = DELETE")  # what is in the WAL is in the file from now on
            with journal._transaction():
                journal._mask_texts(known)
            journal._db.execute("VACUUM")  # free pages hold what was there before

    def _mask_texts(self, known: Collection[str]) -> None:
        for table, key, column in (("events", "rowid", "text"), ("windows", "id", "note")):
            rows = self._db.execute(f"SELECT {column}, {key} FROM {table}").fetchall()
            changed = [(masked(text, known), row) for text, row in rows if masked(text, known) != text]
            self._db.executemany(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", changed)
        loads = self._db.execute("SELECT summary, id FROM loads").fetchall()
        loads = [(json.dumps(masked_values(json.loads(summary), known)), row) for summary, row in loads]
        self._db.executemany("UPDATE loads SET summary = ? WHERE id = ?", loads)
        facts = {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM facts")}
        for key, value in facts.items():
            if key == "ending":
                value = {**value, "sentence": masked(value["sentence"], known)}
            elif key not in _JUDGED_BY:
                value = masked_values(value, known, key)
            self._db.execute("UPDATE facts SET value = ? WHERE key = ?", (json.dumps(value), key))

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
        return tuple(_guardrail(guardrail) for guardrail in written)

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
        sizes = self._table_sizes()  # after the rows: someone may write meanwhile
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

    def _note_sizes(self, window: Window) -> None:
        sizes = {name: int(table.shape[1]) for name, table in window.counts.items()}
        if not sizes.keys() <= self._sizes.keys():
            self._sizes |= sizes
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('tables', ?)", (json.dumps(self._sizes),))

    def _table_sizes(self) -> dict[str, int]:
        sizes: dict[str, int] = self.facts.get("tables", {})
        return sizes

    def _write(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        with self._errors("write"), self._lock, self._transaction():
            self._db.executemany(statement, rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._errors("read"), self._lock:
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise JournalError(
                f"cannot {doing} {self._name}: {error}; what was written before is safe. Is the disk full, or the file "
                "moved, closed or no journal?"
            ) from error


def _sparse(cells: Counts) -> str:
    return json.dumps({str(index): int(cells[index]) for index in np.flatnonzero(cells)})


def _dense(cells: str, size: int) -> Counts:
    dense = np.zeros(size, dtype=np.int64)
    for index, count in json.loads(cells).items():
        dense[int(index)] = count
    return dense


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is unknown is null."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in summary.items()}


def _written(guardrail: Guardrail) -> dict[str, Any]:
    written = asdict(guardrail)
    # JSON has no infinity either.
    written["metric"]["cells"] = ["inf" if cell == math.inf else cell for cell in guardrail.metric.cells]
    return written


def _guardrail(written: dict[str, Any]) -> Guardrail:
    metric = written["metric"]
    cells = tuple(math.inf if cell == "inf" else cell for cell in metric["cells"])
    return Guardrail(**{**written, "metric": Metric(**{**metric, "cells": cells})})
