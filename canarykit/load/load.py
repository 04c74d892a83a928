"""Load: traffic that is sent by a process of its own, and what became of each request."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from canarykit.errors import ClusterError, PlanError
from canarykit.load.json_path import OPEN_INFERENCE, parsed
from canarykit.load.payloads import classes_of
from canarykit.load.payloads import payloads as read_payloads
from canarykit.load.requests import checked_method, form, has_body
from canarykit.load.shapes import SHAPES
from canarykit.load.tally import Answer, Summary, Tally
from canarykit.masking import masked, secrets_of
from canarykit.protocol import request_path

__all__ = ["Answer", "Load", "SentTraffic", "Summary", "per_second", "specification"]

_FORM = {"compression": "content-encoding", "content_type": "content-type"}
"""Options of how bodies are sent, and the headers in which they end up."""

_STOP_WITHIN = 5.0
_READY_WITHIN = 60.0
_END_WITHIN = 1.0
_LAST_LINES = 20


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
    payloads: str | Path | Sequence[Mapping[str, Any]] | None = None,
    shape: str = "steady",
    duration: float | None = None,
    timeout: float = 10.0,
    headers: Mapping[str, str] | None = None,
    seed: int = 0,
    method: str = "POST",
    content_type: str | None = None,
    compression: str | None = None,
    answer: str = OPEN_INFERENCE,
) -> dict[str, Any]:
    """What a sending process is told; parameters as of `Load`.

    Raises
    ------
    PlanError
        An address or an option that cannot be used.
    """
    if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
        raise PlanError(f"a timeout is a number of seconds above 0, not {timeout!r}")
    if duration is not None and (not isinstance(duration, int | float) or not 0 < duration < float("inf")):
        raise PlanError(f"a duration is a number of seconds above 0, or None until it is stopped, not {duration!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise PlanError(f"a seed is a whole number from 0 on, not {seed!r}")
    _check_web(url)
    if shape not in SHAPES:
        raise PlanError(f"traffic has no shape {shape!r}: choose one of {', '.join(SHAPES)}")
    method = checked_method(method)
    read = read_payloads(payloads, body_needed=has_body(method))
    parsed(answer)
    return {
        "url": url,
        "method": method,
        "rate": per_second(rate),
        "shape": shape,
        "duration": duration,
        "timeout": timeout,
        "seed": seed,
        **form(read, headers, content_type, compression),
        "labels": [payload.label for payload in read],
        "answer": answer,
    }


def _check_web(url: str) -> None:
    """Refuse what cannot be asked over HTTP. Nothing of it is shown but how it begins: it may hold a password or a key."""
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except (ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise PlanError("traffic is sent to an address of the form http://HOST:PORT or https://HOST:PORT, and this is none")


class SentTraffic:
    """Traffic that senders are told of by a `specification`, and what became of it.

    Parameters
    ----------
    spec : dict
        Settings that the senders get.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec, self._tally = spec, Tally()

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for: method, rate, shape, duration, seed, path; compression, content type and answer where given.

        The query of the path may be a secret, and is left out.
        """
        spec = self._spec
        said = {name: spec["headers"].get(header) for name, header in _FORM.items()}
        said["answer"] = None if spec["answer"] == OPEN_INFERENCE else spec["answer"]
        chosen = {name: value for name, value in said.items() if value is not None}
        plain = {name: spec[name] for name in ("method", "rate", "shape", "duration", "seed")}
        return {**plain, "path": urlsplit(spec["url"]).path or "/", **chosen}

    @property
    def classes(self) -> tuple[Any, ...]:
        """The labels, when they are a few classes; empty otherwise."""
        return classes_of(self._spec["labels"])

    def answers(self) -> list[Answer]:
        """Answers since the last call."""
        return self._tally.answers()

    @property
    def summary(self) -> Summary:
        """What became of all requests so far."""
        return self._tally.summary

    def record(self) -> dict[str, Any]:
        """What became of all requests so far, as plain data."""
        return self.summary.record()


class Load(SentTraffic):
    r"""Open-loop Poisson traffic to a URL.

    Parameters
    ----------
    url : str
        Address of the service.
    rate : float or str
        Requests per second: ``150`` or ``"150/s"``.
    path : str
        Where requests go, below `url`: ``"/predict"``. A slash is put before it where there is none.
    payloads : str, path or sequence of mappings, optional
        ``"digits"``, a file of JSON lines, or mappings with ``body`` (bytes, or what JSON takes; in a file bytes are
        ``body_base64``), and optionally ``label`` and ``content_type``. They are sent round and round. By default the digits;
        nothing where the method has no body.
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
    method : str
        GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS.
    content_type : str, optional
        Content type of payloads without one of their own; by default that of JSON, or of bytes. A text is sent as it is,
        and not as JSON, when its content type is another than JSON's.
    compression : {"gzip", "deflate"}, optional
        How bodies are compressed. Bodies that are compressed already are bytes, with a ``content-encoding`` in `headers`.
    answer : str
        Where in the JSON of an answer the value stands that is compared with a label: ``"label"``,
        ``"choices.0.message.content"``; a key with a dot in it is written ``"a\.b"`` or in double quotes, and ``"."`` is the
        whole body.

    Raises
    ------
    PlanError
        An address or an option that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        rate: float | str = 100.0,
        path: str = "/v2/models/digits/infer",
        payloads: str | Path | Sequence[Mapping[str, Any]] | None = None,
        shape: str = "steady",
        duration: float | None = None,
        timeout: float = 10.0,
        headers: Mapping[str, str] | None = None,
        seed: int = 0,
        method: str = "POST",
        content_type: str | None = None,
        compression: str | None = None,
        answer: str = OPEN_INFERENCE,
    ) -> None:
        super().__init__(specification(
            url.rstrip("/") + request_path(path),
            rate=rate, payloads=payloads, shape=shape, duration=duration, timeout=timeout, headers=headers, seed=seed,
            method=method, content_type=content_type, compression=compression, answer=answer,
        ))  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []
        self._heard, self._ready = threading.Event(), False
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)
        self._all_sent: int | None = None

    def start(self) -> Load:
        """Begin to send; return itself once the sending process is ready.

        Raises
        ------
        PlanError
            It sends already.
        ClusterError
            The sending process does not come up; says why. Nothing of it is left.
        """
        if self._process is not None:
            raise PlanError("this load was started before: stop() it first, or make another one")
        text = json.dumps(self._spec).encode() + b"\n"
        process = subprocess.Popen(
            [sys.executable, "-m", "canarykit.load.generator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the notebook
        )
        self._process, self._all_sent, self._ready = process, None, False
        self._heard.clear()
        self._errors.clear()
        self._readers = [
            threading.Thread(target=read, args=(process,), name="canarykit-load", daemon=True)
            for read in (self._read, self._read_errors)
        ]
        try:
            for reader in self._readers:
                reader.start()
            self._hand_over(process, text)
        except BaseException:
            self._end(process, within=_END_WITHIN)
            raise
        return self

    def _hand_over(self, process: subprocess.Popen[bytes], text: bytes) -> None:
        """Say what to send, and wait until the process has understood."""
        assert process.stdin is not None
        try:
            process.stdin.write(text)
            process.stdin.flush()
            self._heard.wait(_READY_WITHIN)
        except OSError:  # it does not read
            pass
        if not self._ready:
            self._end(process, within=_END_WITHIN)
            raise self._ended(process, "it sent anything")

    def _end(self, process: subprocess.Popen[bytes], *, within: float) -> None:
        """Wait until a process that was told to end has ended, with what it writes; kill it if it does not."""
        assert process.stdin is not None
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for reader in self._readers:
            if reader.ident is not None:
                reader.join(_STOP_WITHIN)
        with contextlib.suppress(OSError):
            process.stdin.close()
        self._process = None

    def _ended(self, process: subprocess.Popen[bytes], before: str) -> ClusterError:
        """Say how the process ended, and the last line that it wrote to its standard error, without secrets."""
        killed = " (killed: is there memory left?)" if process.returncode == -signal.SIGKILL else ""
        said = next((line for line in reversed(self._errors) if line.strip()), "")
        shown = f": {masked(said, secrets_of(self._spec['headers']) | secrets_of(self._spec['url']))}" if said else ""
        return ClusterError(
            f"the process that sends traffic ended with exit code {process.returncode}{killed} before {before}{shown}"
        )

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
        assert process.stdin is not None
        # It may have sent all it was asked to, and ended.
        with contextlib.suppress(OSError):
            process.stdin.write(b"stop\n")
            process.stdin.flush()
        self._end(process, within=self._spec["timeout"] + _STOP_WITHIN)
        if self._all_sent is None:
            raise self._ended(process, "it was told to; what became of its last requests is not known")
        return self.summary

    def wait(self) -> Summary:
        """Wait until the duration is over; return what became of all requests."""
        while self.running:
            time.sleep(0.02)
        return self.stop()

    def __repr__(self) -> str:
        return f"Load: {self._spec['rate']:g} requests/s"

    @property
    def running(self) -> bool:
        """Whether it sends."""
        return self._process is not None and self._process.poll() is None

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                try:
                    sent = self._tally.take(json.loads(line))
                except (ValueError, TypeError, RecursionError):  # not the sender's: its own are counted at the end
                    continue
                self._all_sent = sent if sent is not None else self._all_sent
                if not self._ready:
                    self._ready = True
                    self._heard.set()
        self._heard.set()  # nothing more will come

    def _read_errors(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._errors.append(line.decode(errors="replace").rstrip())
