"""Snapshot: where an experiment stands, for whoever watches it from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from canarykit.model import Ending, Judgement, TrafficSplit
from canarykit.rollout import Rollout

__all__ = ["Snapshot", "Stage", "Standing"]

Stage = Literal["new", "deployed", "closed"]


@dataclass(frozen=True, slots=True)
class Standing:
    """The weight in force, and what was counted under it.

    Parameters
    ----------
    split : TrafficSplit
        Split that the gateway was told.
    served : tuple of int
        Requests of stable and canary since then.
    since : float
        When it was in force, seconds on the cluster's clock.
    took : float
        Seconds until it was.
    """

    split: TrafficSplit = TrafficSplit(0)  # noqa: RUF009 frozen itself
    served: tuple[int, int] = (0, 0)
    since: float = 0.0
    took: float = 0.0


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
    standing : Standing
        The weight in force, and what was counted under it.
    rollout : Rollout
        Position in the plan.
    running : bool
        Whether the plan is being carried out.
    judgement : Judgement
        Judgement of the evidence so far.
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
    standing: Standing
    rollout: Rollout
    running: bool
    judgement: Judgement
    needed: tuple[float, ...]
    ending: Ending | None = None
    traffic: Mapping[str, Any] | None = None
    lost: int | None = None
    faults: tuple[str, ...] = field(default=())
    fault: str | None = None
    doing: str = ""
    said: str = ""
