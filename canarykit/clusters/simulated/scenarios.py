"""Scenarios: what happens in a simulated rollout, and how each version answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

__all__ = ["SCENARIOS", "Behaviour", "Scenario"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one version answers.

    Parameters
    ----------
    errors : float
        Share of requests that fail.
    latency : float
        Median, seconds; durations are lognormal.
    wrong : float
        Share of answers that are wrong.
    refused, denied : float
        Share of requests, of those that do not fail, that are refused (422) or denied (429), at once.
    """

    errors: float = 0.002
    latency: float = 0.010
    wrong: float = 0.09
    refused: float = 0.0
    denied: float = 0.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """What happens in a simulated rollout.

    Parameters
    ----------
    story : str
        In a sentence.
    stable, canary : Behaviour
        How they answer.
    burst : float
        Coefficient of variation of the canary's errors from window to window: a bad pod comes and goes.
    drift : float
        How far errors and latency of *both* versions rise and fall over ten minutes, as a share.
    traffic : float
        Requests that arrive, as a multiple of what is sent.
    served : float
        The canary's real share, as a multiple of what the gateway was told.
    """

    story: str
    stable: Behaviour = Behaviour()
    canary: Behaviour = Behaviour()
    burst: float = 0.0
    drift: float = 0.0
    traffic: float = 1.0
    served: float = 1.0


# As the digits of `canarykit.serving` really answer, so that a notebook ends alike on both.
_STABLE, _GOOD = Behaviour(errors=0.0), Behaviour(errors=0.0, wrong=0.015)

SCENARIOS: Mapping[str, Scenario] = {
    "good": Scenario("a better model", _STABLE, _GOOD),
    "slow": Scenario("three times the work for each request", _STABLE, replace(_GOOD, latency=0.030)),
    "failing": Scenario("fails for one request in twenty", _STABLE, replace(_GOOD, errors=0.045)),
    "wrong": Scenario("learned from damaged labels", _STABLE, replace(_STABLE, wrong=0.18)),
    "stable": Scenario("the same version twice, and neither fails", _STABLE, _STABLE),
    "same": Scenario("the same version twice, with an error now and then"),
    "bursty": Scenario("no worse on the whole, but its errors come in bursts", burst=1.0),
    "drifting": Scenario("the same version twice on a day with ups and downs", drift=0.6),
    "refusing": Scenario("refuses one request in three, at once", _STABLE, replace(_GOOD, refused=1 / 3)),
    "no-traffic": Scenario("nobody uses the service", traffic=0.0),
    "lying-split": Scenario("the gateway sends less to the canary than it says", served=0.6),
}
