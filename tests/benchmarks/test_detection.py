"""The short gate: false alarms and ratios to the bound on fixed seeds, and the peers' documented behaviour."""

import math
import multiprocessing
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from canarykit.teaching import peers

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import detection


@pytest.fixture(scope="module")
def pool():
    """Two processes and more, where there are."""
    with multiprocessing.Pool(os.cpu_count()) as started:
        yield started


@pytest.mark.parametrize(
    ("case", "setting", "most"),
    [
        (1, "20 %", 1.3),
        (1, "5 → 20 → 50 %, drifting", 1.25),
        (3, "20 %, drifting", 1.25),
        (4, "20 %", 2.1),
        (5, "20 %, drifting", 2.2),
    ],
    ids=["errors", "errors, ramp", "accuracy, drift", "latency", "latency tail, drift"],
)
def test_the_gate(pool, case, setting, most):
    """
    200 rollouts of equal versions and 100 of a bad canary: at most 8 % false alarms, and hardly more requests than today.

    What so few runs can notify: a method that blames 5 % of good canaries passes in 98 of 100 sets of seeds, one that blames
    12 % fails in 95, and one that blames 8 % in 43. The median of 100 rollouts has a standard error of 6 to 7 %, so each
    limit is some 12 % above what is measured; the aims of docs/measured.md are held by the whole benchmark.
    """
    (found,) = detection.measure(pool, [detection.CASES[case]], [setting], 100, 200, (detection.KIT,))
    assert found["false"] <= 0.08
    assert found["ratio"] <= most


def test_the_bound_of_a_steady_rollout_is_the_published_one():
    """
    Errors 1 → 2 % at 20 %: 5,053 requests; with a moving weight the information adds up.
    """
    assert detection.needed(detection.CASES[1], "20 %") == pytest.approx(5053.157, rel=1e-3)
    ramp = detection.needed(detection.CASES[1], "5 → 20 → 50 %, drifting")
    assert 10_000 < ramp < detection.needed(detection.CASES[1], "5 %")


@pytest.mark.parametrize("case", detection.CASES, ids=lambda case: case.name)
def test_what_is_simulated_is_what_the_bound_is_of(case):
    """
    The empirical shares of the cells of both versions agree with the law.
    """
    tables = sum(detection.simulate(case, "50 %", True, seed).tables.sum(axis=0) for seed in range(3))
    for version in (0, 1):
        seen, law = tables[version] / tables[version].sum(), detection.law(case, version)
        assert np.abs(seen - law).sum() < 0.05
        assert law.sum() == pytest.approx(1)


def test_the_tail_is_twice_as_slow_at_p99_and_as_it_was_below_p95():
    """
    The case does what its name says.
    """
    case = detection.CASES[5]
    stable, canary = (np.cumsum(detection.law(case, version)) for version in (0, 1))
    at = [float(np.exp(np.interp(0.99, cumulative[:-1], np.log(detection.EDGES[:-1])))) for cumulative in (stable, canary)]
    assert at[1] / at[0] == pytest.approx(2, rel=0.05)
    below = stable < 0.94
    assert canary[below] == pytest.approx(stable[below])


@pytest.mark.parametrize(("kind", "published"), [("pocock", 2.270), ("obrien-fleming", 1.801)])
def test_group_sequential_constants_are_the_published_ones(kind, published):
    """
    Jennison and Turnbull (2000), ten looks, 10 % two-sided, which is 5 % for one side.
    """
    assert peers.boundary(kind) == pytest.approx(published, abs=0.01)


def served(stable, canary, *, windows=100, threshold=0.015, values=None):
    """A rollout that served exactly these shares of events: 80 and 20 requests a window."""
    requests = np.tile([800, 200], (windows, 1))
    events = np.stack([np.round(requests[:, 0] * stable), np.round(requests[:, 1] * canary)], axis=1)
    shown = np.tile([stable, canary], (windows // peers.INTERVAL, 1)) if values is None else values
    return peers.Served(requests, events, shown, threshold, 0.01)


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_find_what_is_plainly_bad_and_leave_what_is_equal(name):
    """
    Ten times the errors alarm; exactly the same share does not.
    """
    noise = np.random.default_rng(0).normal(0, 1e-4, (10, 2))
    bad = served(0.01, 0.1, values=np.tile([0.01, 0.1], (10, 1)) + noise)
    assert peers.PEERS[name](bad) < math.inf
    assert peers.PEERS[name](served(0.01, 0.01, values=np.tile([0.01, 0.01], (10, 1)))) == math.inf


def test_flagger_rolls_back_at_the_fifth_failed_check_and_argo_at_the_fourth():
    """
    Their documented counts; a check without data fails in neither.
    """
    values = np.full((10, 2), 0.01)
    values[[1, 3, 5, 7, 8], 1] = 0.02
    values[0, 1] = np.nan
    rollout = served(0.01, 0.01, values=values)
    per_interval = 1000 * peers.INTERVAL
    assert peers.flagger(rollout) == 9 * per_interval
    assert peers.argo(rollout) == 8 * per_interval
    values[8, 1] = 0.01
    assert peers.flagger(served(0.01, 0.01, values=values)) == math.inf


def test_msprt_follows_its_formula():
    """
    One look by hand: the normal mixture with the effect as its width.
    """
    rollout = served(0.01, 0.03, windows=1)
    n, e = np.array([800.0, 200.0]), np.array([8.0, 6.0])
    p = e.sum() / n.sum()
    variance, tau, difference = p * (1 - p) * (1 / n).sum(), 0.01**2, e[1] / n[1] - e[0] / n[0]
    by_hand = math.sqrt(variance / (variance + tau)) * math.exp(tau * difference**2 / (2 * variance * (variance + tau)))
    assert (peers.msprt(rollout) < math.inf) is (by_hand >= 20)


def test_peeking_breaks_a_p_value():
    """
    The reason for all this: a z-test at every interval blames far more than 5 % of equal canaries.
    """
    case = detection.CASES[1]
    found = [peers.peeking_z(detection.simulate(case, "20 %", False, seed).served) for seed in range(100)]
    assert np.isfinite(found).mean() > 0.15


def test_tables_and_picture(tmp_path):
    """
    The report has a row per method, and says what is never found.
    """
    rows = [
        {
            "case": case,
            "setting": "20 %",
            "method": method,
            "median": median,
            "ratio": median / 5000,
            "false": 0.03,
            "bound": 5e3,
        }
        for case in detection.CASES[1:5:3]
        for method, median in ((detection.KIT, 6000.0), ("Kayenta's Mann-Whitney", math.inf))
    ]
    text = detection.table(rows, detection.SETTINGS)
    assert "| errors 1 → 2 % | this kit | – | 6,000 (1.20×), 3.0 % |" in text and "not in most" in text
    assert "| Kayenta's Mann-Whitney | never | never | 3.0 to 3.0 % |" in detection.summary(rows)
    detection.picture(rows, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
