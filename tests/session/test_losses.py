"""What an ending tells beside its verdict."""

import numpy as np

from canarykit.model import AT_LIMIT, TrafficSplit, Window
from canarykit.session.losses import Losses


def window(stable, canary, **how):
    """So many requests that the gateway ended, of ten of each version."""
    counts = {AT_LIMIT: np.array([[10 - stable, stable], [10 - canary, canary]])}
    return Window(0.0, 1.0, TrafficSplit(50), counts, **how)


def test_requests_that_the_gateway_ended_are_told():
    """
    Once while it goes on, and with all of them in the ending, whoever sent them and whenever.
    """
    losses = Losses(15.0)
    losses.take(window(0, 0))
    assert (losses.news(), losses.told({}, ())) == (None, [])
    losses.take(window(1, 0))
    assert (
        losses.news()
        == "504: the gateway's limit of 15 s ended 1 request; set timeout= of the cluster, as in LocalCluster(timeout=60)"
    )
    losses.take(window(0, 4, judged=False))
    assert losses.news() is None
    (said,) = losses.told({}, ())
    assert "limit of 15 s ended 5 requests" in said


def test_a_504_of_another_gateway_is_explained():
    """
    Its limit is not known here, and it most often has one.
    """
    assert "a gateway's 504 is most often its own time limit" in Losses().told({"gateway 504": 3}, ())[1]
    assert len(Losses().told({"gateway 503": 3}, ())) == 1


def test_a_limit_that_nobody_knows_is_told_without_its_seconds():
    """
    A gateway may say that it was its limit, and not which.
    """
    losses = Losses()
    losses.take(window(2, 0))
    assert "the gateway's time limit ended 2 requests" in losses.told({}, ())[0]
