"""The values that travel between the rooms: all frozen, all plain data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from numbers import Integral
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from canarykit.errors import PlanError
from canarykit.masking import masked
from canarykit.placeholders import malformed

__all__ = [
    "AT_LIMIT",
    "READY",
    "ROLES",
    "SYMBOLS",
    "Alarm",
    "Comparison",
    "Counts",
    "Ending",
    "Guardrail",
    "Judgement",
    "Metric",
    "Outcome",
    "Protocol",
    "Role",
    "Service",
    "Status",
    "TrafficSplit",
    "Verdict",
    "Version",
    "Window",
]

_ROUNDING = 1e-6
"""Percent by which a split may differ that was written as whole weights and read back."""

_ENV_NAME = re.compile(r"[A-Za-z_.-][A-Za-z0-9_.-]*")
"""Names of environment variables that both processes and pods can have."""

Role = Literal["stable", "canary"]
ROLES: tuple[Role, Role] = ("stable", "canary")

Status = Literal["pass", "fail", "inconclusive", "no data"]

READY = "/v2/health/ready"
"""Path on which servers of the Open Inference Protocol say that they can serve."""

_SOURCES = ("model", "command", "image", "deployment", "like")

Protocol = Literal["http", "h2c"]
"""What a server speaks: HTTP/1.1, or HTTP/2 without TLS and without an upgrade (Kubernetes calls it ``kubernetes.io/h2c``)."""

Outcome = Literal["promoted", "rolled back", "inconclusive", "no data", "failed"]

SYMBOLS: Mapping[str, str] = {
    "pass": "✓", "fail": "✗", "inconclusive": "?", "no data": "–",
    "promoted": "✓", "rolled back": "✗", "failed": "!",
}  # fmt: skip
"""A sign beside each word, so that nothing is said by colour alone."""

AT_LIMIT = "at_limit"
"""Table whose second cell counts requests that the gateway ended at its own time limit. They are failed in `outcome`, too."""

Counts = npt.NDArray[np.int64]
"""Requests per version and cell, shape (2, cells), stable first."""


@dataclass(frozen=True, slots=True)
class TrafficSplit:
    """Share of requests that the canary receives; stable has the rest.

    Parameters
    ----------
    canary : float
        Percent, 0 to 100. Fractions are allowed; a router that cannot serve them refuses.

    Raises
    ------
    PlanError
        The weight is not a number from 0 to 100.
    """

    canary: float = 0.0

    def __post_init__(self) -> None:
        try:
            weight = float(self.canary)
        except (TypeError, ValueError):
            raise PlanError(f"canary weight must be a number of percent, not {self.canary!r}") from None
        if not 0 <= weight <= 100:
            raise PlanError(f"canary weight must be 0 to 100 percent, not {self.canary}")
        object.__setattr__(self, "canary", weight)

    @property
    def stable(self) -> float:
        """Percent of requests that stable receives."""
        return 100 - self.canary

    @property
    def share(self) -> float:
        """Share of requests that the canary receives, 0 to 1."""
        return self.canary / 100

    def is_near(self, other: TrafficSplit) -> bool:
        """Whether two splits are the same, but for the rounding of weights to whole numbers."""
        return abs(self.canary - other.canary) <= _ROUNDING

    def __str__(self) -> str:
        return f"{self.canary:g} %"

    def _repr_html_(self) -> str:
        return f"<b>{self}</b> of the requests go to the canary, {self.stable:g} % to stable"


def _check_env(env: object, whose: str) -> None:
    """Check that an environment is names and text; values are not shown, because one may be a secret.

    Raises
    ------
    PlanError
        A name that no environment can have, or a value that is not text, and would be another one as text on each cluster.
    """
    if not isinstance(env, Mapping):
        raise PlanError(f"env= of {whose} is a mapping of names to text, such as {{'DEBUG': '1'}}, not {type(env).__name__}")
    for name, value in env.items():
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise PlanError(
                f"env= of {whose} has the name {name!r}: names are letters, digits, '_', '-' and '.', and begin with no digit"
            )
        if not isinstance(value, str):
            written = f"'{int(value)}'" if isinstance(value, int) and value in (0, 1) else "'…'"
            raise PlanError(f"env= values are text: write {name}={written} (env= of {whose} has {_kind(value)})")
        if "\0" in value:
            raise PlanError(f"env= values hold no zero byte, and {name} of {whose} does")


def _kind(value: object) -> str:
    return str(value) if value is None or isinstance(value, bool) else f"a value of type {type(value).__name__}"


def _check_words(command: object, whose: str) -> None:
    """Check that a command is words.

    Raises
    ------
    PlanError
        It is none, or has something else in it.
    """
    if isinstance(command, str | bytes):
        raise PlanError(f"{whose} must be a list of words, not one string")
    if not isinstance(command, Sequence) or not command:
        raise PlanError(f"{whose} must be a list of words, each of them text")
    for word in command:
        if isinstance(word, int | float) and not isinstance(word, bool):
            raise PlanError(
                f"{whose} must be a list of words, each of them text: write the number {word!r} as '{word}', or as '{{port}}' "
                "if it is the port on which the server listens"
            )
        if not isinstance(word, str):
            raise PlanError(f"{whose} must be a list of words, each of them text: it has {_kind(word)}")
        if "\0" in word:
            raise PlanError(f"{whose} has a word with a zero byte, which no command can have")


def _check_port_names(places: Iterable[str], whose: str) -> None:
    """Check that each ``{port:…}`` names a port.

    Raises
    ------
    PlanError
        One does not.
    """
    if wrong := malformed(places):
        raise PlanError(
            f"{wrong} of {whose} names no port: a name has letters, digits, - and _, and begins with a letter, as in "
            "{port:metrics}"
        )


def _check_ports(version: Version, env: Mapping[str, str], service: str) -> None:
    """Check that a version with a command is told its port, by that or by its whole environment.

    Raises
    ------
    PlanError
        It is not, or a further port has no name.
    """
    if version.command is None:
        return
    _check_port_names(env.values(), f"env= of service {service!r}")
    if not any("{port}" in place for place in (*version.command, *env.values())):
        raise PlanError(
            f"command of version {version.name!r} has no {{port}}: put it where your server takes its port, "
            'for example ["python", "serve.py", "--port", "{port}"], or into a value of env='
        )


def _check_own(version: Version) -> None:
    """Check what is said of a Deployment of one's own, and of the container.

    Raises
    ------
    PlanError
        It belongs to another way of giving a version, or is no list of words, or no mapping.
    """
    whose = f"version {version.name!r}"
    if version.deployment is not None and (changed := [name for name in ("args", "resources") if getattr(version, name)]):
        raise PlanError(f"{' and '.join(changed)} of {whose} cannot differ: deployment= runs already; a copy of it is like=")
    if version.deployment is not None and version.env:
        raise PlanError(f"env= of {whose} cannot differ: deployment= runs already; a copy of it is like=")
    if version.deployment is None and version.service is not None:
        raise PlanError(f"service= of {whose} is the Service of deployment=: give that, too")
    if version.deployment is None and version.like is None and version.container is not None:
        raise PlanError(f"container= of {whose} is a container of deployment= or like=: give one of them")
    if version.args is not None:
        if version.model is not None or version.command is not None:
            raise PlanError(f"args= of {whose} is for a container: a model takes none, and a command has its words itself")
        _check_words(version.args, f"args of {whose}")
    if version.resources is not None and not isinstance(version.resources, Mapping):
        raise PlanError(f"resources= of {whose} is a mapping such as {{'requests': {{'cpu': '1'}}}}, not {version.resources!r}")


@dataclass(frozen=True)
class Version:
    """One build of an AI service, and where it comes from.

    Parameters
    ----------
    name : str
        Name of the version, such as ``"v2"`` or ``"2026-11-23"``.
    model : estimator or path, optional
        A fitted scikit-learn estimator, or a ``.skops`` file that holds one. It is served over the
        Open Inference Protocol by the kit's own server.
    command : sequence of str, optional
        A server of your own, which stays in the foreground and listens on 127.0.0.1 or on all addresses. ``{port}`` stands for
        the port on which it must listen, ``{port:NAME}`` for a further port of its own (metrics, gRPC); both may also stand in
        values of `env`. They are in its environment as ``PORT`` and ``PORT_NAME`` (in capitals, with _ for -), unless `env`
        sets these. ``python`` and ``python3`` are the interpreter of the notebook's kernel, and other programs are
        taken from the interpreter's folder when they are there; write a path to run another one.
    image : str, optional
        A container image, for clusters that run containers. With `like`, the image that the copy has instead.
    deployment : str, optional
        Name of a Deployment of your own that runs already, on Kubernetes.
    like : str, optional
        Name of such a Deployment: the version is a copy of it, in which `image`, `env`, `args` and `resources` differ. The
        copy is removed when the rollout ends.
    service : str, optional
        Name of the Service that leads to `deployment`, where several do.
    container : str, optional
        Container of `deployment` or `like` that serves, where its ports do not tell.
    args : sequence of str, optional
        Arguments of the container, on Kubernetes; those of the image, or of the copied Deployment, by default.
    resources : mapping, optional
        Requests and limits of the container, on Kubernetes: ``{"requests": {"cpu": "1"}}``.
    ready : str
        Path that answers 200 when the version can serve. Of a Deployment of your own, it is the path of its readiness probe.
    env : mapping of str to str
        Environment of the server, added to the service's own. On the local cluster, servers share the processors:
        ``OMP_NUM_THREADS``, ``OPENBLAS_NUM_THREADS`` and ``MKL_NUM_THREADS`` are 1 there, unless you set them here or in the
        notebook's environment. If you set ``OMP_NUM_THREADS``, the others are left alone: these libraries follow it.
    trusted : sequence of str
        Full names of types in the model file that may be loaded although they are not scikit-learn's.
    protocol : {"http", "h2c"}
        Protocol between gateway and server: HTTP/1.1, or HTTP/2 without TLS, as gRPC servers want it. Clients may speak
        either to the gateway.

    Raises
    ------
    PlanError
        Not exactly one of ``model``, ``command``, ``image``, ``deployment`` and ``like`` is given, a command is no list of
        words, ``ready`` is no path,
        ``env`` has a name that is none or a value that is not text, or there is no such protocol.
    """

    name: str
    model: Any = None
    command: Sequence[str] | None = None
    image: str | None = None
    ready: str = READY
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    trusted: Sequence[str] = ()
    protocol: Protocol = "http"
    deployment: str | None = None
    like: str | None = None
    service: str | None = None
    container: str | None = None
    args: Sequence[str] | None = None
    resources: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        given = [source for source in _SOURCES if getattr(self, source) is not None]
        if len(given) != 1 and given != ["image", "like"]:
            raise PlanError(
                f"version {self.name!r} needs exactly one of model=, command=, image=, deployment= and like=, "
                f"not {' and '.join(given) or 'none of them'}"
            )
        _check_own(self)
        _check_env(self.env, f"version {self.name!r}")
        if self.command is not None:
            _check_words(self.command, f"command of version {self.name!r}")
            _check_port_names([*self.command, *self.env.values()], f"version {self.name!r}")
        if not isinstance(self.ready, str) or not self.ready.startswith("/"):
            raise PlanError(f"ready of version {self.name!r} must be a path such as /healthz, not {self.ready!r}")
        if self.protocol not in get_args(Protocol):
            known = ' and "h2c" (HTTP/2 without TLS)'
            raise PlanError(f'protocol of version {self.name!r} must be one of "http" (HTTP/1.1){known}, not {self.protocol!r}')
        if self.model is not None and self.protocol != "http":
            raise PlanError(f"version {self.name!r} is a model=, and the kit's own server speaks HTTP/1.1: leave out protocol=")


def _check_pair(service: Service) -> None:
    """Check that both versions are a team's own, or none is, and that a copy is one of stable.

    Raises
    ------
    PlanError
        They are not.
    """
    stable, canary = service.stable, service.canary
    if stable.like is not None:
        raise PlanError(f"stable of {service.name!r} is what serves now: give deployment=, and like= for the canary")
    if (stable.deployment is None) != (canary.deployment is None and canary.like is None):
        raise PlanError(
            f"one version of {service.name!r} is a Deployment of your own and the other is not: with "
            f'stable=Version(…, deployment="NAME") the canary is like="NAME", or another deployment='
        )
    if canary.like is not None and canary.like != stable.deployment:
        raise PlanError(f"the canary of {service.name!r} is a copy of {canary.like}, and stable is {stable.deployment}")
    if canary.deployment is not None and canary.deployment == stable.deployment:
        raise PlanError(f"both versions of {service.name!r} are Deployment {stable.deployment}: a rollout needs two")


@dataclass(frozen=True)
class Service:
    """Both versions of an AI service behind one address.

    Parameters
    ----------
    name : str
        Name of the service; also the name of the model that it serves.
    stable, canary : Version
        The version that serves now, and the one that may replace it.
    replicas : int
        Processes or pods per version. Two by default: with one each, the difference between two
        *instances* looks like a difference between two *versions*.
    env : mapping of str to str
        Environment of both versions.

    Raises
    ------
    PlanError
        A name with other signs, no replica, an environment as of no `Version`, a version that is none, one whose command
        has no ``{port}`` (it may also stand in ``env``, of the version or of the service), or versions of different protocols.
    """

    name: str
    stable: Version
    canary: Version
    replicas: int = 2
    env: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not all(c.isalnum() or c in "-_." for c in self.name):
            raise PlanError(f"service name may hold letters, digits, '-', '_' and '.', not {self.name!r}")
        if isinstance(self.replicas, bool) or not isinstance(self.replicas, Integral) or self.replicas < 1:
            raise PlanError(f"service {self.name!r} needs at least one replica per version, not {self.replicas!r}")
        _check_env(self.env, f"service {self.name!r}")
        for role, version in zip(ROLES, (self.stable, self.canary), strict=True):
            if not isinstance(version, Version):
                raise PlanError(f"{role} of service {self.name!r} is a Version, not {_kind(version)}")
            _check_ports(version, {**self.env, **version.env}, self.name)
        _check_pair(self)
        if self.stable.protocol != self.canary.protocol:
            raise PlanError(
                f"the versions of {self.name!r} speak different protocols ({self.stable.protocol} and {self.canary.protocol}): "
                "a promotion exchanges the servers behind one address, so both need the same protocol="
            )

    def version(self, role: Role) -> Version:
        """Return the version in that role."""
        return self.stable if role == "stable" else self.canary

    def rehearsal(self) -> Service:
        """Return the same service with the stable version in both roles.

        Rolling it out shows how far two equal versions differ here, and so which slowdown to tolerate.
        """
        return replace(self, canary=self.stable)


@dataclass(frozen=True, slots=True)
class Metric:
    """Something that is counted for both versions.

    Parameters
    ----------
    name : str
        Name of the metric: ``"error rate"``.
    table : str
        Which table of a `Window` it reads: ``"outcome"``.
    kind : {"rate", "quantile", "score", "classes"}
        A share of requests that went badly, a quantile of a histogram, a mean score, or shares of classes.
    cells : tuple
        A rate has two names, good and bad. A histogram has the upper edge of each bucket in `unit`, rising; the last may
        be infinity. A score has the value of each bin, classes have their names.
    unit : str
        Unit of the level: ``"s"``, or empty for a share.
    quantile : float, optional
        Which quantile, 0 to 1.
    shown : {"bad", "good"}
        Whether people read the share of bad cells (error rate) or of good ones (accuracy).
    """

    name: str
    table: str
    kind: Literal["rate", "quantile", "score", "classes"]
    cells: tuple[Any, ...]
    unit: str = ""
    quantile: float | None = None
    shown: Literal["bad", "good"] = "bad"


@dataclass(frozen=True, slots=True)
class Guardrail:
    """What the canary must not do worse than stable, and by how much.

    Parameters
    ----------
    metric : Metric
        Metric that is compared.
    tolerate : float
        Ratio canary / stable (of bad requests, or of the quantile) that is tolerated: alarm only when
        the canary is shown to be worse than this. Of scores and classes nothing is tolerated: 0.
    margin : float
        Promote only when the canary is shown to be no worse than this ratio; of scores and classes, than this difference.
    ceiling : float, optional
        Share of requests below which a rate passes anyway, for events so rare that a ratio says nothing.
    mde : float, optional
        The ratio that one wants to find, when it is known: the same guarantee from fewer requests. For a quantile only where
        no slowdown is tolerated (``tolerate=1``).
    weight : float
        Share of the error budget, relative to the other guardrails.
    limit : float, optional
        Share of bad requests of *stable* above which a rate has no reference. The verdict is then "no data", because
        a canary that is no worse than a broken version is not shown to be good.

    Raises
    ------
    PlanError
        Numbers that contradict each other.
    """

    metric: Metric
    tolerate: float = 1.0
    margin: float = 1.5
    ceiling: float | None = None
    mde: float | None = None
    weight: float = 1.0
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and not (self.metric.kind == "rate" and 0 < self.limit <= 1):
            raise PlanError(f"{self.name}: limit is a share of a rate, above 0 and up to 1, not {self.limit}")
        if self.metric.kind in ("score", "classes"):
            if self.tolerate != 0 or not 0 < self.margin < 1:
                raise PlanError(f"{self.name}: margin is a difference between 0 and 1, and nothing is tolerated (0)")
            return
        if not self.tolerate > 0:
            raise PlanError(f"{self.name}: tolerate must be a ratio above 0, not {self.tolerate}")
        if not self.margin > self.tolerate:
            raise PlanError(
                f"{self.name}: margin ({self.margin}) must be above tolerate ({self.tolerate}): "
                "nothing can be shown to be no worse than what is tolerated exactly"
            )
        if self.ceiling is not None and not (self.metric.kind == "rate" and 0 < self.ceiling < 1):
            raise PlanError(f"{self.name}: ceiling is a share between 0 and 1 of a rate, not {self.ceiling}")
        if self.mde is not None and not self.mde > self.tolerate:
            raise PlanError(f"{self.name}: mde ({self.mde}) must be above tolerate ({self.tolerate})")
        if self.mde is not None and self.metric.kind == "quantile" and self.tolerate != 1:
            raise PlanError(f"{self.name}: mde counts only where no slowdown is tolerated (tolerate=1)")
        if not self.weight > 0:
            raise PlanError(f"{self.name}: weight must be above 0, not {self.weight}")

    @property
    def name(self) -> str:
        """Name of the metric, which is also the guardrail's."""
        return self.metric.name

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Guardrail:
        """Return the guardrail whose fields these are, as JSON keeps them: it has lists, and text for infinity."""
        metric = dict(written["metric"])
        if metric["kind"] == "quantile":
            metric["cells"] = map(float, metric["cells"])
        return cls(**{**written, "metric": Metric(**{**metric, "cells": tuple(metric["cells"])})})


@dataclass(frozen=True)
class Window:
    """One interval of traffic, as tables of counts.

    Parameters
    ----------
    start, end : float
        Seconds since the epoch.
    split : TrafficSplit
        The weight that was configured during the whole interval.
    counts : mapping of str to (2, cells) int array
        Requests per table (``"outcome"``, ``"latency"``, ``"refused"``, ``"denied"``, ``"answers"``, ``"at_limit"``), version
        (stable first) and cell.
        A table that a source could not deliver is absent: that is no data, not zero.
    instances : mapping of str to mapping of str to (cells,) int array
        Counts per replica, ``"stable-0"``, ``"canary-1"``, …, of the tables ``"latency"`` and ``"outcome"``, where the source
        can tell replicas apart: instances are not versions.
    left_out : int
        Requests that began under an earlier weight and ended in this window; counted in no table.
    note : str
        The missing data and the reason, in words.
    judged : bool
        False after the end of a rollout: after a promotion, stable is another version.
    in_flight : tuple of int, optional
        Requests of stable and canary that were assigned and had not ended when the window closed; None when the source
        cannot tell. The journal does not keep it.
    apart : float
        Seconds by which the counts of one version begin and end before those of the other, because their sources are read
        one after another. The journal does not keep it.
    waiting : bool
        The source has nothing new yet, which is no fault so far; the note says what it waits for. Such a window is neither
        judged nor kept.
    """

    start: float
    end: float
    split: TrafficSplit
    counts: Mapping[str, Counts]
    instances: Mapping[str, Mapping[str, Counts]] = field(default_factory=dict)
    left_out: int = 0
    note: str = ""
    judged: bool = True
    in_flight: tuple[int, int] | None = None
    apart: float = 0.0
    waiting: bool = False

    @property
    def requests(self) -> tuple[int, int]:
        """Finished requests of stable and canary."""
        table = self.counts.get("outcome")
        return (0, 0) if table is None else (int(table[0].sum()), int(table[1].sum()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Canary against stable on one guardrail, from everything counted so far.

    Parameters
    ----------
    metric : str
        Name of the metric.
    levels : tuple of float
        Level of stable and canary in the metric's unit; NaN where nothing was counted. Stable's requests are
        weighted as the canary's in each window, so that what changes over time is no difference.
    events, requests : tuple of int
        Bad requests (of a quantile: requests slower than stable's quantile) and all requests, stable first.
    effect : float
        Ratio canary / stable of bad requests, or of the quantile; NaN when unknown.
    interval : tuple of float
        95 % confidence sequence of that ratio: valid however often one looks.
    log_e : float
        Evidence, natural log, that the canary is worse than tolerated.
    log_e_safe : float
        Evidence, natural log, that it is no worse than the margin.
    alarm_at : float
        Value of E at which this guardrail alone would alarm: 20 at an error budget of 5 %, less up to a declared horizon.
    log_e_any : float
        Evidence, natural log, that the versions differ at all; fails a canary only when nothing is tolerated.
    alpha : float
        Error budget: the interval misses at most in this share of rollouts.
    dispersion : float
        How much more the counts vary from window to window than those of independent requests (φ), as an alarm takes it.
    likely_dispersion : float
        The same as it most likely is; NaN when it is estimated and nothing is known yet.
    """

    metric: str
    levels: tuple[float, float]
    events: tuple[int, int]
    requests: tuple[int, int]
    effect: float
    interval: tuple[float, float]
    log_e: float
    log_e_safe: float
    alarm_at: float
    log_e_any: float = 0.0
    alpha: float = 0.05
    dispersion: float = 1.0
    likely_dispersion: float = 1.0


@dataclass(frozen=True, slots=True)
class Alarm:
    """The first moment at which a guardrail was shown to be broken. It never uncrosses.

    Parameters
    ----------
    guardrail : str
        Which one.
    time : float
        End of the window that crossed the line, seconds since the epoch.
    requests : tuple of int
        Requests judged until then, stable first.
    """

    guardrail: str
    time: float
    requests: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guardrail says, in a word, a sentence and the numbers.

    Parameters
    ----------
    guardrail : str
        Name of the guardrail.
    status : {"pass", "fail", "inconclusive", "no data"}
        Silence, NaN and missing data are "no data", never "pass".
    sentence : str
        For people.
    comparison : Comparison
        For machines.
    cells : mapping of str to str
        The numbers in words, one per column of a table: stable, canary, effect, evidence.
    suspect : bool
        Its evidence is past the line of one guardrail, but not past that of all together. The weight does not rise meanwhile.
    """

    guardrail: str
    status: Status
    sentence: str
    comparison: Comparison
    cells: Mapping[str, str] = field(default_factory=dict)
    suspect: bool = False

    def __str__(self) -> str:
        return f"{self.guardrail}: {self.status}: {self.sentence.removeprefix(f'{self.guardrail}: ')}"

    def _repr_html_(self) -> str:
        sentence = escape(self.sentence.removeprefix(f"{self.guardrail}: "))
        return f"<p>{escape(self.guardrail)}: <strong>{SYMBOLS[self.status]} {self.status}</strong>: {sentence}</p>"


@dataclass(frozen=True, slots=True)
class Judgement:
    """All guardrails together.

    Parameters
    ----------
    status : {"pass", "fail", "inconclusive", "no data"}
        fail when one guardrail or more fails, pass when every guardrail passes.
    sentence : str
        The one sentence a person needs.
    verdicts : tuple of Verdict
        One per guardrail, in the order given.
    log_e : float
        Strongest evidence of a guardrail, adjusted for asking all of them, natural log.
    alarm : Alarm, optional
        Set once, kept for good.
    """

    status: Status
    sentence: str
    verdicts: tuple[Verdict, ...]
    log_e: float
    alarm: Alarm | None = None

    @property
    def requests(self) -> tuple[int, int]:
        """Requests of stable and canary that the first guardrail has compared."""
        return self.verdicts[0].comparison.requests if self.verdicts else (0, 0)

    @property
    def suspects(self) -> tuple[Verdict, ...]:
        """Guardrails past their own line, but not past the family's."""
        return tuple(verdict for verdict in self.verdicts if verdict.suspect)

    def __str__(self) -> str:
        each = [f"  {verdict}" for verdict in self.verdicts] if len(self.verdicts) > 1 else []
        return "\n".join([f"{self.status}: {self.sentence}", *each])

    def _repr_html_(self) -> str:
        rows = [
            {"guardrail": verdict.guardrail, **verdict.cells, "verdict": f"{SYMBOLS[verdict.status]} {verdict.status}"}
            for verdict in self.verdicts
        ]
        head = "".join(f"<th scope='col'>{escape(column)}</th>" for column in rows[0])
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row.values()) + "</tr>" for row in rows)
        verdict = f"<p><strong>{SYMBOLS[self.status]} {self.status}</strong>: {escape(self.sentence)}</p>"
        return f"{verdict}<table class='judgement'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


@dataclass(frozen=True, slots=True)
class Ending:
    """How a rollout ended.

    Parameters
    ----------
    outcome : {"promoted", "rolled back", "inconclusive", "no data", "failed"}
        In a word.
    sentence : str
        And why.
    """

    outcome: Outcome
    sentence: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "sentence", masked(self.sentence))  # it may quote the log of a server

    @property
    def exit_code(self) -> int:
        """What a command that ran the rollout exits with."""
        return {"promoted": 0, "rolled back": 10, "inconclusive": 20, "no data": 30, "failed": 1}[self.outcome]

    def __str__(self) -> str:
        return f"{self.outcome}: {self.sentence}"

    def _repr_html_(self) -> str:
        return f"<p><strong>{SYMBOLS[self.outcome]} {escape(self.outcome)}</strong>: {escape(self.sentence)}</p>"
