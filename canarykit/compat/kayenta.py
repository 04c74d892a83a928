"""Kayenta's judge, for people who move over: the same verdicts and scores from the same configuration and series.

Source: the published rules of Kayenta's NetflixACAJudge: per metric a Mann-Whitney interval of the shift of location,
then a score per group, then a weighted sum. It compares values per interval where the rest of the kit compares
requests, keeps its error rate at one look only, and takes some silence for good; all of that is kept here as it is
(an "Error" metric counts neither way, so a configuration whose only metric errs scores 100), and none of it elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Literal

import numpy as np
import yaml

from canarykit.analysis.bets import Array
from canarykit.compat.ranks import common_language_effect, mann_whitney
from canarykit.errors import PlanError

__all__ = ["Classification", "KayentaJudgement", "MetricResult", "judge"]

Classification = Literal["Pass", "High", "Low", "Nodata", "NodataFailMetric", "Error"]

_NEUTRAL = {"meanRatio": 1.0, "cles": 0.5}
_SIZES = ("allowedIncrease", "allowedDecrease", "criticalIncrease", "criticalDecrease")
_OUTLIER_FACTOR = 3.0
_JITTER = 1e-5
_SILENT_SHARE = 0.5
_CONFIGS = ("canaryConfig", "config")
"""Where a request (or a stage) and the answer about an execution hold the configuration."""
_REQUESTS = ("executionRequest", "canaryExecutionRequest")
"""Where they hold what was asked for, with the thresholds; those of a stage stand beside its configuration."""


@dataclass(frozen=True, slots=True)
class MetricResult:
    """What Kayenta says of one metric.

    Parameters
    ----------
    classification : {"Pass", "High", "Low", "Nodata", "NodataFailMetric", "Error"}
        In a word.
    reason : str
        Why, when it is not a plain pass.
    groups : tuple of str
        The groups it counts in; none when it is muted.
    critical : bool
        Whether this result fails the canary by itself: a critical metric that did not pass.
    effect : float
        Mean ratio or common-language effect; NaN when it is undefined.
    """

    classification: Classification
    reason: str
    groups: tuple[str, ...]
    critical: bool = False
    effect: float = float("nan")


@dataclass(frozen=True, slots=True)
class KayentaJudgement:
    """What Kayenta says of all.

    Parameters
    ----------
    classification : {"Pass", "Marginal", "Fail"}
        Kayenta's classification of the canary.
    score : float
        0 to 100, to two digits.
    reason : str
        Why the score is not the weighted sum.
    groups : mapping of str to float
        Score of each group; 0 where none of its metrics said anything, as Kayenta prints it (it counts as 100).
    metrics : mapping of str to MetricResult
        Each metric.
    """

    classification: str
    score: float
    reason: str = ""
    groups: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, MetricResult] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "classification": self.classification,
            "score": self.score,
            "reason": self.reason,
            "groups": {name: {"score": score} for name, score in self.groups.items()},
            "metrics": {
                name: {"classification": result.classification, "critical": result.critical, "reason": result.reason}
                for name, result in self.metrics.items()
            },
        }

    def __str__(self) -> str:
        lines = [f"{self.classification}: score {self.score:g}" + (f" ({self.reason})" if self.reason else "")]
        lines += [f"  group {name}: {score:.4g}" for name, score in self.groups.items()]
        lines += [
            f"  {name}: {result.classification}" + (f": {result.reason}" if result.reason else "")
            for name, result in self.metrics.items()
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, *rest = str(self).splitlines()
        return f"<p><strong>{escape(first)}</strong></p><ul>{''.join(f'<li>{escape(line)}</li>' for line in rest)}</ul>"


@dataclass(frozen=True, slots=True)
class _Rules:
    direction: str = "either"
    replace_missing: bool = False
    critical: bool = False
    required: bool = False
    muted: bool = False
    outlier_factor: float | None = None
    measure: str = "meanRatio"
    sizes: Mapping[str, float] = field(default_factory=dict)


def judge(
    config: Mapping[str, Any] | str,
    stable: Mapping[str, Sequence[float]],
    canary: Mapping[str, Sequence[float]],
    *,
    pass_at: float | None = None,
    marginal_at: float | None = None,
    tolerance: float = 0.25,
    confidence: float = 0.98,
) -> KayentaJudgement:
    """Judge two sets of series as Kayenta would.

    Parameters
    ----------
    config : mapping or str
        Kayenta's canary configuration, parsed or as text of JSON or YAML; or what holds one: a request to Kayenta, or a
        stage of Spinnaker.
    stable, canary : mapping of str to sequence of float
        Values of each metric, one per interval; NaN where there was none. (Kayenta: baseline and experiment.) A metric
        of the configuration that is not there has no data.
    pass_at, marginal_at : float, optional
        Scores from which the canary passes, and from which it is marginal. By default those of the request or the stage,
        else those of the configuration, as in Kayenta.
    tolerance : float
        Share of the estimated shift that an end of the interval must exceed; hard-coded in Kayenta.
    confidence : float
        Level of the interval; hard-coded in Kayenta.

    Raises
    ------
    PlanError
        A configuration that is none, series of a metric that it does not name, or no thresholds anywhere.

    Notes
    -----
    The published rules of NetflixACAJudge and of its weighted-sum scorer.
    """
    if not (tolerance >= 0 and 0 < confidence < 1):
        raise PlanError(f"tolerance must be 0 or more and confidence between 0 and 1, not {tolerance} and {confidence}")
    parsed, beside = _parsed(config)
    own = _mapping(parsed, "classifier").get("scoreThresholds")
    thresholds = _thresholds(pass_at, marginal_at, beside or own or {})
    names = [metric["name"] for metric in parsed["metrics"]]
    unknown = sorted({*stable, *canary} - set(names))
    if unknown:
        raise PlanError(f"the configuration has no metric {', '.join(unknown)}; it has {', '.join(names)}")
    results = {}
    for metric in parsed["metrics"]:
        rules = _rules(metric)
        x, y = (np.asarray(series.get(metric["name"], ()), dtype=float) for series in (canary, stable))
        groups = () if rules.muted else tuple(metric.get("groups") or ())
        results[metric["name"]] = _classified(rules, x, y, groups, tolerance, confidence)
    scored = {metric["name"] for metric in parsed["metrics"] if not _rules(metric).muted}
    return _summary(results, scored, _mapping(parsed, "classifier"), thresholds)


def _parsed(config: Mapping[str, Any] | str) -> tuple[Mapping[str, Any], Any]:
    """Return the configuration itself, and the thresholds that stand beside it in a request or a stage."""
    written = _read(config) if isinstance(config, str) else config
    request = written if isinstance(written, Mapping) else {}
    parsed = next((request[name] for name in _CONFIGS if isinstance(request.get(name), Mapping)), written)
    found = [_mapping(request, name).get("thresholds") for name in _REQUESTS]
    beside = next(filter(None, [*found, parsed.get("scoreThresholds") if isinstance(parsed, Mapping) else None]), None)
    metrics = parsed.get("metrics") if isinstance(parsed, Mapping) else None
    if metrics is None and isinstance(parsed, Mapping) and "canaryConfigId" in parsed:
        raise PlanError(
            f"this names the canary configuration {parsed['canaryConfigId']!r} and does not hold it: give the configuration "
            "itself, with the score thresholds that stand here"
        )
    if not isinstance(metrics, list) or not metrics:
        raise PlanError("the canary configuration must be an object with a list of metrics")
    for number, metric in enumerate(metrics, start=1):
        if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
            raise PlanError(f"metric {number} of the canary configuration has no name")
    return parsed, beside


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"the canary configuration is neither JSON nor YAML: {error}") from error


def _mapping(parsed: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = parsed.get(name)
    return found if isinstance(found, Mapping) else {}


def _thresholds(pass_at: float | None, marginal_at: float | None, stated: Any) -> tuple[float, float]:
    """Return the scores from which a canary passes and is marginal: the verdict hangs on them, so none is assumed."""
    if not isinstance(stated, Mapping):
        raise PlanError(f"score thresholds must be an object with pass and marginal, not {stated!r}")
    given = {"pass": pass_at, "marginal": marginal_at}
    found: dict[str, Any] = {name: stated.get(name) if value is None else value for name, value in given.items()}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise PlanError(
            f"neither the canary configuration nor the request says the score threshold {' and '.join(missing)}, on which the "
            "verdict hangs: say it with --pass and --marginal (in Python pass_at= and marginal_at=)"
        )
    try:
        enough, marginal = float(found["pass"]), float(found["marginal"])
    except (TypeError, ValueError):
        raise PlanError(f"score thresholds must be numbers, not {found['pass']!r} and {found['marginal']!r}") from None
    if not 0 <= marginal <= enough <= 100:
        raise PlanError(f"score thresholds must be 0 <= marginal <= pass <= 100, not marginal {marginal:g} and pass {enough:g}")
    return enough, marginal


def _rules(metric: Mapping[str, Any]) -> _Rules:
    stated = (metric.get("analysisConfigurations") or {}).get("canary") or {}
    sizes, outliers = stated.get("effectSize") or {}, stated.get("outliers") or {}
    where = f"metric {metric['name']}"
    measure = _one_of(sizes.get("measure", "meanRatio"), tuple(_NEUTRAL), f"{where}: effectSize.measure")
    try:
        numbers = {size: float(sizes.get(size, _NEUTRAL[measure])) for size in _SIZES}
        factor = float(outliers.get("outlierFactor", _OUTLIER_FACTOR))
    except (TypeError, ValueError):
        raise PlanError(f"{where}: effect sizes and outlierFactor must be numbers") from None
    keep = _one_of(outliers.get("strategy", "keep"), ("none", "keep", "remove"), f"{where}: outliers.strategy") != "remove"
    return _Rules(
        direction=_one_of(stated.get("direction", "either"), ("increase", "decrease", "either"), f"{where}: direction"),
        replace_missing=_one_of(stated.get("nanStrategy", "none"), ("none", "remove", "replace"), f"{where}: nanStrategy")
        == "replace",
        critical=bool(stated.get("critical", False)),
        required=bool(stated.get("mustHaveData", False)),
        muted=bool(stated.get("muted", False)),
        outlier_factor=None if keep else factor,
        measure=measure,
        sizes=numbers,
    )


def _one_of(value: object, allowed: Sequence[str], what: str) -> str:
    for name in allowed:
        if str(value).lower() == name.lower():
            return name
    raise PlanError(f"{what} must be one of {', '.join(allowed)}, not {value!r}")


def _cleaned(values: Array, rules: _Rules) -> Array:
    values = np.where(np.isnan(values), 0.0, values) if rules.replace_missing else values[~np.isnan(values)]
    if rules.outlier_factor is None or not len(values):
        return values
    first, lower, upper, last = np.percentile(values, [1, 25, 75, 99])
    reach = rules.outlier_factor * (upper - lower)
    kept = (values >= min(first, lower - reach)) & (values <= max(last, upper + reach))
    return np.asarray(values[kept])


def _classified(
    rules: _Rules, x: Array, y: Array, groups: tuple[str, ...], tolerance: float, confidence: float
) -> MetricResult:
    """Classify one metric: canary x against stable y."""
    x, y = _cleaned(x, rules), _cleaned(y, rules)
    if not len(x) or not len(y):
        if rules.replace_missing:
            return MetricResult("Pass", "", groups)
        reason = f"no data of {'the canary' if not len(x) else 'stable'}"
        if rules.required and not rules.critical:
            return MetricResult("NodataFailMetric", reason, groups)
        return MetricResult("Nodata", reason, groups, rules.critical)
    if len(x) == len(y) and (np.sort(x) == np.sort(y)).all():
        return MetricResult("Pass", "the values are identical", groups, effect=1.0)
    if len(np.unique(np.concatenate([x, y]))) == 1:
        return MetricResult("Pass", "", groups, effect=1.0)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return MetricResult("Error", "a value is infinite", groups)
    effect = _effect(rules, x, y)
    try:
        low, high, estimate = mann_whitney(*_jittered(x, y), confidence=confidence)
    except ValueError as error:
        return MetricResult("Error", str(error), groups)
    bound, sizes = tolerance * abs(estimate), rules.sizes
    undefined = np.isnan(effect)  # then the size is not asked for
    word: Classification = "Pass"
    critical = False
    if rules.direction != "decrease" and low > bound and (undefined or effect >= sizes["allowedIncrease"]):
        word, critical = "High", bool(undefined or effect >= sizes["criticalIncrease"])
    elif rules.direction != "increase" and high < -bound and (undefined or effect <= sizes["allowedDecrease"]):
        word, critical = "Low", bool(undefined or effect <= sizes["criticalDecrease"])
    reason = f"shift of {estimate:.4g} ({low:.4g} to {high:.4g})" if word != "Pass" else ""
    return MetricResult(word, reason, groups, rules.critical and critical, effect)


def _jittered(x: Array, y: Array) -> tuple[Array, Array]:
    # Two constants have no spread to compare: Kayenta adds noise, here evenly spread so that a verdict can be repeated.
    if np.ptp(x) or np.ptp(y):
        return x, y
    return tuple(v + _JITTER * abs(v[0]) * np.linspace(-1.5, 1.5, len(v)) if len(v) > 1 else v for v in (x, y))  # type: ignore[return-value]


def _effect(rules: _Rules, x: Array, y: Array) -> float:
    if rules.measure == "cles":
        return common_language_effect(x, y)
    return float(x.mean() / y.mean()) if x.mean() and y.mean() else float("nan")


def _summary(
    results: Mapping[str, MetricResult], scored: set[str], classifier: Mapping[str, Any], thresholds: tuple[float, float]
) -> KayentaJudgement:
    """Score groups and all: a critical failure or too much silence is 0, else the weighted sum."""
    try:
        weights = {str(name): float(weight) for name, weight in (classifier.get("groupWeights") or {}).items()}
    except (TypeError, ValueError, AttributeError):
        raise PlanError("groupWeights of the canary configuration must be numbers") from None
    enough, marginal = thresholds
    tallies = _tallies(results)
    groups = {name: 100 * passed / judged if judged else 0.0 for name, (passed, judged) in tallies.items()}
    counted = {name: result for name, result in results.items() if name in scored}
    failure = next((name for name, result in counted.items() if result.critical), None)
    silent = [name for name, result in counted.items() if result.classification == "Nodata"]
    if failure is not None:
        score, reason = 0.0, f"critical metric {failure} was classified as {counted[failure].classification}"
    elif len(silent) >= _SILENT_SHARE * len(counted):
        score, reason = 0.0, f"no data for {len(silent)} of {len(counted)} metrics"
    else:
        unweighted = [name for name in groups if name not in weights]
        rest = (100 - sum(weights.values())) / len(unweighted) if unweighted else 0.0
        effective = {name: groups[name] if judged else 100.0 for name, (_, judged) in tallies.items()}
        score = round(sum(effective[name] * weights.get(name, rest) / 100 for name in groups), 2)
        reason = "" if groups else "no metric is in a group, so nothing counts"
    word = "Pass" if score >= enough else "Marginal" if score >= marginal else "Fail"
    return KayentaJudgement(word, score, reason, groups, results)


def _tallies(results: Mapping[str, MetricResult]) -> dict[str, tuple[int, int]]:
    """Per group, how many metrics pass, and how many say anything."""
    tallies: dict[str, tuple[int, int]] = {}
    for result in results.values():
        for group in result.groups:
            passed, judged = tallies.get(group, (0, 0))
            says = result.classification in ("Pass", "High", "Low", "NodataFailMetric")
            tallies[group] = (passed + (result.classification == "Pass"), judged + says)
    return tallies
