"""The split of ingress-nginx: a second Ingress with canary annotations beside the one that serves stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import TrafficSplit
from canarykit.routers.objects import Target
from canarykit.routers.route import RouteRouter, whole_weights
from canarykit.wire import ROLE_HEADER

__all__ = ["PREFIX", "IngressNginxRouter", "canary_ingress", "ingress", "patch", "split_of"]

PREFIX = "nginx.ingress.kubernetes.io"
MAX_TOTAL = 1_000_000


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


def canary_ingress(primary: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Return the second Ingress: rules of the first that lead to stable, now to the canary; no weight yet.

    Raises
    ------
    RoutingError
        The first has no rule that leads to stable.
    """
    rules = []
    for rule in primary["spec"].get("rules", []):
        paths = [
            {**path, "backend": {"service": {"name": target.service("canary"), "port": {"number": target.port}}}}
            for path in rule.get("http", {}).get("paths", [])
            if path.get("backend", {}).get("service", {}).get("name") == target.service("stable")
        ]
        if paths:
            rules.append({**rule, "http": {"paths": paths}})
    if not rules:
        raise RoutingError(
            f"Ingress {primary['metadata']['name']} has no rule that leads to Service {target.service('stable')}: add one, "
            "or name another Ingress"
        )
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": f"{target.app}-canary",
            "labels": dict(target.labels),
            "annotations": {
                f"{PREFIX}/canary": "true",
                f"{PREFIX}/canary-by-header": ROLE_HEADER,
                f"{PREFIX}/canary-by-header-value": "canary",
                f"{PREFIX}/canary-weight": "0",
                f"{PREFIX}/canary-weight-total": "100",
            },
        },
        "spec": {
            **({"ingressClassName": cls} if (cls := primary["spec"].get("ingressClassName")) else {}),
            "rules": rules,
        },
    }


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
    features = frozenset({"testers", "fractions"})

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._primary, self.name = self.name, f"{self._target.app}-canary"

    def objects(self) -> list[dict[str, Any]]:
        """Return the canary's Ingress, and stable's unless the user has one."""
        if not self._adopted:
            primary = ingress(self._target, ingress_class=self.gateway or "nginx", hostname=self.hostname)
            return [primary, canary_ingress(primary, self._target)]
        found = self._api.get(self.kind, self._primary)
        if found is None:
            raise RoutingError(f"there is no Ingress {self._primary} in namespace {self._api.namespace}")
        return [canary_ingress(found, self._target)]

    @property
    def made(self) -> list[str]:
        """Names of what the kit made."""
        return [self.name] if self._adopted else [self.name, self._primary]

    def split_in(self, found: Mapping[str, Any]) -> TrafficSplit:
        """Split that the annotations say."""
        return split_of(found)

    def change(self, found: Mapping[str, Any], split: TrafficSplit) -> tuple[Any, str]:
        """Patch of the weight alone."""
        return patch(found, split), "merge"
