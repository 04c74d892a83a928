"""Made-up traffic and its pictures: what a lesson claims must be so."""

import math

import numpy as np
import pytest

from canarykit.errors import PlanError
from canarykit.teaching import lessons


def test_made_up_traffic_has_the_shares_that_were_asked_for():
    """
    Both shares, the weight and the number of requests; the same seed serves the same.
    """
    served = lessons.made_up(0.02, 0.06, weight=25, requests=400_000, seed=3)
    n, bad = served.requests.sum(axis=0), served.events.sum(axis=0)
    assert n.sum() == 400_000 and n[1] / n.sum() == pytest.approx(0.25, abs=0.005)
    assert bad / n == pytest.approx([0.02, 0.06], rel=0.06)
    assert served.threshold == pytest.approx(0.04)
    assert (served.events == lessons.made_up(0.02, 0.06, weight=25, requests=400_000, seed=3).events).all()
    with pytest.raises(PlanError, match="between 0 and 1"):
        lessons.made_up(0.0, 0.5)


def test_looking_often_fools_a_p_value_and_not_the_evidence():
    """
    Forty equal rollouts, each looked at two hundred times.
    """
    table = lessons.looks(0.01, 0.01, runs=40)
    assert len(table) == 40 * 200 and table["p"].between(0, 1).all()
    per_run = table.groupby("run")
    assert (per_run["p"].min() < 0.05).mean() > 0.2
    assert (per_run["e"].max() >= 20).mean() <= 0.1
    chart = lessons.picture_of_looks(table)
    assert "40 rollouts" in chart.alt and chart.png().startswith(b"\x89PNG")
    left, right = chart.figure.axes
    assert len(left.lines) == len(right.lines) == 41  # and the line of the alarm


def test_the_race_has_every_method_on_the_same_traffic():
    """
    Everybody sees both arms; who finds nothing has an infinite median, and the picture says so.
    """
    table = lessons.race(0.01, 0.02, runs=10, requests=20_000)
    assert table.index[0] == "this kit" and len(table) == 9
    assert table[["blamed", "found"]].to_numpy().min() >= 0
    assert table.loc["this kit", "found"] >= 0.8
    table.loc["Kayenta's Mann-Whitney", "median"] = math.inf
    chart = lessons.picture_of_race(table)
    texts = [text.get_text() for ax in chart.figure.axes for text in ax.texts]
    assert " not in most" in texts
    assert len(texts) == 18


def test_windows_feed_a_judge():
    """
    A made-up rollout is judged like any other.
    """
    windows = list(lessons.windows(0.01, 0.01, count=20, weight=10))
    assert len(windows) == 20
    assert np.sum([window.requests for window in windows]) == 2000
    assert {window.split.canary for window in windows} == {10}
