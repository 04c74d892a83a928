"""JSON patches of the rules that are split: set weights, add the canary, give back what was there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from canarykit.errors import RoutingError
from canarykit.model import Role, TrafficSplit
from canarykit.routers.objects import Target, unchanged
from canarykit.routers.rules import NOTE, Rule, noted, noting, split_of, split_rules, to_change, to_join

__all__ = ["Form", "given_back", "joined", "need_only_ours", "need_split", "read_split", "weighted", "written_split"]


@dataclass(frozen=True, slots=True)
class Form:
    """How a kind of route writes its rules.

    Parameters
    ----------
    kind : str
        Kind of the object.
    rule : str
        The kind's name for a rule.
    rules, backends : str
        Fields of the rules within ``spec``, and of the backends within a rule.
    unsaid : int
        Weight of a backend that says none, beside others.
    """

    kind: str
    rule: str
    rules: str
    backends: str
    unsaid: int

    def named(self, found: Mapping[str, Any]) -> str:
        """Kind and name of a route."""
        return f"{self.kind} {found['metadata']['name']}"

    def entries(self, found: Mapping[str, Any], rule: Rule) -> list[dict[str, Any]]:
        """All backends of a rule, as written."""
        written: list[dict[str, Any]] = found["spec"][self.rules][rule.number][self.backends]
        return written

    def at(self, rule: Rule, position: int) -> str:
        """Path of a backend."""
        return f"/spec/{self.rules}/{rule.number}/{self.backends}/{position}"


def read_split(form: Form, found: Mapping[str, Any], target: Target, rules: Sequence[Rule]) -> TrafficSplit:
    """Split that a route says; 0 % where the canary is still to be added to it.

    Raises
    ------
    RoutingError
        No rule of it names the Services, or those that do disagree.
    """
    before = noted(found)
    if chosen := split_rules(rules, before):
        return split_of(chosen, form.named(found))
    if to_join(rules, before):
        return TrafficSplit(0)
    raise _nothing_to_split(form, found, target, rules)


def written_split(
    form: Form, found: Mapping[str, Any], target: Target, rules: Sequence[Rule], weights: Mapping[Role, int]
) -> list[dict[str, Any]]:
    """JSON patch that has a route split by these weights, and fails when anything was written since it was read.

    Raises
    ------
    RoutingError
        No rule names both Services, or one has backends beside them: their share would change with ours.
    """
    before = noted(found)
    chosen = split_rules(rules, before)
    if not chosen and (weights["canary"] or not to_join(rules, before)):
        raise _nothing_to_split(form, found, target, rules)
    return weighted(form, found, chosen, weights)


def need_split(form: Form, found: Mapping[str, Any], target: Target, rules: Sequence[Rule]) -> None:
    """Check what a deployment would do to a team's own route, before anything is written.

    Raises
    ------
    RoutingError
        It cannot be split, or not without harm to others.
    """
    before = noted(found)
    chosen = to_change(rules, before)
    if not (before and chosen):  # what somebody did to a rollout under way is put right; from the beginning they must agree
        read_split(form, found, target, rules)
    need_only_ours(form, found, chosen)


def _nothing_to_split(form: Form, found: Mapping[str, Any], target: Target, rules: Sequence[Rule]) -> RoutingError:
    """Say that no rule of a route can be split, and in which order to change that without an outage."""
    stable, canary, where = target.service("stable"), target.service("canary"), f"{form.named(found)} has no {form.rule}"
    pinned = [rule for rule in rules if rule.both and rule.for_testers]
    if any("stable" in rule.roles for rule in rules) and not pinned:
        return RoutingError(
            f"{where} with both backends {stable} and {canary}: deploy() adds the canary's, and removes it again"
        )
    beside = f" but those for testers ({'; '.join(map(str, pinned))})" if pinned else ""
    return RoutingError(
        f"{where} with both backends {stable} and {canary}, or with {stable} alone{beside}. To lose no request, first bring up "
        f"both versions without route= (deploy(), then close()), then put {stable} into the {form.rule} that is to be split, "
        f"and deploy() with route= then: the kit adds {canary} when its pods are ready, and removes it in the end"
    )


def need_only_ours(form: Form, found: Mapping[str, Any], rules: Sequence[Rule]) -> None:
    """Check that the weights of rules are ours alone to set.

    Raises
    ------
    RoutingError
        A rule gives others a share, which would change with ours, or names a version twice.
    """
    for rule in rules:
        where = f"{form.rule} {rule.number} of {form.named(found)}"
        if rule.others:
            raise RoutingError(f"{where} has backends beside the two versions: give the two a {form.rule} of their own")
        if len(rule.ours) > len(rule.roles):
            raise RoutingError(f"{where} names the Service of a version twice: name each once")


def weighted(form: Form, found: Mapping[str, Any], rules: Sequence[Rule], weights: Mapping[Role, int]) -> list[dict[str, Any]]:
    """Patch that sets the weights of rules, and fails when anything has been written since the route was read.

    Raises
    ------
    RoutingError
        As `need_only_ours`.
    """
    need_only_ours(form, found, rules)
    return [
        unchanged(found),
        *(
            {"op": "add", "path": f"{form.at(rule, backend.position)}/weight", "value": weights[backend.role]}
            for rule in rules
            for backend in sorted(rule.ours, key=lambda backend: backend.position)
        ),
    ]


def joined(
    form: Form, found: Mapping[str, Any], rules: Sequence[Rule], canary: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Patch that adds the canary to rules that name stable alone, with weight 0, and notes how they were.

    Parameters
    ----------
    form, found, rules
        The route, and what is to be changed of it.
    canary : callable
        Takes stable's backend, and returns the fields in which the canary's differs.

    Raises
    ------
    RoutingError
        As `need_only_ours`.
    """
    need_only_ours(form, found, rules)
    changes = [unchanged(found), *noting(found, rules)]
    for rule in rules:
        entries, (stable,) = form.entries(found, rule), rule.ours
        if stable.said is None:  # with a second backend beside it, no weight may mean another one
            changes.append({"op": "add", "path": f"{form.at(rule, stable.position)}/weight", "value": stable.weight})
        added = {**copy.deepcopy(entries[stable.position]), **canary(entries[stable.position]), "weight": 0}
        changes.append({"op": "add", "path": form.at(rule, len(entries)), "value": added})
    return changes


def given_back(form: Form, found: Mapping[str, Any], rules: Sequence[Rule], *, exact: bool) -> list[dict[str, Any]]:
    """Patch that gives a route the weights that it had before the kit changed it, and removes the note of them.

    Parameters
    ----------
    form, found, rules
        The route, and all of its rules.
    exact : bool
        Give the canary its share of before, too; otherwise stable gets all where the canary had some.
    """
    before = noted(found)
    changes = [unchanged(found)]
    for rule in rules:
        said = before.get(rule.key)
        if said is None or "stable" not in said or not rule.both:
            continue
        alone = "canary" not in said
        had = None if alone else said["canary"]
        if not exact and not alone and (form.unsaid if had is None else had):
            said = {"stable": 100, "canary": 0}
        for backend in sorted(rule.ours, key=lambda backend: -backend.position):  # from the end: a removal moves what follows
            path, weight = form.at(rule, backend.position), said.get(backend.role)
            if alone and backend.role == "canary":
                changes.append({"op": "remove", "path": path})
            elif weight is not None:
                changes.append({"op": "add", "path": f"{path}/weight", "value": weight})
            elif backend.said is not None:
                changes.append({"op": "remove", "path": f"{path}/weight"})
    if NOTE in found["metadata"].get("annotations", {}):
        changes.append({"op": "remove", "path": f"/metadata/annotations/{NOTE.replace('/', '~1')}"})
    return changes
