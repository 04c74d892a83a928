"""Who reaches a version by a header on the request, whatever the weights are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from canarykit.errors import PlanError
from canarykit.model import Role

__all__ = ["Testers"]

_VALUE = re.compile(r"[A-Za-z0-9._~+/=-]{1,128}")


@dataclass(frozen=True, slots=True)
class Testers:
    """Values of the header ``x-canarykit-role`` that lead to a version.

    Parameters
    ----------
    secret : str, optional
        The value that leads to the canary: who does not know it gets what the weights say. By default ``"canary"`` and
        ``"stable"`` lead to these versions, which anybody may send. None where no header leads anywhere.

    Raises
    ------
    PlanError
        It is no value that a header and a route can hold.
    """

    secret: str | None = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.secret and (not _VALUE.fullmatch(self.secret) or self.secret in ("stable", "canary")):
            # The value itself is not shown: it is meant to be secret.
            raise PlanError(
                "testers= takes True, False, or a value of the header that leads to the canary: up to 128 letters, digits and "
                "._~+/=- that nobody guesses, so neither 'stable' nor 'canary'"
            )

    @classmethod
    def of(cls, asked: bool | str) -> Testers:
        """Read what was asked for: True, False, or a value of one's own.

        Raises
        ------
        PlanError
            It is neither.
        """
        if isinstance(asked, bool):
            return cls("" if asked else None)
        if not isinstance(asked, str) or not asked:
            raise PlanError(f"testers= takes True, False, or a value of the header, not {type(asked).__name__}")
        return cls(asked)

    @property
    def values(self) -> Mapping[Role, str]:
        """Value of the header by version that it leads to."""
        if self.secret is None:
            return {}
        return {"canary": self.secret} if self.secret else {"stable": "stable", "canary": "canary"}
