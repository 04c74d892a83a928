"""Canary deployments of AI services from a notebook.

Names load on first use, so that ``import canarykit`` costs next to nothing.
"""

from importlib import import_module
from typing import Any

from canarykit.extras import extra

_HOMES = {
    "Experiment": "canarykit.session.experiment",
    "Guardrail": "canarykit.model",
    "Journal": "canarykit.journal",
    "KubeCluster": "canarykit.clusters.kube.cluster",
    "Load": "canarykit.load",
    "LocalCluster": "canarykit.clusters.local",
    "Panel": "canarykit.panel",
    "RolloutPlan": "canarykit.plan",
    "Service": "canarykit.model",
    "TrafficSplit": "canarykit.model",
    "Version": "canarykit.model",
    "Workload": "canarykit.clusters.kube.workloads.manifests",
    "connect": "canarykit.clusters",
}
_MODULES = {"charts", "errors", "metrics"}

__version__ = "0.1.0"
__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"canarykit.{name}")
    if name in _HOMES:
        with extra("kube" if name == "KubeCluster" else "local"):
            return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'canarykit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
