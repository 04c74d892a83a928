"""Run a notebook through papermill: parameters checked first, Ctrl-C handed on to the notebook."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from types import FrameType
from typing import Any

import papermill
from nbformat.reader import NotJSONError
from nbformat.validator import ValidationError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError
from papermill.iorw import load_notebook_node
from papermill.utils import find_first_tagged_cell_index
from traitlets.config import Config

from canarykit.clusters.local.folders import short_temporary
from canarykit.errors import PlanError, ReportError
from canarykit.masking import masked, secrets_of
from canarykit.progress import METADATA, Stream
from canarykit.report.parameters import parameters_of, value_of
from canarykit.report.saving import saving_masked

__all__ = ["checked", "execute", "known_parameters"]

_ENGINE = "canarykit"
_RUNTIME = "canarykit-report-"


class _Client(PapermillNotebookClient):  # type: ignore[misc]
    def process_message(self, message: dict[str, Any], *where: Any) -> Any:
        content = message.get("content", {})
        # What changes in the notebook's page would be silence on the terminal.
        if isinstance(self.stdout_file, Stream) and content.get("metadata") == METADATA:
            self.stdout_file.passing(content["data"]["text/plain"])
        return super().process_message(message, *where)

    def papermill_execute_cells(self) -> None:
        with _handing_on_interrupts(self.km.provisioner.pid):
            super().papermill_execute_cells()


class _Engine(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine, whose notebooks hear of Ctrl-C.

    A kernel is in a session of its own, so that Ctrl-C in the terminal never reaches it: the rollout would be killed
    instead of returning its traffic to stable.
    """

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        return _Client(
            nb_man,
            kernel_name=kernel_name,
            stdout_file=options.get("stdout_file"),
            stderr_file=options.get("stderr_file"),
            startup_timeout=options.get("start_timeout", 60),
            timeout=None,
            # Sockets in our private folder: no port, no stranger.
            config=Config({"KernelManager": {"transport": "ipc", "ip": str(Path(os.environ["CANARYKIT_RUNTIME"]) / "ipc")}}),
        ).execute()


@contextmanager
def _handing_on_interrupts(pid: int) -> Iterator[None]:
    """Send the first SIGINT or SIGTERM to the notebook's kernel as a Ctrl-C; the second one is for us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def hand_on(number: int, frame: FrameType | None) -> None:
        for each, handler in before.items():
            signal.signal(each, handler)
        os.kill(pid, signal.SIGINT)

    for number in before:
        signal.signal(number, hand_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def known_parameters(notebook: Path) -> dict[str, dict[str, Any]]:
    """Parameters that a notebook takes: default, type and help of each.

    As papermill does, of several cells tagged ``parameters`` only the first is read.

    Raises
    ------
    ReportError
        There is no such notebook, it is none, or the cell of its parameters is no Python.
    """
    if not notebook.is_file():
        raise ReportError(f"there is no notebook {notebook}")
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it logs that a notebook without parameters has none
    try:
        read = load_notebook_node(str(notebook))
        place = find_first_tagged_cell_index(read, "parameters")
        if _language(read) != "python":
            parameters: dict[str, dict[str, Any]] = papermill.inspect_notebook(str(notebook))
            return parameters
    except (PapermillException, NotJSONError, ValidationError, ValueError, AttributeError) as error:
        raise ReportError(f"{notebook} is not a notebook: {error}") from error
    try:
        return parameters_of(read.cells[place].source) if place >= 0 else {}
    except (SyntaxError, TokenError) as error:
        line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
        raise ReportError(
            f"the cell tagged parameters of {notebook} cannot be read as Python ({line}{error.args[0]}): mend it, or move "
            "what is no parameter to another cell"
        ) from error


def _language(notebook: Any) -> str:
    """Language of a notebook; Python when it says none, because a kernel of Python runs it."""
    kernel = notebook.metadata.get("kernelspec", {})
    return str(notebook.metadata.get("language_info", {}).get("name") or kernel.get("language") or "python").lower()


def checked(notebook: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """Parameters as values.

    Parameters
    ----------
    notebook : Path
        Says which it takes, and of which type.
    given : mapping of str to str
        As written on a command line.

    Raises
    ------
    PlanError
        The notebook has no such parameter, or a value is of another type.
    """
    known = known_parameters(notebook)
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise PlanError(f"{notebook.name} has no parameter {name!r}; it takes {', '.join(sorted(known)) or 'none'}")
        try:
            values[name] = value_of(text, known[name]["inferred_type_name"], known[name]["default"])
        except ValueError as error:
            raise PlanError(masked(f"parameter {name!r} of {notebook.name} {error}", secrets_of(text, name))) from None
    return values


def execute(
    notebook: Path,
    target: Path,
    parameters: Mapping[str, Any],
    *,
    known: Collection[str] = (),
    folder: Path | None = None,
    stream: Stream | None = None,
) -> str | None:
    """Run a notebook, and write it down as it went, without the secrets in its parameters.

    Parameters
    ----------
    notebook, target : Path
        The notebook, and its executed copy.
    parameters : mapping
        Values for its parameters.
    known : collection of str
        Secrets that are masked wherever they stand in what is written or returned.
    folder : Path, optional
        Where it runs; our own working directory by default.
    stream : Stream, optional
        Where its lines go as they come.

    Returns
    -------
    str or None
        Error of the cell that failed; None when none did.

    Raises
    ------
    ReportError
        No cell could be run at all.
    """
    papermill_engines.register(_ENGINE, _Engine)
    try:
        with _private_runtime(), saving_masked(target, parameters, known) as masked_target:
            papermill.execute_notebook(
                str(notebook),
                masked_target,
                dict(parameters),
                engine_name=_ENGINE,
                kernel_name="python3",
                language="python",
                progress_bar=False,
                stdout_file=stream,
                stderr_file=stream,
                cwd=None if folder is None else str(folder),
            )
    except PapermillExecutionError as error:
        return masked(f"cell {error.exec_count} failed: {error.ename}: {error.evalue}", known)
    except KeyboardInterrupt:
        return "interrupted twice: the notebook was ended at once, and everything that it ran with it"
    except Exception as error:
        raise ReportError(masked(f"cannot run {notebook}: {type(error).__name__}: {error}", known)) from None
    return None


@contextmanager
def _private_runtime() -> Iterator[None]:
    """Keep the kernel's connection file in a folder of our own.

    The name says whose it is: what supervises the cluster removes it when we are killed and cannot.
    """
    folder = tempfile.mkdtemp(prefix=f"{_RUNTIME}{os.getpid()}-", dir=short_temporary())
    _sweep(Path(folder).parent)
    names = ("JUPYTER_RUNTIME_DIR", "CANARYKIT_RUNTIME")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, folder))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove such folders of runs that were killed before anything supervised them."""
    for folder in parent.glob(f"{_RUNTIME}*"):
        owner = folder.name.removeprefix(_RUNTIME).partition("-")[0]
        if not owner.isdigit() or _lives(int(owner)):
            continue
        shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
