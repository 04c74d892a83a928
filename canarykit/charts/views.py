"""One picture for each question about a rollout, with the answer as its title."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from canarykit.charts.chart import Chart
from canarykit.charts.sheet import finished, sheet
from canarykit.charts.spread import draw_confusion, draw_distribution, draw_shares
from canarykit.charts.style import INK, SMALL
from canarykit.charts.tables import FAMILY, OTHER, answers_of, decisions_of, durations_of, evidence_of, shares_of
from canarykit.charts.timeline import draw_family, draw_timeline
from canarykit.errors import PlanError
from canarykit.formatting import level, odds
from canarykit.model import ROLES

if TYPE_CHECKING:
    import pandas as pd

    from canarykit.history import History

__all__ = ["confusion", "distribution", "evidence", "shares", "timeline"]

_BEYOND_CHANCE = 3.0
"""Standard errors that the largest of some ten differences rarely reaches. It makes a title, not a verdict."""

_NOT_TOGETHER = "the versions had no traffic side by side"
_NO_CLASSES = "no answers were counted by class: the traffic has no labels, or they are not a few classes"


def distribution(history: History) -> Chart:
    """How long did requests take, with each version? One panel for each guardrail of latency.

    Parameters
    ----------
    history : History
        A rollout, finished or not.

    Raises
    ------
    PlanError
        No guardrail is a quantile of durations.
    """
    metrics = [guardrail.metric for guardrail in history.guardrails if guardrail.metric.kind == "quantile"]
    if not metrics:
        raise PlanError("there is no guardrail of latency, so no durations to draw: add metrics.latency()")
    figure = sheet(7.5, 0.6 + 2.8 * len(metrics))
    found = []
    for ax, metric, verdict in zip(
        figure.subplots(len(metrics), squeeze=False)[:, 0],
        metrics,
        (each for each, g in zip(history.judgement.verdicts, history.guardrails, strict=True) if g.metric in metrics),
        strict=True,
    ):
        table = durations_of(history, metric)
        draw_distribution(ax, table, metric=metric)
        if len(table):
            ax.set_xlabel("milliseconds, logarithmic", fontsize=SMALL, color=INK)
        stable, canary = (level(value, metric) for value in verdict.comparison.levels)
        found.append(f"{metric.name} {stable} → {canary}")
    said = f"{', '.join(found)} in {history.requests[1]:,} requests to the canary" if history.requests[1] else _NOT_TOGETHER
    shows = "share of requests that took at most so long, with each version, both under the same traffic."
    return finished(figure, history, f"{_canary(history)}: {said}", shows)


def evidence(history: History) -> Chart:
    """What has been shown against the canary, and when? All guardrails on one pair of axes.

    Parameters
    ----------
    history : History
        A rollout, finished or not.
    """
    figure = sheet(9.0, 3.4)
    ax = figure.subplots()
    alarm_at, table = 1 / float(history.facts.get("alpha", 0.05)), evidence_of(history)
    draw_family(ax, table, metrics=[guardrail.metric for guardrail in history.guardrails], alarm_at=alarm_at)
    ax.set_xlabel("seconds", fontsize=SMALL, color=INK)
    alarm = history.judgement.alarm
    if alarm is not None:
        found = f"{alarm.guardrail} alarmed after {alarm.requests[1]:,} requests to the canary"
    else:
        found = f"nothing alarmed in {history.requests[1]:,} requests to the canary"
    each = [f"{c.metric} {odds(c.log_e, alarm_at)}" for c in (verdict.comparison for verdict in history.judgement.verdicts)]
    last = f"{FAMILY} {odds(history.judgement.log_e, alarm_at)}"
    return finished(
        figure, history, f"{_canary(history)}: {found}", f"evidence over time; at the end {', '.join(each)}, {last}."
    )


def shares(history: History) -> Chart:
    """Do both versions answer the same things equally often? Shares of classes, side by side.

    Parameters
    ----------
    history : History
        A rollout whose traffic has labels that are a few classes; else the picture says that there are none.
    """
    figure, table = sheet(9.0, 3.2), shares_of(history)
    draw_shares(figure.subplots(), table)
    wide = table.pivot(index="said", columns="version", values="share")
    if set(wide.columns) != set(ROLES):
        return finished(figure, history, f"{_canary(history)}: {_nothing(len(table))}", "shares of classes.")
    found = f"{_canary(history)}: {_moved(wide, table.groupby('version')['requests'].sum())}"
    named = wide.loc[[name for name in dict.fromkeys(table["said"]) if name != OTHER or wide.loc[name].any()]]
    each = "; ".join(f"{name} {100 * row['stable']:.3g} → {100 * row['canary']:.3g} %" for name, row in named.iterrows())
    return finished(figure, history, found, f"share of each class among the answers, stable → canary: {each}.")


def confusion(history: History) -> Chart:
    """Which answers are wrong, and how? Labels against answers, a square for each version.

    Parameters
    ----------
    history : History
        A rollout whose traffic has labels that are a few classes; else the picture says that there are none.
    """
    table = answers_of(history)
    figure = sheet(9.0, 4.6 if len(table) else 2.4)
    for ax, role in zip(figure.subplots(1, 2), ROLES, strict=True):
        draw_confusion(ax, table, version=role)
    wrong = table[table["label"] != table["said"]]
    if set(table["version"]) != set(ROLES):
        return finished(figure, history, f"{_canary(history)}: {_nothing(len(table))}", "labels against answers.")
    all_of, bad = (rows.groupby("version")["requests"].sum().reindex(ROLES, fill_value=0) for rows in (table, wrong))
    stable, canary = (f"{100 * bad[role] / all_of[role]:.3g} %" for role in ROLES)
    found = f"{_canary(history)}: wrong answers {stable} → {canary}"
    worst = wrong[wrong["version"] == "canary"].sort_values("requests").iloc[-1]
    if worst["requests"]:
        often = f"{100 * worst['share']:.0f} % of label {worst['label']}"
        found += f"; the canary's most frequent mistake: {often} answered as {worst['said']}"
    shows = f"labels against answers of both versions, in percent of each label, from {all_of.sum():,} answers."
    return finished(figure, history, found, shows)


def timeline(history: History) -> Chart:
    """What was decided when? The canary's weight over time, with what was asked, what was served, and the end.

    Parameters
    ----------
    history : History
        A rollout, finished or not.
    """
    figure, decisions = sheet(9.0, 2.6), decisions_of(history)
    ax = figure.subplots()
    draw_timeline(ax, history.steps(), decisions=decisions)
    ax.set_xlabel("seconds", fontsize=SMALL, color=INK)
    so_far = f" {history.ending.outcome}" if history.ending is not None else f", {history.judgement.status} so far"
    had = ", ".join(f"{weight:g}" for weight in decisions["weight"].dropna())
    found = f"{_canary(history)}{so_far}: it had {had or 0} % of the traffic"
    each = "; ".join(f"{seconds:.0f} s {text}" for seconds, text in zip(decisions["seconds"], decisions["text"], strict=True))
    return finished(figure, history, found, f"weight of the canary over time: {each or 'never changed'}.")


def _moved(wide: pd.DataFrame, requests: pd.Series[Any]) -> str:
    """Say which class's share differs most, if it does by more than chance does."""
    stable, canary = (wide[role].to_numpy(dtype=float) for role in ROLES)
    pooled = (stable * requests["stable"] + canary * requests["canary"]) / requests.sum()
    error = np.sqrt(pooled * (1 - pooled) * (1 / requests["stable"] + 1 / requests["canary"]))
    sizes = np.abs(canary - stable) / np.where(error > 0, error, np.inf)
    most = int(sizes.argmax())
    if sizes[most] < _BEYOND_CHANCE:
        return f"no class's share differs by more than chance among {requests['canary']:,} answers"
    return f"answers {wide.index[most]} {100 * stable[most]:.3g} % → {100 * canary[most]:.3g} %"


def _canary(history: History) -> str:
    return str(history.facts.get("versions", {}).get("canary", "canary"))


def _nothing(answers: int) -> str:
    return _NOT_TOGETHER if answers else _NO_CLASSES
