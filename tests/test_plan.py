"""A plan that cannot be done is refused, with the place and the reason."""

import pytest

import canarykit as ck
from canarykit.errors import PlanError
from canarykit.plan import seconds


@pytest.mark.parametrize(
    ("text", "value"), [(90, 90), ("90s", 90), ("2min", 120), ("1.5 h", 5400), ("250ms", 0.25), ("1d", 86400)]
)
def test_durations_have_units(text, value):
    """
    Durations are seconds, or text with a unit.
    """
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "-1s", "2 fortnights", "nan", None, "1.2.3"])
def test_what_is_no_duration_is_refused(text):
    """
    Anything else is refused.
    """
    with pytest.raises(PlanError, match="a duration is"):
        seconds(text)


def test_a_plan_reads_as_written():
    """
    Steps share their hold; the rest has defaults.
    """
    plan = ck.RolloutPlan.of(5, 25, 50, hold="2min", budget="1h")
    assert [(step.weight, step.hold) for step in plan.steps] == [(5, 120), (25, 120), (50, 120)]
    assert plan.budget == 3600


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: ck.RolloutPlan.of(), "steps"),
        (lambda: ck.RolloutPlan.of(25, 5), "weights must rise"),
        (lambda: ck.RolloutPlan.of(5, 5), "weights must rise"),
        (lambda: ck.RolloutPlan.of(0, 5), "steps.0.weight"),
        (lambda: ck.RolloutPlan.of(5, 101), "steps.1.weight"),
        (lambda: ck.RolloutPlan.of(5, budgt="1h"), "budgt"),
        (lambda: ck.RolloutPlan.of(5, interval=0.01), "interval"),
        (lambda: ck.RolloutPlan.of(5, min_requests=0), "min_requests"),
    ],
)
def test_plans_that_cannot_be_done_say_where(make, complaint):
    """
    The message names the field.
    """
    with pytest.raises(PlanError, match=complaint):
        make()


def test_a_plan_comes_from_yaml(tmp_path):
    """
    From a file or from text; what is not a plan is refused with its name.
    """
    text = "steps:\n- {weight: 0.5, hold: 1min}\n- {weight: 10, min_requests: 500}\non_inconclusive: hold\n"
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    assert ck.RolloutPlan.from_yaml(path) == ck.RolloutPlan.from_yaml(text)
    path.write_text("- 5\n")
    with pytest.raises(PlanError, match="a plan is a mapping"):
        ck.RolloutPlan.from_yaml(path)
    with pytest.raises(PlanError, match=r"cannot read a plan from .*missing\.yaml"):
        ck.RolloutPlan.from_yaml(tmp_path / "missing.yaml")
    with pytest.raises(PlanError, match="cannot read a plan"):
        ck.RolloutPlan.from_yaml("steps: [\n}")
