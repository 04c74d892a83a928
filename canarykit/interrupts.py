"""Signals at the right moment: a step that must be whole is finished first, and who is told to end returns traffic before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Terminated", "interrupted", "never", "terminable", "uninterrupted"]

_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals by which a process is told to end: by whoever runs it, and by a terminal that is closed."""


_deferred: list[list[int]] = []
"""Signals that came during each step of `uninterrupted`, the innermost last."""


class Terminated(SystemExit):
    """The process was told to end; its exit code is the one that shells give for the signal, 143 for SIGTERM.

    Parameters
    ----------
    number : int
        Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise an error in the main thread meanwhile, as Ctrl-C does.

    A program that handles or ignores one of them keeps that; so does a process that is forked meanwhile.

    Raises
    ------
    Terminated
        Such a signal came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say who handles a signal
        return
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise Terminated(number)
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    handled = [number for number in _ENDS if signal.getsignal(number) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            if signal.getsignal(number) is end:
                signal.signal(number, signal.SIG_DFL)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a short step finish before Ctrl-C, SIGTERM or SIGHUP takes effect.

    Raises
    ------
    KeyboardInterrupt, Terminated
        At the end, when one came meanwhile; an error of the step is its context then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    came: list[int] = []
    _deferred.append(came)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDS)}
    deferred = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}
    for number in deferred:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in deferred.items():
            signal.signal(number, handler)
        _deferred.pop()
        for number in dict.fromkeys(came):
            signal.raise_signal(number)


def interrupted() -> bool:
    """Whether a signal came that takes effect at the end of the `uninterrupted` step that this thread is in.

    Code that only waits in such a step asks this, and ends early.
    """
    return threading.current_thread() is threading.main_thread() and any(_deferred)


def never() -> bool:
    """Answer that nobody has cancelled a wait."""
    return False
