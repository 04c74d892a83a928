"""What became of the requests of a load: counted as they come to an end."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from canarykit.load.causes import UNACCOUNTED, at_limit
from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import Counts
from canarykit.statuses import Kind, kind_of

__all__ = ["Answer", "Summary", "Tally"]

TOO_LATE = 0.1
"""A sender that is this many seconds behind its own schedule in 1 % of requests is overloaded itself."""

_SHOWN_STATUSES = 3
_SHOWN = ("redirected", "refused", "denied", "failed")
"""Sorts of answers that people are told of, beside how many there were in all."""

_UNREAD_AT_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request.

    Parameters
    ----------
    request_id : str
        Unique; in the gateway's log too.
    sent : float
        When it was due, seconds since the epoch.
    seconds : float
        From then to the last byte of the answer, or to the loss.
    behind : float
        Seconds that it left too late.
    status : int
        Status of the answer, even where that broke off; 0 when there was none.
    role : str
        Version that answered, as the gateway says; empty when it does not, or names another than stable and canary.
    right : bool or None
        Whether it agrees with the label; None when there is no label, or no version answered. An answer of a version that
        cannot be read is not right: a refusal, a redirect, an error, one that broke off or never ended, or another form.
    lost : str or None
        Why no whole answer arrived: ``refused``, ``no such host``, ``TLS`` (no secure connection), ``reset``, ``timed out``,
        ``broken off`` after its headers, ``unreadable`` headers, ``gateway 503``, ``gateway 504 at its limit of 15 s``, or
        the name of an error of the sender.
    label, said : object
        The right answer, and the version's; None when there is none, or it cannot be read.
    unread : str or None
        Why the version's answer cannot be read, of a request that it accepted.
    """

    request_id: str
    sent: float
    seconds: float
    behind: float
    status: int
    role: str
    right: bool | None
    lost: str | None
    label: Any = None
    said: Any = None
    unread: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of all requests so far.

    Parameters
    ----------
    answered : int
        Requests that a server answered, whatever it said.
    lost : mapping of str to int
        Lost requests by cause; ``unaccounted for`` are those that were sent, and of which nobody knows what became.
    behind_p50, behind_p99 : float
        Seconds that requests were sent behind their schedule; NaN when none was sent.
    unsent : int
        Requests that were due and never sent, because as many were under way as this machine takes. They are not lost: the
        service never saw them.
    statuses : mapping of str to mapping of int to int
        Number of answered requests with each status, by the version that answered; ``""`` where nobody says which.
    """

    answered: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    behind_p50: float = float("nan")
    behind_p99: float = float("nan")
    unsent: int = 0
    statuses: Mapping[str, Mapping[int, int]] = field(default_factory=dict)

    @property
    def kinds(self) -> dict[str, dict[Kind, int]]:
        """Answered requests by version and kind of status; ``""`` where nobody says which version."""
        kinds: dict[str, dict[Kind, int]] = {}
        for role, counted in self.statuses.items():
            of_role = kinds.setdefault(role, {"ok": 0, "refused": 0, "denied": 0, "failed": 0})
            for status, count in counted.items():
                of_role[kind_of(status)] += count
        return kinds

    @property
    def lost_total(self) -> int:
        """Lost requests of all causes."""
        return sum(self.lost.values())

    @property
    def sent(self) -> int:
        """Requests that have come to an end, one way or the other."""
        return self.answered + self.lost_total

    @property
    def overloaded(self) -> bool:
        """Whether the sender itself was too slow, or full, for its latencies to be believed."""
        return self.behind_p99 > TOO_LATE or self.unsent > 0

    def record(self) -> dict[str, Any]:
        """All of it as plain data, for a journal. Statuses are text there, as JSON has them."""
        statuses = {role: {str(status): count for status, count in counted.items()} for role, counted in self.statuses.items()}
        more = {"statuses": statuses, "kinds": self.kinds, "lost_total": self.lost_total, "overloaded": self.overloaded}
        return {**asdict(self), **more}

    def __str__(self) -> str:
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(self.lost.items()))
        text = f"{self.sent:,} requests sent, {self.lost_total:,} lost{f' ({causes})' if causes else ''}"
        text += "".join(f", {said}" for said in map(self._answered_by, _SHOWN) if said)
        text += "; set timeout= of the cluster, as in LocalCluster(timeout=60)" if any(map(at_limit, self.lost)) else ""
        text += f", {self.unsent:,} more could not be sent" if self.unsent else ""
        text += f"; {1e3 * self.behind_p99:.1f} ms behind schedule at most in 99 %" if self.sent else ""
        return text + ("; THE SENDER WAS OVERLOADED: do not believe its latencies" if self.overloaded else "")

    def _answered_by(self, sort: str) -> str:
        """Answers of one sort, with their most frequent statuses; empty when there are none."""
        statuses: Counter[int] = Counter()
        for counted in self.statuses.values():
            statuses.update({status: count for status, count in counted.items() if _sort(status) == sort})
        shown = [f"{count:,} × {status}" for status, count in statuses.most_common(_SHOWN_STATUSES)]
        more = ["…"] if len(statuses) > _SHOWN_STATUSES else []
        return f"{statuses.total():,} {sort} ({', '.join(shown + more)})" if statuses else ""


def _sort(status: int) -> str:
    """The kind of a status, or that it sends the client elsewhere."""
    return "redirected" if 300 <= status < 400 else kind_of(status)


class Tally:
    """Takes in answers from one thread, and tells another what became of all."""

    def __init__(self) -> None:
        self._unread: deque[Answer] = deque(maxlen=_UNREAD_AT_MOST)
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._statuses: dict[str, Counter[int]] = {}
        self._unsent = 0
        self._ended: Counter[str] = Counter()
        self._behind: Counts = latency_cells([])

    def take(self, record: Any) -> int | None:
        """Count what a sender wrote in one line, as of `canarykit.load.generator`.

        Returns
        -------
        int or None
            How many requests it sent, when the line says so: it is the last one. As many as have not come to an end by then
            are lost.
        """
        if not isinstance(record, Mapping):
            self.add(Answer(*record))
            return None
        with self._lock:
            self._unsent += record.get("unsent", 0)
            sent: int | None = record.get("sent")
            if sent is not None and "ids" in record:  # an image of an earlier release says no ids
                missing = max(0, sent - self._ended[record["ids"]])
                self._lost[UNACCOUNTED] += missing
                self._ended[record["ids"]] += missing  # a log that is read again may say it twice
        return sent

    def add(self, answer: Answer) -> None:
        """Count one request."""
        with self._lock:
            self._unread.append(answer)
            self._ended[answer.request_id.rpartition("-")[0]] += 1
            self._behind[np.searchsorted(LATENCY_EDGES, max(answer.behind, 0.0))] += 1
            if answer.lost is None:
                self._statuses.setdefault(answer.role, Counter())[answer.status] += 1
            else:
                self._lost[answer.lost] += 1

    def answers(self) -> list[Answer]:
        """Answers since the last call."""
        with self._lock:
            read = list(self._unread)
            self._unread.clear()
        return read

    @property
    def summary(self) -> Summary:
        """What became of all requests so far."""
        with self._lock:
            p50, p99 = (_upper(self._behind, quantile) for quantile in (0.5, 0.99))
            statuses = {role: dict(counted) for role, counted in self._statuses.items()}
            answered = sum(counted.total() for counted in self._statuses.values())
            return Summary(answered, dict(+self._lost), p50, p99, self._unsent, statuses)


def _upper(cells: Counts, quantile: float) -> float:
    """Upper edge of the bucket that holds a quantile; NaN when there is none."""
    cumulative = np.cumsum(cells)
    if not cumulative[-1]:
        return float("nan")
    return LATENCY_EDGES[int(np.searchsorted(cumulative, quantile * cumulative[-1]))]
