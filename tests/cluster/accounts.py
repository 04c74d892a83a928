"""Service accounts of the cluster under test, and a connection in front of its API server that can be shut."""

import base64
import contextlib
import json
import selectors
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import yaml

RBAC = Path(__file__).parents[2] / "deploy" / "rbac.yaml"
_PATHS = {
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "ResourceQuota": "/api/v1/namespaces/{}/resourcequotas",
}


def create(admin, body):
    """Create an object of a kind that the kit itself never writes."""
    path = _PATHS[body["kind"]].format(admin.namespace)
    status, text = admin._exchange("POST", path, body, {"content-type": "application/json"})
    assert status == 201, text


def role_objects(without=()):
    """Objects of deploy/rbac.yaml; `without` names (resource, verb) pairs that the role then lacks."""
    found = list(yaml.safe_load_all(RBAC.read_text()))
    for body in found:
        if "rules" in body:
            rules = [{**rule, "resources": [each]} for rule in body["rules"] for each in rule["resources"]]
            for rule in rules:
                rule["verbs"] = [verb for verb in rule["verbs"] if (rule["resources"][0], verb) not in without]
            body["rules"] = [rule for rule in rules if rule["verbs"]]
    return found


def kubeconfig(admin, path, *, server=None):
    """Write a kubeconfig of the service account ``canarykit`` of a namespace; return its path."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    account = f"{_PATHS['ServiceAccount'].format(admin.namespace)}/canarykit/token"
    status, text = admin._exchange("POST", account, asked, {"content-type": "application/json"})
    assert status == 201, text
    settings = admin.connection.api.configuration
    cluster = {"server": server or settings.host}
    if settings.ssl_ca_cert:
        cluster["certificate-authority-data"] = base64.b64encode(Path(settings.ssl_ca_cert).read_bytes()).decode()
    if server:
        cluster["tls-server-name"] = urlsplit(settings.host).hostname
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "account",
        "clusters": [{"name": "tested", "cluster": cluster}],
        "users": [{"name": "canarykit", "user": {"token": json.loads(text)["status"]["token"]}}],
        "contexts": [{"name": "account", "context": {"cluster": "tested", "user": "canarykit", "namespace": admin.namespace}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


class Connection:
    """A port of this machine that leads to the API server while it is open."""

    def __init__(self, host):
        address = urlsplit(host)
        self._there = (address.hostname, address.port or 443)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open, self._ended, self._through = True, False, set()
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self):
        """Cut all connections, and refuse new ones."""
        self._open = False
        for end in list(self._through):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def open(self):
        """Let connections through again."""
        self._open = True

    def close(self):
        """End it."""
        self._ended = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.shut()

    def _accept(self):
        while not self._ended:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            if self._open:
                threading.Thread(target=self._serve, args=(here,), daemon=True).start()
            else:
                here.close()

    def _serve(self, here):
        with here, contextlib.suppress(OSError), socket.create_connection(self._there) as there:
            ends = {here: there, there: here}
            self._through |= ends.keys()
            try:
                with selectors.DefaultSelector() as ready:
                    for end in ends:
                        ready.register(end, selectors.EVENT_READ)
                    while True:
                        for key, _ in ready.select():
                            piece = key.fileobj.recv(65536)
                            if not piece:
                                return
                            ends[key.fileobj].sendall(piece)
            finally:
                self._through -= ends.keys()
