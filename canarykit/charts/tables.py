"""What pictures are drawn from: a history as tidy tables of shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from canarykit.metrics import CONFUSION
from canarykit.model import ROLES, SYMBOLS, Metric

if TYPE_CHECKING:
    import pandas as pd

    from canarykit.analysis.bets import Array
    from canarykit.history import History

__all__ = ["FAMILY", "OTHER", "answers_of", "decisions_of", "durations_of", "evidence_of", "shares_of"]

FAMILY = "all together"
OTHER = "other"
"""What is said when it is none of the classes."""


def durations_of(history: History, metric: Metric) -> pd.DataFrame:
    """Share of requests that took at most so long, while both versions had traffic.

    Columns metric, version, seconds (upper edge of a bucket), share, requests (of the version). What never ended is
    in no row, so that the share stays below 1.
    """
    import pandas as pd

    number = [guardrail.metric for guardrail in history.guardrails].index(metric)
    requests, alike = history.judgement.verdicts[number].comparison.requests, history.compared[number]
    rows = [
        {"metric": metric.name, "version": role, "seconds": edge, "share": float(upto), "requests": requests[row]}
        for row, role in enumerate(ROLES)
        if alike[row].any()
        for edge, upto in zip(metric.cells, np.cumsum(alike[row]) / alike[row].sum(), strict=True)
        if np.isfinite(edge)
    ]
    return pd.DataFrame(rows, columns=["metric", "version", "seconds", "share", "requests"])


def evidence_of(history: History) -> pd.DataFrame:
    """Evidence that the canary is worse, of each guardrail and of all together: columns seconds, metric, log_e."""
    import pandas as pd

    table = history.effects()[["seconds", "metric", "log_e"]]
    if len(history.guardrails) < 2:
        return table
    family = [(poll.time - history.began, FAMILY, poll.log_e) for poll in history.polls]
    return pd.concat([table, pd.DataFrame(family, columns=list(table.columns))], ignore_index=True)


def answers_of(history: History) -> pd.DataFrame:
    """Labelled answers while both versions had traffic: columns version, label, said, requests, share (of the label)."""
    import pandas as pd

    names = _classes(history)
    counted, _ = _together(history, CONFUSION, len(names) * (len(names) + 1))
    tables = counted.reshape(len(ROLES), len(names), len(names) + 1)
    rows = [
        {
            "version": role, "label": label, "said": said, "requests": int(table[at, to]),
            "share": table[at, to] / table[at].sum() if table[at].any() else float("nan"),
        }
        for role, table in zip(ROLES, tables, strict=True)
        if table.any()
        for at, label in enumerate(names)
        for to, said in enumerate([*names, OTHER])
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["version", "label", "said", "requests", "share"])


def shares_of(history: History) -> pd.DataFrame:
    """Share of each class among the answers, while both versions had traffic: columns version, said, requests, share."""
    import pandas as pd

    names = _classes(history)
    counted, alike = (
        table.reshape(len(ROLES), len(names), len(names) + 1).sum(axis=1)
        for table in _together(history, CONFUSION, len(names) * (len(names) + 1))
    )
    rows = [
        {"version": role, "said": said, "requests": int(counted[row, at]), "share": alike[row, at] / alike[row].sum()}
        for row, role in enumerate(ROLES)
        if counted[row].any()
        for at, said in enumerate([*names, OTHER])
    ]
    return pd.DataFrame(rows, columns=["version", "said", "requests", "share"])


def decisions_of(history: History) -> pd.DataFrame:
    """Changes of weight until the end, and the end: columns seconds, weight (percent; of the end NaN), text."""
    import pandas as pd

    last = [event["time"] for event in history.events if event["kind"] in ("promote", "roll back", "restore", "stop")]
    end = last[-1] if last else float("inf")
    rows = []
    for change in history.weights:
        served = "" if np.isnan(change["served"]) else f", served {change['served']:.1f} %"
        if change["time"] < end:
            rows.append((change["time"] - history.began, change["asked"], f"{change['asked']:g} %{served}"))
    if history.ending is not None:
        at = min(end, history.ended) - history.began
        rows.append((at, float("nan"), f"{SYMBOLS[history.ending.outcome]} {history.ending.outcome}"))
    return pd.DataFrame(rows, columns=["seconds", "weight", "text"])


def _classes(history: History) -> list[Any]:
    return list(history.facts.get("classes", []))


def _together(history: History, name: str, cells: int) -> tuple[Array, Array]:
    """Counts while both versions had traffic; and the same with stable's weighted as the canary's at each time.

    Without the weights a busy hour under one split would look like a difference.
    """
    counted, alike = np.zeros((len(ROLES), cells)), np.zeros((len(ROLES), cells))
    for bin_ in history.bins:
        table = bin_.counts.get(name)
        if table is None or table.shape[1] != cells or not bin_.judged or not 0 < bin_.weight < 100:
            continue
        stable, canary = table.sum(axis=1)
        counted += table
        if stable and canary:
            alike += np.array([table[0] * (canary / stable), table[1]])
    # One version alone has nothing to be weighted by.
    return counted, np.where(alike.sum(axis=1, keepdims=True) > 0, alike, counted)
