"""The split of a KServe InferenceService. KServe itself moves the traffic, and says in the status that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.base import Capabilities, Change
from canarykit.routers.objects import unchanged
from canarykit.routers.route import RouteRouter

__all__ = ["KServeRouter", "patch", "served", "split_of"]


def _plain(found: Mapping[str, Any]) -> bool:
    """Whether it is of plain Deployments, with a canary of its own, rather than of Knative's revisions."""
    return bool(found.get("spec", {}).get("canary"))


def split_of(found: Mapping[str, Any]) -> TrafficSplit:
    """Split that an InferenceService asks for; none means that the newest revision has all."""
    spec = found.get("spec", {})
    if _plain(found):
        return TrafficSplit(float(spec["canary"][0].get("trafficPercent", 0)))
    return TrafficSplit(float(spec.get("predictor", {}).get("canaryTrafficPercent", 100)))


def patch(found: Mapping[str, Any], split: TrafficSplit) -> list[dict[str, Any]]:
    """JSON patch that asks for the split.

    Raises
    ------
    RoutingError
        It is no whole percent.
    """
    if not split.canary.is_integer():
        raise RoutingError(f"KServe splits in whole percents; {split.canary} % is finer")
    path = "/spec/canary/0/trafficPercent" if _plain(found) else "/spec/predictor/canaryTrafficPercent"
    return [unchanged(found), {"op": "add", "path": path, "value": int(split.canary)}]


def served(found: Mapping[str, Any]) -> TrafficSplit | None:
    """Split that KServe's controller says it serves; None when it says nothing of it."""
    traffic = found.get("status", {}).get("components", {}).get("predictor", {}).get("traffic", [])
    if not traffic:
        return None
    return TrafficSplit(float(sum(entry.get("percent", 0) for entry in traffic if entry.get("latestRevision"))))


class KServeRouter(RouteRouter):
    """Router of an InferenceService that the user has; `name` is its name. Parameters as of `RouteRouter`.

    A split is in force when KServe's controller says so in the status, at the generation that was written. A controller
    in a mode that ignores the percentage says nothing, and that is an error here, not a success.
    """

    kind = "InferenceService"
    advice = "install KServe and make the InferenceService, or choose another router"
    capabilities = Capabilities(
        promoted_by="the router kserve splits an InferenceService of yours, and a promotion would not reach it: shift() moves "
        "its weight and abort() returns it; promote it yourself, as KServe's documentation says, and then close() this"
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._adopted = True

    def objects(self) -> list[dict[str, Any]]:
        """Return nothing: the user's own InferenceService is split."""
        return []

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that it asks for."""
        return split_of(found)

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of the percentage alone."""
        return patch(found, split), "json"

    def refusal(self, found: Mapping[str, Any], generation: int) -> str | None:
        """Say what KServe's controller has not done yet."""
        status = found.get("status", {})
        if status.get("observedGeneration", 0) < generation:
            return "no KServe controller has taken it up as written, so nobody serves this split"
        says = served(found)
        if says is None:
            return "KServe's controller says nothing of traffic in the status: in its present mode it ignores the percentage"
        asks = split_of(found)
        return None if says == asks else f"KServe's controller serves {says} to the newest revision, not {asks}"

    def _wait_served(self, change: Change, cancelled: Callable[[], bool]) -> bool:
        return True  # KServe's controller has said that it serves the split
