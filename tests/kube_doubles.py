"""Doubles of a cluster: a namespace in memory that keeps versions as the API server does, and a gateway that answers."""

import copy
import itertools
import json
import random
import re

from canarykit.errors import ClusterError, ConflictError


class Namespace:
    """Objects of one namespace, in memory: each write gives a new version and generation."""

    def __init__(self, *bodies):
        self.namespace, self._objects, self._versions, self.writes = "ns", {}, itertools.count(1), []
        self.before_write = lambda: None
        for body in bodies:
            self.create(body)

    def get(self, kind, name, *, namespace=None):
        """Read an object; None when there is none."""
        return copy.deepcopy(self._objects.get((kind, name)))

    def list(self, kind, selector="", *, everywhere=False, fields=""):
        """Read all objects of a kind that carry these labels."""
        found = [body for (known, _), body in self._objects.items() if known == kind]
        return [copy.deepcopy(body) for body in found if _selected(selector, body["metadata"].get("labels", {}))]

    def serves(self, kind):
        """Whether the cluster knows a kind: all of them."""
        return True

    def listed(self, kind, selector="", fields=""):
        """As `list`, of no version from which a watch could go on: each read is of now."""
        found = self.list(kind, selector)
        return [body for body in found if fields in ("", f"metadata.name={body['metadata']['name']}")], ""

    def create(self, body):
        """Write a new object; a conflict when there is one of that name."""
        if (body["kind"], body["metadata"]["name"]) in self._objects:
            raise ConflictError(f"{body['kind']} {body['metadata']['name']} already exists")
        return self._store(body)

    def replace(self, body):
        """Write a whole object; a conflict when its version is not the newest."""
        self.before_write()
        found = self._found(body["kind"], body["metadata"]["name"])
        self._check(body["metadata"].get("resourceVersion"), found)
        return self._store(body)

    def patch(self, kind, name, body, *, how="merge", sub=""):
        """Change an object, by a merge patch or a JSON patch; a conflict when it has gone."""
        self.before_write()
        try:
            found = self._found(kind, name)
        except ClusterError as error:
            raise ConflictError(str(error)) from error
        if how == "json":
            for change in body:
                _change(found, change)
        else:
            self._check(body.get("metadata", {}).get("resourceVersion"), found)
            _merge(found, body)
        return self._store(found)

    def delete(self, kind, name, *, grace=None):
        """Delete an object; False when there was none."""
        return self._objects.pop((kind, name), None) is not None

    def edit(self, kind, name, **spec):
        """Write as someone else: no check, a new version."""
        found = self._found(kind, name)
        found["spec"] |= spec
        self._store(found)

    def _found(self, kind, name):
        if (kind, name) not in self._objects:
            raise ClusterError(f"there is no {kind} {name} in namespace {self.namespace}")
        return copy.deepcopy(self._objects[kind, name])

    def _check(self, version, found):
        if version not in (None, found["metadata"]["resourceVersion"]):
            raise ConflictError("the object has been modified")

    def _store(self, body):
        body = json.loads(json.dumps(body))
        version = next(self._versions)
        body["metadata"] |= {"resourceVersion": str(version), "generation": version}
        body["metadata"].setdefault("namespace", self.namespace)
        self._objects[body["kind"], body["metadata"]["name"]] = body
        self.writes.append((body["kind"], body["metadata"]["name"]))
        return copy.deepcopy(body)


def _selected(selector, labels):
    """Whether labels are those of a selector such as ``app=web,version in (stable,canary)``."""
    for term in re.split(r",(?![^(]*\))", selector) if selector else ():
        key, _, among = term.partition(" in ")
        key, _, only = (key, "", "") if among else term.partition("=")
        if labels.get(key) not in (among.strip("()").split(",") if among else [only]):
            return False
    return True


def _change(found, change):
    """Apply one line of a JSON patch."""
    *path, last = [part.replace("~1", "/") for part in change["path"].split("/")[1:]]
    place = found
    for part in path:
        place = place[int(part) if isinstance(place, list) else part]
    key = int(last) if isinstance(place, list) else last
    if change["op"] == "test":
        if place[key] != change["value"]:
            raise ConflictError("the server rejected our request: the test of the patch has failed")
    elif change["op"] == "remove":
        del place[key]
    elif change["op"] == "add" and isinstance(place, list):
        place.insert(key, change["value"])
    else:
        place[key] = change["value"]


def _merge(found, body):
    for key, value in body.items():
        if isinstance(value, dict):
            found[key] = found[key] if isinstance(found.get(key), dict) else {}
            _merge(found[key], value)
        elif value is None:
            found.pop(key, None)
        else:
            found[key] = value


class Hands:
    """A monotonic clock whose hands a test moves; whoever waits by it moves them, too."""

    def __init__(self):
        self.seconds, self.waits = 1000.0, lambda: None

    def monotonic(self):
        """Seconds."""
        return self.seconds

    def sleep(self, seconds):
        """Wait, while something else may happen."""
        self.seconds += seconds
        self.waits()


class Gateway:
    """Answers by a split that a test sets; some answers may be of nobody."""

    def __init__(self, share, *, seed=0):
        self.share, self._draw, self.asked, self.last = share, random.Random(seed), 0, "status 200"

    def __call__(self):
        self.asked += 1
        share = self.share(self.asked) if callable(self.share) else self.share
        return "canary" if self._draw.random() < share else "stable"
