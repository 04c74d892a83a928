"""Questions to a gateway: who answers, and whether anybody does."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlencode, urlsplit

from canarykit.model import ROLES, Role, TrafficSplit
from canarykit.protocol import ROLE_HEADER
from canarykit.routers.ways import Way
from canarykit.web import Answer, Client, NoAnswerError

__all__ = ["Probe", "answers_within", "broken_within"]


class Probe:
    """Asks the gateway for a small page, and sees who answers.

    Parameters
    ----------
    url : str
        Address of the gateway.
    ready : str or mapping of role to str
        Path that each version answers without effort, such as its readiness.
    host : str, optional
        Name that the route answers to; that of the way by default.
    way : Way, optional
        Through the route; any path by default.
    header : str
        On a response: which version it came from.

    Attributes
    ----------
    last : str
        Result of the last request.
    refused : int or None
        Status of the last answer, where it was of nobody known, and no 2xx: a login, a redirect, no such page.
    believed : int or None
        Such a status that was told already.
    """

    def __init__(
        self,
        url: str,
        ready: str | Mapping[Role, str],
        *,
        host: str | None = None,
        way: Way | None = None,
        header: str = ROLE_HEADER,
    ) -> None:
        self._address, self._header, self._host = urlsplit(url), header, host
        self.ready: dict[Role, str] = dict.fromkeys(ROLES, ready) if isinstance(ready, str) else dict(ready)
        self.way, self._turn, self._roles = way or Way(), 0, list(ROLES)
        self._client = Client(url, timeout=5.0)
        self.last = "no answer"
        self.refused: int | None = None
        self.believed: int | None = None

    def aim(self, split: TrafficSplit) -> None:
        """Ask for what those versions answer that are to get traffic by a split."""
        self._roles = [role for role, share in zip(ROLES, (1 - split.share, split.share), strict=True) if share]

    @property
    def asks(self) -> str:
        """What it asks for, in words."""
        paths = dict.fromkeys(self._path(role) for role in self._roles)
        host = self._host or self.way.host
        # Without the query, whose values a team may keep to itself.
        where = " and ".join(f"{self._address.scheme}://{self._address.netloc}{path.partition('?')[0]}" for path in paths)
        return f"GET {where}" + (f" (host {host})" if host else "")

    def __call__(self, headers: Mapping[str, str] | None = None) -> str | None:
        """Ask once; the role that answered, empty when it does not say, None when no version answered."""
        role, self._turn, self.refused = self._roles[self._turn % len(self._roles)], self._turn + 1, None
        host = self._host or self.way.host
        asked = {**({"host": host} if host else {}), **self.way.headers, **(headers or {})}
        try:
            answer = self._client.ask("GET", self._path(role), headers=asked)
        except NoAnswerError as error:
            self.last = str(error)
            return None
        self.last = f"status {answer.status}" + (_redirect(answer) if 300 <= answer.status < 400 else "")
        says = answer.headers.get(self._header, "")
        if answer.status < 300 or (answer.status < 500 and says in ROLES):  # a version that has no such page answers, too
            return says
        if answer.status < 500:
            self.refused = answer.status
        return None

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def _path(self, role: Role) -> str:
        query = f"?{urlencode(self.way.query)}" if self.way.query else ""
        return self._address.path.rstrip("/") + self.way.to(self.ready[role]) + query


def _redirect(answer: Answer) -> str:
    """Say where to, without what may be secret in it: a password, or a query."""
    try:
        to = urlsplit(answer.headers.get("location", ""))
    except ValueError:
        return ""
    where = to._replace(netloc=to.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return f", a redirect to {where}: give url= as that" if where else ""


def broken_within(probe: Probe, seconds: float) -> bool:
    """Whether a gateway stops to answer after something was written that it should not mind.

    It takes up what was written after a while that nobody knows: it is asked for all of the time, or until it has failed
    three times in a row. What it turned away before, such as by a login, it may turn away now.
    """
    end, failed = time.monotonic() + seconds, 0
    while failed < 3 and time.monotonic() < end:
        failing = probe() is None and (probe.refused is None or probe.refused != probe.believed)
        failed = failed + 1 if failing else 0
        time.sleep(0.02)
    return failed > 0


def answers_within(probe: Callable[[], str | None], seconds: float) -> bool:
    """Whether a gateway answers, if not yet."""
    end = time.monotonic() + seconds
    while probe() is None:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
