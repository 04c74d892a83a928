"""What each router whose split is written in one object says of that object. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from canarykit.model import TrafficSplit
from canarykit.routers.objects import Target
from canarykit.routers.patches import Form
from canarykit.routers.rules import Rule, noted, split_rules
from canarykit.routers.testers import Testers
from canarykit.routers.ways import Way

__all__ = ["RouteFormat"]


class RouteFormat:
    """How the split stands in an object of one kind, and how that is changed. A new router of that kind overrides these.

    Parameters
    ----------
    target : Target
        The Services.
    gateway : str, optional
        Gateway that serves the object, when the kit makes it.
    hostname : str, optional
        Name that it answers to.
    name : str, optional
        Name of the user's own object; the kit makes one named after the service by default.
    """

    kind: ClassVar[str]
    form: ClassVar[Form | None] = None
    """How its rules are written, where the canary is a backend beside stable."""
    advice: ClassVar[str] = "install what defines it, or choose another router"

    def __init__(self, target: Target, *, gateway: str | None, hostname: str | None, name: str | None) -> None:
        self.name, self._target, self.gateway, self._hostname = name or target.app, target, gateway, hostname
        self._adopted = name is not None

    def objects(self) -> list[dict[str, Any]]:
        """Objects that the kit makes for this router; none that the user has already."""
        raise NotImplementedError

    @property
    def made(self) -> list[str]:
        """Names of these objects, to be removed in the end: also when what they were made from is gone."""
        return [] if self._adopted else [self.name]

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the object says.

        Raises
        ------
        RoutingError
            It says none.
        """
        raise NotImplementedError

    def splits(self, found: Mapping[str, Any]) -> bool:
        """Whether the object has anything to split; not when somebody took a version out of it."""
        return self.form is None or bool(split_rules(self.rules(found), noted(found)))

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch that sets the split, and of which kind; it must fail when the object has changed since it was read."""
        raise NotImplementedError

    def rules(self, found: Mapping[str, Any]) -> list[Rule]:
        """Rules of the object, as far as they concern us; of routers that have a form."""
        raise NotImplementedError

    def beside(self, stable: Mapping[str, Any]) -> Mapping[str, Any]:
        """Fields in which the canary's backend differs from stable's; of routers that have a form."""
        raise NotImplementedError

    def way(self, found: Mapping[str, Any], paths: Sequence[str]) -> Way:
        """Way to the versions through the user's own object, by which these paths are reached best."""
        return Way()

    def testing(self, found: Mapping[str, Any], testers: Testers) -> tuple[Any, str] | None:
        """Patch that has the testers' header lead to the versions as told, and of which kind; None when it does."""
        return None

    def refusal(self, found: Mapping[str, Any], generation: int) -> str | None:
        """Say why the object as written is not served; None when its controller has accepted it, or never says."""
        return None

    def mirroring(self, found: Mapping[str, Any], percent: float) -> list[dict[str, Any]]:
        """JSON patch that has the object say so; of routers that have the feature."""
        raise NotImplementedError
