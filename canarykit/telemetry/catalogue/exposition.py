"""Exposition: the names under which one framework counts, where it shows them, and what its labels mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import urlsplit

from canarykit.statuses import Kind
from canarykit.telemetry.catalogue.labels import asked_for, broken, kind_of_grpc_label, kind_of_http_label

__all__ = ["Counter", "Exposition"]

Counter = Literal["requests", "failures", "latency"]

_HANDLERS = ("handler", "path", "route", "endpoint", "uri", "http_route", "http_target", "url_path")
"""Labels in which frameworks say what was asked for; the last three are OpenTelemetry's."""

_METHODS = ("method", "http_method", "http_request_method")
"""Labels in which they say how."""

_IGNORED = (
    "/metrics",
    "/health",
    "/health/*",
    "/healthz",
    "/livez",
    "/readyz",
    "/live",
    "/ready",
    "/startupz",
    "/ping",
    "/v2/health/*",
    "/v2/models/*/ready",
    "/-/*",
)
"""Paths that only the cluster and the scraper ask for."""

_SAFE_METHODS = ("", "GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Exposition:
    """Names under which one framework counts.

    Parameters
    ----------
    requests : str
        Counter of finished requests.
    latency : str
        Histogram of their durations, without ``_bucket``.
    code : str, optional
        Label with the HTTP status, ``"422"``, or its class, ``"4xx"``.
    classes : bool
        Whether that label may hold classes: then all 4xx count as refused, because nobody can tell which were denied.
    grpc : str, optional
        Label with the status of gRPC calls, whose HTTP status is 200 also when they failed.
    protocol : str, optional
        Label that says which calls are gRPC: ``"grpc"``, ``"grpc-web"``. Without it, those that have the label `grpc`.
    flags : str, optional
        Label with Envoy's response flags, which say that an answer broke off after its headers.
    fault : str, optional
        Label that failed requests alone carry, whatever it says.
    failures : str, optional
        Counter of requests that were not answered, where no label of `requests` tells. They are among `requests` or beside
        them: `beside`.
    beside : bool
        Whether `requests` counts successes alone.
    reason : str, optional
        Label of `failures` that says why: an HTTP status, or a word of `reasons`. What it does not explain is a failure.
    reasons : mapping of str to str
        Kind of request that a word in `reason` means: ``"refused"`` or ``"denied"``.
    seconds : float
        One unit of the histogram in seconds.
    backend : str, optional
        Label that names the backend, of a gateway; None where each pod is asked itself.
    mesh : bool
        Whether the sidecars of all clients count, so that calls of a version's own Service are among the requests.
    handlers : tuple of str
        Labels in which it may say what was asked for; none where it counts inferences alone, or a gateway counts.
    ignore : tuple of str
        Paths in these labels that are left out when they were asked for by GET or HEAD; ``*`` stands for anything.
    port : int, optional
        Port of its metrics page; the one at which it serves by default.
    path : str
        Path of its metrics page.
    """

    requests: str
    latency: str
    code: str | None = None
    classes: bool = False
    grpc: str | None = None
    protocol: str | None = None
    flags: str | None = None
    fault: str | None = None
    failures: str | None = None
    beside: bool = False
    reason: str | None = None
    reasons: Mapping[str, Kind] = field(default_factory=dict)
    seconds: float = 1.0
    backend: str | None = None
    mesh: bool = False
    handlers: tuple[str, ...] = _HANDLERS
    ignore: tuple[str, ...] = _IGNORED
    port: int | None = None
    path: str = "/metrics"

    @property
    def names(self) -> dict[str, str]:
        """Its metrics, by what they count."""
        named = {"requests": self.requests, "failures": self.failures, "latency": f"{self.latency}_bucket"}
        return {what: name for what, name in named.items() if name}

    @property
    def tables(self) -> frozenset[str]:
        """Tables of a window that it can tell."""
        told: set[str] = set()
        if self.reason:
            told = {*self.reasons.values()} or {"refused", "denied"}
        elif self.code:
            told = {"refused"} if self.classes else {"refused", "denied"}
        return frozenset({"outcome", "latency", *told})

    @property
    def assigned_only(self) -> bool:
        """Whether the router assigned all that it counts; a pod also counts who asks it directly, and so do sidecars."""
        return self.backend is not None and not self.mesh

    def counts(self, name: str) -> Counter | None:
        """What a metric counts, by its name on a page or in Prometheus; None when it is none of ours."""
        if name in (self.requests, f"{self.requests}_total"):
            return "requests"
        if self.failures and name in (self.failures, f"{self.failures}_total"):
            return "failures"
        return "latency" if name == f"{self.latency}_bucket" else None

    def kind(self, labels: Mapping[str, str], what: Counter = "requests") -> Kind | None:
        """Say what became of the requests that a series counts.

        Parameters
        ----------
        labels : mapping of str to str
            Its labels.
        what : {"requests", "failures", "latency"}
            Meaning of the counter.

        Returns
        -------
        str or None
            None when a label that should say so is not there, or says nothing known. A histogram without any counts as
            answered: most do not tell.
        """
        if what == "failures":
            return self._counted_as(self._reason(labels))
        if self.fault:
            return "failed" if labels.get(self.fault) else "ok"
        if not self.code or (what == "latency" and not labels.get(self.code)):
            return "ok"
        kind = self._status(labels)
        if kind == "ok" and self.flags and broken(labels.get(self.flags, ""), labels.get(self.code, "")):
            return "failed"
        return None if kind is None else self._counted_as(kind)

    def ignores(self, labels: Mapping[str, str]) -> bool:
        """Whether a series counts probes or scrapes: requests that the cluster made, and no client."""
        if any(labels.get(name, "").upper() not in _SAFE_METHODS for name in _METHODS):
            return False
        # An operator's scrape has a label endpoint of its own, and renames the server's.
        asked = ((labels.get(f"exported_{name}") or labels.get(name, "")).partition("?")[0] for name in self.handlers)
        return any(asked_for(handler, path) for handler in asked if handler.startswith("/") for path in self.ignore)

    def told(self, seen: Iterable[Iterable[str]]) -> dict[str, str]:
        """Say which requests are left out, that probes cannot be told apart, or that nobody knows yet.

        Parameters
        ----------
        seen : iterable of iterable of str
            Names of the labels of each series of requests that was seen.
        """
        if not self.handlers:
            return {}
        seen = list(seen)
        if not seen:
            return {"left out": "not known yet: no request was counted so far, so no label says what is asked for"}
        known, labels = {*self.handlers, *(f"exported_{name}" for name in self.handlers)}, ", ".join(self.handlers)
        if any(known.isdisjoint(names) for names in seen):
            said = f"all requests of a pod, probes and scrapes among them: none of the labels {labels} says what was asked for"
            return {"counted": said}
        return {"left out": f"GET and HEAD requests for {', '.join(self.ignore)}, where a label {labels} says so"}

    def ignoring(self, ready: Iterable[str] = (), *, ignore: Iterable[str] | None = None) -> Exposition:
        """Return the same, with other paths to leave out.

        Parameters
        ----------
        ready : iterable of str
            Paths at which versions are asked whether they are ready; they are left out beside the others.
        ignore : iterable of str, optional
            In place of the paths of the catalogue.
        """
        paths = (*(self.ignore if ignore is None else ignore), *(urlsplit(path).path for path in ready))
        return replace(self, ignore=tuple(dict.fromkeys(paths)))

    def _status(self, labels: Mapping[str, str]) -> Kind | None:
        """What the labels with statuses say, gRPC's before HTTP's."""
        assert self.code
        http = kind_of_http_label(labels.get(self.code, ""))
        protocol = labels.get(self.protocol, "") if self.protocol else ""
        if not self.grpc or (protocol and not protocol.startswith("grpc")) or not (protocol or labels.get(self.grpc)):
            return http
        grpc = kind_of_grpc_label(labels.get(self.grpc, ""))
        if self.grpc == self.code:
            return grpc or http
        if http != "ok":
            return http
        # A stream that ends without a status is an error to its client.
        return grpc or ("failed" if protocol else http)

    def _reason(self, labels: Mapping[str, str]) -> Kind:
        said = labels.get(self.reason, "") if self.reason else ""
        return self.reasons.get(said) or kind_of_http_label(said) or "failed"

    def _counted_as(self, kind: Kind) -> Kind:
        """Count a kind that has no table of its own here as the next worse one."""
        if kind == "denied" and "denied" not in self.tables:
            kind = "refused"
        return "failed" if kind == "refused" and "refused" not in self.tables else kind
