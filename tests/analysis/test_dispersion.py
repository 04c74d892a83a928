"""φ during a rollout: bursts are not bad versions."""

import math

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge
from canarykit.analysis.dispersion import DispersionEstimate
from canarykit.errors import PlanError
from canarykit.model import TrafficSplit, Window


def beta_binomial(rng, requests, share, phi):
    """Bad requests of one version in one window, φ times as varied as independent ones."""
    if phi > 1 and requests > 1:
        within = (phi - 1) / (requests - 1)
        share = rng.beta(share * (1 / within - 1), (1 - share) * (1 / within - 1))
    return int(rng.binomial(requests, share))


def rollout(rng, *, base=0.01, phi=1.0, worse=1.0, windows=90, requests=1000, tide=0.0):
    """Windows of ten seconds at 5, 25 and 50 %."""
    for at in range(windows):
        weight = (5, 25, 50)[3 * at // windows]
        canary = int(rng.binomial(requests, weight / 100))
        level = base * (1 + tide * math.sin(2 * math.pi * at / windows))
        rows = [(requests - canary, level), (canary, min(level * worse, 1.0))]
        bad = [beta_binomial(rng, n, p, phi) for n, p in rows]
        counts = {"outcome": np.array([[n - b, b] for (n, _), b in zip(rows, bad, strict=True)])}
        yield Window(10.0 * at, 10.0 * at + 10, TrafficSplit(weight), counts)


def alarms(runs, seed, *, dispersion=None, **drawn):
    """Share of rollouts in which the error rate alarms, as one of the default guardrails."""
    found = 0
    for run in range(runs):
        judge = Judge(ck.metrics.default(), dispersion=dispersion)
        for window in rollout(np.random.default_rng([seed, run]), **drawn):
            judge.update(window)
            if not judge.calm:
                break
        found += not judge.calm
    return found / runs


@pytest.mark.parametrize(("phi", "low", "high"), [(1.0, 1.0, 2.0), (3.0, 2.0, 8.0), (8.0, 5.0, 21.0)])
@pytest.mark.parametrize("tide", [0.0, 0.8], ids=["steady", "day curve"])
def test_the_estimate_finds_what_is_there(rng, phi, low, high, tide):
    """
    After 90 windows φ is known roughly; what changes slowly does not count.
    """
    estimate = DispersionEstimate()
    for window in rollout(rng, phi=phi, tide=tide):
        table = window.counts["outcome"]
        estimate.update(tuple(table[:, 1]), tuple(table.sum(axis=1)))
    assert low <= estimate.likely <= high


def test_nothing_known_is_cautious_in_blame_alone():
    """
    Before any window, blame takes 89 times the evidence; a pass, which takes hundreds of requests anyway, does not.
    """
    estimate = DispersionEstimate()
    assert estimate.cautious == 89
    assert estimate.likely == 1


def test_a_version_that_fails_every_request_does_so_evenly():
    """
    Nothing varies in a canary that always fails: a few windows are enough to know.
    """
    estimate = DispersionEstimate()
    for _ in range(6):
        estimate.update((0, 10), (90, 10))
    assert estimate.cautious == 1


def test_a_version_without_requests_says_nothing():
    """
    At 0 % only stable teaches; empty windows change nothing.
    """
    estimate = DispersionEstimate()
    for _ in range(50):
        estimate.update((0, 0), (0, 0))
    assert estimate.cautious == 89


def test_a_window_is_judged_by_what_was_known_before_it(rng):
    """
    The first window that compares uses what stable alone has shown before, and nothing of itself.
    """
    judge = Judge([ck.metrics.error_rate()])
    assert judge.comparisons[0].dispersion == 1
    judge.update(Window(0.0, 1.0, TrafficSplit(50), {"outcome": np.array([[400, 100], [100, 400]])}))
    assert judge.comparisons[0].dispersion == 89
    taught = Judge([ck.metrics.error_rate()])
    for at in range(40):
        bad = int(rng.binomial(1000, 0.05))
        taught.update(Window(float(at), at + 1.0, TrafficSplit(0), {"outcome": np.array([[1000 - bad, bad], [0, 0]])}))
    taught.update(Window(40.0, 41.0, TrafficSplit(50), {"outcome": np.array([[400, 100], [100, 400]])}))
    assert taught.comparisons[0].dispersion == 1
    assert taught.log_e == pytest.approx(89 * judge.log_e)


@pytest.mark.parametrize("base", [0.01, 0.1])
def test_bursts_do_not_blame_equal_versions(base):
    """
    With φ = 3 many equal canaries are blamed when φ is taken to be 1, and few when it is estimated.
    """
    runs = 200
    allowed = 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)
    assert alarms(runs, 1, base=base, phi=3.0, dispersion=1) > 0.13
    assert alarms(runs, 1, base=base, phi=3.0) <= allowed
    assert alarms(runs, 2, base=base, phi=1.0) <= allowed


def test_detection_costs_little_where_nothing_bursts():
    """
    Twice the errors are found in nearly all rollouts, with the estimate as without.
    """
    assert alarms(60, 3, worse=2.0) >= 0.95
    assert alarms(60, 3, worse=2.0, dispersion=1) >= 0.95


def test_a_rollout_can_be_told_how_much_counts_vary(simulated):
    """
    `Experiment(dispersion=…, split=…)` judges by it, and the journal says so.
    """
    exp = simulated("same", dispersion=4.0, split="known")
    exp.shift(50)
    exp.observe("20s")
    verdict = exp.judge().verdicts[0]
    assert verdict.comparison.dispersion == 4.0
    history = exp.history()
    assert history.facts["dispersion"] == 4.0
    assert history.facts["split"] == "known"
    assert history.judgement.verdicts[0].comparison == verdict.comparison
    shown = history.method().set_index("what").loc["variation (φ, as stated)", "value"]
    assert "error rate 4 (an alarm takes 4)" in shown


@pytest.mark.parametrize("options", [{"split": "mirrored"}, {"split": "none"}, {"dispersion": math.nan}, {"dispersion": 0}])
def test_what_cannot_be_judged_by_is_refused(service, options):
    """
    A split that an experiment does not have, and a dispersion that is none, are refused with a reason.
    """
    with pytest.raises(PlanError, match=r"split|dispersion"):
        ck.Experiment(service, "simulated", **options)


def test_nothing_is_said_of_bursts_where_nothing_was_bad(simulated):
    """
    Without a bad request φ is not known, and the report says so instead of a number.
    """
    exp = simulated("good", guardrails=[ck.metrics.error_rate()])
    exp.shift(50)
    exp.observe("20s")
    shown = exp.history().method().set_index("what").loc["variation (φ, estimated)", "value"]
    assert shown == "not known: too few bad requests"
    assert math.isnan(exp.judge().verdicts[0].comparison.likely_dispersion)


def test_bursts_that_last_ten_windows_are_seen():
    """
    A look every second and bursts of ten seconds: successive windows look alike, and blocks of ten do not.
    """
    estimate, rng = DispersionEstimate(), np.random.default_rng(5)
    for window in rollout(rng, base=0.1, phi=6.0):
        parts = [rng.multivariate_hypergeometric(row, int(row.sum()) // 10) for row in window.counts["outcome"]]
        for _ in range(10):
            estimate.update(tuple(int(part[1]) for part in parts), tuple(int(part.sum()) for part in parts))
    assert estimate.likely >= 3


def replicas(rng, *, phi, count=4, requests=250, share=0.05):
    """Bad and all requests of each of stable's replicas in one window; each has a rate of its own when φ is above 1."""
    return {f"stable-{number}": (beta_binomial(rng, requests, share, phi), requests) for number in range(count)}


@pytest.mark.parametrize(("phi", "low", "high"), [(1.0, 1.0, 1.0), (5.0, 3.0, 13.0)])
def test_replicas_teach_what_few_windows_cannot(phi, low, high):
    """
    Six windows say little of a version's bursts, and more when each of its replicas has bursts of its own.
    """
    likely = []
    for seed in range(20):
        estimate, rng = DispersionEstimate(), np.random.default_rng([seed, 8])
        for _ in range(6):
            served = replicas(rng, phi=phi)
            bad, requests = (sum(part) for part in zip(*served.values(), strict=True))
            canary = int(rng.binomial(50, 0.05))
            estimate.update((bad, canary), (requests, 50), served)
        likely.append(estimate.likely)
    assert low <= np.median(likely) <= high


@pytest.mark.parametrize(
    "served",
    [
        {},
        {"stable-0": (50, 1000)},
        {"stable-0": (50, 1000), "stable-1": (0, 0)},
        {"stable-0": (0, 0), "stable-1": (0, 0)},
        {"stable-0": (9, 9), "stable-1": (9, 9)},
    ],
    ids=["none", "one", "one that had no request", "two that had no request", "two that fail everything"],
)
def test_replicas_that_cannot_be_compared_say_nothing(served):
    """
    There is nothing to compare one replica with, and nothing varies where every request fails.
    """
    without, given = DispersionEstimate(), DispersionEstimate()
    for _ in range(10):
        without.update((50, 5), (1000, 100))
        given.update((50, 5), (1000, 100), served)
    assert (given.cautious, given.likely) == (without.cautious, without.likely)


def test_only_replicas_of_stable_count():
    """
    A canary that breaks one of its replicas for a while is a bad canary, and no reason for patience.
    """
    judges = {who: Judge([ck.metrics.error_rate()]) for who in ("stable", "canary", "nobody")}
    rng = np.random.default_rng(2)
    for at in range(20):
        bad = [rng.binomial(250, share) for share in (0.002, 0.1)]
        table = np.array([[475, 25], [475, 25]])
        for who, judge in judges.items():
            cells = {f"{who}-{number}": np.array([250 - count, count]) for number, count in enumerate(bad)}
            judge.update(Window(float(at), at + 1.0, TrafficSplit(50), {"outcome": table}, {"outcome": cells}))
    dispersion = {who: judge.comparisons[0].dispersion for who, judge in judges.items()}
    assert dispersion["stable"] > 3
    assert dispersion["canary"] == dispersion["nobody"] == 1
