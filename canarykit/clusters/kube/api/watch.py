"""Objects that a watch keeps up to date, so that to read them costs no request."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from canarykit.clusters.kube.api.client import Client, path_of

__all__ = ["Watch"]

_LASTS = 290
"""Seconds after which the API server ends a watch, and it is begun again from where it was."""

_SILENCE = 45.0
"""Seconds without a word, not even a bookmark, after which the API server is asked: a connection may hang without an end."""

_CUT_OFF = 120.0
"""Seconds without a byte after which a watch is given up; a bookmark comes every minute."""


class Watch:
    """Objects of one kind, as they are now.

    A watch brings each change within milliseconds. Where it is not permitted, has failed or is silent for long, the API server
    is asked, with all that belongs to it: patience, and errors that say what was refused.

    Parameters
    ----------
    client : Client
        The namespace.
    kind : str
        ``"Pod"``.
    selector, fields : str, optional
        Selectors for labels, and for fields such as ``metadata.name=web``.
    """

    def __init__(self, client: Client, kind: str, selector: str = "", fields: str = "") -> None:
        self._client, self._kind, self._selector, self._fields = client, kind, selector, fields
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        self._version = ""
        self._open, self._doubted, self._heard = False, False, 0.0
        self._permitted, self._stopped = True, False
        self._answer: Any = None
        self._thread: threading.Thread | None = None

    def objects(self) -> list[dict[str, Any]]:
        """Return all of them, at most some seconds old, and never older than what was noted.

        Raises
        ------
        ClusterError
            They may not be read, or the API server stays away.
        """
        with self._lock:
            silent = time.monotonic() - self._heard > _SILENCE
            if self._open and not silent and not self._doubted:
                return list(self._known.values())
            self._doubted, asked_at = False, self._version
        items, version = self._client.listed(self._kind, self._selector, self._fields)
        with self._lock:
            if self._open and silent and _versions(items) != _versions(self._known.values()):
                self._cut()  # it hangs: what changed has not come
            if not self._is_overtaken(version, asked_at):
                self._take(items, version)
            self._heard = time.monotonic()
            self._begin()
            return list(self._known.values())

    def note(self, body: Mapping[str, Any]) -> None:
        """Take in what a write of our own has returned: whoever reads next sees it, though the watch may be behind."""
        with self._lock:
            self._put(dict(body))

    def doubt(self) -> None:
        """Ask the API server the next time: what is known was too old for a write."""
        with self._lock:
            self._doubted = True

    def stop(self) -> None:
        """End the watch. May be called again."""
        with self._lock:
            self._stopped = True
            self._cut()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(1)  # one that waits for an API server that is away ends by itself a while later

    # Inside: with the lock ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin to watch from what was listed last, unless that is done or cannot be."""
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
        if self._version and self._permitted and not self._stopped and self._thread is None:
            self._thread = threading.Thread(target=self._follow, name=f"canarykit-watch-{self._kind}", daemon=True)
            self._thread.start()

    def _cut(self) -> None:
        self._open = False
        if self._answer is not None:
            with contextlib.suppress(Exception):  # it may have ended by itself
                self._answer.shutdown()

    def _is_overtaken(self, version: str, asked_at: str) -> bool:
        """Whether a list is older than what the watch has brought meanwhile, so that it would bring deleted objects back.

        A list that is older than what was known when it was asked for is of an API server whose store was restored: it is
        believed, unless an open watch contradicts it.
        """
        number = _number(version)
        return 0 < number < _number(self._version) and (self._open or number >= _number(asked_at))

    def _take(self, items: list[dict[str, Any]], version: str) -> None:
        """Have what was listed, but for what is known to be newer."""
        before = _number(version) if _number(version) >= _number(self._version) else 0  # a restored store counts anew
        newer = {name: body for name, body in self._known.items() if before and _version(body) > before}
        self._known = {body["metadata"]["name"]: {"kind": self._kind, **body} for body in items} | newer
        self._version = version

    def _put(self, body: dict[str, Any]) -> None:
        """Have an object, unless a newer one or its deletion is known: nothing is missing up to the version that is known."""
        name = body["metadata"]["name"]
        before = self._known.get(name)
        gone = before is None and 0 < _version(body) <= _number(self._version)
        if not gone and (before is None or _version(body) >= _version(before)):
            self._known[name] = body

    def _drop(self, body: Mapping[str, Any]) -> None:
        """Forget an object that was deleted, unless one of the same name has been made since."""
        before = self._known.get(body["metadata"]["name"])
        if before is not None and _version(before) <= _version(body):
            del self._known[body["metadata"]["name"]]

    # Inside: the thread ------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Watch until it fails; whoever reads next begins again."""
        from urllib3.exceptions import HTTPError

        try:
            with contextlib.suppress(OSError, HTTPError, ValueError, LookupError):
                while not self._stopped and self._once():
                    pass
        finally:
            with self._lock:
                self._open = False

    def _once(self) -> bool:
        """Watch for as long as one request lasts; return whether to go on from there."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(_LASTS),
            "labelSelector": self._selector,
            "fieldSelector": self._fields,
        }
        path = f"{path_of(self._kind, self._client.namespace)}?{urlencode({k: v for k, v in query.items() if v})}"
        answer = self._client.connection.send("GET", path, timeout=_CUT_OFF, stream=True)
        try:
            with self._lock:
                self._answer = answer
                if answer.status != 200 or self._stopped:
                    self._permitted = self._permitted and answer.status not in (403, 404, 405)
                    return False
                self._open, self._heard = True, time.monotonic()
            return all(self._event(event) for event in _events(answer))
        finally:
            answer.close()

    def _event(self, event: Mapping[str, Any]) -> bool:
        """Take in an event; return whether to go on from it."""
        if event["type"] == "ERROR":
            return False  # such as a version that is too old
        body = event["object"]
        with self._lock:
            self._heard = max(self._heard, time.monotonic())
            if event["type"] == "DELETED":
                self._drop(body)
            elif event["type"] != "BOOKMARK":
                self._put(body)
            if _version(body) >= _number(self._version):  # a list may have come before it
                self._version = body["metadata"]["resourceVersion"]
        return not self._stopped


def _events(answer: Any) -> Iterator[dict[str, Any]]:
    rest = b""
    for piece in answer.stream(65536):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (json.loads(line) for line in lines if line)


def _version(body: Mapping[str, Any]) -> int:
    """Version of an object: a number that grows, as Kubernetes 1.35 promises and all before it do."""
    return _number(str(body["metadata"].get("resourceVersion", "")))


def _number(version: str) -> int:
    return int(version) if version.isdigit() else 0


def _versions(bodies: Any) -> dict[str, int]:
    return {body["metadata"]["name"]: _version(body) for body in bodies}
