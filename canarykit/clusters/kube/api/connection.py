"""The way to an API server: its address, and credentials that are read anew when it refuses them."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from canarykit.errors import ClusterError
from canarykit.protocol import is_loopback

__all__ = ["Connection"]

_CONNECTIONS = 32
"""Connections that are kept open: watches hold one each, and what is read at every look comes from several threads."""


class Connection:
    """Sends requests with the credentials of a kubeconfig, or of the pod it is in.

    Tokens in files are rotated and certificates expire, many without saying when: whoever is refused reads them anew, once,
    and all who share the connection go on with what was read.

    Parameters
    ----------
    context : str, optional
        Context of the kubeconfig; its current one by default. Inside a pod, the pod's own service account.

    Attributes
    ----------
    context : str or None
        Its name, also of the current one, which may be another later; None inside a pod.
    kubeconfig : str or None
        Its files; None where the default is meant.
    host : str
        Address of the API server.
    api : kubernetes.client.ApiClient
        The client with the current credentials.

    Raises
    ------
    ClusterError
        The kubernetes package is missing, there is no such context, or its credentials cannot be read.
    """

    def __init__(self, context: str | None = None) -> None:
        # The package reads KUBECONFIG when it is imported; a notebook may set it later.
        self.kubeconfig = os.environ.get("KUBECONFIG") or None
        self._inside = context is None and bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and self.kubeconfig is None
        self.context = context if context is not None or self._inside else _current(self.kubeconfig)
        self.api = self._open()
        self.host = str(self.api.configuration.host)
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stream: bool = False,
    ) -> Any:
        """Return the answer to a request, which is sent again with credentials read anew when the first are refused.

        Parameters
        ----------
        method, path : str
            ``"GET"``, and what follows the address.
        body : object, optional
            Sent as JSON.
        headers : mapping of str to str, optional
            Headers that are sent beside the credentials.
        timeout : float, optional
            Seconds; forever by default.
        stream : bool
            Leave the answer's body to be read.

        Raises
        ------
        OSError
            There was no answer.
        """
        options: dict[str, Any] = {
            "body": None if body is None else json.dumps(body).encode(),
            "timeout": timeout,
            "preload_content": not stream,
            "retries": False,
        }
        used = self.api
        try:
            answer = self._sent(used, method, path, headers or {}, options)
        except OSError as error:
            if not (_certificate_refused(error) and self.renew(used)):
                raise
        else:
            if answer.status != 401 or not self.renew(used):
                return answer
            answer.drain_conn()
        return self._sent(self.api, method, path, headers or {}, options)

    def renew(self, used: Any) -> bool:
        """Read credentials anew, unless another thread has done so since; return whether there are others to try.

        Parameters
        ----------
        used : kubernetes.client.ApiClient
            Whose credentials were refused.
        """
        with self._lock:
            if self.api is used:
                try:
                    made = self._open()
                except ClusterError:
                    return False  # such as a file that is just being replaced: the next one who is refused looks again
                # A plugin that fails leaves no credentials, and a context may name another cluster by now.
                if not _has_credentials(made) or str(made.configuration.host) != self.host:
                    return False
                self.api = made
            return True

    def _sent(self, api: Any, method: str, path: str, headers: Mapping[str, str], options: Mapping[str, Any]) -> Any:
        from urllib3.exceptions import HTTPError

        settings = api.configuration.auth_settings()
        own = {"authorization": settings["BearerToken"]["value"]} if "BearerToken" in settings else {}
        try:
            return api.rest_client.pool_manager.request(method, f"{self.host}{path}", headers={**headers, **own}, **options)
        except HTTPError as error:
            raise ConnectionError(f"{type(error).__name__}: {error.args[-1] if error.args else ''}") from error

    def _open(self) -> Any:
        try:
            from kubernetes import config
            from kubernetes.client import ApiClient, Configuration
            from kubernetes.config.config_exception import ConfigException
        except ImportError as error:
            raise ClusterError(_NO_PACKAGE) from error
        settings = Configuration()
        try:
            if self._inside:
                config.load_incluster_config(settings)
            else:
                config.load_kube_config(self.kubeconfig, context=self.context, client_configuration=settings)
        except (ConfigException, OSError) as error:
            known = [] if self._inside else _contexts(self.kubeconfig)
            if known and self.context not in known:
                there = ", ".join(map(repr, known))
                raise ClusterError(f"the kubeconfig has no context {self.context!r}, only {there}") from error
            raise _unconfigured(error) from error
        settings.api_key = _Keys(settings.api_key)
        settings.connection_pool_maxsize = _CONNECTIONS
        if is_loopback(urlsplit(str(settings.host)).hostname):
            settings.proxy = None  # as kubectl has it: no proxy reaches a cluster of this machine
        return ApiClient(settings)


class _Keys(dict[str, str]):
    """Values of headers: a file ends with the end of a line, and an error about one that no header takes would show it."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__()
        for name, value in values.items():
            self[name] = value

    def __setitem__(self, name: str, value: str) -> None:
        clean = value.strip()
        if not (clean.isascii() and clean.isprintable()):
            raise ClusterError(
                "the token for the API server has line breaks or signs beyond ASCII within, which no request can carry: "
                "write the token alone into the kubeconfig, or into the file that it names"
            )
        super().__setitem__(name, clean)


_NO_PACKAGE = "a cluster needs the kubernetes package: pip install 'canarykit[kube]'"


def _current(file: str | None) -> str:
    """Name of the current context."""
    try:
        from kubernetes import config
        from kubernetes.config.config_exception import ConfigException
    except ImportError as error:
        raise ClusterError(_NO_PACKAGE) from error
    try:
        return str(config.list_kube_config_contexts(file)[1]["name"])
    except (ConfigException, OSError) as error:
        raise _unconfigured(error) from error


def _contexts(file: str | None) -> list[str]:
    """Names of all contexts; none when they cannot be read."""
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    with contextlib.suppress(ConfigException, OSError):
        return [str(entry["name"]) for entry in config.list_kube_config_contexts(file)[0]]
    return []


def _unconfigured(error: Exception) -> ClusterError:
    return ClusterError(f"no cluster is configured: {error}; set KUBECONFIG to a kubeconfig file, or see `make kind`")


def _has_credentials(api: Any) -> bool:
    return bool(api.configuration.api_key or api.configuration.cert_file)


def _certificate_refused(error: OSError) -> bool:
    """Whether the server, or what stands before it, has refused our certificate; of its own we say "verify failed"."""
    said = str(error).lower()
    return "alert" in said and "certificate" in said
