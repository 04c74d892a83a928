"""How far apart two versions are read."""

import pytest

from canarykit.telemetry.alignment import Alignment


@pytest.mark.parametrize(
    ("roles", "seconds"),
    [
        ({"a": {"stable"}, "b": {"canary"}}, 9.0),
        ({"a": {"stable", "canary"}, "b": {"stable", "canary"}}, 0.0),
        ({"a": {"stable"}, "b": {"stable"}}, 0.0),
        ({"a": {"stable"}, "c": {"canary"}}, 0.0),
        ({}, 0.0),
    ],
    ids=["a source each", "gateways that count both", "one version", "one that was not read", "none"],
)
def test_only_versions_that_have_sources_of_their_own_are_read_apart(roles, seconds):
    """
    Two replicas of a gateway are scraped apart as well, but each counts both versions in the same span.
    """
    alignment = Alignment()
    pending = {"a": [1.0, 16.0], "b": [10.0, 25.0]}
    newest = {"a": 16.0, "b": 25.0}
    alignment.due(pending, newest, marks=pending, fresh=(), interval=15.0)
    assert alignment.apart(roles) == seconds
    alignment.begin()
    assert alignment.apart(roles) == 0.0
