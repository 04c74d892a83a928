"""Public doubles: a simulated cluster, seeded and faster than time, for teaching, for tests and for trying a plan.

Nothing that claims to be measured may come from it; every chart and report made with it says that it is simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from canarykit.errors import ClusterError, PlanError, RoutingError
from canarykit.load.load import Summary, per_second
from canarykit.metrics import LATENCY_EDGES, latency_cells
from canarykit.model import ROLES, Counts, Role, Service, TrafficSplit, Window
from canarykit.telemetry.base import Answered

__all__ = ["SCENARIOS", "Behaviour", "Scenario", "SimulatedClock", "SimulatedCluster"]


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
    """

    errors: float = 0.002
    latency: float = 0.010
    wrong: float = 0.09


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


_GOOD = Behaviour(wrong=0.02)
SCENARIOS: Mapping[str, Scenario] = {
    "same": Scenario("the same version twice"),
    "good": Scenario("a better model", canary=_GOOD),
    "slow": Scenario("three times the work for each request", canary=replace(_GOOD, latency=0.030)),
    "failing": Scenario("fails for one request in twenty", canary=replace(_GOOD, errors=0.05)),
    "wrong": Scenario("learned from damaged labels", canary=Behaviour(wrong=0.18)),
    "bursty": Scenario("no worse on the whole, but its errors come in bursts", burst=1.0),
    "drifting": Scenario("the same version twice on a day with ups and downs", drift=0.6),
    "no-traffic": Scenario("nobody uses the service", traffic=0.0),
    "lying-split": Scenario("the gateway sends less to the canary than it says", served=0.6),
}


class SimulatedClock:
    """Time that passes when someone waits."""

    def __init__(self, start: float = 1_750_000_000.0) -> None:
        self._now = start

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass, at once."""
        self._now += seconds


class _Router:
    """Serves what it is told, in two simulated milliseconds."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock, self.split = clock, TrafficSplit(0)
        self.broken = False

    def apply(self, split: TrafficSplit) -> float:
        if self.broken:
            raise RoutingError(f"the simulated gateway does not take {split}")
        self._clock.sleep(0.002)
        self.split = split
        return 0.002

    def observed(self) -> TrafficSplit:
        return self.split

    def reset(self) -> None:
        self.apply(TrafficSplit(0))


class _Traffic:
    """Requests that are counted and never sent."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.sent = 0
        self.summary = Summary(behind_p50=0.0, behind_p99=0.0)

    @property
    def asked(self) -> dict[str, Any]:
        return {"rate": self.rate, "simulated": True}

    def answers(self) -> list[Any]:
        return []

    def record(self) -> dict[str, Any]:
        return replace(self.summary, answered=self.sent).record()

    def stop(self) -> Summary:
        self.rate = 0.0
        return replace(self.summary, answered=self.sent)


class _Telemetry:
    """Draws the counts of a window."""

    delay = 0.0
    latency_edges = None
    sources: Mapping[str, str] = {"requests": "drawn at random"}

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._split, self._since = TrafficSplit(0), cluster.clock.now()

    def begin(self, split: TrafficSplit, since: float) -> None:
        self._split, self._since = split, since

    def label(self, answers: Iterable[Answered]) -> None:
        list(answers)

    def read(self, now: float) -> Window:
        start, self._since = self._since, now
        counts = self._cluster.draw(start, now, self._split)
        note = "" if counts["outcome"].any() else "no request reached the gateway"
        return Window(start, now, self._split, counts, note=note)


class SimulatedCluster:
    """A cluster that only exists as random numbers.

    Parameters
    ----------
    scenario : str or Scenario
        A name from `SCENARIOS`, or one of your own.
    seed : int
        The same seed gives the same rollout.
    trouble : callable, optional
        Takes a role and the time; returns what is wrong with its replicas, or None.

    Raises
    ------
    PlanError
        No scenario of that name.
    """

    simulated = True
    url = "http://simulated.invalid"

    def __init__(
        self,
        scenario: str | Scenario = "good",
        *,
        seed: int = 0,
        trouble: Callable[[Role, float], str | None] = lambda role, now: None,
    ) -> None:
        if isinstance(scenario, str):
            if scenario not in SCENARIOS:
                raise PlanError(f"no scenario is called {scenario!r}: choose one of {', '.join(SCENARIOS)}")
            scenario = SCENARIOS[scenario]
        self.scenario = scenario
        self.clock = SimulatedClock()
        self.router = _Router(self.clock)
        self.telemetry = _Telemetry(self)
        self._rng = np.random.default_rng(seed)
        self._trouble = trouble
        self._traffic: _Traffic | None = None
        self._service: Service | None = None
        self._behaviour = {"stable": scenario.stable, "canary": scenario.canary}

    def deploy(self, service: Service) -> None:
        """Bring up nothing."""
        self._service = service
        self.clock.sleep(3.0)

    def send(self, rate: float | str, **options: Any) -> _Traffic:
        """Begin to count requests at a rate; shapes and payloads are not simulated."""
        self._traffic = _Traffic(per_second(rate))
        return self._traffic

    def warm(self, role: Role) -> None:
        """Check that a version has replicas."""
        trouble = self._trouble(role, self.clock.now())
        if self._service is None or trouble:
            raise ClusterError(trouble or "nothing runs here: deploy a service first")

    def trouble(self, role: Role) -> str | None:
        """What is wrong with a version's replicas."""
        return self._trouble(role, self.clock.now())

    def promote(self) -> None:
        """Let stable behave as the canary does."""
        self._behaviour["stable"] = self._behaviour["canary"]
        self.clock.sleep(1.0)

    faults = ("slow", "failing", "wrong")

    def inject(self, fault: str | None) -> None:
        """Let the canary behave as in the scenario of that name; None: as in its own."""
        self._behaviour["canary"] = (SCENARIOS[fault] if fault else self.scenario).canary

    def retire_canary(self) -> None:
        """Do nothing: it has no weight any more."""

    def remember(self, **facts: Any) -> None:
        """Nothing of it outlives this process."""

    def release(self) -> None:
        """End it."""
        self.teardown()

    def teardown(self) -> None:
        """Forget the service."""
        self._service = self._traffic = None

    def draw(self, start: float, end: float, split: TrafficSplit) -> dict[str, Counts]:
        """Counts of one window.

        Parameters
        ----------
        start, end : float
            Seconds since the epoch.
        split : TrafficSplit
            What the gateway was told.
        """
        traffic, story = self._traffic, self.scenario
        rate = traffic.rate * story.traffic if traffic is not None else 0.0
        total = int(self._rng.poisson(rate * max(end - start, 0.0)))
        share = split.share * story.served if split.share < 1 else 1.0
        canary = int(self._rng.binomial(total, share))
        if traffic is not None:
            traffic.sent += total
        tide = 1 + story.drift * math.sin(2 * math.pi * start / 600)
        rows = [self._answers(role, n, tide) for role, n in zip(ROLES, (total - canary, canary), strict=True)]
        return {name: np.array([row[name] for row in rows], dtype=np.int64) for name in ("outcome", "latency", "answers")}

    def _answers(self, role: Role, requests: int, tide: float) -> dict[str, Any]:
        behaviour, rng = self._behaviour[role], self._rng
        errors = behaviour.errors * tide
        if role == "canary" and self.scenario.burst:
            shape = 1 / self.scenario.burst**2
            errors *= rng.gamma(shape, 1 / shape)
        failed = int(rng.binomial(requests, min(errors, 1.0)))
        answered = requests - failed
        wrong = int(rng.binomial(answered, behaviour.wrong))
        durations = behaviour.latency * tide * np.exp(rng.normal(0.0, 0.5, answered))
        return {
            "outcome": [answered, failed],
            "latency": latency_cells(np.minimum(durations, LATENCY_EDGES[-2])),
            "answers": [answered - wrong, wrong],
        }
