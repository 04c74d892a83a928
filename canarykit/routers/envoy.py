"""The split of an Envoy, changed through its runtime: no reload, steps of 0.0001 %."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol

from canarykit.errors import RoutingError
from canarykit.interrupts import never
from canarykit.model import TrafficSplit
from canarykit.routers.base import Capabilities, Change, apply, need_in_place

__all__ = ["RUNTIME_PREFIX", "TOTAL_WEIGHT", "EnvoyRouter", "split_of", "weights"]

RUNTIME_PREFIX = "canarykit.split"
TOTAL_WEIGHT = 1_000_000
"""Weights are parts of a million."""


class Gateway(Protocol):
    """What the router needs of a running Envoy."""

    def admin(self, method: str, path: str) -> str:
        """Call the admin interface; return the body."""
        ...

    def ping(self) -> None:
        """Make a round trip through the worker."""
        ...


def weights(split: TrafficSplit) -> dict[str, int]:
    """Weights of both versions, in parts of a million.

    Raises
    ------
    RoutingError
        The split is finer than that.
    """
    canary = round(split.share * TOTAL_WEIGHT)
    if abs(canary / TOTAL_WEIGHT - split.share) > 1e-9:
        raise RoutingError(f"Envoy splits in steps of {100 / TOTAL_WEIGHT:.4f} %; {split.canary} % is finer")
    return {"stable": TOTAL_WEIGHT - canary, "canary": canary}


def split_of(runtime: str) -> TrafficSplit:
    """Split that a runtime dump (JSON of ``/runtime``) says; 0 % when it says nothing."""
    entries = json.loads(runtime).get("entries", {})
    parts = {role: entries.get(f"{RUNTIME_PREFIX}.{role}", {}).get("final_value") for role in ("stable", "canary")}
    if None in parts.values() or not sum(map(int, parts.values())):
        return TrafficSplit(0)
    canary, stable = int(parts["canary"]), int(parts["stable"])
    return TrafficSplit(100 * canary / (canary + stable))


class EnvoyRouter:
    """Router of the local cluster.

    Parameters
    ----------
    gateway : Gateway
        The running Envoy.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    capabilities = Capabilities(frozenset({"fractions"}))

    def write(self, split: TrafficSplit, *, expected: TrafficSplit | None = None) -> Change:
        """Set the split, and see that the gateway's main thread has taken it."""
        if expected is not None:
            need_in_place(self.observed(), split, expected)
        change = Change(split, expected)
        query = "&".join(f"{RUNTIME_PREFIX}.{role}={weight}" for role, weight in weights(split).items())
        self._gateway.admin("POST", f"/runtime_modify?{query}")
        seen = self.observed()
        if not seen.is_near(split):
            raise RoutingError(f"asked the gateway for {split} to the canary, and it says {seen}: who else changes it?")
        return change

    def confirm(self, change: Change, *, cancelled: Callable[[], bool] = never) -> bool:
        """See that the gateway's worker has taken the split: a round trip through it, of a millisecond, proves that."""
        self._gateway.ping()
        return True

    def observed(self) -> TrafficSplit:
        """Read the split back from the gateway's runtime."""
        return split_of(self._gateway.admin("GET", "/runtime?format=json"))

    def reset(self) -> None:
        """Send everything to stable."""
        apply(self, TrafficSplit(0))
