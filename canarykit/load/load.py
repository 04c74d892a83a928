"""Load: traffic that is sent by a process of its own, and what became of each request."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from canarykit.errors import ClusterError, PlanError
from canarykit.load.payloads import payloads as read_payloads
from canarykit.load.shapes import SHAPES
from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import Counts

__all__ = ["Answer", "Load", "Summary", "per_second"]

TOO_LATE = 0.1
"""A sender that is this many seconds behind its own schedule in 1 % of requests is overloaded itself."""

_UNREAD_AT_MOST = 1_000_000
_STOP_WITHIN = 5.0


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
        Seconds that it was sent too late.
    status : int
        Of the answer; 0 when there was none.
    role : str
        Version that answered, as the gateway says; empty when unknown.
    right : bool or None
        Whether it agrees with the label; None when there is no label or no answer.
    lost : str or None
        Why no server's answer arrived: ``refused``, ``reset``, ``timed out``, ``gateway 503``, ….
    """

    request_id: str
    sent: float
    seconds: float
    behind: float
    status: int
    role: str
    right: bool | None
    lost: str | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of all requests so far.

    Parameters
    ----------
    answered : int
        Requests that a server answered, whatever it said.
    lost : mapping of str to int
        Lost requests by cause.
    behind_p50, behind_p99 : float
        Seconds that requests were sent behind their schedule; NaN when none was sent.
    """

    answered: int = 0
    lost: Mapping[str, int] = field(default_factory=dict)
    behind_p50: float = float("nan")
    behind_p99: float = float("nan")

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
        """Whether the sender itself was too slow for its latencies to be believed."""
        return self.behind_p99 > TOO_LATE

    def record(self) -> dict[str, Any]:
        """All of it as plain data, for a journal."""
        return {**asdict(self), "lost_total": self.lost_total, "overloaded": self.overloaded}

    def __str__(self) -> str:
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(self.lost.items()))
        text = f"{self.sent:,} requests sent, {self.lost_total:,} lost{f' ({causes})' if causes else ''}"
        text += f"; {1e3 * self.behind_p99:.1f} ms behind schedule at most in 99 %" if self.sent else ""
        return text + ("; THE SENDER WAS OVERLOADED: do not believe its latencies" if self.overloaded else "")


def per_second(rate: float | str) -> float:
    """Requests per second in ``150``, ``"150/s"`` or ``"30/min"``.

    Raises
    ------
    PlanError
        It is none, or not above zero.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*(?:/\s*(s|min|h))?\s*", str(rate))
    try:
        value = float(match[1]) / {"s": 1, "min": 60, "h": 3600}[match[2] or "s"] if match else 0.0
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise PlanError(f'a rate is a number of requests per second above 0, or text such as "150/s", not {rate!r}')
    return value


class Load:
    """Open-loop Poisson traffic to a URL.

    Parameters
    ----------
    url : str
        Address of the service.
    rate : float or str
        Requests per second: ``150`` or ``"150/s"``.
    path : str
        Where requests go, below `url`.
    payloads : str, path or sequence of mappings
        ``"digits"``, a file of JSON lines, or mappings with ``body`` and ``label``. They are sent round and round.
    shape : {"steady", "ramp", "spike"}
        How the rate goes over time.
    duration : float, optional
        Seconds; until `stop` by default.
    timeout : float
        Seconds after which a request is lost.
    headers : mapping of str to str, optional
        Sent with each request: the ``host`` that a shared gateway knows the service by.
    seed : int
        The same seed gives the same times.

    Raises
    ------
    PlanError
        A rate, a shape or payloads that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        rate: float | str = 100.0,
        path: str = "/v2/models/digits/infer",
        payloads: str | Path | Sequence[Mapping[str, Any]] = "digits",
        shape: str = "steady",
        duration: float | None = None,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        if shape not in SHAPES:
            raise PlanError(f"traffic has no shape {shape!r}: choose one of {', '.join(SHAPES)}")
        read = read_payloads(payloads)
        self._timeout = timeout
        self._spec = {
            "url": url.rstrip("/") + path,
            "rate": per_second(rate),
            "shape": shape,
            "duration": duration,
            "timeout": timeout,
            "headers": dict(headers or {}),
            "seed": seed,
            "bodies": [json.dumps(payload.body) for payload in read],
            "labels": [payload.label for payload in read],
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._unread: deque[Answer] = deque(maxlen=_UNREAD_AT_MOST)
        self._lock = threading.Lock()
        self._answered = 0
        self._lost: Counter[str] = Counter()
        self._behind: Counts = latency_cells([])
        self._all_sent: int | None = None

    def start(self) -> Load:
        """Begin to send; return itself."""
        process = subprocess.Popen(
            [sys.executable, "-m", "canarykit.load.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the notebook
        )
        assert process.stdin is not None
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process,), name="canarykit-load", daemon=True)
        self._reader.start()
        process.stdin.write(json.dumps(self._spec).encode() + b"\n")
        process.stdin.flush()
        return self

    def stop(self) -> Summary:
        """Send no more, wait for what is under way, and say what became of all. May be called again.

        Raises
        ------
        ClusterError
            The sending process ended by itself, so that nobody knows what became of its requests.
        """
        process = self._process
        if process is None:
            return self.summary
        assert process.stdin is not None and self._reader is not None
        # It may have sent all it was asked to, and ended.
        with contextlib.suppress(OSError):
            process.stdin.write(b"stop\n")
            process.stdin.flush()
        try:
            process.wait(self._timeout + _STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(_STOP_WITHIN)
        with contextlib.suppress(OSError):
            process.stdin.close()
        self._process = None
        if self._all_sent is None:
            raise ClusterError(
                f"the process that sends traffic ended with exit code {process.returncode} before it was told to; "
                "what became of its last requests is not known"
            )
        return self.summary

    def wait(self) -> Summary:
        """Wait until the duration is over; return what became of all requests."""
        while self.running:
            time.sleep(0.02)
        return self.stop()

    def record(self) -> dict[str, Any]:
        """What became of all requests so far, as plain data."""
        return self.summary.record()

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for: rate, shape, duration, seed."""
        return {name: self._spec[name] for name in ("rate", "shape", "duration", "seed")}

    def __repr__(self) -> str:
        return f"Load: {self._spec['rate']:g} requests/s"

    @property
    def running(self) -> bool:
        """Whether it sends."""
        return self._process is not None and self._process.poll() is None

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
            return Summary(self._answered, dict(self._lost), p50, p99)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                record = json.loads(line)
                if isinstance(record, dict):
                    self._all_sent = record["sent"]
                else:
                    self._take_in(Answer(*record))

    def _take_in(self, answer: Answer) -> None:
        with self._lock:
            self._unread.append(answer)
            self._behind[np.searchsorted(LATENCY_EDGES, max(answer.behind, 0.0))] += 1
            if answer.lost is None:
                self._answered += 1
            else:
                self._lost[answer.lost] += 1


def _upper(cells: Counts, quantile: float) -> float:
    """Upper edge of the bucket that holds a quantile; NaN when there is none."""
    cumulative = np.cumsum(cells)
    if not cumulative[-1]:
        return float("nan")
    return LATENCY_EDGES[int(np.searchsorted(cumulative, quantile * cumulative[-1]))]
