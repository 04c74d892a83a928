"""Known secrets in a journal that is written are masked."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Collection

from canarykit.journal.journal import transaction
from canarykit.journal.reader import JournalReader, errors
from canarykit.masking import masked, masked_values

__all__ = ["mask"]

_JUDGED_BY = ("guardrails", "tables", "versions", "plan", "alpha", "split", "dispersion", "classes", "simulated")
"""Facts that the judgement and its tables are made from: words and numbers, no sentences."""


def mask(path: str | os.PathLike[str], known: Collection[str]) -> None:
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
    JournalReader.read(path).close()
    with errors("mask", str(path)), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA temp_store = MEMORY")
        db.execute("PRAGMA journal_mode = DELETE")  # what is in the WAL is in the file from now on
        with transaction(db):
            _mask_texts(db, known)
        db.execute("VACUUM")  # free pages hold what was there before


def _mask_texts(db: sqlite3.Connection, known: Collection[str]) -> None:
    db.create_function("masked", 1, lambda text: masked(text, known))
    db.create_function("masked_values", 1, lambda values: json.dumps(masked_values(json.loads(values), known)))
    db.execute("UPDATE events SET text = masked(text)")
    db.execute("UPDATE windows SET note = masked(note)")
    db.execute("UPDATE loads SET summary = masked_values(summary)")
    facts = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM facts")}
    for key, value in facts.items():
        if key == "ending":
            value = {**value, "sentence": masked(value["sentence"], known)}
        elif key not in _JUDGED_BY:
            value = masked_values(value, known, key)
        db.execute("UPDATE facts SET value = ? WHERE key = ?", (json.dumps(value), key))
