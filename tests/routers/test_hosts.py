"""Which Service a host means."""

import pytest

from canarykit.routers.hosts import service_of


@pytest.mark.parametrize(
    ("host", "place", "means"),
    [
        ("chat", "ns", "chat"),
        ("chat", "web", None),
        ("chat.ns", "web", "chat"),
        ("chat.ns.svc", "web", "chat"),
        ("chat.ns.svc.cluster.local", "web", "chat"),
        ("chat.ns.svc.cluster.local.", "web", "chat"),
        ("chat.web.svc.cluster.local", "ns", None),
        ("chat.ns.example.com", "ns", None),
        ("chat.ns2", "ns", None),
        ("chat.ns.svc2.local", "ns", None),
        ("", "ns", None),
    ],
)
def test_a_host_means_a_service_of_its_namespace(host, place, means):
    """
    A short name where it is written, and a longer one everywhere; a name of the internet is none of the cluster's.
    """
    assert service_of(host, of="ns", place=place) == means


def test_of_an_object_without_a_namespace_only_short_names_are_known():
    """
    One that was not read from a cluster.
    """
    assert service_of("chat", of=None, place=None) == "chat"
    assert service_of("chat.ns", of=None, place=None) is None
