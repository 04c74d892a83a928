"""What a server of one's own is started with: which program, and how many threads; and why a program does not start."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["program", "refusal", "thread_limits"]

_GENERAL = "OMP_NUM_THREADS"
_OWN = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def thread_limits(chosen: Mapping[str, str]) -> dict[str, str]:
    """One thread for each numerical library, where the user has not said how many.

    Several servers share few cores: threads of numerical libraries would fight over them.

    Parameters
    ----------
    chosen : mapping of str to str
        The user's environment. Libraries without a variable of their own follow ``OMP_NUM_THREADS``: where that is set, no
        limit is added.
    """
    if _GENERAL in chosen:
        return {}
    return {name: "1" for name in (_GENERAL, *_OWN) if name not in chosen}


def program(argv: Sequence[str], *, interpreter: str = sys.executable) -> list[str]:
    """Return a command whose program is the one that belongs to our interpreter.

    A notebook's kernel often runs in an environment that is not activated: ``python`` and ``uvicorn`` would be those of another
    environment, or none.

    Parameters
    ----------
    argv : sequence of str
        A first word with a slash is a path and stays as it is.
    interpreter : str
        It stands for ``python`` and ``python3``. Other programs are taken from its folder, when they are there.
    """
    first, *rest = argv
    if first in ("python", "python3"):
        return [interpreter, *rest]
    if "/" not in first and (beside := Path(interpreter).parent / first).is_file():
        return [str(beside), *rest]
    return list(argv)


def refusal(word: str, kind: str, why: str, *, interpreter: str = sys.executable) -> str:
    """Say why the operating system did not start a program, and what to do.

    Parameters
    ----------
    word : str
        The program: first word of a command, as `program` returned it.
    kind : str
        Name of the exception that it was.
    why : str
        Its text.
    interpreter : str
        See `program`.
    """
    is_path = "/" in word
    if kind == "FileNotFoundError" and is_path and Path(word).exists():
        return f"{word!r} needs an interpreter that is not there: check its first line (#!)"
    if kind == "FileNotFoundError" and is_path:
        return f"there is no file {word!r} (from the folder {str(Path.cwd())!r}); check command="
    if kind == "FileNotFoundError":
        return f"there is no program {word!r} (looked in {str(Path(interpreter).parent)!r} and PATH); check command="
    if kind == "PermissionError" and Path(word).is_dir():
        return f"{word!r} is a folder; check command="
    if kind == "PermissionError":
        return f"{word!r} may not be executed: allow it (chmod +x), or begin command= with its interpreter"
    if "Exec format" in why:
        return f"{word!r} is no program of this machine: if it is a script, begin command= with its interpreter"
    return f"{why}; check command="
