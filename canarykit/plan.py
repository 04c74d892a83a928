"""What a person writes: the steps of a rollout, and when it has waited long enough."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from canarykit.errors import PlanError

__all__ = ["Pace", "RolloutPlan", "Seconds", "Step", "seconds"]

_UNITS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(duration: float | str) -> float:
    """Seconds in a duration such as ``90``, ``"90s"``, ``"2min"`` or ``"1h"``.

    Raises
    ------
    PlanError
        It is none, or below zero.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-z]*)\s*", str(duration))
    try:
        if match is None:
            raise ValueError
        return float(match[1]) * _UNITS[match[2] or "s"]
    except (ValueError, KeyError):
        raise PlanError(f'a duration is a number of seconds or text such as "90s", "2min" or "1h", not {duration!r}') from None


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0)]


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Written):
    """One weight, and what must have happened before the next.

    Parameters
    ----------
    weight : float
        Percent of requests that the canary receives, above 0.
    hold : float or str
        Minimum time at this weight.
    min_requests : int
        Minimum number of finished canary requests at this weight.
    """

    weight: Annotated[float, Field(gt=0, le=100)]
    hold: Seconds = 60.0
    min_requests: Annotated[int, Field(ge=1)] = 30


class Pace(_Written):
    """A weight that follows from the evidence, instead of steps.

    Parameters
    ----------
    harm : float
        Requests that a bad canary may make worse between one decision and the next, in expectation; 1 or more.
    max_weight : float
        Percent at which the canary must be shown to be no worse.
    bake : float or str
        Minimum time at that weight, for what shows late: leaks, caches.
    min_requests : int
        Minimum number of finished canary requests at that weight.
    start : float, optional
        Percent at first; by default it follows from the budget and from the traffic that is seen, or is 1 where none is.
    harm_of : mapping of str to float
        Harm of one slow request, or of a score of 0, by the guardrail's name, relative to a failed request. They have none by
        default: their guardrails stop the rollout all the same.
    """

    harm: Annotated[float, Field(ge=1, le=1e6)] = 4.0
    max_weight: Annotated[float, Field(gt=0, le=100)] = 50.0
    bake: Seconds = 0.0
    min_requests: Annotated[int, Field(ge=1)] = 30
    start: Annotated[float, Field(gt=0, le=100)] | None = None
    harm_of: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _begins_below(self) -> Pace:
        if self.start is not None and self.start > self.max_weight:
            raise ValueError(f"start ({self.start:g} %) must not be above max_weight ({self.max_weight:g} %)")
        return self


class RolloutPlan(_Written):
    """A whole rollout, unattended: in steps, or paced by a budget of harm.

    Parameters
    ----------
    steps : sequence of Step
        Weights rise from step to step. A paced plan has one, its highest weight.
    pace : Pace, optional
        How the weight follows from the evidence, in place of steps.
    interval : float or str
        Time between two looks. Looking often costs nothing: the evidence stays valid.
    budget : float or str
        Longest time at the last step, or of a whole paced rollout. If the canary is not cleared by then, the rollout is
        inconclusive.
    no_data_after : float or str
        Longest time without data for every guardrail, before the rollout ends with "no data".
    on_inconclusive : {"roll back", "hold"}
        Where traffic goes when nothing was shown either way.

    Raises
    ------
    PlanError
        From `of`, `from_dump` and `from_yaml`: what is wrong, where, in words.
    """

    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    pace: Pace | None = None
    interval: Annotated[Seconds, Field(ge=0.05)] = 1.0
    budget: Seconds = 3600.0
    no_data_after: Seconds = 60.0
    on_inconclusive: Literal["roll back", "hold"] = "roll back"

    @model_validator(mode="before")
    @classmethod
    def _step_of_pace(cls, written: Any) -> Any:
        """Give a paced plan its one step."""
        if not isinstance(written, dict) or written.get("pace") is None:
            return written
        try:
            pace = Pace.model_validate(written["pace"])
        except ValidationError:
            return {**written, "steps": [{"weight": 1}]}  # what is wrong with the pace is said with its place
        step = Step(weight=pace.max_weight, hold=pace.bake, min_requests=pace.min_requests).model_dump()
        if written.get("steps") is not None and [Step.model_validate(each).model_dump() for each in written["steps"]] != [step]:
            raise ValueError("a plan has steps, or a pace, not both")
        return {**written, "steps": [step]}

    @model_validator(mode="after")
    def _rising(self) -> RolloutPlan:
        weights = [step.weight for step in self.steps]
        if sorted(set(weights)) != weights:
            raise ValueError(f"weights must rise from step to step, not {weights}")
        return self

    @classmethod
    def of(cls, *weights: float, hold: float | str = 60.0, min_requests: int = 30, **rest: Any) -> RolloutPlan:
        """Make a plan from weights that share one hold.

        Parameters
        ----------
        *weights : float
            Percent, rising.
        hold, min_requests
            See `Step`.
        **rest
            See `RolloutPlan`.
        """
        steps = [{"weight": weight, "hold": hold, "min_requests": min_requests} for weight in weights]
        return _checked(cls, {"steps": steps, **rest}, "the plan")

    @classmethod
    def paced(
        cls,
        harm: float = 4.0,
        max_weight: float = 50.0,
        bake: float | str = 0.0,
        *,
        min_requests: int = 30,
        start: float | None = None,
        harm_of: Mapping[str, float] | None = None,
        **rest: Any,
    ) -> RolloutPlan:
        """Make a plan whose weight follows from the evidence: as fast as the harm of a bad version allows.

        Parameters
        ----------
        harm, max_weight, bake, min_requests, start, harm_of
            See `Pace`.
        **rest
            See `RolloutPlan`.
        """
        pace = {
            "harm": harm, "max_weight": max_weight, "bake": bake, "min_requests": min_requests, "start": start,
            "harm_of": dict(harm_of or {}),
        }  # fmt: skip
        return _checked(cls, {"pace": pace, **rest}, "the plan")

    def with_harm(self, harm: float) -> RolloutPlan:
        """Return this plan paced by another budget; 0 leaves one of steps as it is, and gives a paced one its own.

        A plan of steps keeps its highest weight, and the time and requests that it asks for there.

        Raises
        ------
        PlanError
            A budget between 0 and 1, or below 0.
        """
        if not harm or (self.pace is not None and self.pace.harm == harm):
            return self
        last, written = self.steps[-1], self.model_dump(mode="json")
        pace = {"max_weight": last.weight, "bake": last.hold, "min_requests": last.min_requests, **(written["pace"] or {})}
        return _checked(type(self), {**written, "steps": None, "pace": {**pace, "harm": harm}}, "the plan")

    @classmethod
    def from_dump(cls, written: object) -> RolloutPlan:
        """Read a plan back from what its `model_dump` returned."""
        return _checked(cls, written, "the plan that was written down")

    @classmethod
    def from_yaml(cls, source: str | Path) -> RolloutPlan:
        """Read a plan from a YAML file, or from text with line breaks.

        Parameters
        ----------
        source : str or Path
            A path; or YAML itself, when it is text of several lines.
        """
        inline = isinstance(source, str) and "\n" in source
        try:
            text = str(source) if inline else Path(source).read_text()
            written = yaml.safe_load(text)
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise PlanError(f"cannot read a plan from {'the text' if inline else source}: {error}") from error
        if not isinstance(written, dict):
            raise PlanError("a plan is a mapping with a list of steps, such as\nsteps:\n- {weight: 5, hold: 2min}")
        return _checked(cls, written, "the plan" if inline else str(source))


def _checked(model: type[RolloutPlan], written: object, where: str) -> RolloutPlan:
    try:
        return model.model_validate(written)
    except ValidationError as error:
        raise PlanError(f"{where} cannot be done: {'; '.join(_complaints(error))}") from error


def _complaints(error: ValidationError) -> Iterable[str]:
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        yield f"{place}: {message}" if place else message
