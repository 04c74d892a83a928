"""What an address such as ``"kube:CONTEXT/NAMESPACE?router=istio"`` says."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from canarykit.clusters.kube.cluster import KubeCluster
from canarykit.clusters.kube.manifests import Workload
from canarykit.errors import PlanError
from canarykit.model import ROLES

__all__ = ["from_address"]

_SELECT = ("select", "select.stable", "select.canary")
_COUNTING = ("prometheus", "prometheus_token_file", "metrics", *_SELECT, "port", "path", "ignore")
_WORKLOAD = ("server_image", "service_type")
_ROUTE = ("router", "url", "gateway", "hostname", "route", "testers", "settle")
_OPTIONS = (*_ROUTE, *_COUNTING, *_WORKLOAD)


def from_address(where: str) -> KubeCluster:
    """Return the cluster of ``"kube:CONTEXT/NAMESPACE?option=value"``; what has ``&``, ``=`` or ``+`` in it is percent-encoded.

    Raises
    ------
    PlanError
        An option is not known, has no value, or is there twice.
    """
    place, _, query = where.removeprefix("kube").removeprefix(":").partition("?")
    context, _, namespace = place.rpartition("/") if "/" in place else (place, "", "")
    # Errors name options alone: a value may hold a password, and errors end up in logs.
    pairs = parse_qsl(query, keep_blank_values=True)
    options: dict[str, Any] = dict(pairs)
    if strange := sorted(set(options) - set(_OPTIONS)):
        # After a password with an & in it, the rest of the password looks like a name.
        named = "an option that is not known" if "@" in query else f"no option {', '.join(strange)}"
        raise PlanError(
            f"the address of a cluster has {named}: there are {', '.join(_OPTIONS)}; an & within a value is written %26"
        )
    if any(part.startswith("select") and "+" in part for part in query.split("&")):
        raise PlanError("select= in an address: a + is written %2B, and a space %20")
    if twice := sorted(name for name in options if sum(name == known for known, _ in pairs) > 1):
        raise PlanError(f"the address of the cluster has the option {', '.join(twice)} twice: leave one out")
    if empty := sorted(name for name, value in options.items() if not value):
        raise PlanError(f"the address of the cluster says no value of {', '.join(empty)}: write {empty[0]}=…, or leave it out")
    workload = Workload(**{name: options.pop(name) for name in _WORKLOAD if name in options})
    if chosen := {role: options.pop(f"select.{role}") for role in ROLES if f"select.{role}" in options}:
        if "select" in options:
            raise PlanError("the address of the cluster has both select= and select.stable= or select.canary=: leave one out")
        options["select"] = chosen
    if "testers" in options:
        options["testers"] = _testers(options["testers"])
    if "settle" in options:
        options["settle"] = _number("settle", options["settle"])
    if "port" in options:
        options["port"] = int(options["port"]) if options["port"].isdecimal() else options["port"]
    return KubeCluster(context or None, namespace or "ai-services", workload=workload, **options)


def _number(name: str, text: str) -> float:
    """Read an option that is a number.

    Raises
    ------
    PlanError
        It is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise PlanError(f"{name}= in the address of a cluster takes a number of seconds, not {text!r}") from error


def _testers(text: str) -> bool:
    """Read whether testers have a header: a value of one's own is a secret, and an address ends up in reports.

    Raises
    ------
    PlanError
        It is neither true nor false; does not show what it is.
    """
    if text.lower() not in ("true", "false"):
        raise PlanError(
            "testers= in the address of a cluster is true or false: give a value of your own where nobody reads it, as "
            'KubeCluster(testers=os.environ["…"])'
        )
    return text.lower() == "true"
