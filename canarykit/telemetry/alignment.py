"""How far each source may be read, so that a window holds equally long spans of all: pure, but for what it remembers."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

__all__ = ["Alignment"]

_SLACK = 0.05
"""Part of an interval by which the scrapes of one source come early or late."""


class Alignment:
    """Holds back those sources that are scraped earlier than others.

    Each pod is scraped at a second of its own. A window with two scrapes of stable and one of the canary would look like a
    split that lies, however right each count is.
    """

    def __init__(self) -> None:
        self._origins: dict[str, float] = {}

    def begin(self) -> None:
        """Forget all sources: another weight is in force."""
        self._origins = {}

    @property
    def spread(self) -> float:
        """Seconds by which the last source is scraped after the first one."""
        return max(self._origins.values()) - min(self._origins.values()) if self._origins else 0.0

    def apart(self, roles: Mapping[str, Collection[str]]) -> float:
        """Return the most seconds between a scrape of one version and of the other; 0 where each source counts both.

        Parameters
        ----------
        roles : mapping of str to collection of str
            Per source the versions that it counts.
        """
        alone = {source: set(counted) for source, counted in roles.items() if source in self._origins and len(counted) == 1}
        return max(
            (
                abs(self._origins[one] - self._origins[other])
                for one, other in combinations(alone, 2)
                if alone[one] != alone[other]
            ),
            default=0.0,
        )

    def due(
        self,
        pending: Mapping[str, Sequence[float]],
        newest: Mapping[str, float],
        *,
        marks: Collection[str],
        fresh: Collection[str],
        interval: float,
        shortest: float | None = None,
    ) -> tuple[dict[str, list[float]], list[str]]:
        """Say which scrapes to take in now.

        Parameters
        ----------
        pending : mapping of str to sequence of float
            Per source the times of scrapes that were not taken in yet, in order.
        newest : mapping of str to float
            Time of the last scrape of each source that is waited for.
        marks : collection of str
            Sources whose first pending scrape only says where their counting begins.
        fresh : collection of str
            Sources that began under this weight: what they have counted is taken in at once.
        interval : float
            Seconds between two scrapes of a source; of the one that is scraped least often, where they differ.
        shortest : float, optional
            The same of the one that is scraped most often.

        Returns
        -------
        tuple of (dict, list)
            Times to take in per source, and the sources that have to be waited for: then nothing is to be taken in.
        """
        firsts = {source: times[0] for source, times in pending.items() if times and source not in self._origins}
        begun = min([*self._origins.values(), *firsts.values()], default=0.0)
        for source, first in firsts.items():
            # One that comes later joins the others where they are by then.
            self._origins[source] = first - interval * math.floor((first - begun) / interval + _SLACK)
        reached = [last - self._origins[source] for source, last in newest.items() if source in self._origins]
        most = min(reached, default=math.inf) + (interval if shortest is None else shortest) / 2
        taken = {
            source: [
                moment for moment in times if (source in firsts and source in fresh) or moment - self._origins[source] <= most
            ]
            for source, times in pending.items()
        }
        return taken, sorted(source for source in newest if len(taken.get(source, ())) <= (source in marks))
