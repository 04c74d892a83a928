"""The model files of a service, as they travel to its pods."""

from __future__ import annotations

import tempfile
from pathlib import Path

from canarykit.clusters.kube.workloads.manifests import Model
from canarykit.model import ROLES, Role, Service, Version
from canarykit.serving import storage

__all__ = ["model_files"]


def model_files(service: Service) -> dict[Role, Model]:
    """Read or write the file of each version that is a model; none for those that are a container.

    Raises
    ------
    PlanError
        A file does not load.
    """
    return {role: _model_file(service.version(role)) for role in ROLES if service.version(role).model is not None}


def _model_file(version: Version) -> Model:
    if isinstance(version.model, str | Path):
        path = Path(version.model).expanduser()
        storage.load(path, version.trusted)  # a file that does not load fails here, with a clear error
        return Model(path.read_bytes(), tuple(version.trusted))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.skops"
        storage.save(version.model, path)
        return Model(path.read_bytes(), tuple(storage.types_in(path)))
