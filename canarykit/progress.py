"""Progress: lines that stay, and one that the next replaces, shown as fits the place.

In a notebook the passing line is one output that changes; on a terminal it is the last line; in a log, where nothing can be
replaced, it becomes a line that stays, seldom. What takes less than a second shows none.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

__all__ = ["METADATA", "Progress", "Stream", "kernel"]

METADATA = {"canarykit": "progress"}
"""Marks a notebook's passing line for whoever runs the notebook."""

_SHORT = 1.0
_SELDOM, _OFTEN = 30.0, 5.0
_REDRAW = 0.25
_CLEAR = "\r\x1b[K"


class _Told:
    """A function that takes a line: every line stays, and a passing one becomes such a line, seldom."""

    def __init__(self, show: Callable[[str], object], every: float) -> None:
        self._show, self._every, self._last = show, every, time.monotonic()

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._last = time.monotonic()
        self._show(text)

    def passing(self, text: str) -> None:
        """Show a line that the next one replaces, where it can."""
        if time.monotonic() - self._last >= self._every:
            self.say(text)

    def end(self, text: str = "") -> None:
        """Nothing passes any more: say so where it was."""


class Stream(_Told):
    """A terminal; or a file, to which passing lines go seldom.

    Parameters
    ----------
    stream : file, optional
        Standard output, as it is at the moment, by default.
    every : float
        Seconds between passing lines where nothing can be replaced.
    """

    def __init__(self, stream: IO[str] | None = None, every: float = _SELDOM) -> None:
        super().__init__(self._line, every)
        self._given, self._shown = stream, ""

    @property
    def _stream(self) -> IO[str]:
        return self._given if self._given is not None else sys.stdout

    def _line(self, text: str) -> None:
        self.write(f"{text}\n")
        self.flush()

    def write(self, text: str) -> int:
        """Write, after what was passing is wiped away: a notebook's own output goes through here."""
        self._wipe()
        self._last = time.monotonic()
        return self._stream.write(text)

    def flush(self) -> None:
        """Have it seen."""
        self._stream.flush()

    def passing(self, text: str) -> None:
        """Show a line that the next one replaces."""
        if not self._stream.isatty():
            super().passing(text)
            return
        width = shutil.get_terminal_size().columns - 1
        self._shown = text if len(text) <= width else f"{text[: width - 1]}…"
        self._stream.write(f"{_CLEAR}{self._shown}")
        self.flush()

    def end(self, text: str = "") -> None:
        """Wipe the passing line away."""
        self._wipe()

    def _wipe(self) -> None:
        if self._shown:
            self._stream.write(_CLEAR)
            self.flush()
        self._shown = ""


class _Notebook:
    """One output of the cell that changes; what stays is printed below it."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._text, self._drawn = "", 0.0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def passing(self, text: str) -> None:
        self._text = text
        if time.monotonic() - self._drawn >= _REDRAW:
            self._draw()

    def end(self, text: str) -> None:
        if self._handle is not None:
            self._text = text
            self._draw()
        self._handle = None

    def _draw(self) -> None:
        from IPython.display import display

        self._drawn = time.monotonic()
        data = {"text/plain": self._text}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True, metadata=METADATA)
        else:
            self._handle.update(data, raw=True, metadata=METADATA)


class Progress:
    """Says what happens.

    Parameters
    ----------
    notify : callable, optional
        Takes a line; by default lines go where they are seen best.
    unseen : callable, optional
        Takes the first error of what shows the lines, and nothing is shown after that; by default errors are raised.
    """

    def __init__(
        self, notify: Callable[[str], object] | None = None, unseen: Callable[[Exception], object] | None = None
    ) -> None:
        self._screen: _Told | _Notebook
        if notify is not None:
            self._screen = _Told(notify, _OFTEN)
        else:
            self._screen = Stream() if kernel() is None else _Notebook()
        self._unseen, self._failed = unseen, False
        self._lock = threading.RLock()
        self._doing: list[_Doing] = []

    def say(self, text: str) -> None:
        """Show a line that stays."""
        with self._lock:
            self._show(self._screen.say, text)

    def passing(self, text: str) -> None:
        """Show a line that the next one replaces; within `during` only, and not in its first second."""
        with self._lock:
            if self._doing:
                self._doing[-1].told = True
                self._pass(text)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Show that something takes time, while it does.

        Parameters
        ----------
        text : str
            Shown with the seconds that it takes, unless `passing` is told more.
        """
        doing = _Doing(text)
        with self._lock:
            self._doing.append(doing)
        threading.Thread(target=self._tick, args=(doing,), name="canarykit-progress", daemon=True).start()
        try:
            yield
        finally:
            doing.over.set()
            with self._lock:
                self._doing.remove(doing)
                if not self._doing:
                    self._show(self._screen.end, f"{text} took {time.monotonic() - doing.began:.0f} s")

    def _tick(self, doing: _Doing) -> None:
        while not doing.over.wait(_SHORT):
            with self._lock:
                if not doing.over.is_set() and not doing.told and self._doing[-1] is doing:
                    self._pass(f"{doing.text}: {time.monotonic() - doing.began:.0f} s")

    def _pass(self, text: str) -> None:
        if time.monotonic() - self._doing[0].began >= _SHORT:
            self._show(self._screen.passing, text)

    def _show(self, show: Callable[[str], object], text: str) -> None:
        if self._failed:
            return
        try:
            show(text)
        except Exception as error:
            if self._unseen is None:
                raise
            self._failed = True
            self._unseen(error)


class _Doing:
    """Something that takes time."""

    def __init__(self, text: str) -> None:
        self.text, self.began = text, time.monotonic()
        self.over, self.told = threading.Event(), False


def kernel() -> Any:
    """Return the Jupyter kernel that this process is; None when it is a terminal or a script."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None)
