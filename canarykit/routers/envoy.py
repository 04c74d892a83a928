"""The split of an Envoy, changed through its runtime: no reload, steps of 0.0001 %."""

from __future__ import annotations

import json
import time
from typing import Protocol

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.base import need_in_place

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

    def apply(self, split: TrafficSplit, *, instead_of: TrafficSplit | None = None) -> float:
        """Set the split; return the seconds until it was in force."""
        start = time.perf_counter()
        if instead_of is not None:
            need_in_place(self.observed(), split, instead_of)
        query = "&".join(f"{RUNTIME_PREFIX}.{role}={weight}" for role, weight in weights(split).items())
        self._gateway.admin("POST", f"/runtime_modify?{query}")
        seen = self.observed()
        if not seen.is_near(split):
            raise RoutingError(f"asked the gateway for {split} to the canary, and it says {seen}: who else changes it?")
        # The main thread has taken the weights; a round trip through the one worker proves that it has them too.
        self._gateway.ping()
        return time.perf_counter() - start

    def observed(self) -> TrafficSplit:
        """Read the split back from the gateway's runtime."""
        return split_of(self._gateway.admin("GET", "/runtime?format=json"))

    def reset(self) -> None:
        """Send everything to stable."""
        self.apply(TrafficSplit(0))
