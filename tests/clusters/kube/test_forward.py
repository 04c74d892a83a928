"""A port of this machine that leads to a pod."""

import socket
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from canarykit.clusters.kube.api.port_forward import Forward
from canarykit.errors import ClusterError


@pytest.fixture
def pod(monkeypatch):
    """A server in place of a pod, and no API server on the way."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        monkeypatch.setattr(Forward, "_connect", lambda self: socket.create_connection(listener.getsockname()))
        yield listener


def connect(forward):
    """Open a connection to the port."""
    place = urlsplit(forward.url)
    return socket.create_connection((place.hostname, place.port), timeout=10)


def test_bytes_go_both_ways_until_one_side_ends(pod):
    """
    What is sent arrives, there and here; the end of the pod is the end of the connection.
    """
    forward = Forward(None, "ns", lambda: "pod", 80)
    with connect(forward) as here:
        there, _ = pod.accept()
        here.sendall(b"ask")
        assert there.recv(10) == b"ask"
        there.sendall(b"answer")
        assert here.recv(10) == b"answer"
        there.close()
        assert here.recv(10) == b""
    forward.close()


def test_closed_means_that_connections_end_too(pod):
    """
    Those that are open end, here and at the pod, and there are no new ones.
    """
    forward = Forward(None, "ns", lambda: "pod", 80)
    with connect(forward) as here:
        there, _ = pod.accept()
        there.settimeout(10)
        forward.close()
        assert here.recv(10) == b""
        assert there.recv(10) == b""
        there.close()
    with pytest.raises(OSError, match="refused"):
        connect(forward)


def test_credentials_that_are_refused_are_read_anew_once(monkeypatch):
    """
    A port of a session that is longer than a token's life; what is refused all the same is an error.
    """
    pytest.importorskip("kubernetes")
    from kubernetes.client.exceptions import ApiException

    class Connection:
        api, renewed = "old", 0

        def renew(self, used):
            self.api, self.renewed = "new", self.renewed + 1
            return True

    def forwarded(self, api, pod):
        if api not in known:
            raise ApiException(status=0, reason="Handshake status 401 Unauthorized")
        return SimpleNamespace(socket=lambda port: SimpleNamespace(setblocking=lambda flag: None))

    known, connection = ["new"], Connection()
    monkeypatch.setattr(Forward, "_forward", forwarded)
    forward = Forward(connection, "ns", lambda: "pod", 80)
    forward._connect()
    forward._connect()
    assert connection.renewed == 1
    known.clear()
    with pytest.raises(ClusterError, match="cannot forward a port to pod pod: Handshake status 401"):
        forward._connect()
    forward.close()
