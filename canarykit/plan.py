"""What a person writes: the steps of a rollout, and when it has waited long enough."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from canarykit.errors import PlanError

__all__ = ["RolloutPlan", "Seconds", "Step", "seconds"]

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


class RolloutPlan(_Written):
    """A whole rollout, unattended.

    Parameters
    ----------
    steps : sequence of Step
        Weights rise from step to step.
    interval : float or str
        Time between two looks. Looking often costs nothing: the evidence stays valid.
    budget : float or str
        Longest time at the last step. If the canary is not cleared by then, the rollout is inconclusive.
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
    interval: Seconds = 1.0
    budget: Seconds = 3600.0
    no_data_after: Seconds = 60.0
    on_inconclusive: Literal["roll back", "hold"] = "roll back"

    @field_validator("interval")
    @classmethod
    def _looks(cls, interval: float) -> float:
        if interval < 0.05:
            raise ValueError("interval must be at least 0.05 s")
        return interval

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
