"""What a status says about a request."""

import pytest

from canarykit.statuses import kind_of, kind_of_grpc


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ((200, 201, 204, 206, 304), "ok"),
        ((301, 302, 303, 307, 308, 400, 404, 405, 408, 409, 411, 413, 415, 422, 431), "refused"),
        ((401, 403, 407, 429), "denied"),
        ((0, 499, 500, 501, 502, 503, 504, 599), "failed"),
    ],
)
def test_http(codes, kind):
    """Each status is of one kind."""
    assert {kind_of(code) for code in codes} == {kind}


@pytest.mark.parametrize(
    ("codes", "kind"),
    [((0,), "ok"), ((3, 5, 6, 9, 10, 11), "refused"), ((7, 8, 16), "denied"), ((1, 2, 4, 12, 13, 14, 15, -1, 17), "failed")],
)
def test_grpc(codes, kind):
    """Statuses that are the server's fault are failures, although HTTP says 200."""
    assert {kind_of_grpc(code) for code in codes} == {kind}
