"""Which rules of a route are the user's split, whatever the kind of route: reading and writing use the same ones.

Three sentences decide:

1. A rule may be split when it names the Services of both versions.
2. A rule that asks for headers or query parameters in each of its matches, and gives one version everything, is for testers:
   it is split only where it is the route's only one, and stable has everything.
3. Once the kit has changed a route, the rules that it noted then are split, whatever their weights are meanwhile.

Where no rule names both, the canary is added to the rules that name stable, but for those that ask for headers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import ROLES, Role, TrafficSplit

__all__ = ["NOTE", "Backend", "Rule", "key_of", "noted", "noting", "split_of", "split_rules", "to_change", "to_join"]

NOTE = "canarykit.dev/weights-before"
"""Annotation of a team's own route: weights of both versions before the kit changed them, by rule, as JSON.

``{"RULE": {"stable": 1, "canary": null}}``: null where the rule says no weight; a version that it does not name is not there.
"""


@dataclass(frozen=True, slots=True)
class Backend:
    """One of our Services in a rule.

    Parameters
    ----------
    position : int
        Among the rule's backends.
    role : {"stable", "canary"}
        Whose Service it is.
    said : int or None
        Weight as written.
    weight : int
        Weight as it counts.
    """

    position: int
    role: Role
    said: int | None
    weight: int


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a route, as far as it concerns us.

    Parameters
    ----------
    number : int
        In the route.
    key : str
        Name by what it matches: stays the same when rules are added before it.
    ours : tuple of Backend
        Our Services in it.
    others : int
        Weight of its other backends together.
    by_request : bool
        Whether each of its matches asks for headers or query parameters.
    """

    number: int
    key: str
    ours: tuple[Backend, ...]
    others: int = 0
    by_request: bool = False

    @property
    def roles(self) -> frozenset[Role]:
        """Versions that it names."""
        return frozenset(backend.role for backend in self.ours)

    @property
    def both(self) -> bool:
        """Whether it names both versions."""
        return len(self.roles) == len(ROLES)

    @property
    def split(self) -> TrafficSplit | None:
        """Share of the canary between both versions; None when neither has any."""
        canary = sum(backend.weight for backend in self.ours if backend.role == "canary")
        total = sum(backend.weight for backend in self.ours)
        return TrafficSplit(round(100 * canary / total, 9)) if total else None

    @property
    def for_testers(self) -> bool:
        """Whether it gives one version everything, and asks for headers or query parameters."""
        return self.by_request and self.split in (TrafficSplit(0), TrafficSplit(100))

    def __str__(self) -> str:
        return f"rule {self.number} gives the canary {self.split or 'no split: neither version has weight'}"


def key_of(matches: Any) -> str:
    """Short name of what a rule matches."""
    return hashlib.sha256(json.dumps(matches, sort_keys=True).encode()).hexdigest()[:10]


def noted(found: Mapping[str, Any]) -> dict[str, dict[str, int | None]]:
    """Weights of a route before the kit changed it, by rule; nothing when it has not, or when the note cannot be read."""
    try:
        said = json.loads(found["metadata"].get("annotations", {}).get(NOTE, "{}"))
        return {str(key): dict(weights) for key, weights in said.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def noting(found: Mapping[str, Any], rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Lines of a JSON patch that note the weights of rules before they are changed; none when they are noted already."""
    if noted(found) or not rules:
        return []
    said = json.dumps({rule.key: {backend.role: backend.said for backend in rule.ours} for rule in rules}, sort_keys=True)
    if not found["metadata"].get("annotations"):
        return [{"op": "add", "path": "/metadata/annotations", "value": {NOTE: said}}]
    return [{"op": "add", "path": f"/metadata/annotations/{NOTE.replace('/', '~1')}", "value": said}]


def split_rules(rules: Sequence[Rule], before: Mapping[str, Any]) -> list[Rule]:
    """Rules that are split, of those of a route.

    Parameters
    ----------
    rules : sequence of Rule
        All of the route.
    before : mapping
        The result of `noted` for the route.
    """
    both = [rule for rule in rules if rule.both]
    known = [rule for rule in both if rule.key in before]
    if known:
        return known
    plain = [rule for rule in both if not rule.for_testers]
    if plain or _joinable(rules):
        return plain
    return both if all(rule.split == TrafficSplit(0) for rule in both) else []


def to_join(rules: Sequence[Rule], before: Mapping[str, Any]) -> list[Rule]:
    """Rules that the canary is to be added to, because none is split: those that name stable alone."""
    return [] if split_rules(rules, before) else _joinable(rules)


def to_change(rules: Sequence[Rule], before: Mapping[str, Any]) -> list[Rule]:
    """Rules that a rollout changes: those that are split, or else those that the canary is to be added to."""
    return split_rules(rules, before) or _joinable(rules)


def _joinable(rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if rule.roles == {"stable"} and not rule.by_request]


def split_of(rules: Sequence[Rule], what: str) -> TrafficSplit:
    """Split that rules say which are split.

    Parameters
    ----------
    rules : sequence of Rule
        As `split_rules` has chosen them.
    what : str
        Kind and name of the route, for the message.

    Raises
    ------
    RoutingError
        They disagree, or one says none.
    """
    splits = {rule.split for rule in rules}
    if len(splits) > 1 or None in splits:
        raise RoutingError(
            f"the rules of {what} split the traffic differently, or not at all: {'; '.join(map(str, rules))}. Give those that "
            "are to be split the same weights; a rule for testers asks for a header and gives one version everything"
        )
    (split,) = splits
    assert split is not None
    return split
