"""Report: one notebook in, one folder out."""

from __future__ import annotations

import ast
import glob
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from canarykit.errors import JournalError, PlanError, ReportError
from canarykit.history import History, replay
from canarykit.journal import Journal, mask
from canarykit.masking import masked
from canarykit.model import Ending
from canarykit.report.execute import checked, execute, known_parameters
from canarykit.report.page import page
from canarykit.report.saving import MaskedStream, known_secrets
from canarykit.report.verdict import junit, markdown, verdict, without_secrets

__all__ = ["Report", "report"]


@dataclass(frozen=True, slots=True)
class Report:
    """What was left, and how the rollout ended.

    Parameters
    ----------
    folder : Path
        Holds report.html, verdict.json, junit.xml, journal.sqlite and the executed notebook.
    ending : Ending
        Outcome, sentence and exit code.
    summary : str
        Markdown for the page of a CI run.
    """

    folder: Path
    ending: Ending
    summary: str

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.folder / "report.html"


def report(
    notebook: Path, folder: Path, parameters: Mapping[str, str] | None = None, *, stream: IO[str] | None = None
) -> Report:
    """Run a notebook and write its report.

    Parameters
    ----------
    notebook : Path
        Must take a parameter `journal`, a path: the verdict is read from there.
    folder : Path
        Made when it is not there; an earlier report in it is replaced.
    parameters : mapping of str to str, optional
        As written on a command line. Passwords and tokens in them are in no file of the folder, and in no line that is
        shown.
    stream : file, optional
        Where the notebook's printed lines go as they come; standard output by default.

    Raises
    ------
    PlanError
        Unknown or mistyped parameters; nothing was run.
    ReportError
        The notebook could not be run at all, or the folder cannot be written.
    """
    values: dict[str, Any] = checked(notebook, parameters or {})
    if "journal" not in known_parameters(notebook):
        raise PlanError(
            f"{notebook.name} takes no parameter 'journal', so there would be nothing to judge: give it one, and pass it to "
            "Experiment(journal=journal)"
        )
    known = known_secrets(values) | _secrets_of_defaults(notebook)
    executed, record = folder / notebook.name, folder / "journal.sqlite"
    if executed.resolve() == notebook.resolve():
        raise ReportError(f"{folder} holds the notebook itself: choose another folder for its report")
    _make_room(folder, [executed, record])
    values["journal"] = str(record.resolve())
    screen = MaskedStream(stream, known)
    screen.passing(f"starting {notebook.name}")
    try:
        problem = execute(notebook, executed, values, known=known, stream=screen)
    finally:
        screen.end()
        _mask_record(record, known, screen)
    screen.passing("writing the report")
    history = _history(record)
    ending = _without_secrets(_ending(history, problem), known)
    found = without_secrets(verdict(history, ending), known)
    name = notebook.stem
    _write(folder / "verdict.json", json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    _write(folder / "junit.xml", junit(found, name))
    _write(folder / "report.html", page(executed, found))
    screen.end()
    return Report(folder, ending, masked(markdown(found, history), known))


def _secrets_of_defaults(notebook: Path) -> frozenset[str]:
    """Secrets that the notebook itself holds in its parameters."""
    return known_secrets({name: _text(parameter["default"]) for name, parameter in known_parameters(notebook).items()})


def _text(source: str) -> object:
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return None


def _without_secrets(ending: Ending, known: Collection[str]) -> Ending:
    return replace(ending, sentence=masked(ending.sentence, known))


def _make_room(folder: Path, files: list[Path]) -> None:
    """Remove an earlier report, and nothing else."""
    stale = [*files, *(folder / name for name in ("report.html", "verdict.json", "junit.xml"))]
    stale += [Path(f"{file}{suffix}") for file in files for suffix in ("-wal", "-shm")]
    stale += folder.glob(f".{glob.escape(files[0].name)}.*")  # of a run that was killed while it wrote
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for file in stale:
            file.unlink(missing_ok=True)
    except OSError as error:
        raise ReportError(f"cannot write to {folder}: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
        path.chmod(0o600)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror}") from error


def _mask_record(record: Path, known: Collection[str], screen: MaskedStream) -> None:
    """Mask what stands alone in the journal: the notebook that wrote it does not know what is secret."""
    if not record.is_file():
        return
    try:
        mask(record, known)
    except JournalError as error:
        screen.say(f"{record.name} may hold passwords and tokens, do not pass it on: {error}")


def _history(record: Path) -> History | None:
    try:
        journal = Journal.read(record)
    except JournalError:
        return None
    try:
        return replay(journal)
    except JournalError:
        return None
    finally:
        journal.close()


def _ending(history: History | None, problem: str | None) -> Ending:
    """How it ended: the journal says so, unless a cell failed or nothing was recorded."""
    recorded = history.ending if history is not None else None
    if problem is not None:
        if recorded is not None:
            outcome = "failed" if recorded.outcome == "promoted" else recorded.outcome
            return Ending(outcome, f"{recorded.outcome}: {recorded.sentence}; then {problem}")
        return Ending("failed", f"{problem}\n{_traffic(history)}")
    if recorded is not None:
        return recorded
    return Ending("inconclusive", f"the notebook ended without promoting or aborting; {_traffic(history)}")


def _traffic(history: History | None) -> str:
    """Say where traffic is now."""
    if history is None or not history.weights:
        return "no traffic was ever sent to the canary"
    last = history.weights[-1]["asked"]
    where = "all traffic was on stable" if last == 0 else f"the canary had {last:g} % of the traffic"
    return f"{where} when the record ended; a local cluster has ended with its notebook"
