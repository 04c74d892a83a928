"""What the value of a label means: a status, a flag of Envoy's, the path that a request asked for."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from canarykit.statuses import GrpcStatus, Kind, broken_off, kind_of, kind_of_grpc

__all__ = ["asked_for", "broken", "kind_of_grpc_label", "kind_of_http_label"]

_GRPC_NAMES = {status.name.replace("_", "").lower(): status for status in GrpcStatus}
"""As `_grpc_number` spells what it finds."""


def kind_of_http_label(text: str) -> Kind | None:
    """Say what a label with an HTTP status means: ``"422"``, a class such as ``"4xx"``, or ``"-"`` when there was none.

    Returns
    -------
    str or None
        None when it is no status. Of a class nobody can tell which are denied: they count as refused.
    """
    if text == "-":
        return kind_of(0)
    if re.fullmatch(r"[1-5][xX]{2}", text):
        return kind_of(100 * int(text[0]))
    if re.fullmatch(r"0{1,3}|[1-9]\d\d", text):
        return kind_of(int(text))
    by_name = _grpc_number(text)  # Seldon's agent counts both in one label
    return None if by_name is None else kind_of_grpc(by_name)


def kind_of_grpc_label(text: str) -> Kind | None:
    """Say what a label with a gRPC status means: ``"14"``, ``"Unavailable"``, ``"UNAVAILABLE"``; None when it is none."""
    number = int(text) if re.fullmatch(r"\d{1,2}", text) else _grpc_number(text)
    return None if number is None else kind_of_grpc(number)


def _grpc_number(text: str) -> int | None:
    return _GRPC_NAMES.get(re.sub(r"[^a-z]", "", text.lower()).replace("canceled", "cancelled"))


def broken(flags: str, code: str = "") -> bool:
    """Whether Envoy's response flags, such as ``"-"`` or ``"UF,URX"``, say that an answer did not come to its end.

    Parameters
    ----------
    flags : str
        Flags, separated by commas.
    code : str
        HTTP status of the answer.
    """
    return broken_off(int(code) if code.isdecimal() else None, {flag.strip() for flag in flags.split(",")})


def asked_for(handler: str, path: str) -> bool:
    """Whether a label that names a handler names this path.

    Parameters
    ----------
    handler : str
        A path, or a framework's template of paths such as ``"/v2/models/{model}/ready"``.
    path : str
        Pattern of the path; ``*`` stands for anything.
    """
    handler, path = (text.rstrip("/") or "/" for text in (handler, path))
    if fnmatchcase(handler, path):
        return True
    # A template whose end is open, such as /{item}, may be that of the real requests.
    parts = handler.split("/")
    if "{" not in handler or "{" in parts[-1] or "*" in path:
        return False
    wanted = path.split("/")
    return len(parts) == len(wanted) and all(
        part == want or (part.startswith("{") and part.endswith("}") and ":path" not in part)
        for part, want in zip(parts, wanted, strict=True)
    )
