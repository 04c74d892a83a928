"""Faults that are switched on and off while a server runs, for teaching: one word in a file that only its owner writes."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["FAULTS", "FaultSwitch", "switch"]

FAULTS = {
    "slow": "waits 50 ms before each answer",
    "failing": "answers one request in ten with an error",
    "wrong": "gives a wrong answer to one request in four",
}
SLOW, FAILING, WRONG = 0.05, 0.1, 0.25


def switch(path: Path, fault: str | None) -> None:
    """Switch a fault on, for every server that reads this file; None switches it off."""
    draft = path.with_name(f"{path.name}.new")
    draft.write_text(fault or "")
    draft.rename(path)


class FaultSwitch:
    """Reads which fault is on.

    Parameters
    ----------
    path : Path, optional
        The file; without one there is no fault.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._seen, self._fault = path, 0, ""
        self._random = random.Random()

    @property
    def fault(self) -> str:
        """The fault that is on; empty when none is. Looks at the file's time only, unless it was written since."""
        if self._path is None:
            return ""
        try:
            written = os.stat(self._path).st_mtime_ns
            if written != self._seen:
                self._seen, self._fault = written, self._path.read_text().strip()
        except OSError:
            self._seen, self._fault = 0, ""
        return self._fault

    @property
    def delay(self) -> float:
        """Seconds to wait before an answer."""
        return SLOW if self.fault == "slow" else 0.0

    def fails(self) -> bool:
        """Whether this request shall fail."""
        return self.fault == "failing" and self._random.random() < FAILING

    def spoiled(self, labels: Any, classes: Any) -> Any:
        """For some requests, the next class in place of each label: a wrong answer if the label was right."""
        if classes is None or self.fault != "wrong" or self._random.random() >= WRONG:
            return labels
        return classes[(np.searchsorted(classes, labels) + 1) % len(classes)]
