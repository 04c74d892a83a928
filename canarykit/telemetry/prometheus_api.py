"""Asking a Prometheus: queries for raw samples, its targets, and credentials that are sent and never shown."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.parse
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import multimode
from typing import Any

from canarykit.errors import PlanError, TelemetryError
from canarykit.protocol import check_address
from canarykit.web import Client, NoAnswerError, checked_token, read_token

__all__ = ["TOKEN_VARIABLE", "AwayError", "PrometheusApi", "seconds_of", "selects"]

TOKEN_VARIABLE = "CANARYKIT_PROMETHEUS_TOKEN"
"""Environment variable with the bearer token, where nothing else says who asks."""

_TIMEOUT = 10.0
_AWAY = (429, 502, 503, 504)
_NOTHING_THERE = (404, 405, 410, 501)
_SHOWN = 300
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class AwayError(TelemetryError):
    """Prometheus did not answer; it may the next time."""


class _NothingThereError(TelemetryError):
    """Whoever answers has nothing at this path."""


class PrometheusApi:
    """The HTTP API of one Prometheus.

    Parameters
    ----------
    url : str
        Its address; a user and a password in it are sent as a header, and never shown.
    token_file : path, optional
        File with the bearer token; read anew for each request, because tokens are replaced while they are used. By default
        the environment variable ``CANARYKIT_PROMETHEUS_TOKEN`` has the token, if anything.

    Raises
    ------
    PlanError
        The address is none, or there is more than one way to say who asks.
    """

    def __init__(self, url: str, *, token_file: str | Path | None = None) -> None:
        check_address("the address of Prometheus", url, user=True)
        self.url, self._basic, self._secrets = _without_password(url)
        if self._basic is not None and token_file is not None:
            raise PlanError("say in one way who asks Prometheus: a password in its address, or a file with a token")
        self._token_file = token_file
        self._client = Client(self.url, timeout=_TIMEOUT, proxies=True)

    def __repr__(self) -> str:
        return f"PrometheusApi({self.url!r})"

    def query(self, query: str, at: float) -> list[dict[str, Any]]:
        """Return the answer to an instant query for a range of samples.

        Raises
        ------
        AwayError
            Nobody answers, or asks for patience.
        TelemetryError
            The query is refused, or whoever answers is no Prometheus.
        """
        body = urllib.parse.urlencode({"query": query, "time": f"{at:.3f}"}).encode()
        found = self._list("/api/v1/query", body, query, "result", _is_series)
        if any("values" not in series for series in found):
            raise TelemetryError(
                f"Prometheus at {self.url} has native histograms for {query}, which are not read: have it keep the classic "
                "buckets as well (always_scrape_classic_histograms), or pick other series with select="
            )
        return found

    def targets(self) -> list[dict[str, Any]] | None:
        """Return the targets that it scrapes: none while it is away; None when it never says, as Thanos and Mimir do not."""
        try:
            return self._targets()
        except AwayError:
            return []
        except TelemetryError:
            return None

    def usual_interval(self) -> float | None:
        """Return the seconds between two scrapes of most targets; the longer of two that are as frequent.

        Returns
        -------
        float or None
            None when it does not say.

        Raises
        ------
        TelemetryError
            Nobody answers, or whoever does turns us away, or is no Prometheus.
        """
        try:
            told = [seconds_of(target.get("scrapeInterval")) for target in self._targets()]
        except _NothingThereError:
            return None
        frequent = multimode(seconds for seconds in told if seconds is not None)
        return max(frequent, default=None)

    def _targets(self) -> list[dict[str, Any]]:
        found = self._list("/api/v1/targets?state=active", None, "its targets", "activeTargets", lambda _: True)
        return [target for target in found if isinstance(target, dict)]

    def _list(self, path: str, body: bytes | None, what: str, key: str, is_one: Callable[[Any], bool]) -> list[Any]:
        """Ask for `what`; return the list that the answer has under a key, of which each element has to be one."""
        said = self._answer(path, body, what)
        try:
            found = json.loads(said)["data"][key]
        except (ValueError, LookupError, TypeError):
            found = None
        if not isinstance(found, list) or not all(map(is_one, found)):
            raise TelemetryError(f"{self.url} does not answer as a Prometheus does: {self._shown(said, 100).encode()!r}")
        return found

    def _answer(self, path: str, body: bytes | None, what: str) -> bytes:
        headers = {"authorization": authorization} if (authorization := self._authorization()) else {}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        where = urllib.parse.urlsplit(self.url).path + path
        try:
            answer = self._client.ask("GET" if body is None else "POST", where, headers=headers, body=body)
        except NoAnswerError as error:  # not chained: it may hold what was sent
            raise AwayError(f"Prometheus at {self.url} cannot be reached: {self._shown(str(error), _SHOWN)}") from None
        if answer.status < 300:
            return answer.body
        kind = (
            AwayError if answer.status in _AWAY else _NothingThereError if answer.status in _NOTHING_THERE else TelemetryError
        )
        text = self._shown(answer.body, _SHOWN)
        raise kind(f"Prometheus at {self.url} answers {answer.status} to {what}: {text}{self._advice(answer.status)}")

    def _advice(self, status: int) -> str:
        if 300 <= status < 400:
            return " (a redirect, which is not followed: give the address that it leads to)"
        asked_by = self._basic or self._token_file or TOKEN_VARIABLE in os.environ
        return "" if asked_by or status != 401 else f" (name a file with a token, or set {TOKEN_VARIABLE})"

    def _authorization(self) -> str | None:
        if self._basic is not None:
            return self._basic
        try:
            if self._token_file is not None:
                token = read_token(self._token_file)
            elif given := os.environ.get(TOKEN_VARIABLE):
                token = checked_token(given, TOKEN_VARIABLE)
            else:
                return None
        except ValueError as error:
            raise TelemetryError(f"no token for Prometheus: {error}") from None
        self._secrets |= {token}
        return f"Bearer {token}"

    def _shown(self, said: str | bytes, most: int) -> str:
        """What may be shown of what a server or a library says: nothing that proves who we are."""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text[:most]


def seconds_of(duration: Any) -> float | None:
    """Read a duration as Prometheus writes it, such as ``"1m30s"``; None when it is none."""
    if not isinstance(duration, str) or not re.fullmatch(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+", duration):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([\d.]+)(ms|[smhd])", duration)) or None


def selects(select: Mapping[str, str], labels: Mapping[str, Any]) -> bool:
    """Whether labels are all there and as a selector wants them; a value that begins with ``~`` is a regular expression."""
    return all(
        name in labels
        and (re.fullmatch(value[1:], str(labels[name])) is not None if value.startswith("~") else str(labels[name]) == value)
        for name, value in select.items()
    )


def _is_series(said: Any) -> bool:
    """Whether this is a series with its samples, be they numbers or native histograms."""
    if not isinstance(said, dict) or not isinstance(said.get("metric"), dict):
        return False
    samples = said.get("values", [])
    numbers = isinstance(samples, list) and all(isinstance(sample, list) and len(sample) == 2 for sample in samples)
    return numbers and ("values" in said or "histograms" in said)


def _without_password(url: str) -> tuple[str, str | None, frozenset[str]]:
    """Address without what it says of the user, that as a header, and what must not be shown."""
    parts = urllib.parse.urlsplit(url.rstrip("/"))
    if parts.username is None:
        return url.rstrip("/"), None, frozenset()
    user, password = urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    clean = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    secrets = {encoded, parts.netloc.rpartition("@")[0], f"{user}:{password}", password, parts.password or ""}
    return clean, f"Basic {encoded}", frozenset(secrets - {""})
