"""Snapshot: where an experiment stands, for whoever watches it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from canarykit.model import Ending
from canarykit.rollout import RolloutState

__all__ = ["Snapshot", "Stage"]

Stage = Literal["new", "deployed", "closed"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Where an experiment stands at one moment. Cheap to take, from any thread, whatever is being done.

    Parameters
    ----------
    service : str
        Its name.
    versions : tuple of str
        Names of stable and canary, as they were deployed.
    stage : {"new", "deployed", "closed"}
        Before `deploy`, after it, and after `close` or `teardown`.
    simulated : bool
        Whether nothing of it is measured.
    now : float
        Seconds on the cluster's clock.
    state : RolloutState
        The weight in force, what was counted under it, the evidence, and the position in the plan.
    running : bool
        Whether the plan is being carried out.
    needed : tuple of float
        Seconds until each guardrail is likely to be decided, at the traffic so far; NaN when unknown.
    ending : Ending, optional
        How it ended, when it has.
    traffic : mapping, optional
        Traffic that the kit sends: ``rate``, ``shape``; None when it sends nothing.
    lost : int, optional
        Requests lost of those that the kit sent; None when it never sent any.
    faults : tuple of str
        Faults that can be injected into the canary.
    fault : str, optional
        Fault that is injected.
    doing : str
        Current activity; empty when there is none.
    said : str
        The last line of progress.
    """

    service: str
    versions: tuple[str, str]
    stage: Stage
    simulated: bool
    now: float
    state: RolloutState
    running: bool
    needed: tuple[float, ...]
    ending: Ending | None = None
    traffic: Mapping[str, Any] | None = None
    lost: int | None = None
    faults: tuple[str, ...] = ()
    fault: str | None = None
    doing: str = ""
    said: str = ""
