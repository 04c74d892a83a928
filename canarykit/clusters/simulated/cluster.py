"""The simulated cluster: every protocol of a real one, from random numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import numpy as np

from canarykit.clusters.base import InProcess
from canarykit.clusters.simulated.scenarios import SCENARIOS, Behaviour, Scenario
from canarykit.errors import ClusterError, PlanError, RoutingError
from canarykit.health import Health
from canarykit.interrupts import never
from canarykit.load.load import Summary, specification
from canarykit.load.payloads import classes_of
from canarykit.load.requests import checked_method, has_body
from canarykit.load.shapes import SHAPES
from canarykit.metrics import CONFUSION, LATENCY_EDGES, latency_cells
from canarykit.model import ROLES, Counts, Role, Service, TrafficSplit, Window
from canarykit.protocol import request_path
from canarykit.routers.base import Capabilities, Change, apply, need_in_place

__all__ = ["SimulatedClock", "SimulatedCluster", "from_address"]

_DIGITS = tuple(range(10))
_MISTAKEN_FOR = (6, 7, 3, 8, 9, 3, 5, 1, 1, 3)
"""Digit that each digit is most often mistaken for: in half of its wrong answers."""
_MOMENTS = 8
"""Of a window, at which the rate of traffic is looked up."""


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

    capabilities = Capabilities(frozenset({"fractions"}))

    def write(self, split: TrafficSplit, *, expected: TrafficSplit | None = None) -> Change:
        need_in_place(self.split, split, expected)
        if self.broken:
            raise RoutingError(f"the simulated gateway does not take {split}")
        change, self.split = Change(split, self.split), split
        return change

    def confirm(self, change: Change, *, cancelled: Callable[[], bool] = never) -> bool:
        self._clock.sleep(0.002)
        return True

    def observed(self) -> TrafficSplit:
        return self.split

    def reset(self) -> None:
        apply(self, TrafficSplit(0))


class _Traffic:
    """Requests that are counted and never sent."""

    def __init__(self, rate: float, shape: str, duration: float | None, labels: Sequence[Any], began: float) -> None:
        self.asked: dict[str, Any] = {"rate": rate, "shape": shape, "duration": duration, "simulated": True}
        self.classes = classes_of(labels)
        self.labelled = any(label is not None for label in labels)
        self.sent = 0
        self.statuses: dict[str, Counter[int]] = {role: Counter() for role in ROLES}
        self.stopped = False
        self._began = began

    def expected(self, start: float, end: float) -> float:
        """How many requests are due in that time."""
        rate, shape, duration = (self.asked[name] for name in ("rate", "shape", "duration"))
        start, end = max(start - self._began, 0.0), end - self._began
        if duration is not None:
            end = min(end, duration)
        if self.stopped or end <= start:
            return 0.0
        moments = np.linspace(start, end, _MOMENTS, endpoint=False) + (end - start) / (2 * _MOMENTS)
        return float(rate * (end - start) * np.mean([SHAPES[shape](float(moment), duration) for moment in moments]))

    @property
    def summary(self) -> Summary:
        statuses = {role: dict(+counted) for role, counted in self.statuses.items() if counted.total()}
        return Summary(answered=self.sent, behind_p50=0.0, behind_p99=0.0, statuses=statuses)

    def answers(self) -> list[Any]:
        return []  # the telemetry draws them, already counted

    def record(self) -> dict[str, Any]:
        return self.summary.record()

    def stop(self) -> Summary:
        self.stopped = True
        return self.summary


class _Telemetry:
    """Draws the counts of a window."""

    delay = 0.0
    latency_edges = None
    tables = frozenset({"outcome", "latency", "refused", "denied"})
    assigned_only = True
    sources: Mapping[str, str] = {"requests": "drawn at random"}

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._split, self._since = TrafficSplit(0), cluster.clock.now()

    def begin(self, split: TrafficSplit, since: float) -> None:
        self._split, self._since = split, since

    def read(self, now: float) -> Window:
        start, self._since = self._since, now
        counts = self._cluster.draw(start, now, self._split)
        note = "" if counts["outcome"].any() else "no request reached the gateway"
        return Window(start, now, self._split, counts, note=note)


class SimulatedCluster(InProcess):
    """A cluster that only exists as random numbers.

    Parameters
    ----------
    scenario : str or Scenario
        A name from `SCENARIOS`, or one of your own.
    seed : int
        The same seed gives the same rollout.
    problem : callable, optional
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
        problem: Callable[[Role, float], str | None] = lambda role, now: None,
    ) -> None:
        if isinstance(scenario, str):
            if scenario not in SCENARIOS:
                raise PlanError(f"no scenario is called {scenario!r}: choose one of {', '.join(SCENARIOS)}")
            scenario = SCENARIOS[scenario]
        self.scenario = scenario
        self.clock = SimulatedClock()
        self.router = _Router(self.clock)
        self.telemetry = _Telemetry(self)
        self._rng, self._labels, self._refusals = np.random.default_rng(seed).spawn(3)
        self._problem = problem
        self._traffic: _Traffic | None = None
        self._service: Service | None = None
        self._behaviour = {"stable": scenario.stable, "canary": scenario.canary}

    def deploy(self, service: Service) -> None:
        """Bring up nothing."""
        if self._service is not None:
            raise ClusterError("this cluster runs a service already: tear it down first, or connect to another one")
        self._service = service
        self.clock.sleep(3.0)

    def send(
        self,
        rate: float | str,
        *,
        shape: str = "steady",
        duration: float | None = None,
        payloads: Any = None,
        method: str = "POST",
        path: str = "/",
        inside: int = 0,
        url: str | None = None,
        **options: Any,
    ) -> _Traffic:
        """Begin to count requests; of payloads only the labels matter. Other options are checked as those of a `Load`."""
        if self._service is None:
            raise ClusterError("nothing runs here: deploy a service first")
        options |= {"rate": rate, "shape": shape, "duration": duration, "method": method}
        if payloads == "digits" or (payloads is None and has_body(checked_method(method))):
            payloads = [{"body": None, "label": label} for label in _DIGITS]  # to read them takes scikit-learn
        spec = specification((url or self.url) + request_path(path), payloads=payloads, **options)
        self._traffic = _Traffic(spec["rate"], shape, duration, spec["labels"], self.clock.now())
        return self._traffic

    def ensure_capacity(self, role: Role, share: float = 1.0) -> None:
        """Check that a version has replicas."""
        problem = self._problem(role, self.clock.now())
        if self._service is None or problem:
            raise ClusterError(problem or "nothing runs here: deploy a service first")

    def health(self, role: Role) -> Health:
        """How a version's replicas are: there is nothing between well and in trouble."""
        problem = self._problem(role, self.clock.now())
        return Health(problem=problem, final=True) if problem else Health()

    def promote(self, cancelled: Callable[[], bool] = never) -> bool:
        """Let stable behave as the canary does."""
        self._behaviour["stable"] = self._behaviour["canary"]
        self.clock.sleep(1.0)
        return True

    faults = ("slow", "failing", "wrong")

    def inject(self, fault: str | None) -> None:
        """Let the canary behave as in the scenario of that name; None: as in its own."""
        self._behaviour["canary"] = (SCENARIOS[fault] if fault else self.scenario).canary

    def retire_canary(self) -> None:
        """Do nothing: the canary has no weight any more."""

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
            Split that the gateway was told.
        """
        traffic, story = self._traffic, self.scenario
        expected = traffic.expected(start, end) * story.traffic if traffic is not None else 0.0
        total = int(self._rng.poisson(expected))
        share = split.share * story.served if split.share < 1 else 1.0
        canary = int(self._rng.binomial(total, share))
        if traffic is not None:
            traffic.sent += total
        tide = 1 + story.drift * math.sin(2 * math.pi * start / 600)
        rows = [self._answers(role, n, tide) for role, n in zip(ROLES, (total - canary, canary), strict=True)]
        unread = [row.pop("unread") for row in rows]
        statuses = [row.pop("statuses") for row in rows]
        counts = {name: np.array([row[name] for row in rows], dtype=np.int64) for name in rows[0]}
        if traffic is not None:
            for role, counted in zip(ROLES, statuses, strict=True):
                traffic.statuses[role].update(counted)
        if traffic is not None and not traffic.labelled:
            del counts["answers"]
        elif traffic is not None and traffic.classes == _DIGITS:
            answers = counts["answers"].tolist()
            confused = [self._confused(right, wrong, none) for (right, wrong), none in zip(answers, unread, strict=True)]
            counts[CONFUSION] = np.array(confused, dtype=np.int64)
        return counts

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
        refused, denied = self._turned_away(behaviour, answered)
        unread = refused + denied
        right = answered - wrong
        spoiled = int(self._refusals.hypergeometric(right, wrong, unread)) if unread else 0
        return {
            "outcome": [answered, failed],
            "refused": [requests - refused, refused],
            "denied": [requests - denied, denied],
            "latency": latency_cells(np.minimum(durations[unread:], LATENCY_EDGES[-2])),
            "answers": [right - spoiled, wrong + spoiled],
            "unread": unread,
            "statuses": {200: answered - unread, 422: refused, 429: denied, 500: failed},
        }

    def _turned_away(self, behaviour: Behaviour, answered: int) -> tuple[int, int]:
        """Requests that are refused, and denied; other scenarios draw the same numbers as if there were none."""
        refused = int(self._refusals.binomial(answered, behaviour.refused)) if behaviour.refused else 0
        denied = int(self._refusals.binomial(answered - refused, behaviour.denied)) if behaviour.denied else 0
        return refused, denied

    def _confused(self, right: int, wrong: int, unread: int) -> Counts:
        """Spread answers over label and what was said, with ten digits that are equally frequent.

        Parameters
        ----------
        right, wrong : int
            Answers.
        unread : int
            Number of wrong answers that cannot be read.
        """
        table = np.zeros((len(_DIGITS), len(_DIGITS) + 1), dtype=np.int64)
        for label, mistaken in enumerate(_MISTAKEN_FOR):
            table[label, mistaken] = 1
        others = 1.0 - np.eye(*table.shape)
        others[:, -1] = 0
        likely = others / others.sum() / 2 + table / table.sum() / 2
        drawn = self._labels.multinomial(wrong - unread, likely.ravel()) + self._labels.multinomial(
            right, np.eye(*table.shape).ravel() / len(_DIGITS)
        )
        if unread:
            nothing = np.zeros(table.shape, dtype=np.int64)
            nothing[:, -1] = self._refusals.multinomial(unread, np.full(len(_DIGITS), 1 / len(_DIGITS)))
            drawn = drawn + nothing.ravel()
        return np.asarray(drawn, dtype=np.int64)


def from_address(address: str, scenario: str = "good") -> SimulatedCluster:
    """Return the cluster that ``"simulated"``, ``"simulated:slow"`` or ``"simulated:slow?seed=3"`` names.

    Parameters
    ----------
    address : str
        As a parameter of a notebook.
    scenario : str
        Played when the address names none.

    Raises
    ------
    PlanError
        No such scenario; an option that is none.
    """
    named, _, options = address.removeprefix("simulated").removeprefix(":").partition("?")
    given = parse_qs(options, keep_blank_values=True)
    seed = given.pop("seed", ["0"])[-1]
    if given or not seed.isdecimal():
        raise PlanError(f"a simulated cluster takes ?seed=NUMBER, not {'?' + options!r}")
    return SimulatedCluster(named or scenario, seed=int(seed))
