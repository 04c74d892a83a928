"""Load: traffic that is sent by a process of its own, and what became of each request."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from canarykit.errors import ClusterError, PlanError
from canarykit.load.headers import checked_headers
from canarykit.load.payloads import classes_of
from canarykit.load.payloads import payloads as read_payloads
from canarykit.load.shapes import SHAPES
from canarykit.load.tally import Answer, Summary, Tally
from canarykit.wire import request_path

__all__ = ["Answer", "Load", "Summary", "asked", "per_second", "specification"]

_STOP_WITHIN = 5.0


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


def specification(
    url: str,
    *,
    rate: float | str = 100.0,
    payloads: str | Path | Sequence[Mapping[str, Any]] = "digits",
    shape: str = "steady",
    duration: float | None = None,
    timeout: float = 10.0,
    headers: Mapping[str, str] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """What a sending process is told; parameters as of `Load`.

    Raises
    ------
    PlanError
        A rate, a timeout, a shape, headers or payloads that cannot be used.
    """
    if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise PlanError(f"a timeout is a number of seconds above 0, not {timeout!r}")
    if shape not in SHAPES:
        raise PlanError(f"traffic has no shape {shape!r}: choose one of {', '.join(SHAPES)}")
    read = read_payloads(payloads)
    return {
        "url": url,
        "rate": per_second(rate),
        "shape": shape,
        "duration": duration,
        "timeout": timeout,
        "headers": checked_headers(headers),
        "seed": seed,
        "bodies": [json.dumps(payload.body) for payload in read],
        "labels": [payload.label for payload in read],
    }


def asked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, of a `specification`, to be written down. The query of the path may be a secret, and is left out."""
    path = urlsplit(spec["url"]).path or "/"
    return {**{name: spec[name] for name in ("rate", "shape", "duration", "seed")}, "path": path}


class Load:
    """Open-loop Poisson traffic to a URL.

    Parameters
    ----------
    url : str
        Address of the service.
    rate : float or str
        Requests per second: ``150`` or ``"150/s"``.
    path : str
        Where requests go, below `url`: ``"/predict"``. A slash is put before it where there is none.
    payloads : str, path or sequence of mappings
        ``"digits"``, a file of JSON lines, or mappings with ``body`` and ``label``. They are sent round and round.
    shape : {"steady", "ramp", "spike"}
        How the rate goes over time.
    duration : float, optional
        Seconds; until `stop` by default.
    timeout : float
        Seconds after which a request is lost.
    headers : mapping of str to str, optional
        Sent with each request: the ``host`` that a shared gateway knows the service by, a token. White space around values,
        such as the line feed that ends a token's file, is left out.
    seed : int
        The same seed gives the same times.

    Raises
    ------
    PlanError
        A rate, a timeout, a path, a shape, headers or payloads that cannot be used.
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
        self._timeout = timeout
        self._spec = specification(
            url.rstrip("/") + request_path(path),
            rate=rate, payloads=payloads, shape=shape, duration=duration, timeout=timeout, headers=headers, seed=seed,
        )  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._tally = Tally()
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

        Requests of which nobody knows what became are lost: ``unaccounted for``.

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
        """What was asked for: rate, shape, duration, seed and path."""
        return asked(self._spec)

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels, when they are a few classes; empty otherwise."""
        return classes_of(self._spec["labels"])

    def __repr__(self) -> str:
        return f"Load: {self._spec['rate']:g} requests/s"

    @property
    def running(self) -> bool:
        """Whether it sends."""
        return self._process is not None and self._process.poll() is None

    def answers(self) -> list[Answer]:
        """Answers since the last call."""
        return self._tally.answers()

    @property
    def summary(self) -> Summary:
        """What became of all requests so far."""
        return self._tally.summary

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    sent = self._tally.take(json.loads(line))
                except (ValueError, TypeError, RecursionError):  # not the sender's: its own are counted at the end
                    continue
                self._all_sent = sent if sent is not None else self._all_sent
