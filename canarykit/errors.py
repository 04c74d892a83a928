"""What can go wrong, and which error says so.

::

    CanaryError                 anything that canarykit itself reports
    ├── PlanError               what a person wrote cannot be done: a weight, a guardrail, a version, a parameter
    ├── ClusterError            a version does not come up, or does not stay up
    │   ├── ConflictError       someone else wrote the same object, or owns it
    │   ├── ForbiddenError      the cluster does not let its user do that
    │   └── UnrestoredError     stable was to take the canary's version, could not, and may not be what it was
    ├── RoutingError            the gateway does not serve the split that was asked for
    │   └── EditedError         someone else has changed the split
    ├── TelemetryError          counts cannot be read
    │   └── JournalError        the record of a rollout cannot be written or read
    └── ReportError             a notebook cannot be run or turned into a report

Each message says what was tried, on what, and what to do next. Passwords and tokens in it are masked: it may quote the log of a
server, or an address.
"""

from canarykit.masking import masked

__all__ = [
    "CanaryError",
    "CancelledError",
    "ClusterError",
    "ConflictError",
    "EditedError",
    "ForbiddenError",
    "JournalError",
    "PlanError",
    "ReportError",
    "RoutingError",
    "TelemetryError",
    "UnrestoredError",
]


class CanaryError(Exception):
    """Base of every error that canarykit raises on purpose."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(masked(arg) if isinstance(arg, str) else arg for arg in args))


class PlanError(CanaryError, ValueError):
    """What a person wrote cannot be done."""


class ClusterError(CanaryError):
    """A version does not come up, or does not stay up."""


class ConflictError(ClusterError):
    """Someone else wrote the same object, or owns it."""


class ForbiddenError(ClusterError):
    """The cluster does not let its user do that."""


class UnrestoredError(ClusterError):
    """Stable was to take the canary's version, could not, and may not be what it was."""


class CancelledError(ClusterError):
    """Somebody ended the wait for a version; what had begun was undone."""


class RoutingError(CanaryError):
    """The gateway does not serve the split that was asked for."""


class EditedError(RoutingError):
    """Another split was in place than the one that was to be replaced, and stays."""


class TelemetryError(CanaryError):
    """Counts cannot be read."""


class JournalError(TelemetryError):
    """The record of a rollout cannot be written or read."""


class ReportError(CanaryError):
    """A notebook cannot be run or turned into a report."""
