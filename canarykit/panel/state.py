"""What a panel shows: a pure function of where the experiment stands, and of what was clicked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from canarykit.formatting import duration, elapsed
from canarykit.model import SYMBOLS, Verdict
from canarykit.session.snapshot import Snapshot

__all__ = ["Note", "PanelState", "Picture", "panel_state", "question"]


@dataclass(frozen=True, slots=True)
class Picture:
    """A drawn chart.

    Parameters
    ----------
    strips : tuple of bytes
        The picture as PNG, in parts that stand beside each other where there is room.
    title : str
        Finding that it shows.
    alt : str
        The sentence that says what it shows.
    """

    strips: tuple[bytes, ...]
    title: str
    alt: str


@dataclass(frozen=True, slots=True)
class Note:
    """What a click came to; shown until the experiment has something newer to say.

    Parameters
    ----------
    text : str
        A sentence.
    problem : bool
        Whether it went wrong.
    said : str
        The experiment's own last line at that time.
    """

    text: str
    problem: bool
    said: str


@dataclass(frozen=True, slots=True)
class PanelState:
    """All that a panel shows.

    Parameters
    ----------
    service, stable, canary : str
        Names.
    simulated : bool
        Whether nothing of it is measured.
    phase, verdict : str
        Where the rollout is, and what the evidence says, in words.
    wish : float
        Where the slider stands, percent.
    asked, served : str
        The weight in force, and the canary's share of the requests that were counted under it.
    columns : tuple of str
        Columns of the table of guardrails.
    rows : tuple of tuple of str
        One per guardrail.
    traffic : str
        Description of the traffic that the kit sends.
    rate : float, optional
        Requests per second that it sends; None when it sends nothing.
    shape : str
        How that rate goes over time.
    harm : float
        Budget of harm of the plan; 0 when it has steps.
    faults : tuple of str
        Faults that can be injected; without any there is no control for it.
    fault : str
        Fault that is injected; empty when there is none.
    message : str
        Current problem, activity or result.
    problem : bool
        Whether it went wrong.
    question : str
        Question before an action that cannot be undone; empty when there is none.
    enabled : frozenset of str
        Controls that do something now: ``slide``, ``apply``, ``promote``, ``abort``, ``run``, ``send``, ``stop``, ``inject``.
    picture : Picture, optional
        The last chart.
    """

    service: str
    stable: str
    canary: str
    simulated: bool
    phase: str
    verdict: str
    wish: float
    asked: str
    served: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    traffic: str
    rate: float | None
    shape: str
    harm: float
    faults: tuple[str, ...]
    fault: str
    message: str
    problem: bool
    question: str
    enabled: frozenset[str]
    picture: Picture | None


def panel_state(
    snapshot: Snapshot,
    *,
    wish: float | None = None,
    note: Note | None = None,
    asking: str = "",
    working: str = "",
    picture: Picture | None = None,
) -> PanelState:
    """Say what a panel shows.

    Parameters
    ----------
    snapshot : Snapshot
        Where the experiment stands.
    wish : float, optional
        Where a person has left the slider without applying it; by default it follows the weight in force.
    note : Note, optional
        Result of the last click.
    asking : {"", "promote", "abort"}
        Action that waits for a confirmation.
    working : str
        Activity of this panel; empty when there is none.
    picture : Picture, optional
        The last chart.
    """
    weight, plan = snapshot.state.split, snapshot.state.plan
    stable, canary = snapshot.versions
    columns, rows = _table(snapshot)
    message, problem = _message(snapshot, note, working)
    sends = {} if snapshot.traffic is None else snapshot.traffic
    rate, shape = sends.get("rate"), sends.get("shape", "steady")
    return PanelState(
        service=snapshot.service,
        stable=stable,
        canary=canary,
        simulated=snapshot.simulated,
        phase=_phase(snapshot),
        verdict=_verdict(snapshot),
        wish=weight.canary if wish is None else wish,
        asked=str(weight),
        served=_served(snapshot),
        columns=columns,
        rows=rows,
        traffic="the kit sends nothing" if rate is None else f"sending {rate:g}/s, {shape}",
        rate=rate,
        shape=shape,
        harm=0.0 if plan.pace is None else plan.pace.harm,
        faults=snapshot.faults if snapshot.stage == "deployed" and snapshot.ending is None else (),
        fault=snapshot.fault or "",
        message=message,
        problem=problem,
        question=question(asking, snapshot),
        enabled=_enabled(snapshot, working),
        picture=picture,
    )


def question(asking: str, snapshot: Snapshot) -> str:
    """What is asked before a promotion or an abort; empty for anything else."""
    stable, canary = snapshot.versions
    if asking == "promote":
        word = snapshot.state.judgement.status
        doubt = "" if word == "pass" else f" The evidence says “{word}” so far."
        return f"Promote {canary}? It replaces {stable} for all traffic.{doubt}"
    if asking == "abort":
        return f"Abort? All traffic returns to {stable}, and the rollout ends."
    return ""


def _phase(snapshot: Snapshot) -> str:
    if snapshot.stage == "new":
        return "nothing is deployed yet: call deploy()"
    if snapshot.ending is not None:
        return f"{SYMBOLS[snapshot.ending.outcome]} {snapshot.ending.outcome}"
    if snapshot.stage == "closed":
        return "closed"
    state = snapshot.state
    held = elapsed(snapshot.now - state.since)
    if state.phase == "progressing" and state.plan.pace is not None:
        return f"progressing, {state.split} of up to {state.plan.pace.max_weight:g} %, {held}"
    if state.phase == "progressing":
        return f"progressing, step {state.step + 1} of {len(state.plan.steps)}, {held}"
    return f"{state.split} by hand, {held}" if state.split.canary else f"all traffic on stable, {held}"


def _verdict(snapshot: Snapshot) -> str:
    if snapshot.ending is not None:
        return snapshot.ending.sentence
    judgement = snapshot.state.judgement
    decided = judgement.alarm is not None or judgement.status == "pass"
    said = f"{SYMBOLS[judgement.status]} {judgement.status}"
    return f"{said}: {judgement.sentence}" if decided else f"{said} so far"


def _served(snapshot: Snapshot) -> str:
    stable, canary = snapshot.state.served
    if stable + canary:
        return f"{100 * canary / (stable + canary):.1f} % of {stable + canary:,} requests"
    return "no request yet" if snapshot.stage == "deployed" else "–"


def _table(snapshot: Snapshot) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    verdicts = snapshot.state.judgement.verdicts
    columns = ("guardrail", *verdicts[0].cells, "verdict")
    return columns, tuple(
        (verdict.guardrail, *verdict.cells.values(), _said(verdict, seconds, snapshot.ending is None))
        for verdict, seconds in zip(verdicts, snapshot.needed, strict=True)
    )


def _said(verdict: Verdict, seconds: float, goes_on: bool) -> str:
    said = f"{SYMBOLS[verdict.status]} {verdict.status}"
    waits = goes_on and verdict.status == "inconclusive" and math.isfinite(seconds) and seconds >= 1
    return f"{said}, about {duration(seconds)} more" if waits else said


def _message(snapshot: Snapshot, note: Note | None, working: str) -> tuple[str, bool]:
    if working:
        return f"{working} …", False
    lost = "" if snapshot.lost is None else f"; {snapshot.lost:,} requests lost"
    if snapshot.stage == "deployed" and snapshot.ending is not None and not (note and note.problem):
        return snapshot.ending.outcome + lost, False  # its sentence is the verdict
    if note is not None and (note.problem or note.said == snapshot.said):
        return (note.text, True) if note.problem else (note.text + lost, False)
    if snapshot.stage == "closed":
        return "the experiment has been closed: nothing can be changed any more", False
    counted = any(snapshot.state.judgement.verdicts[0].comparison.requests)
    if snapshot.stage == "deployed" and snapshot.traffic is None and not counted:
        return "no traffic yet: start some below, or send requests to the gateway", False
    doing = f"; {snapshot.doing} …" if snapshot.doing else ""
    return snapshot.said + lost + doing, False


def _enabled(snapshot: Snapshot, working: str) -> frozenset[str]:
    if snapshot.stage != "deployed":
        return frozenset()
    names = set()
    if snapshot.ending is None:
        names |= {"abort", "slide"}
        if not (working or snapshot.doing):
            names |= {"apply", "promote", "run"}
        if not working:
            names.add("inject")
    elif snapshot.state.split.canary:
        names.add("abort")  # a rollout that ended undecided may have left the canary its share
    if not working:
        names.add("send" if snapshot.traffic is None else "stop")
    return frozenset(names)
