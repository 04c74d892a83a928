"""Tables of counts -> verdicts, window by window, as in a rollout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from canarykit.analysis import Judge
from canarykit.analysis.questions import SPLITS, Split
from canarykit.counts.read import Table
from canarykit.errors import PlanError
from canarykit.model import ROLES, Counts, Guardrail, Judgement, TrafficSplit, Window

__all__ = ["Findings", "judge_counts"]


@dataclass(frozen=True)
class Findings:
    """Verdicts on a file of counts.

    Parameters
    ----------
    judgement : Judgement
        Judgement of all metrics.
    still_needed : mapping of str to float
        Per metric, further requests until it is likely to be decided; NaN when that cannot be said.
    windows, idle : int
        Windows of the file; those in which one version was idle, which compare nothing.
    """

    judgement: Judgement
    still_needed: Mapping[str, float]
    windows: int
    idle: int

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data; what is unknown or infinite is null."""
        return {
            "verdict": self.judgement.status,
            "sentence": self.judgement.sentence,
            "log_e": self.judgement.log_e,
            "windows": self.windows,
            "uninformative_windows": self.idle,
            "metrics": {
                verdict.guardrail: {
                    "verdict": verdict.status,
                    "log_e": verdict.comparison.log_e,
                    "e": math.exp(min(verdict.comparison.log_e, 700.0)),
                    "log_e_safe": verdict.comparison.log_e_safe,
                    "log_e_any": verdict.comparison.log_e_any,
                    "alarm_at": verdict.comparison.alarm_at,
                    "effect": _finite(verdict.comparison.effect),
                    "interval": [_finite(end) for end in verdict.comparison.interval],
                    "levels": dict(zip(ROLES, map(_finite, verdict.comparison.levels), strict=True)),
                    "counts": {
                        role: {"events": verdict.comparison.events[row], "requests": verdict.comparison.requests[row]}
                        for row, role in enumerate(ROLES)
                    },
                    "sentence": verdict.sentence,
                    "still_needed": None
                    if verdict.status in ("pass", "fail")
                    else _finite(self.still_needed[verdict.guardrail]),
                }
                for verdict in self.judgement.verdicts
            },
        }

    def __str__(self) -> str:
        idle = f"\n  {self.idle:,} of {self.windows:,} windows compare nothing: one version was idle" if self.idle else ""
        return f"{self.judgement}{idle}"

    def _repr_html_(self) -> str:
        return self.judgement._repr_html_()


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def judge_counts(
    tables: Sequence[Table],
    guardrails: Sequence[Guardrail],
    weights: Mapping[str, float] | None = None,
    *,
    alpha: float = 0.05,
    split: Split = "realised",
    dispersion: float | None = 1.0,
) -> Findings:
    """Judge counts window by window, as a rollout does.

    Parameters
    ----------
    tables, weights
        From `read_counts`.
    guardrails : sequence of Guardrail
        One per table, in the same order.
    alpha, split
        See `Judge`.
    dispersion : float, optional
        See `Judge`; None has it estimated from window to window, which takes a file of some dozen windows.

    Raises
    ------
    PlanError
        The split is known, and there are no weights.
    """
    if split not in SPLITS:
        raise PlanError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    if split == "known" and not weights:
        raise PlanError("a known split needs the column weight: percent that the canary was configured to receive")
    judge = Judge(guardrails, alpha=alpha, split=split, dispersion=dispersion)
    seen = idle = 0
    for window, both_served in _windows(tables, weights or {}):
        seen += 1
        idle += not both_served
        judge.update(window)
    needed = dict(zip((guardrail.name for guardrail in guardrails), (need for need, _ in judge.still_needed), strict=True))
    return Findings(judge.judgement, needed, seen, idle)


def _windows(tables: Sequence[Table], weights: Mapping[str, float]) -> Iterator[tuple[Window, bool]]:
    """Yield each window, and whether both versions served in it."""
    place = {name: number for number, name in enumerate(dict.fromkeys(name for table in tables for name in table.windows))}
    served = np.zeros((len(place), len(ROLES)), dtype=np.int64)
    rows: list[dict[str, Counts]] = [{} for _ in place]
    for table in tables:
        at = [place[name] for name in table.windows]
        served[at] += table.counts.sum(axis=2)
        for number, counts in zip(at, table.counts, strict=True):
            rows[number][table.metric.table] = counts
    splits: dict[float, TrafficSplit] = {}
    for (name, number), both in zip(place.items(), served.min(axis=1) > 0, strict=True):
        # Without weights, a window whose canary is idle compares nothing; any weight between stands for "both served".
        weight = weights.get(name, 50.0 if both else 0.0)
        split = splits.setdefault(weight, TrafficSplit(weight))
        yield Window(float(number), float(number), split, rows[number]), bool(both)
