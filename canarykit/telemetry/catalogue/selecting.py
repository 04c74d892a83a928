"""Which series are a version's: labels of it, anchored, so that names that begin alike and other namespaces never match."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from canarykit.errors import PlanError
from canarykit.model import ROLES, Role
from canarykit.places import Place
from canarykit.telemetry.catalogue.entries import exposition
from canarykit.telemetry.catalogue.exposition import Exposition

__all__ = ["Labels", "exported", "labels_of", "matchers_of", "unreached"]

Labels = Mapping[str, str]
"""Labels that a series must have; a value that begins with ``~`` is a regular expression of the whole value."""

_LETTERS = "[bcdfghjklmnpqrstvwxz0-9]"
"""Of names that Kubernetes gives to ReplicaSets: no vowels, so that no word of a longer name is taken for one."""

_LONGEST_STEM = 58
"""Of the name of a pod, before the five letters at its end."""

_TARGETS = ("service", "namespace", "pod", "container", "endpoint", "job", "instance")
"""Labels that a Prometheus Operator gives to what it scrapes; with honorLabels: false those of the page become exported_…."""

_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\\n]|\\.)*")\s*(?:,|$)')


def labels_of(
    name: str | Exposition,
    namespace: str,
    place: Place,
    role: Role,
    *,
    port: int = 80,
    route: str | None = None,
    rules: Sequence[int] = (),
) -> dict[str, str]:
    """Labels of a version's series on Kubernetes; a value that begins with ``~`` is a regular expression of the whole value.

    Parameters
    ----------
    name : str or Exposition
        Who counts: a name of the catalogue, or an entry of one's own.
    namespace : str
        Where the versions run.
    place : Place
        Objects of the version.
    role : {"stable", "canary"}
        Which version.
    port : int
        Port of both Services.
    route : str, optional
        Name of the HTTPRoute that splits the traffic; any of the namespace by default.
    rules : sequence of int
        Numbers of its rules that are split: the others, such as those for testers, name one version alone. All by default.

    Raises
    ------
    PlanError
        Nothing is known that tells the versions apart: it has to be said, as ``select=``.
    """
    entry, service = exposition(name), place.service
    if name == "traefik":
        return {"service": f"~{_traefik(namespace, service, port, route, rules)}"}
    if name == "istio":
        # Where the server has a sidecar too, it would report each request a second time.
        return {"destination_workload": place.deployment, "destination_workload_namespace": namespace, "reporter": "source"}
    if name == "ingress-nginx":
        # A request to the canary carries the name of stable's Service, and that of the canary's upstream beside it.
        if role == "stable":
            return {"namespace": namespace, "service": service, "canary": ""}
        return {"namespace": namespace, "canary": f"~{namespace}-{service}-{_port(port)}"}
    if name == "envoy":
        return {"envoy_cluster_name": f"~{_envoy(namespace, service, port)}"}
    if entry.backend is None:
        return {"pod": f"~{_pods(place.deployment)}", "namespace": namespace}
    named = service.replace(role, "{role}")
    raise PlanError(
        f"nothing is known that tells the versions apart in {entry.requests}: say what each is called there, such as "
        f"select='{entry.backend}=\"{named}\"'"
    )


def unreached(name: str | Exposition, namespace: str, place: Place) -> tuple[dict[str, str], ...]:
    """Labels of a version's requests that reached none of its pods, where they are others; parameters as of `labels_of`.

    Istio knows no workload of them, and the Service alone: a canary without a pod that is ready would have no failures.
    """
    if name != "istio":
        return ()
    service = {"destination_service_name": place.service, "destination_service_namespace": namespace}
    return ({"destination_workload": "unknown", **service, "reporter": "source"},)


def _port(port: int) -> str:
    """Port of a Service, by number, or by the name that the kit gives it."""
    return f"({port}|http)"


def _traefik(namespace: str, version: str, port: int, route: str | None, rules: Sequence[int]) -> str:
    """Names that Traefik gives to a Service of Kubernetes.

    There are three forms: an Ingress, an IngressRoute, or an HTTPRoute up to Traefik 3.1; an HTTPRoute later; and an HTTPRoute
    since 3.6, whose name has the rule, too, so that requests of testers are told apart.
    """
    service = f"{namespace}-{version}"
    name = "[a-z0-9-]+" if route is None else re.sub(r"[^a-zA-Z0-9]+", "-", route)
    rule = f"({'|'.join(map(str, rules))})" if rules else "[0-9]+"
    by_rule = f"httproute-{namespace}-{name}-gw-[a-z0-9-]+-ep-[a-zA-Z0-9-]+-{rule}-[0-9a-f]+-svc-{service}-[0-9]+"
    return f"({service}-{_port(port)}@kubernetes(crd|gateway)?|({service}-http-{port}|{by_rule})@kubernetesgateway)"


def _envoy(namespace: str, version: str, port: int) -> str:
    """Names that controllers of Envoy give to the cluster of a Service: Contour, Cilium, kgateway.

    Envoy writes a colon in a name as an underscore.
    """
    contour = f"{namespace}/{version}/{_port(port)}/[0-9a-f]+"
    cilium = f"[a-z0-9-]+/cilium-(gateway|ingress)-?[a-z0-9.-]*/{namespace}[:_]{version}[:_]{port}"
    return f"({contour}|{cilium}|kube_{namespace}_{version}_{port})"


def _pods(version: str) -> str:
    """Names of the pods of a Deployment."""
    stem = f"{version}-"[:_LONGEST_STEM]
    room = _LONGEST_STEM - len(stem)
    if room >= 11:
        return f"{stem}{_LETTERS}{{1,10}}-[a-z0-9]{{5}}"
    # Kubernetes shortens what does not fit.
    return f"{stem}{_LETTERS}{{0,{room}}}-?[a-z0-9]{{5}}"


def exported(labels: Labels, *, by_pod: bool = False) -> dict[str, str]:
    """Return labels of a page as they are stored where an operator scrapes it with ``honorLabels: false``.

    No series has both: the names that the target's own labels take, those of the page give up.

    Parameters
    ----------
    labels : mapping of str to str
        As the page has them.
    by_pod : bool
        Whether a PodMonitor has it scraped, whose targets have no label ``service``.
    """
    taken = [name for name in _TARGETS if not (by_pod and name == "service")]
    return {f"exported_{name}" if name in taken else name: value for name, value in labels.items()}


def matchers_of(select: str | Mapping[str, str], namespace: str = "", app: str = "") -> dict[Role, str]:
    """Return the PromQL matchers of both versions that were given by hand.

    Parameters
    ----------
    select : str or mapping of role to str
        Matchers such as ``service="{namespace}-{app}-{role}-80@kubernetes"``, one text for both, or one for each.
    namespace, app : str
        Values of ``{namespace}`` and ``{app}``.

    Raises
    ------
    PlanError
        They are no matchers, or the same for both versions.
    """
    if not isinstance(select, str) and set(select) != set(ROLES):
        raise PlanError(f"select= takes matchers of stable and of canary, not of {', '.join(map(str, select)) or 'none'}")
    texts: dict[Role, str] = {}
    for role in ROLES:
        text = (select if isinstance(select, str) else select[role]).strip()
        if text[:1] == "{" and text[-1:] == "}" and not text.startswith(("{role}", "{app}", "{namespace}")):
            text = text[1:-1]
        text = text.replace("{role}", role).replace("{app}", app).replace("{namespace}", namespace)
        parts = ["".join(found) for found in _MATCHER.findall(text)]
        if not parts or _MATCHER.sub("", text):
            raise PlanError(f'select= takes matchers as PromQL has them, such as service="chat-{{role}}", not {text!r}')
        texts[role] = ",".join(parts)
    if texts["stable"] == texts["canary"]:
        raise PlanError(
            f"select= picks the same series for both versions, {texts['stable']}: write {{role}} where they differ, or give "
            "matchers of stable and of canary"
        )
    return texts
