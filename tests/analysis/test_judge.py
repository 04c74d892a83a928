"""Guardrails + evidence -> verdict."""

import math
from dataclasses import replace

import numpy as np
import pytest

import canarykit as ck
from canarykit.analysis import Judge, quantile_of
from canarykit.errors import PlanError, TelemetryError
from canarykit.model import TrafficSplit

ALL = [ck.metrics.error_rate(), ck.metrics.latency(0.95), ck.metrics.accuracy()]


def judged(windows, guardrails=None, **options):
    """Judgement of some windows."""
    judge = Judge(guardrails or ALL, **options)
    for window in windows:
        judge.update(window)
    return judge.judgement


def test_equal_versions_pass(window):
    """
    With enough requests, a canary that is no worse is shown to be no worse.
    """
    judgement = judged(window(at) for at in range(150))
    assert judgement.status == "pass"
    assert [verdict.status for verdict in judgement.verdicts] == ["pass"] * 3
    assert judgement.alarm is None
    assert "30,000 requests" in judgement.sentence


@pytest.mark.parametrize(
    ("bad", "guardrail"),
    [({"errors": (0.0, 0.05)}, "error rate"), ({"slower": 2.0}, "p95 latency"), ({"wrong": (0.1, 0.25)}, "accuracy")],
)
def test_each_kind_of_bad_canary_fails_by_its_guardrail(window, bad, guardrail):
    """
    Errors, slowness and wrong answers are each caught, and blamed on the right guardrail.
    """
    judgement = judged(window(at, **bad) for at in range(60))
    assert judgement.status == "fail"
    assert judgement.alarm.guardrail == guardrail
    assert guardrail in judgement.sentence
    assert next(v for v in judgement.verdicts if v.guardrail == guardrail).status == "fail"


def test_a_crossed_alarm_never_uncrosses(window):
    """
    It keeps its time and its request count, however good the canary is afterwards.
    """
    judge = Judge(ALL)
    at = 0
    while judge.calm:
        judge.update(window(at, errors=(0.0, 0.2)))
        at += 1
    alarm = judge.judgement.alarm
    for later in range(at, at + 300):
        judge.update(window(later, errors=(0.02, 0.0)))
    assert judge.judgement.alarm == alarm
    assert judge.judgement.status == "fail"
    assert alarm.time == at


def test_no_data_is_never_a_pass(window):
    """
    No window, no canary request, a table that no source delivers: each is "no data", with the reason.
    """
    assert judged([]).status == "no data"
    assert judged(window(at, weight=0) for at in range(50)).status == "no data"
    silent = [
        replace(w, counts={"outcome": w.counts["outcome"]}, note="no labels have arrived") for w in map(window, range(150))
    ]
    judgement = judged(silent)
    assert judgement.status == "no data"
    assert "accuracy: no labels have arrived" in judgement.sentence
    assert judged([window(0, requests=0)]).status == "no data"


@pytest.mark.parametrize(
    "table", [np.array([[1.0, np.nan], [1, 1]]), np.array([[1, -1], [1, 1]]), np.array([[1.5, 0], [1, 1]]), np.ones((2, 3))]
)
def test_counts_that_are_none_are_refused(window, table):
    """
    NaN, negative and fractional counts, and cells that changed, are an error and change nothing.
    """
    judge = Judge([ck.metrics.latency(), ck.metrics.error_rate()])
    judge.update(window(0))
    before = repr(judge.judgement)
    with pytest.raises(TelemetryError, match="error rate"):
        judge.update(replace(window(1), counts={**window(1).counts, "outcome": table}))
    assert repr(judge.judgement) == before


def test_a_single_idle_version_is_no_comparison(window):
    """
    Requests while all traffic is on one version count for neither.
    """
    windows = [window(at) for at in range(50)] + [window(at, weight=100, errors=(0, 0.5)) for at in range(50, 80)]
    judgement = judged(windows)
    assert judgement.alarm is None
    assert sum(judgement.verdicts[0].comparison.requests) == 50 * 200


def test_what_changes_over_time_is_no_difference(window):
    """
    Errors that rise for both versions while the weight rises neither alarm nor show in the levels.
    """
    windows = [window(at, weight=5, errors=(0.01, 0.01)) for at in range(100)]
    windows += [window(at, weight=50, errors=(0.10, 0.10)) for at in range(100, 200)]
    judgement = judged(windows, [ck.metrics.error_rate()])
    stable, canary = judgement.verdicts[0].comparison.levels
    assert judgement.alarm is None
    assert canary == pytest.approx(stable, rel=0.15)


def test_small_windows_are_merged_and_lose_nothing(window):
    """
    Windows of a few requests say the same as their sum, and never mix two weights.
    """
    judgement = judged((window(at, requests=5, errors=(0.0, 0.3)) for at in range(800)), [ck.metrics.error_rate()])
    assert judgement.status == "fail"
    comparison = judged([window(0, requests=12), window(1, weight=50, requests=12)]).verdicts[0].comparison
    assert comparison.log_e == 0.0


def test_a_rehearsal_alarms_no_more_often_than_promised(window):
    """
    The same version twice, three guardrails, a ramp of weights, looked at every second: at most α alarms.
    """
    runs = 200
    alarms = sum(
        judged(
            window(at, weight=weight, requests=100, errors=(0.01, 0.01))
            for step, weight in enumerate((5, 25, 50))
            for at in range(20 * step, 20 * step + 20)
        ).alarm
        is not None
        for _ in range(runs)
    )
    assert alarms / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_better_canary_never_worsens_the_verdict(window):
    """
    Fewer errors than stable pass no later than as many.
    """
    better = judged((window(at, errors=(0.03, 0.0)) for at in range(60)), [ck.metrics.error_rate()])
    assert better.status == "pass"
    assert better.verdicts[0].comparison.interval[1] < 1


def test_the_gate_of_a_guardrail_can_be_moved(window):
    """
    A slowdown of a third fails at the default and passes when ×1.5 is tolerated and ×2 is the margin.
    """
    windows = [window(at, slower=1.4) for at in range(150)]
    assert judged(windows, [ck.metrics.latency(0.95)]).status == "fail"
    assert judged(windows, [ck.metrics.latency(0.95, tolerate=1.5, margin=2.0)]).status == "pass"


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2])
def test_an_error_budget_is_a_probability(alpha):
    """
    α outside (0, 1) is refused.
    """
    with pytest.raises(PlanError, match="alpha"):
        Judge(ALL, alpha=alpha)


def test_quantile_of_a_histogram():
    """
    Log-linear inside its bucket, infinity beyond the last edge, NaN without requests.
    """
    edges = (1.0, 2.0, 4.0, math.inf)
    assert quantile_of(np.array([0, 10, 0, 0]), edges, 0.5) == pytest.approx(math.sqrt(2))
    assert quantile_of(np.array([0, 0, 0, 10]), edges, 0.5) == math.inf
    assert math.isnan(quantile_of(np.zeros(4), edges, 0.5))


def test_a_judgement_shows_itself_as_text_and_as_a_table(window):
    """
    In a terminal and in a notebook, with words beside symbols, and markup escaped.
    """
    judgement = judged(window(at) for at in range(3))
    assert str(judgement).startswith("inconclusive: ")
    html = judgement._repr_html_()
    assert html.count("<tr>") == 4
    assert "? inconclusive" in html
    assert "<script" not in replace(judgement, sentence="<script>")._repr_html_()


def test_windows_may_come_from_any_weight(window):
    """
    A weight of 0.1 % is a weight.
    """
    judgement = judged(replace(window(at, weight=0.5, requests=1000), split=TrafficSplit(0.5)) for at in range(5))
    assert judgement.status == "inconclusive"
