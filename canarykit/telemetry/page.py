"""One metrics page: which of its lines count requests, and when its process started."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from canarykit.errors import TelemetryError
from canarykit.model import Role
from canarykit.telemetry.catalogue import Exposition
from canarykit.telemetry.counters import Page, Series, series_of
from canarykit.telemetry.restarts import START

__all__ = ["Known", "page_of"]

_LABELLED = r'[^\s{]*[ \t]*\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\}'
_LINE = re.compile(rf"(?:({_LABELLED})[ \t]*|([^\s{{]+)[ \t]+)(\S+)(?:[ \t]+[-+.\deE]+)?(?:[ \t]+#[ \t].*)?")
"""Series, number, then perhaps a time, then perhaps an exemplar (OpenMetrics, and servers that write exemplars into the
older format)."""

Known = dict[str, Series | str | None]
"""What lines of a page count, by their series as it is written; `START` for the start of the process."""


def page_of(text: str, entry: Exposition, role: Role, instance: str, known: Known | None = None) -> Page:
    """Read a metrics page.

    Parameters
    ----------
    text : str
        In Prometheus' text format, or in OpenMetrics.
    entry : Exposition
        Names of the counters.
    role, instance : str
        Whose page it is.
    known : dict, optional
        Remembers what each line counts: a histogram of 200 buckets takes the parser 5 ms each time, and a change of weight
        waits for that.

    Raises
    ------
    TelemetryError
        It is in neither format.
    """
    known = {} if known is None else known
    totals: dict[Series, float] = {}
    starts: list[float] = []
    try:
        for line in map(str.strip, text.split("\n")):  # labels may hold other signs that end a line elsewhere
            if not line or line.startswith("#"):
                continue
            written, _, number = line.rpartition(" ")
            if written not in known:
                found = _LINE.fullmatch(line)
                if found is None:
                    raise ValueError(f"no series and number: {line[:200]!r}")
                written, number = found[1] or found[2], found[3]
            if written not in known:
                known[written] = _meaning(written, number, entry, role, instance)
            meaning, value = known[written], float(number)
            if isinstance(meaning, Series):
                totals[meaning] = value
            elif meaning == START:
                starts.append(value)
    except ValueError as error:
        raise TelemetryError(f"the metrics page of {instance} cannot be read: {error}") from error
    return Page(totals, starts)


def _meaning(written: str, number: str, entry: Exposition, role: Role, instance: str) -> Series | str | None:
    """What a series counts."""
    (sample,) = (sample for family in text_string_to_metric_families(f"{written} {number}") for sample in family.samples)
    return START if sample.name == START else series_of(entry, sample.name, sample.labels, role, instance)
