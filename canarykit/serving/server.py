"""The model server: routes, metrics, drain."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from canarykit.errors import PlanError
from canarykit.metrics import LATENCY_EDGES
from canarykit.protocol import METRICS_PORT, ROLE_HEADER
from canarykit.serving import open_inference, storage
from canarykit.serving.compression import Compressed, body_of
from canarykit.serving.fault_injection import FaultSwitch

__all__ = ["ModelServer", "main"]

_LOG = logging.getLogger("canarykit.serving")


class ModelServer:
    """Serves one model.

    Parameters
    ----------
    model : estimator
        Has ``predict``.
    name, version : str
        The model's name and version in the protocol.
    knob : FaultSwitch, optional
        Says what is broken on purpose; nothing by default.
    """

    def __init__(self, model: Any, name: str, version: str, knob: FaultSwitch | None = None) -> None:
        self.model, self.name, self.version = model, name, version
        self._knob = knob or FaultSwitch()
        self.ready = True
        # Whoever deploys it says which role it has; a gateway that knows better overwrites the header.
        self._role = os.environ.get("CANARYKIT_ROLE", "")
        self._features = getattr(model, "n_features_in_", None)
        # One prediction at a time, beside the loop: health checks are answered meanwhile.
        self._worker = ThreadPoolExecutor(1)
        self.registry = CollectorRegistry()
        self._duration = Histogram(
            "canarykit_request_duration_seconds", "Time of an inference", buckets=LATENCY_EDGES, registry=self.registry
        )
        self._requests = Counter("canarykit_requests", "Inferences", ["code"], registry=self.registry)
        self._in_flight = Gauge("canarykit_in_flight", "Inferences under way", registry=self.registry)

    def warm_up(self) -> None:
        """Predict once, where requests will: a first prediction takes several times as long as those after it.

        A canary has fewer requests than stable to hide such a one among. Whatever the model makes of zeros is left to those
        who ask for it.
        """
        if self._features is None:
            return
        with contextlib.suppress(Exception):
            self._worker.submit(self.model.predict, np.zeros((1, self._features))).result()

    def app(self) -> ASGIApp:
        """Return the ASGI application."""
        routes = [
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
        ]
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(prefix, self._metadata),
                Route(f"{prefix}/ready", self._model_ready),
                Route(f"{prefix}/infer", self._infer, methods=["POST"]),
            ]
        handlers = {HTTPException: _error, Exception: _crash}
        return _Stamp(
            Compressed(Starlette(routes=routes, exception_handlers=handlers)), self
        )  # outermost: a crash is stamped too

    def stamps(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that every answer carries: its role, and "ask elsewhere" from a server that is to end."""
        stamps = [(ROLE_HEADER.encode(), self._role.encode())] if self._role else []
        return stamps if self.ready else [*stamps, (b"connection", b"close")]

    async def _server(self, request: Request) -> Response:
        return JSONResponse({"name": "canarykit", "version": self.version, "extensions": list(open_inference.EXTENSIONS)})

    async def _live(self, request: Request) -> Response:
        return Response(status_code=200)

    async def _ready(self, request: Request) -> Response:
        return Response(status_code=200 if self.ready else 503)

    async def _metadata(self, request: Request) -> Response:
        self._known(request)
        return JSONResponse(open_inference.metadata(self.name, self.version, self._features))

    async def _model_ready(self, request: Request) -> Response:
        self._known(request)
        return JSONResponse({"name": self.name, "ready": self.ready}, status_code=200 if self.ready else 503)

    async def _infer(self, request: Request) -> Response:
        start = time.perf_counter()
        code = 500
        with self._in_flight.track_inprogress():
            try:
                self._known(request)
                response = await self._answer(request)
                code = response.status_code
                return response
            except HTTPException as error:
                code = error.status_code
                raise
            finally:
                if code < 400:  # a quick failure or refusal must not look like a quick answer
                    self._duration.observe(time.perf_counter() - start)
                self._requests.labels(str(code)).inc()

    async def _answer(self, request: Request) -> Response:
        try:
            asked = open_inference.read(
                await body_of(request), request.headers.get(open_inference.HEADER_LENGTH), self._features
            )
        except open_inference.BadRequest as error:
            raise HTTPException(400, str(error)) from error
        try:
            labels = await asyncio.get_running_loop().run_in_executor(self._worker, self.model.predict, asked.inputs)
        except Exception as error:
            if asked.datatype == "BYTES" and isinstance(error, TypeError | ValueError):  # a model of numbers
                raise HTTPException(400, f"the model does not take these BYTES: {error}") from error
            _LOG.exception("the model failed")
            return JSONResponse({"error": f"the model failed: {type(error).__name__}: {error}"}, status_code=500)
        if self._knob.fault:
            await asyncio.sleep(self._knob.delay)
            if self._knob.fails():
                return JSONResponse({"error": "broken on purpose"}, status_code=500)
            labels = self._knob.spoiled(labels, getattr(self.model, "classes_", None))
        body, header_length = open_inference.answer(self.name, self.version, asked, labels)
        if header_length is None:
            return Response(body, media_type="application/json")
        more = {open_inference.HEADER_LENGTH: str(header_length)}
        return Response(body, media_type="application/octet-stream", headers=more)

    def _known(self, request: Request) -> None:
        model, version = request.path_params["model"], request.path_params.get("version", self.version)
        if (model, version) != (self.name, self.version):
            raise HTTPException(404, f"no model {model!r} version {version!r} here, only {self.name!r} {self.version!r}")


async def _error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


async def _crash(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "internal error; the log has the details"}, status_code=500)


class _Stamp:
    """Puts the service's stamps on every answer."""

    def __init__(self, app: ASGIApp, service: ModelServer) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def stamped(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self._service.stamps()]
            await send(message)

        await self._app(scope, receive, stamped)


class _Server(uvicorn.Server):
    """Says "not ready" as soon as it is asked to end, lingers, and finishes what it has.

    A client that keeps its connection open may send its next request in the moment in which the server closes it, and
    loses it. Therefore each answer of the last ``linger`` seconds tells its client to come back on a new connection, which
    other servers take; what is open after that was idle for as long.
    """

    def __init__(self, config: uvicorn.Config, service: ModelServer, linger: float) -> None:
        super().__init__(config)
        self._service, self._linger = service, linger

    def handle_exit(self, sig: int, frame: Any) -> None:
        self._service.ready = False
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        end = time.monotonic() + self._linger
        while self.server_state.connections and time.monotonic() < end:
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def _metrics_port(options: argparse.Namespace) -> int | None:
    """Port of the metrics page; None where nobody reads one."""
    asked: int | None = options.metrics_port
    return METRICS_PORT if asked is None and options.port else asked


def main(arguments: list[str] | None = None) -> int:
    """Serve a model until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m canarykit.serving", description=main.__doc__)
    parser.add_argument("--model", required=True, type=Path, help="a .skops file")
    parser.add_argument("--name", required=True, help="name of the model")
    parser.add_argument("--version", required=True, help="version of the model")
    parser.add_argument("--trusted", action="append", default=[], help="a type in the file that may be loaded")
    parser.add_argument("--fault-file", type=Path, help="a file that says what is broken on purpose")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="number of an inherited listening socket")
    where.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; a container needs 0.0.0.0")
    page = "port of the metrics, apart from what a gateway leads to: 9464 beside --port, none beside --fd"
    parser.add_argument("--metrics-port", type=int, help=page)
    lingers = "seconds to answer on, while connections are open, when it is asked to end"
    parser.add_argument("--linger", type=int, default=0, help=lingers)
    parser.add_argument("--drain", type=int, default=20, help="seconds to finish, after that, what it has begun")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the server takes it over
    try:
        model = storage.load(options.model, options.trusted)
        service = ModelServer(model, options.name, options.version, FaultSwitch(options.fault_file))
    except PlanError as error:
        print(f"cannot serve: {error}", file=sys.stderr)
        return 1
    if (metrics := _metrics_port(options)) is not None:
        try:
            start_http_server(metrics, addr=options.host, registry=service.registry)
        except OSError as error:
            print(f"cannot serve metrics at port {metrics}: {error}; choose another one with --metrics-port", file=sys.stderr)
            return 1
    service.warm_up()
    config = uvicorn.Config(
        service.app(),
        host=options.host,
        port=options.port or 0,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,  # the gateway closes idle connections first
        timeout_graceful_shutdown=options.drain,
    )
    sockets = None if options.fd is None else [socket.socket(fileno=options.fd)]
    _Server(config, service, options.linger).run(sockets=sockets)
    return 0
