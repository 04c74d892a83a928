"""Where a version's own Service is reached."""

import socket

import pytest
from kube_doubles import Namespace

from canarykit.clusters.kube import endpoints
from canarykit.clusters.kube.endpoints import Endpoints
from canarykit.errors import ClusterError
from canarykit.places import managed_places


class Pods:
    """Two pods of each version that are ready."""

    def ready(self, role):
        """Oldest first."""
        return [{"metadata": {"name": f"{role}-{n}"}, "status": {"hostIP": "10.0.0.9"}} for n in range(2)]


@pytest.fixture
def balancer(monkeypatch):
    """An endpoint whose load balancer has an address; ports of this machine are only counted."""
    monkeypatch.setattr(endpoints, "Forward", Forward)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    body = {
        "kind": "Service",
        "metadata": {"name": "digits-canary"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": port}]},
        "status": {"loadBalancer": {"ingress": [{"ip": "127.0.0.1"}]}},
    }
    client = Namespace(body)
    client.connection = None
    yield Endpoints(client, managed_places("digits"), Pods(), 8080), listener
    listener.close()


class Forward:
    """Counts."""

    opened = 0

    def __init__(self, *where):
        Forward.opened += 1
        self.url = f"http://forward/{Forward.opened}"

    def close(self):
        """Open no more."""
        Forward.opened -= 1


def test_a_load_balancer_that_listens_is_the_address(balancer):
    """
    As it stands in the Service.
    """
    found, listener = balancer
    assert found.url("canary") == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_load_balancer_that_does_not_listen_yet_is_not(balancer):
    """
    It has its address before it listens there: until then one port of this machine leads to a pod, and only one.
    """
    found, listener = balancer
    listener.close()
    assert found.url("canary") == found.url("canary") == "http://forward/1"
    found.close()
    assert Forward.opened == 0


def test_a_service_that_is_gone_is_an_error(balancer):
    """
    By its name.
    """
    with pytest.raises(ClusterError, match="Service digits-stable is gone"):
        balancer[0].url("stable")
