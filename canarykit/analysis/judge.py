"""Guardrails + evidence -> verdict, with its sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from canarykit import formatting
from canarykit.analysis.bets import Array
from canarykit.analysis.families import closure
from canarykit.analysis.monitor import Monitor
from canarykit.analysis.questions import SPLITS, Split
from canarykit.analysis.state import Stateful, comparison_of, plain
from canarykit.errors import PlanError
from canarykit.model import AT_LIMIT, Alarm, Comparison, Guardrail, Judgement, Status, Verdict, Window

__all__ = ["Judge"]

_LEAST = 1e-300

_LARGEST = 600.0
"""Natural logarithm of an e-value beyond which it is not told apart from larger ones."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """What was known when a guardrail failed; it stays so."""

    alarm: Alarm
    comparison: Comparison
    sentence: str


def _failure(written: Mapping[str, Any]) -> _Failure:
    alarm = {**written["alarm"], "requests": tuple(written["alarm"]["requests"])}
    return _Failure(Alarm(**alarm), comparison_of(written["comparison"]), written["sentence"])


class Judge(Stateful):
    """Guardrails, windows in, judgement out. Memory does not grow with the number of windows.

    Parameters
    ----------
    guardrails : sequence of Guardrail
        The family. A guardrail fails when the closed test of the family says so: its e-value, averaged with any others, is
        at least ``1 / alpha``.
    alpha : float
        Chance that a canary that is no worse than tolerated is ever failed.
    beta : float
        Chance that a canary worse than a margin is ever passed.
    split : {"realised", "known", "mirrored"}
        Where the canary's share of a window comes from: its own counts, which needs no trust; the configured weight, when
        the router draws each request by itself and serves what it was told; or both versions answer each request, and
        what is counted are the requests on which only one of them failed.
    dispersion : float, optional
        How much more labels vary from window to window than those of independent requests (φ), for all guardrails: from an
        A/A split (`canarykit.analysis.checks.dispersion`), say. Evidence is taken to the power of one over it. By default
        that of each rate is estimated from the windows judged before.
    alarm_at : float, optional
        Value of E at which a single rate alarms, from `canarykit.analysis.evidence.threshold`, when the number of
        events is declared beforehand. The guarantee ends there.

    Raises
    ------
    PlanError
        alpha or beta is not between 0 and 1, no such split, a dispersion that is none, or a horizon of several guardrails.

    Notes
    -----
    Section 4 of docs/statistics.md, "Guardrails and the verdict".
    """

    _STATE = ("_monitors", "_ended", "_failed")

    def __init__(
        self,
        guardrails: Sequence[Guardrail],
        *,
        alpha: float = 0.05,
        beta: float = 0.05,
        split: Split = "realised",
        dispersion: float | None = None,
        alarm_at: float | None = None,
    ) -> None:
        if not (0 < alpha < 1 and 0 < beta < 1):
            raise PlanError(f"alpha and beta must be between 0 and 1, not {alpha} and {beta}")
        if split not in SPLITS:
            raise PlanError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        if dispersion is not None and not (math.isfinite(dispersion) and dispersion > 0):
            raise PlanError(f"dispersion must be a number above 0, not {dispersion}")
        if alarm_at is not None and (
            not 1 < alarm_at <= 1 / alpha or [guardrail.metric.kind for guardrail in guardrails] != ["rate"]
        ):
            raise PlanError(f"alarm_at is for one rate, and between 1 and 1/alpha ({1 / alpha:g}), not {alarm_at}")
        self.alpha, self.beta = alpha, beta
        self.options: dict[str, Any] = {
            "alpha": alpha, "beta": beta, "split": split, "dispersion": dispersion, "alarm_at": alarm_at,
        }  # fmt: skip
        """What it was made with, beside the guardrails."""
        self._alarm_at = 1 / alpha if alarm_at is None else alarm_at
        self._weights = [guardrail.weight for guardrail in guardrails]
        self._monitors = [Monitor(guardrail, self._alarm_at, split, dispersion) for guardrail in guardrails]
        self._failures: dict[str, _Failure] = {}
        self._said: Judgement | None = None
        self._needed: tuple[tuple[float, float], ...] | None = None
        self._ended, self._failed = np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)

    def state(self) -> dict[str, Any]:
        """All evidence so far, as plain data for strict JSON."""
        failures = [plain(asdict(failure)) for failure in self._failures.values()]
        return {**super().state(), "failures": failures, "asked": self._question}

    @property
    def guardrails(self) -> tuple[Guardrail, ...]:
        """The family that it judges."""
        return tuple(monitor.guardrail for monitor in self._monitors)

    @property
    def _question(self) -> dict[str, Any]:
        """What it was made with, as plain data."""
        guardrails = [asdict(guardrail) for guardrail in self.guardrails]
        return dict(plain({**self.options, "guardrails": guardrails}))

    def restore(self, state: Mapping[str, Any]) -> Self:
        """Take over the evidence of a judge that was made with the same arguments; return itself.

        It goes on as if it had taken in the same windows, to the last digit.

        Raises
        ------
        ValueError
            The other one was made with other arguments, or something is missing.
        """
        if state.get("asked") != self._question:
            raise ValueError("the state is of a judge that was made with other guardrails or other options")
        super().restore(state)
        try:
            failures = [_failure(written) for written in state["failures"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"the state of Judge has no failures, or others: {error!r}") from error
        self._failures = {failure.alarm.guardrail: failure for failure in failures}
        self._said = self._needed = None
        return self

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Judge:
        """Return the judge whose `state` this is.

        Raises
        ------
        ValueError
            It is not the state of one.
        """
        try:
            asked = dict(state["asked"])
            guardrails = [Guardrail.of(written) for written in asked.pop("guardrails")]
            judge = cls(guardrails, **asked)
        except (KeyError, TypeError, AttributeError, PlanError) as error:
            raise ValueError(f"the state of Judge does not say what is judged, and how: {error!r}") from error
        return judge.restore(state)

    def copy(self) -> Self:
        """Return another one that knows the same; what either takes in later changes nothing in the other."""
        other = super().copy()
        other._failures = dict(self._failures)
        return other

    def after(self, window: Window) -> Self:
        """Return the judge that has taken in one window more; this one stays as it is.

        Raises
        ------
        TelemetryError
            See `update`.
        """
        other = self.copy()
        other.update(window)
        return other

    def update(self, window: Window) -> None:
        """Take in one window.

        Raises
        ------
        TelemetryError
            Counts that are none, or whose cells changed.
        """
        self._said = self._needed = None
        tables = [monitor.checked(window) for monitor in self._monitors]  # all of it is good, or none is taken in
        for monitor, table in zip(self._monitors, tables, strict=True):
            monitor.update(window, table)
        if AT_LIMIT in window.counts and "outcome" in window.counts:
            self._ended = self._ended + window.counts[AT_LIMIT][:, 1]
            self._failed = self._failed + window.counts["outcome"][:, 1]
        self._find_failures(window.end)

    def _find_failures(self, now: float) -> None:
        """Note which guardrails fail for the first time."""
        line = math.log(self._alarm_at)
        log_e = [monitor.log_e for monitor in self._monitors]
        if max(log_e) < line:  # an adjusted e-value is no larger than its own: most looks end here
            return
        adjusted = self._adjusted()
        for number in np.argsort(-np.array(log_e), kind="stable"):
            monitor = self._monitors[number]
            if adjusted[number] < self._alarm_at or monitor.metric.name in self._failures:
                continue
            comparison = monitor.comparison(self.alpha, failed=True)
            alarm = Alarm(monitor.metric.name, now, comparison.requests)
            self._failures[monitor.metric.name] = _Failure(alarm, comparison, formatting.failed(comparison, monitor.metric))

    @property
    def _first(self) -> _Failure | None:
        """The first guardrail that failed, with the strongest evidence then."""
        return next(iter(self._failures.values()), None)

    @property
    def still_needed(self) -> tuple[tuple[float, float], ...]:
        """Of each guardrail: further requests until it is likely to be decided, and seconds at this traffic; NaN if unknown."""
        if self._needed is None:
            self._needed = tuple(monitor.still_needed() for monitor in self._monitors)
        return self._needed

    @property
    def uninformative(self) -> tuple[int, ...]:
        """Of each guardrail: requests that were counted while one version was idle, and so compare nothing."""
        return tuple(monitor.uninformative for monitor in self._monitors)

    @property
    def calm(self) -> bool:
        """Whether nothing has alarmed."""
        return not self._failures

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Canary against stable on each guardrail, so far."""
        return tuple(monitor.comparison(self.alpha) for monitor in self._monitors)

    @property
    def compared(self) -> tuple[Array, ...]:
        """Of each guardrail, the table that its levels are taken from: stable's requests weighted as the canary's."""
        return tuple(monitor.compared for monitor in self._monitors)

    @property
    def log_e(self) -> float:
        """Strongest evidence of a guardrail, adjusted for asking all of them, natural log."""
        return float(np.log(max(self._adjusted().max(), _LEAST)))

    def _adjusted(self) -> Array:
        """E-values of the guardrails, adjusted by the closed test of the family."""
        return closure(np.exp(np.minimum([monitor.log_e for monitor in self._monitors], _LARGEST)), self._weights)

    @property
    def judgement(self) -> Judgement:
        """What the evidence shows so far."""
        if self._said is None:
            self._said = self._judge()
        return self._said

    def _judge(self) -> Judgement:
        verdicts = tuple(self._verdict(monitor) for monitor in self._monitors)
        said = {verdict.status for verdict in verdicts}
        status: Status
        first = self._first
        if first is not None:
            status, sentence = "fail", first.sentence
        elif "no data" in said:
            status, sentence = "no data", _join(verdicts, "no data")
        elif said == {"pass"}:
            found = [(verdict.comparison, monitor.metric) for verdict, monitor in zip(verdicts, self._monitors, strict=True)]
            status, sentence = "pass", formatting.all_passed(found)
        else:
            status, sentence = "inconclusive", _join(verdicts, "inconclusive")
        # Whoever reads that a version failed has to know who ended its requests.
        sentence = "; ".join(filter(None, (sentence, formatting.at_limit(self._ended, self._failed))))
        return Judgement(status, sentence, verdicts, self.log_e, first.alarm if first is not None else None)

    def _verdict(self, monitor: Monitor) -> Verdict:
        metric = monitor.metric
        failure = self._failures.get(metric.name)
        if failure is not None:
            # Evidence that has shrunk since does not clear a canary: then the numbers are those of the alarm.
            alarmed = monitor.log_e >= math.log(self._alarm_at)
            shown = monitor.comparison(self.alpha, failed=True) if alarmed else failure.comparison
            return Verdict(metric.name, "fail", failure.sentence, shown, formatting.cells(shown, metric))
        comparison = monitor.comparison(self.alpha)
        status: Status = "inconclusive"
        missing = monitor.missing()
        suspect = monitor.log_e >= math.log(self._alarm_at)
        if missing is not None:
            status, sentence = "no data", missing
        elif suspect:
            sentence = formatting.suspected(comparison, metric, len(self._monitors))
        elif monitor.clearable and monitor.log_e_safe >= math.log(1 / self.beta):
            guardrail = monitor.guardrail
            status, sentence = "pass", formatting.passed(comparison, metric, guardrail.margin, guardrail.ceiling)
        else:
            sentence = formatting.undecided(comparison, metric, monitor.guardrail.margin, *monitor.still_needed())
        return Verdict(metric.name, status, sentence, comparison, formatting.cells(comparison, metric), suspect)


def _join(verdicts: Sequence[Verdict], status: Status) -> str:
    return "; ".join(
        verdict.sentence if status != "no data" else f"{verdict.guardrail}: {verdict.sentence}"
        for verdict in verdicts
        if verdict.status == status
    )
