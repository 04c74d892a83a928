"""The API server: few verbs, explicit context and namespace, bounded retries, errors that say who may not do what."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from canarykit.clusters.kube.api.connection import Connection
from canarykit.errors import ClusterError, ConflictError, ForbiddenError

__all__ = ["FIELD_MANAGER", "ROLE_THAT_SUFFICES", "Client", "message_of", "path_of"]

FIELD_MANAGER = "canarykit"
ROLE_THAT_SUFFICES = "deploy/rbac.yaml has the role that suffices"

_KINDS: Mapping[str, tuple[str, str]] = {
    "ConfigMap": ("v1", "configmaps"),
    "Event": ("v1", "events"),
    "Namespace": ("v1", "namespaces"),
    "Pod": ("v1", "pods"),
    "Service": ("v1", "services"),
    "Deployment": ("apps/v1", "deployments"),
    "StatefulSet": ("apps/v1", "statefulsets"),
    "DaemonSet": ("apps/v1", "daemonsets"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "Job": ("batch/v1", "jobs"),
    "EndpointSlice": ("discovery.k8s.io/v1", "endpointslices"),
    "Lease": ("coordination.k8s.io/v1", "leases"),
    "Ingress": ("networking.k8s.io/v1", "ingresses"),
    "Gateway": ("gateway.networking.k8s.io/v1", "gateways"),
    "HTTPRoute": ("gateway.networking.k8s.io/v1", "httproutes"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "ReferenceGrant": ("gateway.networking.k8s.io/v1beta1", "referencegrants"),
    "GRPCRoute": ("gateway.networking.k8s.io/v1", "grpcroutes"),
    "VirtualService": ("networking.istio.io/v1", "virtualservices"),
    "InferenceService": ("serving.kserve.io/v1beta1", "inferenceservices"),
}
_PATCHES = {
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
}
Objects = list[dict[str, Any]]

_BUSY = (429, 502, 503, 504)
_REQUEST_TIMEOUT = 10.0


def path_of(kind: str, namespace: str | None, name: str | None = None, sub: str = "", version: str | None = None) -> str:
    """Path of an object, or of a list of them, below the API server's address.

    Parameters
    ----------
    kind : str
        ``"Deployment"``.
    namespace : str or None
        None for a Namespace itself, and for all namespaces.
    name, sub : str, optional
        Name of the object, and of a subresource of it.
    version : str, optional
        ``"apps/v1"``; the one that is known of the kind by default.
    """
    known, plural = _KINDS[kind]
    version = version or known
    parts = ["api" if "/" not in version else "apis", version]
    if namespace is not None and kind != "Namespace":
        parts += ["namespaces", namespace]
    parts += [part for part in (plural, name, sub) if part]
    return "/" + "/".join(quote(part, safe="/:") for part in parts)


class Client:
    """Talks to one namespace of one cluster.

    Parameters
    ----------
    context : str, optional
        Context of the kubeconfig; its current one by default. Inside a pod, the pod's own service account.
    namespace : str
        Where everything happens.
    patience : float
        Seconds during which an API server that is away or busy is asked again.
    notify : callable, optional
        Is told once what is being waited for.

    Attributes
    ----------
    context : str or None
        Its name, also of what was the current one; None inside a pod.
    connection : Connection
        The way to the API server, which copies of this client share.

    Raises
    ------
    ClusterError
        The kubernetes package is missing, there is no such context, or its credentials cannot be read.
    """

    def __init__(
        self,
        context: str | None = None,
        namespace: str = "ai-services",
        *,
        patience: float = 60.0,
        notify: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.connection = Connection(context)
        self.context, self.namespace, self.host = self.connection.context, namespace, self.connection.host
        self.patience, self.notify = patience, notify
        self._allowed: Callable[[], object] = lambda: None

    def fenced(self, allowed: Callable[[], object]) -> Client:
        """Return a client of the same namespace that may write only while something holds.

        Parameters
        ----------
        allowed : callable
            Is called before each attempt to write, and raises when there must be none.
        """
        made = copy.copy(self)
        made._allowed = allowed
        return made

    # Verbs -------------------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> dict[str, Any] | None:
        """Read an object; None when there is none, or no such kind.

        Raises
        ------
        ClusterError
            It may not be read, or the API server stays away.
        """
        status, found = self._ask("GET", path_of(kind, namespace or self.namespace, name), kind=kind, name=name)
        return None if status == 404 else found

    def list(self, kind: str, selector: str = "", *, everywhere: bool = False, fields: str = "") -> list[dict[str, Any]]:
        """Read all objects of a kind that carry these labels; none when there is no such kind."""
        return self.listed(kind, selector, fields, everywhere=everywhere)[0]

    def listed(self, kind: str, selector: str = "", fields: str = "", *, everywhere: bool = False) -> tuple[Objects, str]:
        """As `list`, and the version from which a watch can go on; empty when there is no such kind."""
        query = {"labelSelector": selector, "fieldSelector": fields}
        path = path_of(kind, None if everywhere else self.namespace)
        status, found = self._ask("GET", path, query={k: v for k, v in query.items() if v}, kind=kind)
        return ([], "") if status == 404 else (list(found.get("items") or []), str(found["metadata"]["resourceVersion"]))

    def serves(self, kind: str) -> bool:
        """Whether the cluster knows a kind, also where its objects may not be read; True where nobody tells this user."""
        version, plural = _KINDS[kind]
        try:
            found = self.read(f"/{'apis' if '/' in version else 'api'}/{version}", f"the kinds of {version}")
        except ForbiddenError:
            return True
        return any(entry.get("name") == plural for entry in (found or {}).get("resources") or [])

    def read(self, path: str, what: str, *, accept: str = "application/json") -> dict[str, Any] | None:
        """Read any page of the API; None when there is none.

        Parameters
        ----------
        path : str
            Below the API server's address.
        what : str
            Name of the object, for messages.
        accept : str
            In which form.

        Raises
        ------
        ClusterError
            It may not be read, or the API server stays away.
        """
        status, found = self._ask("GET", path, kind=what, accept=accept)
        return None if status == 404 else found

    def apply(self, body: Mapping[str, Any], *, dry_run: bool = False, force: bool = False) -> dict[str, Any]:
        """Write the fields that we own (server-side apply); return the whole object.

        Parameters
        ----------
        body : mapping
            The object, with our fields alone.
        dry_run : bool
            Ask the server what would come of it; nothing is written.
        force : bool
            Take fields over that someone else owns.

        Raises
        ------
        ConflictError
            Someone else owns a field; says who.
        ClusterError
            It is refused, or the API server stays away.
        """
        kind, name = body["kind"], body["metadata"]["name"]
        query = {"fieldManager": FIELD_MANAGER, "force": str(force).lower()}
        if dry_run:
            query["dryRun"] = "All"
        path = path_of(kind, self.namespace, name, version=body["apiVersion"])
        try:
            status, found = self._ask("PATCH", path, query=query, body=body, patch="apply", kind=kind, name=name)
        except ConflictError as error:
            if force or not _with_ourselves(str(error)):
                raise
            # What one of our own patches has set, such as a number of pods, is ours to set again.
            return self.apply(body, dry_run=dry_run, force=True)
        if status == 404:
            raise ClusterError(_unknown(kind, name, self.namespace, found))
        return found

    def patch(self, kind: str, name: str, body: Any, *, how: str = "merge", sub: str = "") -> dict[str, Any]:
        """Change an object.

        Parameters
        ----------
        kind, name : str
            Kind and name of the object.
        body : mapping or list
            A merge patch, or the list of a JSON patch.
        how : {"merge", "json"}
            Which.
        sub : str
            Subresource such as ``"status"``.

        Raises
        ------
        ConflictError
            It has changed since it was read, as the patch itself checks, or has gone.
        ClusterError
            It is refused, or the API server stays away.
        """
        path = path_of(kind, self.namespace, name, sub)
        # Strict: a field that this cluster's definition of the kind lacks is refused, not dropped in silence.
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        status, found = self._ask("PATCH", path, query=query, body=body, patch=how, kind=kind, name=name)
        if status == 404:
            raise ConflictError(_unknown(kind, name, self.namespace, found))
        return found

    def replace(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a whole object, over what is there.

        Raises
        ------
        ConflictError
            Its `resourceVersion` is no longer the newest.
        ClusterError
            It is refused, is not there, or the API server stays away.
        """
        kind, name = body["kind"], body["metadata"]["name"]
        path = path_of(kind, self.namespace, name)
        status, found = self._ask("PUT", path, query={"fieldManager": FIELD_MANAGER}, body=body, kind=kind, name=name)
        if status == 404:
            raise ClusterError(_unknown(kind, name, self.namespace, found))
        return found

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a new object.

        Raises
        ------
        ConflictError
            There is one of that name.
        ClusterError
            It is refused, or the API server stays away.
        """
        kind, name = body["kind"], body["metadata"]["name"]
        path = path_of(kind, self.namespace)
        status, found = self._ask("POST", path, query={"fieldManager": FIELD_MANAGER}, body=body, kind=kind, name=name)
        if status == 404:
            raise ClusterError(_unknown(kind, name, self.namespace, found))
        return found

    def delete(self, kind: str, name: str, *, grace: int | None = None) -> bool:
        """Delete an object and what depends on it; False when there was none."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        status, _ = self._ask("DELETE", path_of(kind, self.namespace, name), body=options, kind=kind, name=name)
        return status != 404

    def log(self, pod: str, *, lines: int = 10, previous: bool = False) -> str:
        """Last lines that a pod wrote; empty when there are none."""
        query = {"tailLines": str(lines), "previous": str(previous).lower()}
        path = path_of("Pod", self.namespace, pod, "log")
        try:
            status, text = self._exchange("GET", f"{path}?{urlencode(query)}", None, {})
        except OSError:
            return ""
        return text if status == 200 else ""

    def follow(self, pod: str) -> Iterator[bytes]:
        """All that a pod writes, from its beginning until it ends, in pieces as they come."""
        answer = self.connection.send("GET", f"{path_of('Pod', self.namespace, pod, 'log')}?follow=true", stream=True)
        try:
            if answer.status != 200:
                raise ClusterError(f"the log of pod {pod} cannot be read: {_reason(answer.status, answer.read().decode())}")
            yield from answer.stream(65536)
        finally:
            answer.release_conn()

    def through(self, pod: str, port: int, path: str, *, timeout: float = _REQUEST_TIMEOUT) -> tuple[int, str]:
        """GET from a pod, by way of the API server; status and body.

        Raises
        ------
        OSError
            The API server is away.
        """
        proxied = path_of("Pod", self.namespace, f"{pod}:{port}", "proxy") + path
        return self._exchange("GET", proxied, None, {}, timeout=timeout)

    # Inside ------------------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        path: str,
        *,
        kind: str,
        name: str = "",
        query: Mapping[str, str] | None = None,
        body: Any = None,
        patch: str | None = None,
        accept: str = "application/json",
    ) -> tuple[int, dict[str, Any]]:
        """One request, again while the server is away or busy; status (200 or 404) and the answer."""
        headers = {"content-type": _PATCHES[patch] if patch else "application/json", "accept": accept}
        url = f"{path}?{urlencode(query)}" if query else path
        what = f"{_VERBS[method]} {kind} {name or '(list)'} in namespace {self.namespace}"
        end, pause, told = time.monotonic() + self.patience, 0.1, False
        while True:
            if method != "GET":
                self._allowed()  # each time: somebody else may have come while the server was away
            try:
                status, text = self._exchange(method, url, body, headers)
                trouble = _reason(status, text) if _busy(status, text) else None
            except OSError as error:
                status, text, trouble = 0, "", str(error) or type(error).__name__
            if trouble is None:
                if status == 422 and patch == "json" and "the server rejected our request" in text:
                    status = 409  # the test of a JSON patch has failed: the object has changed
                return self._answer(status, text, what)
            if time.monotonic() + pause > end:
                raise ClusterError(
                    f"cannot {what}: the API server {self.host} did not answer for {self.patience:g} s ({trouble}); "
                    "traffic stays as it is"
                )
            if not told and pause > 0.4:
                self.notify(f"waiting for the API server {self.host}: {trouble}")
                told = True
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, 3.0)

    def _answer(self, status: int, text: str, what: str) -> tuple[int, dict[str, Any]]:
        if status < 300 or status == 404:
            try:
                return (404 if status == 404 else 200), json.loads(text or "{}")
            except ValueError as error:
                if status == 404:
                    return 404, {"message": text[:200]}
                raise ClusterError(
                    f"cannot {what}: {self.host} does not answer as an API server does: {text[:100]!r}"
                ) from error
        reason = _reason(status, text)
        if status == 409:
            raise ConflictError(f"cannot {what}: {reason}")
        if status == 401:
            raise ClusterError(f"cannot {what}: the API server {self.host} does not know these credentials ({reason})")
        if status == 403 and "exceeded quota" not in reason:
            raise ForbiddenError(f"cannot {what}: no permission: {reason}; {ROLE_THAT_SUFFICES}")
        raise ClusterError(f"cannot {what}: {reason}")

    def _exchange(
        self, method: str, url: str, body: Any, headers: Mapping[str, str], timeout: float = _REQUEST_TIMEOUT
    ) -> tuple[int, str]:
        """One HTTP request; OSError when there was no answer."""
        answer = self.connection.send(method, url, body=body, headers=headers, timeout=timeout)
        return int(answer.status), answer.data.decode(errors="replace")


_VERBS = {"GET": "get", "PATCH": "patch", "PUT": "update", "POST": "create", "DELETE": "delete"}


def _busy(status: int, text: str) -> bool:
    """Whether asking again may help: a 500 is final, unless it speaks of the server's own storage."""
    return status in _BUSY or (status == 500 and any(word in text for word in ("etcd", "timeout", "deadline")))


def message_of(text: str) -> str | None:
    """What the API server says went wrong; None when it is not the API server who says this."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, LookupError, TypeError):
        return None


def _reason(status: int, text: str) -> str:
    return message_of(text) or f"status {status}: {text.strip()[:200]}"


def _with_ourselves(conflict: str) -> bool:
    """Whether all fields of a conflict between field managers were last written by this kit."""
    managers = re.findall(r'conflicts? with "([^"]*)"', conflict)
    return bool(managers) and set(managers) == {FIELD_MANAGER}


def _unknown(kind: str, name: str, namespace: str, found: Mapping[str, Any]) -> str:
    if "could not find the requested resource" in str(found.get("message", "")) or not found.get("details"):
        return f"this cluster knows no {kind} ({_KINDS[kind][0]}): install what defines it, or choose another router"
    return f"there is no {kind} {name} in namespace {namespace}: {found.get('message', '')}"
