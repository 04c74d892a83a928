"""The API server as it answers, fails and stays away: a double of it on the loopback address."""

import contextlib
import json
import socket
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from canarykit.clusters.kube.api.client import Client, path_of
from canarykit.errors import ClusterError, ConflictError, ForbiddenError

pytest.importorskip("kubernetes")

ROUTE = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "digits"}}
LEASE = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}}


def status(message, **more):
    """What the API server answers when it refuses."""
    return {"kind": "Status", "status": "Failure", "message": message, **more}


class Server:
    """Gives its answers in turn, the last one for ever; remembers what was asked, and may know one token only."""

    def __init__(self):
        self.answers, self.asked, self.token = [(200, {})], [], None
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self):
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                double.asked.append((self.command, self.path, body and json.loads(body), dict(self.headers)))
                code, said = 401, status("Unauthorized")
                if double.token in (None, (self.headers.get("authorization") or "").removeprefix("Bearer ")):
                    code, said = double.answers.pop(0) if len(double.answers) > 1 else double.answers[0]
                if code is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                text = (said if isinstance(said, str) else json.dumps(said)).encode()
                self.send_response(code)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

            def log_message(self, *args):
                pass

            def handle(self):
                with contextlib.suppress(OSError, ValueError):  # a connection that a test cut off
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self):
        """End it."""
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server():
    """A double of an API server."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def kubeconfig(server, tmp_path, monkeypatch):
    """A kubeconfig with one context, ``here``, and a token."""
    path = tmp_path / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {"token": "t0ken"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    return path


@pytest.fixture
def told():
    """Lines of progress."""
    return []


@pytest.fixture
def client(kubeconfig, told):
    """A client of the double that gives up after a second."""
    return Client("here", "ns", patience=1.0, notify=told.append)


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("Namespace", "ns", "ns"), "/api/v1/namespaces/ns"),
        (("Pod", "ns"), "/api/v1/namespaces/ns/pods"),
        (("Pod", "ns", "web-0", "log"), "/api/v1/namespaces/ns/pods/web-0/log"),
        (("Pod", "ns", "web-0:8080", "proxy"), "/api/v1/namespaces/ns/pods/web-0:8080/proxy"),
        (("Deployment", "ns", "d"), "/apis/apps/v1/namespaces/ns/deployments/d"),
        (("Gateway", None), "/apis/gateway.networking.k8s.io/v1/gateways"),
        (("Deployment", "ns", "d", "", "apps/v2"), "/apis/apps/v2/namespaces/ns/deployments/d"),
        (("Pod", "ns", "a b?c"), "/api/v1/namespaces/ns/pods/a%20b%3Fc"),
    ],
)
def test_where_objects_are(arguments, path):
    """
    Core and other groups, all namespaces, subresources, and names that somebody typed.
    """
    assert path_of(*arguments) == path


def test_what_is_there_and_what_is_not(server, client):
    """
    An object, none, a kind that nobody defined: the last two look the same to who only asks.
    """
    server.answers = [(200, LEASE), (404, status("not found", details={"name": "l"})), (404, "404 page not found")]
    assert client.get("Lease", "l") == LEASE
    assert client.get("Lease", "l") is None
    assert client.get("HTTPRoute", "digits") is None
    server.answers = [(404, "404 page not found")]
    assert client.list("HTTPRoute") == []
    assert client.delete("Lease", "l") is False
    assert client.log("web-0") == ""
    method, path, _, headers = server.asked[0]
    assert (method, path) == ("GET", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l")
    assert headers["authorization"] == "Bearer t0ken"


def test_whether_a_kind_is_known_is_asked_without_reading_objects(server, client):
    """
    A right that is missing hides objects, not the kind; who may not even ask is told nothing, and takes it as known.
    """
    server.answers = [(200, {"resources": [{"name": "virtualservices"}]})]
    assert client.serves("VirtualService")
    assert server.asked[0][1] == "/apis/networking.istio.io/v1"
    server.answers = [(200, {"resources": [{"name": "gateways"}]})]
    assert not client.serves("VirtualService")
    server.answers = [(404, "404 page not found")]
    assert not client.serves("VirtualService")
    assert not client.serves("Pod")
    assert server.asked[-1][1] == "/api/v1"
    server.answers = [(403, status("forbidden"))]
    assert client.serves("VirtualService")


def test_what_is_written_names_us(server, client):
    """
    Server-side apply under our own field manager; a dry run says so; patches are checked strictly.
    """
    server.answers = [(200, ROUTE)]
    client.apply(ROUTE, dry_run=True, force=True)
    client.patch("HTTPRoute", "digits", [{"op": "test"}], how="json")
    client.delete("Pod", "web-0", grace=5)
    (apply, patch, delete) = server.asked
    assert apply[1].endswith("/httproutes/digits?fieldManager=canarykit&force=true&dryRun=All")
    assert apply[3]["content-type"] == "application/apply-patch+yaml"
    assert patch[1].endswith("?fieldManager=canarykit&fieldValidation=Strict")
    assert patch[3]["content-type"] == "application/json-patch+json"
    assert (delete[2]["gracePeriodSeconds"], delete[2]["propagationPolicy"]) == (5, "Background")


@pytest.mark.parametrize("verb", ["apply", "create", "replace", "patch"])
def test_a_kind_that_nobody_defined_is_told_from_an_object_that_is_gone(server, client, verb):
    """
    The first needs an installation; the second was deleted.
    """

    def write():
        return client.patch("HTTPRoute", "digits", {}) if verb == "patch" else getattr(client, verb)(ROUTE)

    server.answers = [(404, status("the server could not find the requested resource", details={}))]
    with pytest.raises(ClusterError, match=r"knows no HTTPRoute \(gateway.networking.k8s.io/v1\): install what defines it"):
        write()
    server.answers = [(404, "404 page not found")]
    with pytest.raises(ClusterError, match="knows no HTTPRoute"):
        write()
    server.answers = [(404, status('namespaces "ns" not found', details={"name": "ns"}))]
    with pytest.raises(ClusterError, match=r'there is no HTTPRoute digits in namespace ns: namespaces "ns" not found'):
        write()


@pytest.mark.parametrize(
    ("code", "said", "error", "says"),
    [
        (
            401,
            status("Unauthorized"),
            ClusterError,
            r"cannot update Lease l in namespace ns: .* does not know these credentials",
        ),
        (
            403,
            status('leases "l" is forbidden: User "me" cannot update resource "leases"'),
            ForbiddenError,
            r"cannot update Lease l .*: no permission: .*cannot update resource.*; deploy/rbac.yaml has the role",
        ),
        (403, status("exceeded quota: small"), ClusterError, r"cannot update Lease l in namespace ns: exceeded quota: small$"),
        (409, status("the object has been modified"), ConflictError, "cannot update Lease l .*: the object has been modified"),
        (422, status("spec.x: Invalid value"), ClusterError, "cannot update Lease l .*: spec.x: Invalid value"),
        (500, "panic", ClusterError, "cannot update Lease l .*: status 500: panic"),
        (200, "<html>log in</html>", ClusterError, "does not answer as an API server does: '<html>log in"),
    ],
)
def test_what_is_refused_is_said_at_once(server, client, code, said, error, says):
    """
    The verb, the object, the namespace, and the server's own words; asked once, or with credentials that are read anew.
    """
    server.answers = [(code, said)]
    with pytest.raises(ClusterError, match=says) as refused:
        client.replace(LEASE)
    assert type(refused.value) is error
    assert len(server.asked) == (2 if code == 401 else 1)


def test_the_test_of_a_json_patch_that_fails_is_a_conflict(server, client):
    """
    The API server calls it 422, and only of JSON patches.
    """
    server.answers = [(422, status("the server rejected our request due to an error in our request"))]
    with pytest.raises(ConflictError):
        client.patch("HTTPRoute", "digits", [], how="json")
    with pytest.raises(ClusterError) as refused:
        client.patch("HTTPRoute", "digits", {})
    assert not isinstance(refused.value, ConflictError)


def test_an_object_that_has_gone_since_it_was_read_is_a_conflict(server, client):
    """
    Whoever patches it reads it again, and then says that it is gone.
    """
    server.answers = [(404, status('httproutes "digits" not found', details={"name": "digits"}))]
    with pytest.raises(ConflictError, match="there is no HTTPRoute digits in namespace ns"):
        client.patch("HTTPRoute", "digits", [], how="json")


@pytest.mark.parametrize("problem", [(503, "starting"), (429, "slow down"), (500, "etcdserver: request timed out"), (None, "")])
def test_a_server_that_is_busy_or_cut_off_is_asked_again(server, client, problem):
    """
    With pauses that grow; the caller notices nothing.
    """
    server.answers = [problem, problem, (200, LEASE)]
    assert client.get("Lease", "l") == LEASE
    assert len(server.asked) == 3


def test_patience_ends(server, kubeconfig, told):
    """
    After its seconds an error, and one line of what was waited for.
    """
    server.answers = [(503, "starting")]
    client = Client("here", "ns", patience=1.7, notify=told.append)
    begun = time.monotonic()
    with pytest.raises(
        ClusterError, match=r"cannot get Lease l .* did not answer for 1.7 s \(status 503: starting\); traffic stays"
    ):
        client.get("Lease", "l")
    assert time.monotonic() - begun < 3
    assert told == [f"waiting for the API server {server.url}: status 503: starting"]


def test_nobody_there(kubeconfig, tmp_path, server):
    """
    A server that does not listen: the address is in the error.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    kubeconfig.write_text(kubeconfig.read_text().replace(server.url, url))
    with pytest.raises(ClusterError, match=f"the API server {url} did not answer for 0.1 s"):
        Client("here", "ns", patience=0.1).list("Pod")


def test_a_context_that_is_not_there(kubeconfig, monkeypatch):
    """
    Those that are there are named; no kubeconfig at all says how to get one.
    """
    with pytest.raises(ClusterError, match=r"the kubeconfig has no context 'prod', only 'here'"):
        Client("prod")
    kubeconfig.unlink()
    with pytest.raises(ClusterError, match=r"no cluster is configured: .*set KUBECONFIG"):
        Client("here")


def test_a_log_is_followed_to_its_end(server, client):
    """
    Piece by piece; a pod that may not be read says why.
    """
    server.answers = [(200, "one\ntwo\n"), (403, status("no"))]
    assert b"".join(client.follow("web-0")) == b"one\ntwo\n"
    with pytest.raises(ClusterError, match="log of pod web-0 cannot be read: no"):
        list(client.follow("web-0"))


def test_a_pod_is_asked_by_way_of_the_server(server, client):
    """
    Status and body as the pod gave them; no answer is an OSError, for the caller to wait on.
    """
    server.answers = [(502, "no route"), (None, "")]
    assert client.through("web-0", 8080, "/metrics") == (502, "no route")
    assert server.asked[0][1] == "/api/v1/namespaces/ns/pods/web-0:8080/proxy/metrics"
    with pytest.raises(OSError, match="Remote end closed"):
        client.through("web-0", 8080, "/metrics")


def test_a_fenced_client_writes_only_while_it_may(server, client):
    """
    Each write is asked for first, and none gets to the server when it must not; reading is free.
    """
    asked = []

    def allowed():
        asked.append("may I?")
        if len(asked) > 1:
            raise ClusterError("someone else conducts")

    fenced = client.fenced(allowed)
    server.answers = [(200, {"metadata": {}})]
    fenced.get("Lease", "l")
    fenced.patch("Lease", "l", {})
    assert asked == ["may I?"]
    for write in (
        lambda: fenced.patch("Lease", "l", {}),
        lambda: fenced.apply(LEASE),
        lambda: fenced.replace(LEASE),
        lambda: fenced.create(LEASE),
        lambda: fenced.delete("Lease", "l"),
    ):
        with pytest.raises(ClusterError, match="someone else conducts"):
            write()
    assert [command for command, *_ in server.asked] == ["GET", "PATCH"]
    client.patch("Lease", "l", {})
    assert len(asked) == 6


def test_a_write_is_asked_for_each_time_it_is_tried(server, client):
    """
    The lease is lost while the server is busy: what was allowed before is not written after.
    """
    server.answers = [(503, "starting")]
    asked = []

    def allowed():
        asked.append("may I?")
        if len(asked) > 2:
            raise ClusterError("someone else conducts")

    with pytest.raises(ClusterError, match="someone else conducts"):
        client.fenced(allowed).patch("Lease", "l", {})
    assert len(server.asked) == 2


# Credentials ------------------------------------------------------------------------------------------------------------


def user(kubeconfig, **facts):
    """Write another user into the kubeconfig."""
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"] = [{"name": "u", "user": facts}]
    kubeconfig.write_text(yaml.safe_dump(config))


@pytest.fixture
def rotating(kubeconfig, server, tmp_path):
    """A token in a file, which ends as files do; returns what replaces it, there and in what the server knows."""
    file = tmp_path / "token"
    user(kubeconfig, tokenFile=str(file))

    def rotate(token):
        server.token = token
        file.write_text(f"{token}\n")

    rotate("first")
    return rotate


def test_a_token_that_was_rotated_is_read_anew(server, kubeconfig, rotating):
    """
    One refusal, and the same request again; a copy that is fenced needs none any more, nor does any other way in.
    """
    server.answers = [(200, LEASE)]
    client = Client("here", "ns", patience=1.0)
    fenced = client.fenced(lambda: None)
    assert client.get("Lease", "l") == LEASE
    rotating("second")
    assert client.replace(LEASE) == LEASE
    assert [(verb, headers["authorization"]) for verb, _, _, headers in server.asked] == [
        ("GET", "Bearer first"),
        ("PUT", "Bearer first"),
        ("PUT", "Bearer second"),
    ]
    fenced.get("Lease", "l")
    assert len(server.asked) == 4
    assert fenced.connection.api is client.connection.api


@pytest.mark.parametrize(
    "way", [lambda it: b"".join(it.follow("p")), lambda it: it.log("p"), lambda it: it.through("p", 80, "/m")[1]]
)
def test_every_way_in_reads_credentials_anew(server, kubeconfig, rotating, way):
    """
    Logs, those that are followed, and pages of pods.
    """
    client = Client("here", "ns")
    rotating("second")
    server.answers = [(200, "words")]
    assert way(client) in ("words", b"words")
    assert len(server.asked) == 2


def test_threads_that_are_refused_at_once_read_credentials_once(server, kubeconfig, rotating, monkeypatch):
    """
    Who waited for another to read them goes on with what that one read.
    """
    client, opened = Client("here", "ns"), []
    real = client.connection._open
    monkeypatch.setattr(client.connection, "_open", lambda: (opened.append(1), time.sleep(0.1), real())[2])
    rotating("second")
    threads = [threading.Thread(target=client.get, args=("Lease", "l")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(opened) == 1


def test_a_plugin_that_does_not_say_when_is_asked_again(server, kubeconfig, tmp_path):
    """
    Without an expirationTimestamp a refusal is the only word of it.
    """
    said = tmp_path / "said"
    user(
        kubeconfig,
        exec={
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "cat",
            "args": [str(said)],
            "interactiveMode": "Never",
        },
    )

    def say(token):
        server.token = token
        status = {"token": token}
        said.write_text(
            json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
        )

    say("first")
    client = Client("here", "ns")
    client.get("Lease", "l")
    say("second")
    client.get("Lease", "l")
    assert len(server.asked) == 3
    said.write_text("it fails")
    server.token = "third"
    with pytest.raises(ClusterError, match="does not know these credentials"):
        client.get("Lease", "l")
    say("fourth")
    client.get("Lease", "l")  # what failed has not left it without credentials: those are only refused otherwise


def test_credentials_of_another_cluster_are_not_taken(server, kubeconfig, rotating):
    """
    The context names another server by now: what was begun on this one is not gone on with there.
    """
    client = Client("here", "ns")
    rotating("second")
    kubeconfig.write_text(kubeconfig.read_text().replace(server.url, "http://127.0.0.1:1"))
    with pytest.raises(ClusterError, match="does not know these credentials"):
        client.get("Lease", "l")
    assert client.connection.host == server.url


def test_a_certificate_that_is_refused_is_read_anew(server, kubeconfig, client, monkeypatch):
    """
    What stands before an API server may end the connection instead of saying 401.
    """
    from urllib3.exceptions import SSLError

    def request(*args, **options):
        raise SSLError("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired (_ssl.c:2580)")

    monkeypatch.setattr(client.connection.api.rest_client.pool_manager, "request", request)
    assert client.get("Lease", "l") == {}
    assert len(server.asked) == 1


@pytest.mark.parametrize("token", ["one\ntwo", "t\u00f6ken", "t\x00ken"])
def test_a_token_that_no_request_can_carry_is_not_shown(kubeconfig, token):
    """
    The error says what is wrong with it, and so does all that a traceback prints.
    """
    user(kubeconfig, token=token)
    with pytest.raises(ClusterError, match="which no request can carry") as refused:
        Client("here", "ns")
    printed = "".join(traceback.format_exception(refused.value))
    assert not any(part in printed for part in ("two", "t\u00f6ken", "ken\n", "\\x00"))


def test_a_file_that_is_not_there_is_said(kubeconfig, tmp_path):
    """
    By its name; when it is only being replaced, whoever is refused next finds it.
    """
    user(kubeconfig, tokenFile=str(tmp_path / "none"))
    with pytest.raises(ClusterError, match=r"no cluster is configured: .*none"):
        Client("here", "ns")


def test_the_current_context_is_named(kubeconfig):
    """
    Once, at the beginning: it may be another when somebody asks again. One that is named needs no current one.
    """
    client = Client(None, "ns")
    assert client.context == "here"
    kubeconfig.write_text(kubeconfig.read_text().replace("current-context: here\n", ""))
    assert Client("here", "ns").context == client.context
    with pytest.raises(ClusterError, match="no cluster is configured"):
        Client(None, "ns")


# Proxies ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_is_asked_for_a_cluster_of_this_machine(server, kubeconfig, monkeypatch, variable):
    """
    As kubectl has it: kind and k3d listen here, and a company's proxy does not reach them.
    """
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    server.answers = [(200, LEASE)]
    assert Client("here").get("Lease", "l") == LEASE


def test_a_proxy_is_asked_for_another_machine(server, kubeconfig, monkeypatch):
    """
    What the environment names reaches a cluster elsewhere.
    """
    monkeypatch.setenv("HTTP_PROXY", server.url)
    kubeconfig.write_text(kubeconfig.read_text().replace(server.url, "http://cluster.invalid"))
    server.answers = [(200, LEASE)]
    assert Client("here").get("Lease", "l") == LEASE
    assert server.asked[-1][1].startswith("http://cluster.invalid/apis/")
