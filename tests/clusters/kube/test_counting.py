"""What is told when a pod's metrics page cannot be read."""

import json

import pytest

from canarykit.clusters.kube.counting import _page

FORBIDDEN = 'pods "digits-stable-1:8080" is forbidden: User "ci" cannot get resource "pods/proxy"'


class Client:
    """An API server that answers one thing."""

    def __init__(self, status, text):
        self._answer = status, text

    def through(self, pod, port, path):
        """Answer."""
        return self._answer


@pytest.mark.parametrize(
    ("status", "text", "says"),
    [
        (403, json.dumps({"kind": "Status", "message": FORBIDDEN}), f"answers 403: {FORBIDDEN}; deploy/rbac.yaml has the role"),
        (404, "no such page", "answers 404: no such page$"),
        (502, "[]", r"answers 502: \[\]$"),
        (500, "x" * 1000, "answers 500: x{200}$"),
    ],
)
def test_a_page_that_cannot_be_read_says_why_in_few_words(status, text, says):
    """
    In the API server's own words when it is the one who answers, and with what would help where that is known.
    """
    with pytest.raises(OSError, match=says):
        _page(Client(status, text), "digits-stable-1", 8080)
    assert _page(Client(200, text), "digits-stable-1", 8080) == text
