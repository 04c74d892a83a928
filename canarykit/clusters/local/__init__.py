"""Versions as processes of this machine, behind a real Envoy."""

from typing import Any

__all__ = ["LocalCluster"]


def __getattr__(name: str) -> Any:
    # The supervisor is started from this package too and must not pay for what only the cluster needs.
    if name == "LocalCluster":
        from canarykit.clusters.local.cluster import LocalCluster

        return LocalCluster
    raise AttributeError(name)
