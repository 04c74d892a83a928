"""How the replicas of a version are, as a cluster says it at every look."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Health"]


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a version serves, and what it lacks.

    Parameters
    ----------
    serves : bool
        Whether one replica at least can answer.
    problem : str
        How many are ready of how many, and why; empty when nothing is wrong.
    final : bool
        Whether it does not pass by itself: what serves the version is gone, or cannot come up.
    """

    serves: bool = True
    problem: str = ""
    final: bool = False

    @property
    def lasting(self) -> str:
        """The problem where nothing serves, or where it does not pass by itself; empty otherwise."""
        return self.problem if self.final or not self.serves else ""
