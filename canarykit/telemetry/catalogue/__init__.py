"""What gateways and model servers call their counters, where they show them, and how the series of a version are selected.

No model server labels its version reliably: identity comes from the gateway's label, or from which pod was asked.
"""

from __future__ import annotations

from canarykit.telemetry.catalogue.entries import EXPOSITIONS, exposition
from canarykit.telemetry.catalogue.exposition import Exposition
from canarykit.telemetry.catalogue.selecting import Labels, exported, labels_of, matchers_of, unreached

__all__ = ["EXPOSITIONS", "Exposition", "Labels", "exported", "exposition", "labels_of", "matchers_of", "unreached"]
