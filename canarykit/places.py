"""Where the versions of a service are on a cluster: the names of their objects, and the labels of their pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canarykit.model import ROLES, Role

__all__ = ["Place", "Places", "managed_places", "read_places", "version_name"]


@dataclass(frozen=True, slots=True)
class Place:
    """Objects of one version.

    Parameters
    ----------
    deployment, service : str
        Names of its Deployment and of its Service.
    selector : mapping of str to str
        Labels that its pods have, and no pod of the other version.
    container : str, optional
        Container that serves; the first one by default.
    """

    deployment: str
    service: str
    selector: Mapping[str, str]
    container: str | None = None

    @property
    def pods(self) -> str:
        """Label selector of its pods, as the API server takes it."""
        return ",".join(f"{key}={value}" for key, value in self.selector.items())


Places = Mapping[Role, Place]
"""Objects of both versions."""


def version_name(app: str, role: str) -> str:
    """Name of the Deployment and the Service of a version, where the kit makes them.

    Parameters
    ----------
    app : str
        The service.
    role : str
        Role of the version.
    """
    return f"{app}-{role}"


def read_places(data: Mapping[Role, Mapping[str, Any]]) -> dict[Role, Place]:
    """Objects of both versions, from plain data: the fields of each `Place`."""
    return {role: Place(**fields) for role, fields in data.items()}


def managed_places(app: str) -> dict[Role, Place]:
    """Objects of both versions, where the kit makes them; parameters as of `version_name`."""
    return {role: Place(version_name(app, role), version_name(app, role), {"app": app, "version": role}) for role in ROLES}
