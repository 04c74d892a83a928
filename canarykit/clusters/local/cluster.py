"""LocalCluster: the embedded default. Real model servers, a real gateway, one machine."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from canarykit.clusters.base import InProcess, SystemClock
from canarykit.clusters.local.environment import program, refusal, thread_limits
from canarykit.clusters.local.envoy import Envoy, executable
from canarykit.clusters.local.gateway import TIMEOUT, Endpoint
from canarykit.clusters.local.probe import get
from canarykit.clusters.local.processes import NotStartedError, Processes
from canarykit.clusters.local.starting import CRASHES, Replica, ended_after_ready, last_words, wait_ready
from canarykit.errors import ClusterError, PlanError, RoutingError, UnrestoredError
from canarykit.health import Health
from canarykit.interrupts import never
from canarykit.load import Load
from canarykit.masking import masked
from canarykit.model import ROLES, Role, Service, Version
from canarykit.placeholders import port_names
from canarykit.plan import seconds
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.envoy import EnvoyRouter
from canarykit.serving import storage
from canarykit.serving.fault_injection import FAULTS, switch
from canarykit.telemetry.envoy import IN_FLIGHT, EnvoyTelemetry
from canarykit.web import NoAnswerError

__all__ = ["LocalCluster"]

_SERVER = "canarykit.serving"
_DRAIN = 15.0
_LIMIT_LEAST, _LIMIT_MOST = 0.001, 86_400.0
"""Seconds. Envoy takes 0 ms for no limit at all."""


class LocalCluster(InProcess):
    """Versions as processes of this machine behind an Envoy; all on the loopback address.

    All of it ends with the process that made it, however that ends: also the workers and daemons that a server starts, whatever
    sessions they begin. That holds on Linux; elsewhere, what left its server's process group may go on.

    Parameters
    ----------
    ready_within : float or str
        How long a version may take until it is ready: seconds, or ``"2min"``. What waiting does not mend is reported before: a
        status such as 404 or 401 on its ready path, or a server on another port, that stays the same for a sixth of this time
        (at least 5 s) in which the server hardly works. 5xx, 400, 425 and 429 mean that it loads.
    timeout : float or str
        After how long the gateway ends a request with a 504: seconds, or ``"2min"``. The whole answer counts, also of a
        stream.

    Raises
    ------
    PlanError
        The timeout, or `ready_within`, is no time, or below a millisecond or above a day.
    ClusterError
        There is no Envoy for this platform.
    """

    simulated = False
    clock = SystemClock()

    def __init__(self, *, ready_within: float | str = 60.0, timeout: float | str = TIMEOUT) -> None:
        self.timeout = _limit("timeout", timeout)
        self._ready_within = _limit("ready_within", ready_within)
        executable()
        self._numbers = {role: itertools.count() for role in ROLES}
        self._replicas: dict[Role, list[Replica]] = {role: [] for role in ROLES}
        self._restarts: dict[str, int] = {}
        self._processes: Processes | None = None
        self._service: Service | None = None
        self._envoy: Envoy | None = None

    def deploy(self, service: Service) -> None:
        """Bring up both versions, all traffic on stable; return when both are ready."""
        if self._service is not None:
            raise ClusterError("this cluster runs a service already: tear it down first, or connect to another one")
        for role in ROLES:
            if service.version(role).image is not None:
                raise PlanError(
                    f"version {service.version(role).name!r} is an image, and the local cluster runs no containers: "
                    "give it model= or command="
                )
        self._processes = Processes(nursery=_SERVER)
        atexit.register(self.teardown)
        try:
            self._bring_up(service)
        except BaseException:
            self.teardown()
            raise
        self._service = service

    def _bring_up(self, service: Service) -> None:
        self._service = service
        begun = {role: self._start(role, service.version(role)) for role in ROLES}
        how: dict[str, Any] = {"timeout": self.timeout, "protocol": service.stable.protocol}
        self._envoy = Envoy(self._running, {role: service.version(role).ready for role in ROLES}, **how)
        self._envoy.wait_ready()
        self._wait_ready(replica for role in ROLES for replica in begun[role])
        for role in ROLES:
            self._replicas[role] = begun[role]
            self._route(role, begun[role])
        self._router = EnvoyRouter(self._envoy)
        self._telemetry = EnvoyTelemetry(
            self._envoy.access_log,
            reopen=lambda: self._gateway.admin("POST", "/reopen_logs"),
            stats=lambda: self._gateway.admin("GET", IN_FLIGHT),
        )

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return self._gateway.url

    @property
    def router(self) -> EnvoyRouter:
        """Splits the traffic."""
        assert self._gateway
        return self._router

    @property
    def telemetry(self) -> EnvoyTelemetry:
        """Counts it."""
        assert self._gateway
        return self._telemetry

    def send(self, rate: float | str, **options: Any) -> Load:
        """Begin to send traffic, from a process of its own; options as in `Load`."""
        options.setdefault("path", f"/v2/models/{self._deployed.name}/infer")
        return Load(self.url, rate=rate, **options).start()

    def replicas(self, role: Role) -> tuple[Endpoint, ...]:
        """Where the replicas of a version listen."""
        return tuple(replica.endpoint for replica in self._replicas[role])

    def ensure_capacity(self, role: Role, share: float = 1.0) -> None:
        """Check that each replica of a version answers, whatever its share, and the gateway's way to it."""
        problem = self._problem(role)
        if problem:
            raise ClusterError(problem)
        replicas = self._replicas[role]
        if not replicas:
            raise ClusterError(f"{role} has no replicas: it was retired, or never deployed")
        self._wait_ready(replicas, within=10.0)
        for _ in replicas:
            status = _status(self._gateway.port, replicas[0].ready, {ROLE_HEADER: role})
            if status != 200:
                raise ClusterError(f"{role} answers {status} to {replicas[0].ready} through the gateway")

    def _problem(self, role: Role) -> str | None:
        """Say that a version's replicas crash, with the last log lines."""
        status = self._running.status()
        replicas = {replica.endpoint.instance: replica for replica in self._replicas[role]}
        crashed = {name: status[name]["restarts"] for name in replicas if name in status and status[name]["restarts"]}
        if sum(crashed.values()) < CRASHES:
            return None
        worst = max(crashed, key=lambda name: crashed[name])
        still = [name for name in replicas if name in status and not status[name]["running"]]
        down = f", and {' and '.join(still)} not running" if still else ""
        return (
            f"{role} crashed {sum(crashed.values())} times (last exit code {status[worst]['last_code']}){down}; "
            f"the log of {worst} ends with:\n{masked(last_words(self._running, replicas[worst]))}"
        )

    def health(self, role: Role) -> Health:
        """How a version's replicas are: there is nothing between well and in trouble."""
        problem = self._problem(role)
        return Health(problem=problem, final=True) if problem else Health()

    def promote(self, cancelled: Callable[[], bool] = never) -> bool:
        """Replace stable's replicas by ones of the canary's version; the canary has all traffic meanwhile."""
        service = self._deployed
        old, begun = self._replicas["stable"], self._start("stable", service.canary)
        try:
            self._wait_ready(begun, cancelled=cancelled)
            self._move("stable", old, begun)
        except BaseException as error:
            try:
                self._route("stable", old)
            except (ClusterError, RoutingError) as back:
                raise UnrestoredError(f"{error}; nor could stable's traffic be returned to its own replicas: {back}") from error
            finally:
                self._discard(begun)
            raise
        # Stable is the new version from here on: whatever fails, there is no way back.
        self._service = replace(service, stable=service.canary)
        # What does not end now has no traffic, and ends with the cluster.
        with contextlib.suppress(ClusterError):
            self._end(old, _DRAIN)
        return True

    @property
    def faults(self) -> tuple[str, ...]:
        """What can be broken in the canary on purpose: something, when it is a model on the kit's own server."""
        return tuple(FAULTS) if self._service is not None and self._service.canary.model is not None else ()

    def inject(self, fault: str | None) -> None:
        """Break the canary in one of `faults`; None mends it."""
        switch(self._fault_file("canary"), fault)

    def retire_canary(self) -> None:
        """Let the canary's replicas finish what they have, and end them."""
        old = self._replicas["canary"]
        self._move("canary", old, [])
        self._end(old, _DRAIN)

    def log(self, instance: str, lines: int = 20) -> str:
        """Last lines that a replica (``"canary-0"``) or the gateway (``"envoy"``) wrote."""
        return self._running.log(instance, lines)

    def teardown(self) -> None:
        """End all processes and remove all files. May be called again."""
        atexit.unregister(self.teardown)
        if self._processes is not None:
            self._processes.close()
        self._processes = self._service = self._envoy = None
        self._replicas = {role: [] for role in ROLES}
        self._restarts = {}

    @property
    def _running(self) -> Processes:
        if self._processes is None:
            raise ClusterError("nothing runs here: deploy a service first")
        return self._processes

    @property
    def _gateway(self) -> Envoy:
        if self._envoy is None:
            raise ClusterError("nothing runs here: deploy a service first")
        return self._envoy

    @property
    def _deployed(self) -> Service:
        if self._service is None:
            raise ClusterError("nothing runs here: deploy a service first")
        return self._service

    def _start(self, role: Role, version: Version) -> list[Replica]:
        """Start as many replicas as the service asks for, without waiting."""
        argv, listen, prefork = self._command(role, version)
        env = {**self._deployed.env, **version.env}
        env = {**thread_limits({**os.environ, **env}), **env}
        ports = port_names([*argv, *env.values()]) if listen == "port" else []
        begun: list[Replica] = []
        try:
            for _ in range(self._deployed.replicas):
                name = f"{role}-{next(self._numbers[role])}"
                facts = self._running.start(name, argv, env=env, listen=listen, ports=ports, prefork=prefork, restart=True)
                begun.append(Replica(Endpoint(name, version.name, facts["port"]), version))
        except BaseException as error:
            self._discard(begun)
            if isinstance(error, NotStartedError):
                why = refusal(argv[0], error.kind, error.why)
                raise ClusterError(f"{name} (version {version.name!r}) cannot be started: {why}") from error
            raise
        return begun

    def _discard(self, replicas: Iterable[Replica]) -> None:
        """End replicas that never had traffic, or have none any more, after something else failed."""
        with contextlib.suppress(ClusterError):
            self._end(replicas, 1.0)

    def _end(self, replicas: Iterable[Replica], grace: float) -> None:
        """End replicas at the same time; each may take `grace` seconds.

        Raises
        ------
        ClusterError
            One did not end; the others did.
        """
        running, names = self._running, [replica.endpoint.instance for replica in replicas]
        with ThreadPoolExecutor(max_workers=max(1, len(names)), thread_name_prefix="canarykit-end") as pool:
            asked = [pool.submit(running.stop, name, grace) for name in names]
        for each in asked:
            each.result()

    def _fault_file(self, role: Role) -> Path:
        return self._running.folder / f"{role}.fault"

    def _command(self, role: Role, version: Version) -> tuple[list[str], Literal["fd", "port"], bool]:
        """How to start a version: words, what it listens on, and whether it can be forked."""
        if version.command is not None:
            return program(version.command), "port", False
        model, trusted = self._model_file(version)
        words = ["--model", str(model), "--name", self._deployed.name, "--version", version.name, "--fd", "{fd}"]
        words += ["--fault-file", str(self._fault_file(role))]
        for name in trusted:
            words += ["--trusted", name]
        # A fork shares the environment of the process it came from, and forking after imports is safe on Linux only.
        if sys.platform == "linux" and not version.env and not self._deployed.env:
            return words, "fd", True
        return [sys.executable, "-m", _SERVER, *words], "fd", False

    def _model_file(self, version: Version) -> tuple[Path, Sequence[str]]:
        if isinstance(version.model, str | Path):
            path = Path(version.model).expanduser().resolve()
            storage.load(path, version.trusted)  # a file that does not load fails here, with a clear error
            return path, version.trusted
        path = self._running.folder / f"{_file_name(version.name)}-{id(version.model):x}.skops"
        if not path.exists():
            storage.save(version.model, path)
        # The file was written here a moment ago from a live object: its types are the user's own.
        return path, storage.types_in(path)

    def _wait_ready(
        self, replicas: Iterable[Replica], within: float | None = None, *, cancelled: Callable[[], bool] = never
    ) -> None:
        """Wait until each replica answers 200 on its ready path."""
        within = self._ready_within if within is None else within
        self._restarts |= wait_ready(self._running, replicas, self._deployed.stable.protocol, within, cancelled)

    def _move(self, role: Role, old: list[Replica], new: list[Replica]) -> None:
        """Move a version to new replicas; the old ones finish what they have, and may be ended then."""
        leaving = [replace(replica, endpoint=replace(replica.endpoint, draining=True)) for replica in old]
        self._route(role, [*new, *leaving])
        self._gateway.wait_drained(role, [replica.endpoint.port for replica in old], _DRAIN)
        self._route(role, new)
        self._replicas[role] = new

    def _route(self, role: Role, replicas: Sequence[Replica]) -> None:
        """Have the gateway use just these replicas for a version."""
        try:
            self._gateway.set_endpoints(role, [replica.endpoint for replica in replicas])
        except RoutingError as error:
            if ended := ended_after_ready(self._running, replicas, self._restarts):
                raise ClusterError(ended) from error
            raise


def _status(port: int, path: str, headers: Mapping[str, str]) -> int | None:
    """Status of a GET on the loopback address; None when nobody answers."""
    try:
        return get(port, path, headers)
    except NoAnswerError:
        return None


def _limit(option: str, given: float | str) -> float:
    """Seconds of an option, as the gateway and its messages can say them: whole milliseconds, and no more than a day."""
    limit = math.nan
    with contextlib.suppress(PlanError):
        limit = round(seconds(given), 3)
    if not _LIMIT_LEAST <= limit <= _LIMIT_MOST:
        # What is no number is not shown: in an address, it may be a password at the wrong place.
        shown = "" if math.isnan(limit) else f", not {limit:g} s"
        raise PlanError(f'{option}= of a local cluster is a time from 1 ms to a day, such as 60 or "2min"{shown}')
    return limit


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text)
