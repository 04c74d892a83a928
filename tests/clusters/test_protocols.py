"""What the local gateway speaks: to old clients, with compressed bodies, to servers of HTTP/2, and at its time limit."""

import gzip
import http.client
import json
import socket
import sys
import textwrap
import zlib

import pytest
from raw_servers import answering

import canarykit as ck
from canarykit.clusters.local import h2c
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.clusters.local.probe import probe
from canarykit.errors import ClusterError, PlanError
from canarykit.protocol import FLAGS_HEADER, LIMIT_HEADER
from canarykit.routers.base import apply

ECHO = textwrap.dedent(
    """
    import http.server, json, sys, time

    class Server(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(200, {})

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path == "/slow":
                time.sleep(3)
            code = 504 if self.path == "/own-504" else 200
            self.answer(code, {"encoding": self.headers["content-encoding"], "body": body.hex()})

        def answer(self, status, said):
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Server).serve_forever()
    """
)


def echo(name, **options):
    """A server from the standard library that says what it was sent."""
    return ck.Version(name, command=[sys.executable, "-c", ECHO, "{port}"], ready="/healthz", **options)


@pytest.fixture(scope="module")
def cluster():
    """One replica of each version behind a gateway that ends requests after a second."""
    made = LocalCluster(timeout="1s")
    made.deploy(ck.Service("echo", echo("v1"), echo("v2"), replicas=1))
    yield made
    made.teardown()


def post(cluster, path, body=b"{}", headers=None):
    """One request through the gateway; the answer and its body."""
    connection = http.client.HTTPConnection("127.0.0.1", int(cluster.url.rpartition(":")[2]), timeout=10)
    connection.request("POST", path, body, headers or {})
    response = connection.getresponse()
    said = response.read()
    connection.close()
    return response, said


def raw(port, request):
    """What a server writes to some bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        read = b""
        while piece := connection.recv(65536):
            read += piece
    return read


@pytest.mark.real("envoy")
@pytest.mark.parametrize("host", [b"", b"host: ai.example.com\r\n"], ids=["no host", "a host"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_of_http_1_0_gets_an_answer(cluster, host, method):
    """
    As ApacheBench and old monitors send it, with and without a host: a whole answer, and the connection ends.
    """
    body = b"content-length: 2\r\n\r\n{}" if method == "POST" else b"\r\n"
    answer = raw(int(cluster.url.rpartition(":")[2]), b"%b / HTTP/1.0\r\n%b%b" % (method.encode(), host, body))
    status = answer.partition(b"\r\n")[0]
    assert status.split()[1] == b"200", answer
    assert b"x-canarykit-role: stable" in answer


@pytest.mark.real("envoy")
@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"])
def test_compressed_requests_arrive_as_they_were_sent(cluster, encoding, pack):
    """
    The gateway neither decodes a body nor takes its encoding away.
    """
    packed = pack(b'{"text": "miaow"}')
    said = json.loads(post(cluster, "/predict", packed, {"content-encoding": encoding})[1])
    assert said == {"encoding": encoding, "body": packed.hex()}


@pytest.mark.real("envoy")
@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_traffic_of_compressed_digits_is_answered_right(models, compression):
    """
    From the sender through the gateway to the sample server, and back as labels.
    """
    made = LocalCluster()
    try:
        made.deploy(ck.Service("digits", *(ck.Version(name, model=models["good"]) for name in ("v1", "v2")), replicas=1))
        load = made.send(40, duration=1.0, compression=compression)
        assert load.wait().lost == {}
        rights = [answer.right for answer in load.answers()]
        assert len(rights) > 10
        assert sum(rights) >= 0.9 * len(rights)
    finally:
        made.teardown()


@pytest.mark.real("envoy")
def test_a_504_of_the_gateway_says_whose_limit_it_is(cluster):
    """
    The body names the limit and the option; a server's own 504 is passed on as it is, and every answer says the limit.
    """
    response, said = post(cluster, "/slow")
    assert (response.status, response.getheader(FLAGS_HEADER), response.getheader(LIMIT_HEADER)) == (504, "UT", "1")
    assert b"the gateway's limit of 1 s ended this request; set timeout=" in said
    response, said = post(cluster, "/own-504")
    assert (response.status, response.getheader(FLAGS_HEADER), response.getheader(LIMIT_HEADER)) == (504, "-", "1")
    assert json.loads(said)["body"] == b"{}".hex()


@pytest.mark.real("envoy")
def test_a_longer_limit_lets_slow_answers_through():
    """
    The same answer of 3 s arrives under a limit of a minute.
    """
    made = LocalCluster(timeout=60)
    try:
        made.deploy(ck.Service("echo", echo("v1"), echo("v2"), replicas=1))
        assert post(made, "/slow")[0].status == 200
    finally:
        made.teardown()


@pytest.mark.real("envoy")
@pytest.mark.parametrize("timeout", [0, -1, "soon", None, float("inf"), float("nan"), True])
def test_what_is_no_limit_is_refused(timeout):
    """
    Before anything starts, in words.
    """
    with pytest.raises(PlanError, match=r"timeout=|a duration is"):
        LocalCluster(timeout=timeout)


@pytest.mark.real("envoy")
@pytest.mark.parametrize(("given", "limit"), [(90, 90.0), ("90s", 90.0), ("2min", 120.0), ("0.5", 0.5)])
def test_a_limit_is_written_as_other_durations(given, limit):
    """
    A number of seconds, or text with a unit.
    """
    assert LocalCluster(timeout=given).timeout == limit


# HTTP/2 --------------------------------------------------------------------------------------------------------------------


def h2c_server(name, protocol="h2c"):
    """A server that speaks HTTP/2 only, without TLS: an Envoy. Its status is the number that a path ends with."""
    from canarykit.clusters.local.envoy import executable

    statuses = [
        {"match": {"path": f"/{status}"}, "direct_response": {"status": status}} for status in (204, 404, 401, 503, 599)
    ]
    whole = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": '{"label": "cat"}'}}}
    type_of = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{type_of}.http.router.v3.Router"}
    manager = {
        "@type": f"{type_of}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "h2c",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [*statuses, whole]}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": "{port}"}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    config = json.dumps({"static_resources": {"listeners": [listener]}})
    words = [str(executable()), "--config-yaml", config, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "off"]
    return ck.Version(name, command=words, ready="/healthz", protocol=protocol)


@pytest.fixture(scope="module")
def second():
    """Two versions that speak HTTP/2 only."""
    made = LocalCluster(ready_within=20)
    made.deploy(ck.Service("cats", h2c_server("v1"), h2c_server("v2"), replicas=1))
    yield made
    made.teardown()


@pytest.mark.real("envoy")
def test_servers_of_http_2_are_served_to_any_client(second):
    """
    Prior knowledge to the servers; clients of HTTP/1.0, 1.1 and 2 are answered, by the version that has the weight.
    """
    apply(second.router, ck.TrafficSplit(100))
    second.ensure_capacity("canary")
    response, said = post(second, "/predict")
    assert (response.status, response.getheader("x-canarykit-role"), said) == (200, "canary", b'{"label": "cat"}')
    port = int(second.url.rpartition(":")[2])
    assert raw(port, b"GET / HTTP/1.0\r\n\r\n").endswith(b'{"label": "cat"}')
    assert h2c.get(port, "/predict") == 200
    second.router.reset()


@pytest.mark.real("envoy")
def test_a_probe_reads_the_status_of_http_2(second):
    """
    Statuses that HPACK has in its table, and others, which it writes in digits; a long path; a port where nobody listens.
    """
    port = second.replicas("stable")[0].port
    assert [probe(port, f"/{status}", "h2c") for status in (200, 204, 404, 401, 503, 599)] == [200, 204, 404, 401, 503, 599]
    assert probe(port, "/" + "x" * 3000, "h2c") == 200
    with socket.create_server(("127.0.0.1", 0)) as listening:
        free = listening.getsockname()[1]
    assert (probe(free, "/", "h2c"), probe(free, "/")) == (None, None)


SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "does not speak HTTP/2"),
        (b"\x00\x00\x00\x01\x04\x00\x00\x00\x01", "does not speak HTTP/2"),
        (SETTINGS + b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x82", "does not speak HTTP/2"),
        (SETTINGS + b"\x00\x00\x00\x01\x04\x00\x00\x00\x01", "does not speak HTTP/2"),
        (SETTINGS + b"\x00\x00\x03\x01\x04\x00\x00\x00\x01\x08\x81\xff", "does not speak HTTP/2"),
        (SETTINGS + b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(8), None),
        (SETTINGS + b"\x00\x00\x04\x03\x00\x00\x00\x00\x01" + bytes(4), None),
        (SETTINGS, None),
        (b"", None),
        (SETTINGS + b"\x00\x00\x05\x01\x04\x00\x00\x00\x01\x08\x03103" + b"\x00\x00\x01\x01\x04\x00\x00\x00\x01\x88", 200),
        (SETTINGS + b"\x00\x00\x0a\x01\x2c\x00\x00\x00\x01\x02\x00\x00\x00\x00\x10\x20\x88\x00\x00\x00", 200),
    ],
    ids=["http 1.1", "no settings first", "no status", "no fields", "no digits", "goes away", "resets", "closes", "silence"]
    + ["an interim answer", "padding and priority"],
)
def test_a_probe_of_http_2_does_not_take_anything_for_an_answer(written, said):
    """
    Other protocols are told in words; refusals and silence are no answer; interim answers and padding are read over.
    """
    with answering(written) as listening:
        found = probe(listening.getsockname()[1], "/", "h2c")
    assert (said in found) if isinstance(said, str) else found == said


@pytest.mark.real("envoy")
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda name: echo(name, protocol="h2c"), "does not speak HTTP/2 without TLS"),
        (lambda name: h2c_server(name, protocol="http"), 'set protocol="h2c"'),
    ],
    ids=["one of HTTP/1.1", "one of HTTP/2"],
)
def test_a_server_of_the_other_protocol_is_told(make, says):
    """
    "Does not listen" would be wrong: it listens, and speaks something else.
    """
    made = LocalCluster(ready_within=3)
    with pytest.raises(ClusterError, match=says):
        made.deploy(ck.Service("cats", make("v1"), make("v2"), replicas=1))


def test_protocols_that_cannot_be_served_are_refused():
    """
    An unknown one, another than that of the kit's own server, and two different ones behind one address.
    """
    with pytest.raises(PlanError, match=r'must be one of "http" .* and "h2c" .*, not \'http2\''):
        echo("v1", protocol="http2")
    with pytest.raises(PlanError, match=r"own server speaks HTTP/1\.1"):
        ck.Version("v1", model=object(), protocol="h2c")
    with pytest.raises(PlanError, match=r"different protocols \(http and h2c\)"):
        ck.Service("cats", echo("v1"), echo("v2", protocol="h2c"))
