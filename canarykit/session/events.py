"""Events: an experiment says what happens, and what takes time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar

from canarykit.clusters.base import Clock
from canarykit.errors import CanaryError
from canarykit.masking import masked
from canarykit.progress import Progress
from canarykit.session.journal_writer import JournalWriter

__all__ = ["Events"]

_LOG = logging.getLogger(__name__)
_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class Events:
    """Says each line once: to whoever watches, and to the record.

    It needs no lock: what it keeps is replaced whole, and may be read from any thread. Who watches cannot stop a rollout:
    when a line cannot be shown, that is said once, in the log and in the record, and no more lines are shown.

    Parameters
    ----------
    writer : JournalWriter
        Takes what is worth keeping.
    clock : Clock
        Each line has the seconds since the beginning.
    notify : callable, optional
        Takes a line; by default lines go where they are seen best.
    """

    def __init__(self, writer: JournalWriter, clock: Clock, notify: Callable[[str], object] | None = None) -> None:
        self._writer, self._clock = writer, clock
        self._progress = Progress(notify, self._cannot_show)
        self._began = clock.now()
        self._doing: list[str] = []
        self.said = ""
        """The last line."""

    @property
    def doing(self) -> str:
        """What takes time just now; empty when nothing does."""
        return "".join(self._doing[-1:])

    def note(self, kind: str, text: str) -> None:
        """Record something that happened, and say it, unless it is what was said last: a reason may be a decision's, too."""
        try:
            self._writer.event(self._clock.now(), kind, text)
        finally:
            if masked(text) != self.said:
                self.say(text)

    def say(self, text: str) -> None:
        """Say a line that stays."""
        self.said = text = masked(text)
        if not _QUIET.get():
            self._progress.say(self._timed(text))

    def progress(self, text: str) -> None:
        """Say a line that the next one replaces."""
        if not _QUIET.get():
            self._progress.passing(self._timed(masked(text)))

    def waiting(self, text: str) -> None:
        """Say what a cluster waits for, in its own words."""
        self._progress.passing(masked(text))

    @contextmanager
    def busy(self, doing: str) -> Iterator[None]:
        """Say what takes time, to whoever takes a snapshot or waits for a cell."""
        self._doing.append(doing)
        try:
            with self.shown(doing):
                yield
        finally:
            self._doing.remove(doing)

    def shown(self, doing: str) -> AbstractContextManager[None]:
        """Say what takes time, to whoever waits for a cell."""
        return nullcontext() if _QUIET.get() else self._progress.during(doing)

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Say nothing from this thread meanwhile, but keep the last line."""
        token = _QUIET.set(True)
        try:
            yield
        finally:
            _QUIET.reset(token)

    def _cannot_show(self, error: Exception) -> None:
        said = f"lines of progress are shown no more, because one could not be: {type(error).__name__}: {error}"
        _LOG.warning(said, exc_info=error)
        with suppress(CanaryError):
            self._writer.event(self._clock.now(), "problem", said)

    def _timed(self, text: str) -> str:
        return f"{self._clock.now() - self._began:6.1f} s  {text}"
