"""The process that sends: open loop, so that a slow server cannot slow down the traffic that measures it.

It reads one JSON object from its standard input (what to send), then sends until the input says ``stop`` or closes.
``{"ready": true}`` says that it begins. For each request it writes a JSON list to its standard output: id, time it was due,
seconds from then to the last byte of the answer, seconds that it was sent too late, status, version that answered, whether it
was right, why it was lost, the label, what the version said, and why nobody can read that. ``{"unsent": 3}`` says that three
more could not be sent, because too many were under way. The last line says how many were sent, and how their ids begin:
``{"sent": 40, "ids": "5f0c21"}``. As a pod of an indexed Job it reads a file instead, sends its share of the rate, and stops on
SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import gc
import json
import os
import secrets
import signal
import socket
import sys
import time
from concurrent.futures.thread import ThreadPoolExecutor  # now: later there may be no file left to open it
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp

from canarykit.encodings import BrokenBody
from canarykit.load.bodies import ACCEPTED, MOST_KEPT, body_of
from canarykit.load.causes import UNREADABLE, broken_off_by, lost_by
from canarykit.load.json_path import OPEN_INFERENCE, Missing, parsed, value_at
from canarykit.load.limits import files_for, most_under_way
from canarykit.load.requests import carried, content_type_of
from canarykit.load.shapes import arrivals
from canarykit.model import ROLES
from canarykit.protocol import FLAGS_HEADER, LIMIT_HEADER, REQUEST_ID_HEADER, ROLE_HEADER

__all__ = ["main"]

_FLUSH = 0.05
_PARENT_POLL = 0.2
_LARGEST_VALUE = 100_000
"""Signs of JSON; what a version says is kept for each answer."""
_LARGEST_HEADER = 64 * 1024
_IDLE = 1.5
"""Seconds for which an unused connection is kept. Servers close theirs after some (gunicorn 2, uvicorn and Node.js 5): a
request that is sent at that moment would be lost, and no client may send it again."""
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Why this machine, and not the service, could not open a connection."""


@dataclass(slots=True)
class _Departure:
    """When a request left; connecting is the service's time, not the sender's."""

    began: float
    connecting: float = 0.0
    left: float | None = None

    def behind(self, due: float) -> float:
        """Seconds that it left too late."""
        return max(0.0, (self.began if self.left is None else self.left - self.connecting) - due)


async def _connection_begins(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    context.trace_request_ctx.connecting -= time.perf_counter()


async def _connection_stands(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    context.trace_request_ctx.connecting += time.perf_counter()


async def _headers_left(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
    context.trace_request_ctx.left = time.perf_counter()


def _tracing() -> aiohttp.TraceConfig:
    config = aiohttp.TraceConfig()
    config.on_connection_create_start.append(_connection_begins)
    config.on_connection_create_end.append(_connection_stands)
    config.on_request_headers_sent.append(_headers_left)
    return config


class Generator:
    """Sends requests at the times they are due.

    Parameters
    ----------
    spec : dict
        See `canarykit.load.load.specification`.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec
        self._method = spec.get("method", "POST")  # a kit of an earlier release says less
        self._bodies = [carried(body) for body in spec["bodies"]]
        own = spec.get("content_types") or [None] * len(self._bodies)
        usual = spec["headers"].get("content-type")
        self._types = [given or usual or content_type_of(body) for given, body in zip(own, spec["bodies"], strict=True)]
        self._labels = spec["labels"]
        self._where = parsed(spec.get("answer", OPEN_INFERENCE))
        self._prefix = secrets.token_hex(6)
        self._sent = self._unsent = 0
        self._signed = False
        self._lines: list[str] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Send until it is time to stop, then wait for what is under way."""
        most = files_for(most_under_way(self._spec["rate"], self._spec["shape"], self._spec["timeout"]))
        session_options: dict[str, Any] = {
            "connector": aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE),  # the limit is here, where it is counted
            "timeout": aiohttp.ClientTimeout(total=self._spec["timeout"]),
            "trace_configs": [_tracing()],
            "auto_decompress": False,  # it would read and keep what nobody needs, however large
            "max_line_size": _LARGEST_HEADER,
            "max_field_size": _LARGEST_HEADER,
            "cookie_jar": aiohttp.DummyCookieJar(),  # a gateway with sticky sessions would draw once for all requests
        }
        all_ended = asyncio.Event()
        writing = asyncio.create_task(self._write_regularly(all_ended))
        async with aiohttp.ClientSession(**session_options) as session:
            under_way: set[asyncio.Task[None]] = set()
            start, start_epoch = time.perf_counter(), time.time()
            spec = self._spec
            for number, due in enumerate(arrivals(spec["rate"], spec["shape"], spec["duration"], spec["seed"])):
                await self._sleep_until(start + due, stop)
                if stop.is_set():
                    break
                if len(under_way) >= most:
                    self._unsent += 1
                    continue
                task = asyncio.create_task(self._send(session, number, start + due, start_epoch + due))
                self._sent += 1
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            if spec["duration"] is not None and not stop.is_set():
                await self._sleep_until(start + spec["duration"], stop)
            if under_way:
                await asyncio.wait(under_way)
        all_ended.set()
        await writing
        self._lines.append(json.dumps({"sent": self._sent, "ids": self._prefix}))
        _write(self._taken())

    async def _sleep_until(self, due: float, stop: asyncio.Event) -> None:
        left = due - time.perf_counter()
        if left < 0.1:
            await asyncio.sleep(left)  # behind schedule, too: it sends at once, but lets answers in
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), left)

    async def _send(self, session: aiohttp.ClientSession, number: int, due: float, due_epoch: float) -> None:
        departure = _Departure(time.perf_counter())
        request_id = f"{self._prefix}-{number}"
        which = number % len(self._bodies)
        headers = {"accept-encoding": ACCEPTED, **self._spec["headers"], REQUEST_ID_HEADER: request_id}
        if content_type := self._types[which]:
            headers["content-type"] = content_type
        label, said, unread, limit = self._labels[which], None, None, None
        status, role, right, lost, by_gateway = 0, "", None, None, False
        # A redirect is not followed: the gateway would draw a version once more, under the same id, or another host be asked.
        options: dict[str, Any] = {"headers": headers, "allow_redirects": False, "trace_request_ctx": departure}
        try:
            async with session.request(self._method, self._spec["url"], data=self._bodies[which], **options) as response:
                status, role = response.status, _role(response.headers.getall(ROLE_HEADER, []))
                self._signed = self._signed or bool(role)
                limit = response.headers.get(LIMIT_HEADER)
                unsigned = self._signed and not role
                lost = lost_by(status, response.headers.get(FLAGS_HEADER), unsigned=unsigned, limit=limit)
                by_gateway = lost is not None
                readable = label is not None and lost is None and 200 <= status < 300
                answer = await body_of(response, kept=readable)
                if readable:
                    said, unread = _said(answer, self._where)
                    right = said == label
        except TimeoutError:
            lost = "timed out"
        except aiohttp.ClientConnectorError as error:
            if error.os_error.errno in _NO_ROOM:
                self._sent, self._unsent = self._sent - 1, self._unsent + 1
                return
            lost = _not_connected(error)
        except aiohttp.ClientResponseError:
            lost = UNREADABLE
        except (aiohttp.ClientError, OSError, BrokenBody):
            lost = broken_off_by(limit, time.perf_counter() - departure.began) if status else "reset"
        except Exception as error:  # whatever it is: a request that was sent comes to an end
            lost = type(error).__name__
        if label is not None and role and not by_gateway and right is None:
            right = False  # a version answered, and nobody can read what
        behind = departure.behind(due)
        line = [request_id, due_epoch, time.perf_counter() - due, behind, status, role, right, lost, label, said, unread]
        self._lines.append(json.dumps(line))

    async def _write_regularly(self, all_ended: asyncio.Event) -> None:
        """Write what is new, in a thread: a reader that is busy must not hold up what is sent."""
        with ThreadPoolExecutor(1) as writer:
            while not all_ended.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(all_ended.wait(), _FLUSH)
                if text := self._taken():
                    await asyncio.get_running_loop().run_in_executor(writer, _write, text)

    def _taken(self) -> str:
        """Lines since the last time."""
        if self._unsent:
            self._lines.insert(0, json.dumps({"unsent": self._unsent}))
            self._unsent = 0
        text = "".join(f"{line}\n" for line in self._lines)
        self._lines.clear()
        return text


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _role(said: list[str]) -> str:
    """The version that answered; empty when nobody says it, or more than one, of whom one may be the server."""
    return said[0] if len(set(said)) == 1 and said[0] in ROLES else ""


def _not_connected(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS"
    return "no such host" if isinstance(error.os_error, socket.gaierror) else "refused"


def _said(body: bytes | None, where: tuple[str, ...]) -> tuple[Any, str | None]:
    """The value at a path of an answer, and None; or None, and why there is none that can be handed on."""
    if body is None:
        return None, f"an answer is longer than {MOST_KEPT:,} bytes, or encoded in another way than asked for"
    try:
        said = value_at(where, json.loads(body))
        if len(json.dumps(said)) > _LARGEST_VALUE:
            return None, f"the value is longer than {_LARGEST_VALUE:,} signs of JSON"
        return said, None
    except Missing as missing:
        return None, str(missing)
    except (ValueError, RecursionError):
        return None, "an answer is no JSON" if body else "an answer is empty"


async def _listen(reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
    """Stop when asked to; end at once when the notebook's kernel is gone."""
    if await reader.readline():
        stop.set()
    else:
        os._exit(1)


async def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        await asyncio.sleep(_PARENT_POLL)
    os._exit(1)


async def _run_file(path: str) -> None:
    """Send what a file asks for, until the time is over or SIGTERM comes: in a container nobody writes to the input."""
    spec, stop = json.loads(Path(path).read_text()), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    number, senders = int(os.environ.get("JOB_COMPLETION_INDEX", "0")), spec.pop("senders", 1)
    spec |= {"rate": spec["rate"] / senders, "seed": spec["seed"] + number}
    await Generator(spec).run(stop)


async def _run() -> None:
    reader = asyncio.StreamReader(limit=1 << 28)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    spec = json.loads(await reader.readline())
    stop = asyncio.Event()
    watching = [asyncio.create_task(_listen(reader, stop)), asyncio.create_task(_watch_parent(os.getppid()))]
    generator = Generator(spec)
    print(json.dumps({"ready": True}), flush=True)
    await generator.run(stop)
    for task in watching:
        task.cancel()


def main() -> None:
    """Send what standard input, or a file, asks for."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parser = argparse.ArgumentParser(prog="python -m canarykit.load.generator", description=main.__doc__)
    parser.add_argument("--spec", help="a file that says what to send; standard input by default")
    options = parser.parse_args()
    # Thousands of requests under way are many live objects, which the collector would go through again and again.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    try:
        asyncio.run(_run_file(options.spec) if options.spec else _run())
    except BrokenPipeError:
        os._exit(1)


if __name__ == "__main__":
    main()
