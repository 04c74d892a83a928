"""The split of ingress-nginx: a second Ingress with canary annotations beside the one that serves stable."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.base import Capabilities
from canarykit.routers.objects import Target
from canarykit.routers.route import RouteRouter, whole_weights
from canarykit.routers.testers import Testers
from canarykit.routers.ways import Way, best, host_of

__all__ = ["PREFIX", "IngressNginxRouter", "canary_ingress", "ingress", "patch", "split_of", "way_of"]

PREFIX = "nginx.ingress.kubernetes.io"
MAX_TOTAL = 1_000_000

_NOT_COPIED = (
    f"{PREFIX}/canary",  # of another canary
    "kubectl.kubernetes.io/",  # what was applied last: the first one's
    "argocd.argoproj.io/",  # whoever owns the first one would own, and prune, the second
    "meta.helm.sh/",
    "helm.sh/",
    "kustomize.toolkit.fluxcd.io/",
    "helm.toolkit.fluxcd.io/",
    "canarykit.dev/",
    "cert-manager.io/",  # would ask for the first one's certificate again
    "acme.cert-manager.io/",
    "external-dns.alpha.kubernetes.io/",  # would write, and later remove, the first one's names
    "field.cattle.io/",
)
"""How the names of annotations begin that stay the first Ingress's own."""

_LITERAL = re.compile(r"[A-Za-z0-9/_.~-]*(?![*+?{])")
"""Beginning of a path that is no expression."""


def ingress(target: Target, *, ingress_class: str, hostname: str | None) -> dict[str, Any]:
    """Return the Ingress of stable that the kit makes where the user has none."""
    backend = {"service": {"name": target.service("stable"), "port": {"number": target.port}}}
    rule: dict[str, Any] = {"http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}
    if hostname:
        rule["host"] = hostname
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": target.app, "labels": dict(target.labels)},
        "spec": {"ingressClassName": ingress_class, "rules": [rule]},
    }


def canary_ingress(primary: Mapping[str, Any], target: Target, testers: Testers | None = None) -> dict[str, Any]:
    """Return the second Ingress: rules of the first that lead to stable, now to the canary; no weight yet.

    It has the first one's class and annotations, without which the same controller would not serve it alike: rewriting,
    logins, limits. Those stay away by which others own an Ingress, or act on each one that has them.

    Parameters
    ----------
    primary : mapping
        The first.
    target : Target
        The Services.
    testers : Testers, optional
        Values of the header; the names of the roles by default.

    Raises
    ------
    RoutingError
        The first has no rule that leads to stable.
    """
    meta, spec = primary["metadata"], primary["spec"]
    rules = [
        {**rule, "http": {"paths": paths}}
        for rule in spec.get("rules") or []
        if (paths := _to_canary(_paths(rule, target), target))
    ]
    if not rules:
        everything = spec.get("defaultBackend", {}).get("service", {}).get("name") == target.service("stable")
        beside = " but as defaultBackend, which no canary can be beside" if everything else ""
        raise RoutingError(
            f"Ingress {meta['name']} has no rule that leads to Service {target.service('stable')}{beside}: add one, "
            "or name another Ingress"
        )
    copied = {key: value for key, value in (meta.get("annotations") or {}).items() if not key.startswith(_NOT_COPIED)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": target.service("canary"),
            "labels": dict(target.labels),
            "annotations": {
                **copied,
                f"{PREFIX}/canary": "true",
                **_header(testers or Testers()),
                f"{PREFIX}/canary-weight": "0",
                f"{PREFIX}/canary-weight-total": "100",
            },
        },
        "spec": {
            **({"ingressClassName": cls} if (cls := spec.get("ingressClassName")) else {}),
            **({"tls": tls} if (tls := spec.get("tls")) else {}),
            "rules": rules,
        },
    }


def _paths(rule: Mapping[str, Any], target: Target) -> list[Mapping[str, Any]]:
    """Paths of a rule that lead to stable."""
    paths = rule.get("http", {}).get("paths") or []
    return [path for path in paths if path.get("backend", {}).get("service", {}).get("name") == target.service("stable")]


def _to_canary(paths: Sequence[Mapping[str, Any]], target: Target) -> list[dict[str, Any]]:
    backend = {"service": {"name": target.service("canary"), "port": {"number": target.port}}}
    return [{**path, "backend": backend} for path in paths]


def _header(testers: Testers) -> dict[str, str]:
    """Annotations by which testers reach the canary; none when they do not."""
    value = testers.values.get("canary")
    return {} if value is None else {f"{PREFIX}/canary-by-header": ROLE_HEADER, f"{PREFIX}/canary-by-header-value": value}


def way_of(found: Mapping[str, Any], paths: Sequence[str]) -> Way:
    """Way to the versions through the canary's Ingress, whose rules are those of the first that lead to stable."""
    rewrites = f"{PREFIX}/rewrite-target" in (found["metadata"].get("annotations") or {})
    ways = []
    for rule in found.get("spec", {}).get("rules") or []:
        for path in rule.get("http", {}).get("paths") or []:
            value = str(path.get("path") or "/")
            literal = _LITERAL.match(value)
            prefix = literal.group() if literal and literal.group() else "/"
            replaced = "/" if rewrites and prefix != value else None
            ways.append(
                Way(host_of([rule["host"]] if rule.get("host") else []), prefix, replaced, path.get("pathType") == "Exact")
            )
    return best(ways, paths)


def split_of(found: Mapping[str, Any]) -> TrafficSplit:
    """Split that the annotations say.

    Raises
    ------
    RoutingError
        They are no numbers.
    """
    said = found["metadata"].get("annotations", {})
    try:
        weight = float(said.get(f"{PREFIX}/canary-weight", "0"))
        total = float(said.get(f"{PREFIX}/canary-weight-total", "100"))
        return TrafficSplit(round(100 * weight / total, 9))
    except (ValueError, ZeroDivisionError) as error:
        raise RoutingError(f"the canary annotations of Ingress {found['metadata']['name']} are no weights: {error}") from error


def patch(found: Mapping[str, Any], split: TrafficSplit) -> dict[str, Any]:
    """Merge patch of the weight; the version that was read is named, so that a change in between is a conflict."""
    weight, total = whole_weights(split, MAX_TOTAL, "ingress-nginx")
    return {
        "metadata": {
            "resourceVersion": found["metadata"]["resourceVersion"],
            "annotations": {f"{PREFIX}/canary-weight": str(weight), f"{PREFIX}/canary-weight-total": str(total)},
        }
    }


class IngressNginxRouter(RouteRouter):
    """Router of two Ingresses; `gateway` is the class, `name` the user's own Ingress. Parameters as of `RouteRouter`."""

    kind = "Ingress"
    capabilities = Capabilities(frozenset({"testers", "fractions"}))

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._primary, self.name = self.name, self._target.service("canary")

    def objects(self) -> list[dict[str, Any]]:
        """Return the canary's Ingress, and stable's unless the user has one."""
        if not self._adopted:
            primary = ingress(self._target, ingress_class=self.gateway or "nginx", hostname=self.hostname)
            return [primary, canary_ingress(primary, self._target, self._testers)]
        found = self._api.get(self.kind, self._primary)
        if found is None:
            raise RoutingError(f"there is no Ingress {self._primary} in namespace {self._api.namespace}")
        return [canary_ingress(found, self._target, self._testers)]

    @property
    def own(self) -> tuple[str, str] | None:
        """Kind and name of the user's own Ingress; None where the kit makes it."""
        return (self.kind, self._primary) if self._adopted else None

    @property
    def made(self) -> list[str]:
        """Names of what the kit made."""
        return [self.name] if self._adopted else [self.name, self._primary]

    def check(self) -> None:
        """See that the user's own Ingress leads to stable."""
        self.objects()

    def way(self, found: Mapping[str, Any], paths: Sequence[str]) -> Way:
        """Way to the versions through both Ingresses."""
        return way_of(found, paths)

    def testing(self, found: Mapping[str, Any], testers: Testers) -> tuple[Any, str] | None:
        """Patch of the header's annotations alone."""
        said, wanted = found["metadata"].get("annotations", {}), _header(testers)
        names = (f"{PREFIX}/canary-by-header", f"{PREFIX}/canary-by-header-value")
        if all(said.get(name) == wanted.get(name) for name in names):
            return None
        version = found["metadata"]["resourceVersion"]
        return {"metadata": {"resourceVersion": version, "annotations": {name: wanted.get(name) for name in names}}}, "merge"

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the annotations say."""
        return split_of(found)

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of the weight alone."""
        return patch(found, split), "merge"
