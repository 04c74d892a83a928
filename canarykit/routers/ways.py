"""The way that a request takes through a route: what must be asked of the gateway so that the rule that is split answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Way", "best", "host_of"]


@dataclass(frozen=True, slots=True)
class Way:
    """One match of a rule.

    Parameters
    ----------
    host : str, optional
        Name that the route answers to; any by default.
    prefix : str
        Beginning of the paths that it takes.
    replaced_by : str, optional
        Replacement of the prefix, as the versions see it; the prefix itself by default.
    exact : bool
        Whether it takes this path alone.
    headers, query : mapping of str to str
        Headers and query parameters that the rule asks for.
    method : str, optional
        The one that it takes; any by default.
    """

    host: str | None = None
    prefix: str = "/"
    replaced_by: str | None = None
    exact: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    method: str | None = None

    def leads_to(self, path: str) -> bool:
        """Whether a version can be asked for this path by it."""
        seen = self.prefix if self.replaced_by is None else self.replaced_by
        return path == seen if self.exact else _within(path, seen)

    def to(self, path: str) -> str:
        """Path to ask the gateway for, so that a version is asked for `path`, or for what comes nearest to it."""
        if self.exact:
            return self.prefix
        seen = self.prefix if self.replaced_by is None else self.replaced_by
        rest = path[len(seen.rstrip("/")) :] if _within(path, seen) else path
        return self.prefix.rstrip("/") + rest


def best(ways: Sequence[Way], paths: Sequence[str]) -> Way:
    """Pick the way by which most of these paths are reached by a GET; the one for everything when there is none."""
    return max(ways, key=lambda way: (way.method in (None, "GET"), sum(map(way.leads_to, paths))), default=Way())


def host_of(names: Sequence[str]) -> str | None:
    """Name to ask for, of those that a route answers to: of ``*.example.com`` one that fits; None when all do."""
    if not names or "*" in names:
        return None
    plain = [name for name in names if not name.startswith("*.")]
    return plain[0] if plain else f"canarykit{names[0][1:]}"


def _within(path: str, prefix: str) -> bool:
    """Whether a path is below a prefix, as whole segments."""
    base = prefix.rstrip("/")
    return path == base or path.startswith(f"{base}/")
