"""A port of this machine that leads to a pod, through the API server."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

from canarykit.clusters.kube.api.connection import Connection
from canarykit.errors import ClusterError

__all__ = ["Forward"]

_PIECE = 65536


class Forward:
    """Listens on the loopback address, and passes each connection on to a pod.

    Parameters
    ----------
    connection : Connection
        The way to the API server.
    namespace : str
        Namespace of the pods.
    pod : callable
        Returns the name of a pod that is ready.
    port : int
        Where it listens in the pod.
    """

    def __init__(self, connection: Connection, namespace: str, pod: Callable[[], str], port: int) -> None:
        self._connection, self._namespace, self._pod, self._port = connection, namespace, pod, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock, self._open, self._closed = threading.Lock(), set[socket.socket](), False
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, name="canarykit-forward", daemon=True).start()

    def close(self) -> None:
        """Listen no more; connections end."""
        # Closing alone does not wake a thread that waits in accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            self._closed = True
            for here in self._open:
                with contextlib.suppress(OSError):
                    here.shutdown(socket.SHUT_RDWR)  # whoever passes its bytes on sees its end

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(here,), name="canarykit-forward", daemon=True).start()

    def _serve(self, here: socket.socket) -> None:
        with here, contextlib.suppress(OSError, ClusterError):
            with self._lock:
                if self._closed:
                    return
                self._open.add(here)
            try:
                there = self._connect()
                try:
                    _pass_on(here, there)
                finally:
                    there.close()
            finally:
                with self._lock:
                    self._open.discard(here)

    def _connect(self) -> Any:
        from kubernetes.client.exceptions import ApiException

        pod, used = self._pod(), self._connection.api
        try:
            try:
                forward = self._forward(used, pod)
            except ApiException as error:
                if "status 401" not in str(error.reason) or not self._connection.renew(used):
                    raise
                forward = self._forward(self._connection.api, pod)
        except ApiException as error:
            raise ClusterError(f"cannot forward a port to pod {pod}: {error.reason}") from error
        there = forward.socket(self._port)
        there.setblocking(True)
        return there

    def _forward(self, api: Any, pod: str) -> Any:
        from kubernetes.client import CoreV1Api
        from kubernetes.stream import portforward

        return portforward(CoreV1Api(api).connect_get_namespaced_pod_portforward, pod, self._namespace, ports=str(self._port))


def _pass_on(one: Any, other: Any) -> None:
    """Pass bytes both ways until one side ends."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in ready.select():
                source: Any = key.fileobj
                piece = source.recv(_PIECE)
                if not piece:
                    return
                key.data.sendall(piece)
