"""The sample AI service: a scikit-learn model over the Open Inference Protocol v2."""

from __future__ import annotations

__all__ = ["main", "preload"]


def main(arguments: list[str] | None = None) -> int:
    """Serve a model until SIGTERM; see ``python -m canarykit.serving --help``."""
    from canarykit.serving.server import main as serve

    return serve(arguments)


def preload() -> None:
    """Import what every server needs, before it is forked."""
    import sklearn.ensemble
    import sklearn.linear_model
    import sklearn.neighbors
    import sklearn.pipeline
    import sklearn.svm  # noqa: F401

    import canarykit.serving.faults
    import canarykit.serving.server
    import canarykit.serving.storage  # noqa: F401
