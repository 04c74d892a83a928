"""Kayenta's verdicts on cases made from its published rules."""

import json

import numpy as np
import pytest
import yaml
from scipy.stats import mannwhitneyu

from canarykit.compat.kayenta import judge
from canarykit.compat.ranks import common_language_effect, mann_whitney
from canarykit.errors import PlanError

LOW, HIGH = [10.0, 11, 12, 13, 14, 15, 16, 17, 18, 19], [30.0, 31, 32, 33, 34, 35, 36, 37, 38, 39]
NAN = float("nan")


THRESHOLDS = {"scoreThresholds": {"pass": 75, "marginal": 50}}


def config(classifier=None, **metrics):
    """A canary configuration: metric -> its rules, with `groups` among them; with thresholds of 75 and 50."""
    listed = []
    for name, rules in metrics.items():
        rules = dict(rules)
        groups = rules.pop("groups", ["all"])
        listed.append({"name": name, "groups": groups, "analysisConfigurations": {"canary": rules}})
    return {"metrics": listed, "classifier": THRESHOLDS | (classifier or {})}


def one(rules, stable, canary, **options):
    """Judge a single metric; return its result."""
    return judge(config(m=rules), {"m": stable}, {"m": canary}, **options).metrics["m"]


@pytest.mark.parametrize(
    ("direction", "stable", "canary", "word"),
    [
        ("increase", LOW, HIGH, "High"),
        ("increase", HIGH, LOW, "Pass"),
        ("decrease", HIGH, LOW, "Low"),
        ("decrease", LOW, HIGH, "Pass"),
        ("either", LOW, HIGH, "High"),
        ("either", HIGH, LOW, "Low"),
        ("either", LOW, list(reversed(LOW)), "Pass"),  # identical, in another order
        ("either", LOW, [value + 0.5 for value in LOW], "Pass"),  # too little to show
        ("either", [5.0] * 6, [5.0] * 9, "Pass"),  # one value in all
        ("either", [5.0] * 6, [6.0] * 6, "High"),  # constant on both sides
        ("either", [6.0] * 6, [5.0] * 6, "Low"),
        ("either", [0.0] * 6, [5.0] * 6, "High"),
        ("either", [5.0], [6.0], "Error"),  # one against one: all values are tied
        ("either", [1.0, 1, 1, 2, 2, 2, 2, 2], [2.0, 2, 2, 2, 2, 2, 2, 3], "Pass"),  # many ties
    ],
)
def test_a_metric_is_classified_by_direction(direction, stable, canary, word):
    """
    High and Low need a shift in a direction that is asked about; ties and constants are handled.
    """
    assert one({"direction": direction}, stable, canary).classification == word


@pytest.mark.parametrize(
    ("rules", "stable", "canary", "word", "critical"),
    [
        ({}, [], LOW, "Nodata", False),
        ({}, LOW, [NAN] * 4, "Nodata", False),
        ({"critical": True}, LOW, [], "Nodata", True),
        ({"mustHaveData": True}, LOW, [], "NodataFailMetric", False),
        ({"mustHaveData": True, "critical": True}, LOW, [], "Nodata", True),
        ({"nanStrategy": "replace"}, LOW, [], "Pass", False),
        ({"nanStrategy": "replace"}, [NAN] * 5, [NAN] * 5, "Pass", False),
        ({"nanStrategy": "replace", "critical": True}, [NAN] * 10, HIGH, "High", True),  # the ratio is undefined
        ({"nanStrategy": "remove"}, [*LOW, NAN], [NAN, *HIGH], "High", False),
    ],
)
def test_missing_data(rules, stable, canary, word, critical):
    """
    NaN is removed or becomes zero; silence is Nodata, and fails only what must have data or is critical.
    """
    result = one(rules, stable, canary)
    assert (result.classification, result.critical) == (word, critical)


@pytest.mark.parametrize(
    ("sizes", "word", "critical"),
    [
        ({}, "High", True),
        ({"allowedIncrease": 2.3}, "High", True),
        ({"allowedIncrease": 2.5}, "Pass", False),  # the mean ratio is 2.38
        ({"criticalIncrease": 2.5}, "High", False),
        ({"measure": "cles", "allowedIncrease": 0.9}, "High", True),
        ({"measure": "cles", "allowedIncrease": 1.1}, "Pass", False),
        ({"measure": "cles", "criticalIncrease": 1.1}, "High", False),
    ],
)
def test_effect_sizes_are_a_second_gate(sizes, word, critical):
    """
    A shown shift counts only from the allowed size on, and is critical only from the critical one on.
    """
    result = one({"critical": True, "effectSize": sizes}, LOW, HIGH)
    assert (result.classification, result.critical) == (word, critical)


def test_effect_sizes_downwards():
    """
    A decrease counts when the ratio is at most what is allowed.
    """
    assert one({"effectSize": {"allowedDecrease": 0.5}}, HIGH, LOW).classification == "Low"
    assert one({"effectSize": {"allowedDecrease": 0.3}}, HIGH, LOW).classification == "Pass"


def test_outliers_are_removed_when_asked():
    """
    One wild value hides nothing once outliers are removed; without the strategy all values stay.
    """
    wild = [*LOW * 20, 5000.0]
    kept = one({"effectSize": {"allowedIncrease": 2.0}}, wild, HIGH)
    removed = one({"outliers": {"strategy": "remove"}, "effectSize": {"allowedIncrease": 2.0}}, wild, HIGH)
    assert (kept.classification, removed.classification) == ("Pass", "High")


def test_tolerance_and_confidence_are_options():
    """
    What Kayenta hard-codes can be set: a wide tolerance asks for more than the data shows.
    """
    shifted = [value + 6 for value in LOW]
    assert one({}, LOW, shifted).classification == "High"
    assert one({}, LOW, shifted, tolerance=0.9).classification == "Pass"
    assert one({}, LOW, shifted, confidence=0.999999).classification == "Pass"
    with pytest.raises(PlanError, match="confidence"):
        one({}, LOW, shifted, confidence=98)


def test_scores_are_weighted_sums_of_groups():
    """
    Groups without a weight share what is left; the summary is compared with both thresholds.
    """
    rules = {"a": {"groups": ["speed"]}, "b": {"groups": ["speed"]}, "c": {"groups": ["errors"]}, "d": {"groups": ["rest"]}}
    stable = dict.fromkeys("abcd", LOW)
    canary = stable | {"a": HIGH}
    found = judge(config({"groupWeights": {"speed": 60}}, **rules), stable, canary)
    assert found.groups == {"speed": 50, "errors": 100, "rest": 100}
    assert (found.score, found.classification) == (70, "Marginal")
    stricter = {"groupWeights": {"speed": 60}, "scoreThresholds": {"pass": 95, "marginal": 75}}
    assert judge(config(stricter, **rules), stable, canary).classification == "Fail"
    assert judge(config({"groupWeights": {"speed": 20}}, **rules), stable, canary).score == 90


def test_a_critical_failure_is_zero():
    """
    Group scores stay as they are, the summary is 0 with its reason.
    """
    rules = {"a": {"critical": True}, "b": {}, "c": {}}
    found = judge(config(None, **rules), dict.fromkeys("abc", LOW), {"a": HIGH, "b": LOW, "c": LOW})
    assert found.score == 0 and found.classification == "Fail" and "critical metric a" in found.reason
    assert found.groups["all"] == pytest.approx(200 / 3)


def test_too_much_silence_is_zero():
    """
    Half of the metrics without data fail the canary; fewer count neither way.
    """
    rules = {name: {} for name in "abcd"}
    stable = dict.fromkeys("abcd", LOW)
    two = {"a": LOW, "b": HIGH}
    assert judge(config(None, **rules), stable, two).score == 0
    assert judge(config(None, **rules), stable, two | {"c": LOW}).score == pytest.approx(66.67)
    required = {name: {"mustHaveData": True} for name in "abcd"}
    assert judge(config(None, **required), stable, two | {"c": LOW}).score == 50


def test_an_error_counts_neither_way_and_muted_metrics_not_at_all():
    """
    Kayenta's habit, kept: a configuration whose only metric errs scores 100.
    """
    found = judge(config(m={}), {"m": [5.0]}, {"m": [6.0]})
    assert (found.metrics["m"].classification, found.score, found.classification) == ("Error", 100, "Pass")
    muted = judge(config(m={"muted": True, "critical": True}, n={}), {"m": LOW, "n": LOW}, {"m": HIGH, "n": LOW})
    assert (muted.metrics["m"].classification, muted.score) == ("High", 100)
    assert judge(config(m={"groups": []}), {"m": LOW}, {"m": LOW}).reason


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "neither JSON nor YAML"),
        ("hello", "list of metrics"),
        ("[]", "list of metrics"),
        ({"metrics": []}, "list of metrics"),
        ({"metrics": [{"groups": ["x"]}]}, "metric 1 .* no name"),
        (config(m={"direction": "up"}), "metric m: direction must be one of"),
        (config(m={"nanStrategy": "guess"}), "nanStrategy"),
        (config(m={"effectSize": {"measure": "cohen"}}), "measure"),
        (config(m={"effectSize": {"allowedIncrease": "much"}}), "numbers"),
        (config({"groupWeights": {"g": "half"}}, m={}), "groupWeights"),
        (config(other={}), "no metric m; it has other"),
    ],
)
def test_a_configuration_that_is_none(written, said):
    """
    The error says what is wrong, and where.
    """
    with pytest.raises(PlanError, match=said):
        judge(written, {"m": LOW}, {"m": LOW})


def test_text_and_plain_data_go_in_and_out():
    """
    JSON in, JSON out, and words for people.
    """
    found = judge(json.dumps(config(m={})), {"m": LOW}, {"m": HIGH})
    assert found.as_json()["metrics"]["m"]["classification"] == "High"
    assert "m: High: shift of 20" in str(found) and "<li>" in found._repr_html_()


def test_the_interval_is_where_the_test_turns():
    """
    A peer's test of the shifted samples has the level's p-value at both ends of the interval.
    """
    rng = np.random.default_rng(3)
    x, y = rng.normal(1, 1, 40), rng.normal(0, 1, 50)
    low, high, estimate = mann_whitney(x, y, confidence=0.98)
    assert low < estimate < high
    assert estimate == pytest.approx(np.median(x[:, None] - y), abs=0.02)
    for end in (low, high):
        p = [mannwhitneyu(x - end - nudge, y, method="asymptotic").pvalue for nudge in (-0.02, 0.02)]
        assert min(p) < 0.02 < max(p)
    assert common_language_effect(x, y) == pytest.approx(mannwhitneyu(x, y).statistic / (40 * 50))


FIELD = {
    "metrics": [
        {"name": "errors", "groups": ["err"], "analysisConfigurations": {"canary": {"direction": "increase"}}},
        {"name": "time", "groups": ["app"], "analysisConfigurations": {"canary": {"direction": "increase"}}},
    ],
    "classifier": {"groupWeights": {"err": 70.0, "app": 30.0}},
}
STABLE = {"errors": [1, 1, 2, 1, 1, 2, 1, 1], "time": [1, 2] * 4}
SLOW = {"errors": [1, 1, 2, 1, 1, 2, 1, 1], "time": [9, 8] * 4}
STRICT = {"pass": 95, "marginal": 75}


@pytest.mark.parametrize(
    "request_",
    [
        {"canaryConfig": FIELD, "executionRequest": {"thresholds": STRICT, "scopes": {"default": {"controlScope": {}}}}},
        {"canaryConfig": FIELD, "executionRequest": {"thresholds": {"pass": "95", "marginal": "75"}}},
        {"type": "kayentaCanary", "canaryConfig": FIELD | {"scoreThresholds": {"pass": "95", "marginal": "75"}, "scopes": []}},
        {"config": FIELD, "canaryExecutionRequest": {"thresholds": STRICT}, "status": "succeeded"},
        FIELD | {"classifier": FIELD["classifier"] | {"scoreThresholds": STRICT}},
        {
            "canaryConfig": FIELD | {"classifier": FIELD["classifier"] | {"scoreThresholds": {"pass": 60, "marginal": 10}}},
            "executionRequest": {"thresholds": STRICT},
        },
    ],
)
def test_thresholds_stand_where_kayenta_finds_them(request_):
    """
    The field's case: in the request, a stage of Spinnaker, the answer about an execution, or the configuration, in this
    order. A score of 70 fails at 95 and 75.
    """
    for written in (request_, json.dumps(request_), json.dumps(request_, indent="\t"), yaml.safe_dump(request_)):
        found = judge(written, STABLE, SLOW)
        assert (found.score, found.classification) == (70, "Fail")


def test_thresholds_may_be_said_and_win():
    """
    Whatever the file says, each for itself.
    """
    asked = {"canaryConfig": FIELD, "executionRequest": {"thresholds": STRICT}}
    assert judge(FIELD, STABLE, SLOW, pass_at=95, marginal_at=70).classification == "Marginal"
    assert judge(asked, STABLE, SLOW, pass_at=75, marginal_at=50).classification == "Marginal"
    assert judge(asked, STABLE, SLOW, marginal_at=60).classification == "Marginal"
    assert judge(asked, STABLE, SLOW, pass_at=75).classification == "Fail"


@pytest.mark.parametrize(
    ("written", "options", "said"),
    [
        (FIELD, {}, "score threshold pass and marginal.*--pass and --marginal"),
        ({"canaryConfig": FIELD, "executionRequest": {"scopes": {}}}, {}, "score threshold pass and marginal"),
        ({"canaryConfig": FIELD, "executionRequest": {"thresholds": {"pass": 95}}}, {}, "score threshold marginal"),
        (FIELD, {"marginal_at": 50}, "score threshold pass,"),
        (FIELD, {"pass_at": 50, "marginal_at": 75}, "0 <= marginal <= pass <= 100"),
        (FIELD, {"pass_at": 150, "marginal_at": 75}, "0 <= marginal <= pass <= 100"),
        (FIELD, {"pass_at": NAN, "marginal_at": 75}, "0 <= marginal <= pass <= 100"),
        (FIELD | {"classifier": {"scoreThresholds": {"pass": "high", "marginal": 5}}}, {}, "must be numbers"),
        (FIELD | {"classifier": {"scoreThresholds": [95, 75]}}, {}, "an object with pass and marginal"),
        (
            {"type": "kayentaCanary", "canaryConfig": {"canaryConfigId": "golden", "scoreThresholds": {"pass": "90"}}},
            {},
            "names the canary configuration 'golden' and does not hold it",
        ),
    ],
)
def test_thresholds_that_are_nowhere_are_asked_for(written, options, said):
    """
    None is assumed, as in Kayenta, which refuses such a request.
    """
    with pytest.raises(PlanError, match=said):
        judge(written, STABLE, SLOW, **options)
