"""History: a journal judged again from its first window, as tables to read and to draw."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from canarykit.analysis import Judge
from canarykit.analysis.bets import Array
from canarykit.analysis.instances import remarks
from canarykit.bins import Bin, binned
from canarykit.digest import Digest, Poll
from canarykit.journal import JournalReader
from canarykit.metrics import LATENCY_EDGES
from canarykit.model import ROLES, Counts, Ending, Guardrail, Judgement

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "Poll", "history_of", "replay"]

_SHARES = {"realised": "the split that each really had", "known": "the weight in force"}


@dataclass(frozen=True)
class History:
    """Everything that a journal holds, judged.

    Parameters
    ----------
    facts : dict
        The rollout's facts: service, versions, plan, software.
    guardrails : tuple of Guardrail
        Under which it was judged.
    judgement : Judgement
        At the end.
    polls : tuple of Poll
        On the way.
    bins : tuple of Bin
        Counts over time, coarse enough to draw.
    instances : dict of str to (cells,) int array
        Latency counts of each replica while both versions had traffic.
    weights : list of dict
        Changes of weight, with `served`, the canary's share in percent, and `requests` until the next change.
    events, loads : list of dict
        See `JournalReader`.
    ending : Ending or None
        How it ended.
    windows : int
        How many were recorded.
    compared : tuple of (2, cells) float array
        For each guardrail, the table that its levels are taken from.
    """

    facts: dict[str, Any]
    guardrails: tuple[Guardrail, ...]
    judgement: Judgement
    polls: tuple[Poll, ...]
    bins: tuple[Bin, ...]
    instances: dict[str, Counts]
    weights: list[dict[str, float]]
    events: list[dict[str, Any]]
    loads: list[dict[str, Any]]
    ending: Ending | None
    windows: int
    compared: tuple[Array, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether nothing in it was measured."""
        return bool(self.facts.get("simulated"))

    @property
    def began(self) -> float:
        """First moment, seconds since the epoch; NaN when nothing was recorded."""
        times = [bin_.start for bin_ in self.bins[:1]] + [event["time"] for event in self.events[:1]]
        return min(times, default=float("nan"))

    @property
    def ended(self) -> float:
        """Last moment, seconds since the epoch; NaN when nothing was recorded."""
        times = [bin_.end for bin_ in self.bins[-1:]] + [event["time"] for event in self.events[-1:]]
        return max(times, default=float("nan"))

    @property
    def requests(self) -> tuple[int, int]:
        """Requests of stable and canary that were judged."""
        first = self.judgement.verdicts[0].comparison.requests if self.judgement.verdicts else (0, 0)
        return max((verdict.comparison.requests for verdict in self.judgement.verdicts), key=sum, default=first)

    @property
    def lost(self) -> dict[str, int]:
        """Lost requests by cause."""
        causes: Counter[str] = Counter()
        for load in self.loads:
            causes.update(load["lost"])
        return dict(causes)

    @property
    def overloaded(self) -> bool:
        """Whether a sender was too slow for its own schedule."""
        return any(load.get("overloaded") for load in self.loads)

    @property
    def unsent(self) -> int:
        """Requests that were due and never sent, because as many were under way as the sender's machine takes."""
        return sum(int(load.get("unsent", 0)) for load in self.loads)

    def remarks(self) -> list[str]:
        """What must be known before a difference in latency is believed."""
        latency = next((g.metric for g in self.guardrails if g.metric.table == "latency"), None)
        if latency is None or latency.quantile is None:
            return remarks(self.instances, LATENCY_EDGES, 0.95)
        return remarks(self.instances, latency.cells, latency.quantile)

    def levels(self) -> pd.DataFrame:
        """Levels over time, tidy: one row per interval, metric and version."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "start": pd.to_datetime(bin_.start, unit="s", utc=True),
                    "seconds": (bin_.start + bin_.end) / 2 - self.began,
                    "weight": bin_.weight,
                    "metric": guardrail.name,
                    "version": role,
                    "requests": int(bin_.counts[guardrail.metric.table][row].sum()),
                    "level": bin_.level(guardrail.metric, row),
                }
                for bin_ in self.bins
                if bin_.judged
                for guardrail in self.guardrails
                if guardrail.metric.table in bin_.counts
                for row, role in enumerate(ROLES)
            ],
            columns=["start", "seconds", "weight", "metric", "version", "requests", "level"],
        )

    def effects(self) -> pd.DataFrame:
        """Effect, interval and evidence at each look, tidy: one row per look and metric."""
        import pandas as pd

        rows = [
            (poll.time - self.began, c.metric, c.effect, *c.interval, c.log_e, c.log_e_safe)
            for poll in self.polls
            for c in poll.comparisons
        ]
        return pd.DataFrame(rows, columns=["seconds", "metric", "effect", "low", "high", "log_e", "log_e_safe"])

    def steps(self) -> pd.DataFrame:
        """Weight of the canary over time, as asked for and as served, percent; NaN where nothing was counted."""
        import pandas as pd

        rows = [(bin_.start - self.began, bin_.weight, bin_.served) for bin_ in self.bins]
        rows += [(bin_.end - self.began, bin_.weight, bin_.served) for bin_ in self.bins[-1:]]
        return pd.DataFrame(rows, columns=["seconds", "weight", "served"])

    def splits(self) -> pd.DataFrame:
        """Changes of weight: asked, served, requests, and the time until each was in force."""
        import pandas as pd

        return pd.DataFrame(
            [
                {
                    "at": f"{change['time'] - self.began:.1f} s",
                    "canary asked": f"{change['asked']:g} %",
                    "canary served": "–" if np.isnan(change["served"]) else f"{change['served']:.1f} %",
                    "requests": int(change["requests"]),
                    "in force after": f"{1000 * change['seconds']:.1f} ms",
                }
                for change in self.weights
            ]
        )

    def method(self) -> pd.DataFrame:
        """How it was judged: all that is needed to judge it again."""
        import pandas as pd

        rows = [("chance of a false alarm", f"{100 * float(self.facts.get('alpha', 0.05)):g} %, however often one looks")]
        how = "estimated" if self.facts.get("dispersion", 1.0) is None else "as stated"
        varies: list[str] = []
        for guardrail, verdict in zip(self.guardrails, self.judgement.verdicts, strict=True):
            numbers = f"alarm above ×{guardrail.tolerate:g}, pass below ×{guardrail.margin:g}"
            ceiling = "" if guardrail.ceiling is None else f" or {100 * guardrail.ceiling:g} %"
            limit = "" if guardrail.limit is None else f"; stable up to {100 * guardrail.limit:g} %"
            rows.append((guardrail.name, numbers + ceiling + limit))
            if guardrail.metric.kind == "rate" and not math.isnan(verdict.comparison.likely_dispersion):
                found = verdict.comparison  # how much counts vary from window to window, as multiples of chance
                varies.append(f"{guardrail.name} {found.likely_dispersion:g} (an alarm takes {found.dispersion:g})")
        rows.append((f"variation (φ, {how})", ", ".join(varies) or "not known: too few bad requests"))
        steps = self.facts.get("plan", {}).get("steps", [])
        rows.append(("steps", ", ".join(f"{step['weight']:g} % for {step['hold']:g} s" for step in steps)))
        rows.append(("windows", f"{self.windows:,}, compared by {_SHARES[self.facts.get('split', 'realised')]}"))
        software = self.facts.get("software", {})
        rows.append(("software", ", ".join(str(v) if name == "system" else f"{name} {v}" for name, v in software.items())))
        rows += [("traffic", _listed(load["asked"])) for load in self.loads if "asked" in load]
        return pd.DataFrame(rows, columns=["what", "value"])

    def timeline(self) -> pd.DataFrame:
        """What happened when."""
        import pandas as pd

        rows = [{"at": f"{e['time'] - self.began:.1f} s", "what": e["kind"], "why": e["text"]} for e in self.events]
        return pd.DataFrame(rows, columns=["at", "what", "why"])


def _listed(asked: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)


def replay(journal: JournalReader, *, guardrails: Sequence[Guardrail] | None = None, alpha: float | None = None) -> History:
    """Judge a journal: from its first window by other margins, and else from the evidence that it keeps.

    Parameters
    ----------
    journal : JournalReader
        May still be written.
    guardrails : sequence of Guardrail, optional
        Others than those of the rollout: other margins, other ceilings.
    alpha : float, optional
        Another error budget.

    Raises
    ------
    JournalError
        It holds no rollout.
    """
    facts = journal.facts
    chosen = journal.guardrails if guardrails is None else tuple(guardrails)
    judge = Judge(
        chosen,
        alpha=facts.get("alpha", 0.05) if alpha is None else alpha,
        split=facts.get("split", "realised"),
        dispersion=facts.get("dispersion", 1.0),  # journals that say nothing were judged without an estimate
    )
    digest, after = Digest(), 0
    if guardrails is None and alpha is None:
        digest, after = _kept(journal, judge)
    for window in journal.windows(after):
        if window.judged:
            judge.update(window)
        digest.add(window, judge)
    digest.poll(judge)
    return history_of(journal, judge, digest)


def history_of(journal: JournalReader, judge: Judge, digest: Digest) -> History:
    """Return what a journal holds, of which the judge and the digest have taken in every window.

    Parameters
    ----------
    journal : JournalReader
        Source of all that is not counted.
    judge : Judge
        Judge of its windows.
    digest : Digest
        Digest of the same windows; nothing of it may change any more.
    """
    return History(
        journal.facts, judge.guardrails, judge.judgement, tuple(digest.polls), binned(digest.blocks), digest.instances,
        _served(journal.weights(), digest.blocks), journal.events(), journal.loads(), journal.ending, digest.windows,
        judge.compared,
    )  # fmt: skip


def _kept(journal: JournalReader, judge: Judge) -> tuple[Digest, int]:
    """Have the judge go on from the evidence that the journal keeps; return what is known by then, and up to which window."""
    after, news, state = journal.judged()
    if not state:
        return Digest(), 0
    try:
        judge.restore(state)
    except ValueError:  # it was judged by other guardrails so far
        return Digest(), 0
    return Digest.of(news), after


def _served(weights: list[dict[str, float]], blocks: Sequence[Bin]) -> list[dict[str, float]]:
    """Add to each change of weight what was served until the next one."""
    for number, change in enumerate(weights):
        end = weights[number + 1]["time"] if number + 1 < len(weights) else float("inf")
        # A window begins when its weight is in force, and no window holds two weights.
        within = [block.requests for block in blocks if change["time"] <= block.start < end]
        stable, canary = (sum(requests[row] for requests in within) for row in (0, 1))
        change["requests"] = stable + canary
        change["served"] = 100 * canary / (stable + canary) if stable + canary else float("nan")
    return weights
