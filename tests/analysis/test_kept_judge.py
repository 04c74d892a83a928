"""A judge that was kept as text goes on as if nothing had happened."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canarykit import metrics
from canarykit.analysis import Judge
from canarykit.model import TrafficSplit, Window

EDGES = tuple(0.01 * 2 ** (i / 2) for i in range(12)) + (math.inf,)
FAMILIES = {
    "default": metrics.default,
    "answers": lambda: (metrics.error_rate(ceiling=None), metrics.accuracy(), metrics.classes("digit", ("0", "1", "2"))),
    "scores": lambda: (metrics.score("confidence", (0.0, 0.5, 1.0)), metrics.latency(0.9, tolerate=1.0, mde=1.3)),
}


def window(rng, at, weight, worse):
    """Counts of every table, of replicas, too; now and then none of the canary's."""
    stable, canary = int(rng.integers(20, 200)), int(rng.integers(0, 40))
    bad = [int(rng.binomial(n, min(rate, 1.0))) for n, rate in ((stable, 0.03), (canary, 0.03 * worse))]
    outcome = np.array([[stable - bad[0], bad[0]], [canary - bad[1], bad[1]]])
    draw = lambda cells: np.array([rng.multinomial(n, np.full(cells, 1 / cells)) for n in (stable, canary)])  # noqa: E731
    counts = {"outcome": outcome, "answers": outcome, "refused": outcome, "denied": outcome}
    counts |= {"latency": draw(len(metrics.LATENCY_EDGES)), "digit": draw(3), "confidence": draw(3)}
    replicas = {f"stable-{n}": np.array([5, int(rng.integers(0, 2))]) for n in range(2)}
    return Window(float(at), at + 1.0, TrafficSplit(weight), counts, {"outcome": replicas})


@pytest.mark.parametrize("family", FAMILIES)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 25), worse=st.sampled_from([0.0, 1.0, 4.0, 30.0]))
@settings(max_examples=12)
def test_a_judge_that_was_kept_goes_on_to_the_last_digit(family, seed, cut, worse):
    """
    All windows in one judge, or some in it and the others in one restored from text: the same judgement.
    """
    rng, make = np.random.default_rng(seed), FAMILIES[family]
    windows = [window(rng, at, 5.0 if at < 12 else 50.0, worse) for at in range(26)]
    whole, first = Judge(make()), Judge(make())
    for each in windows:
        whole.update(each)
    for each in windows[:cut]:
        first.update(each)
    kept = json.loads(json.dumps(first.state(), allow_nan=False))
    second = Judge(make()).restore(kept)
    assert repr(second.judgement) == repr(first.judgement)
    for each in windows[cut:]:
        second.update(each)
    assert repr(second.judgement) == repr(whole.judgement)
    assert repr(second.still_needed) == repr(whole.still_needed)
    assert all(np.array_equal(one, other) for one, other in zip(second.compared, whole.compared, strict=True))
    assert second.state() == whole.state()


def test_a_failure_that_was_kept_stays():
    """
    A guardrail that alarmed before still fails, with the alarm's own time.
    """
    rng = np.random.default_rng(3)
    judge = Judge((metrics.error_rate(),))
    for at in range(40):
        judge.update(window(rng, at, 50.0, 30.0))
    assert judge.judgement.alarm is not None
    other = Judge((metrics.error_rate(),)).restore(json.loads(json.dumps(judge.state(), allow_nan=False)))
    assert other.judgement.alarm == judge.judgement.alarm
    assert not other.calm


@pytest.mark.parametrize(
    "other",
    [
        Judge((metrics.error_rate(), metrics.latency())),
        Judge((metrics.refused(),)),  # a table of the same shape
        Judge((metrics.error_rate(margin=2.0),)),
        Judge((metrics.error_rate(),), alpha=0.01),
        Judge((metrics.error_rate(),), split="known"),
        Judge((metrics.error_rate(),), dispersion=1.0),
    ],
    ids=["more guardrails", "another table", "margin", "alpha", "split", "dispersion"],
)
def test_the_state_of_another_question_is_refused(other):
    """
    Evidence of another question is never taken for one's own, whatever its shape.
    """
    with pytest.raises(ValueError, match="other guardrails or other options"):
        other.restore(Judge((metrics.error_rate(),)).state())


@pytest.mark.parametrize("harm", ["no failures", "no counts", "NaN in an array", "NaN for a number", "another failure"])
def test_a_state_that_was_harmed_is_refused(harm):
    """
    An alarm that is missing, or evidence that is NaN, would let a bad canary pass: neither is taken.
    """
    state = json.loads(json.dumps(Judge((metrics.error_rate(),)).state()))
    if harm == "no failures":
        del state["failures"]
    elif harm == "no counts":
        del state["monitors"][0]["totals"]
    elif harm == "NaN in an array":
        state["monitors"][0]["question"]["rate"]["wealth"][5] = "nan"
    elif harm == "NaN for a number":
        state["monitors"][0]["dispersion"] = "nan"
    else:
        state["failures"] = [{"alarm": {}}]
    with pytest.raises(ValueError, match=r"has no|NaN|failures"):
        Judge((metrics.error_rate(),)).restore(state)
