"""What the local cluster is told: options in its address, programs, threads."""

import inspect
import json
import sys
import urllib.request

import pytest

import canarykit as ck
from canarykit.clusters.local.cluster import LocalCluster
from canarykit.clusters.local.environment import program, thread_limits
from canarykit.clusters.local.gateway import _duration
from canarykit.clusters.options import options_of
from canarykit.errors import PlanError
from canarykit.load.causes import lost_by
from canarykit.statuses import LIMIT_FLAG

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.mark.real("envoy")
def test_an_address_gives_options():
    """
    "local?ready_within=300" is LocalCluster(ready_within=300).
    """
    cluster = ck.connect("local?ready_within=300&timeout=2min")
    assert isinstance(cluster, LocalCluster)
    assert cluster._ready_within == 300
    assert cluster.timeout == 120
    assert ck.connect("local?ready_within=2min")._ready_within == 120
    assert ck.connect("local?timeout=90")._ready_within == ck.connect("local")._ready_within


@pytest.mark.real("envoy")
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("local?within=3", "the address of the local cluster has no option within: there are ready_within"),
        ("local?ready_within=soon", "ready_within= of a local cluster is a time from 1 ms to a day"),
        ("local?timeout=abc", "timeout= of a local cluster is a time from 1 ms to a day"),
        ("local?timeout=0.0004", "timeout= of a local cluster is a time from 1 ms to a day"),
        ("local?ready_within=", "says no value of ready_within"),
        ("local?ready_within=1&ready_within=2", "has the option ready_within twice"),
        ("local?ready_within=0", "ready_within= of a local cluster is a time from 1 ms to a day"),
        ("local?ready_within=nan", "ready_within= of a local cluster is a time from 1 ms to a day"),
        ("local:fast", "no cluster is known as 'local:fast'"),
        ("localhost", "no cluster is known as 'localhost'"),
    ],
)
def test_a_wrong_address_says_what_is_wrong(where, said):
    """
    Unknown, impossible, empty or repeated options.
    """
    with pytest.raises(PlanError, match=said):
        ck.connect(where)


@pytest.mark.real("envoy")
@pytest.mark.parametrize("option", ["timeout", "ready_within"])
@pytest.mark.parametrize(
    "given", [0, 0.0004, -1, 86_401, 1e12, 1e300, float("inf"), float("nan"), "25h", "2 weeks", "", True, None, "1.2.3"]
)
def test_a_limit_is_between_a_millisecond_and_a_day(option, given):
    """
    Envoy takes less for no limit, and cannot say more. The error names the option.
    """
    with pytest.raises(PlanError, match=f"^{option}= of a local cluster"):
        LocalCluster(**{option: given})


@pytest.mark.real("envoy")
@pytest.mark.parametrize("given", [0.001, 0.00123456, 0.5, "2min", 12_345.678, "24h"])
def test_a_limit_is_read_back_from_what_the_gateway_says(given):
    """
    Whoever looks for the cause of a lost request finds it there.
    """
    limit = LocalCluster(timeout=given, ready_within=given).timeout
    lost = lost_by(504, LIMIT_FLAG, limit=f"{limit:g}")
    assert lost == f"gateway 504 at its limit of {limit:g} s"
    assert float(_duration(limit).removesuffix("s")) == limit


def test_every_option_can_be_said_in_an_address():
    """
    Also those that are added later: they come from the signature.
    """
    assert set(options_of(LocalCluster)) == set(inspect.signature(LocalCluster).parameters)


def test_python_is_the_kernels_interpreter(tmp_path):
    """
    Whatever PATH says; other programs come from its folder, when they are there; a path stays.
    """
    interpreter = tmp_path / "python3.11"
    (tmp_path / "uvicorn").touch()
    for words, expected in (
        (["python", "-m", "x"], [str(interpreter), "-m", "x"]),
        (["python3", "x.py"], [str(interpreter), "x.py"]),
        (["uvicorn", "app:app"], [str(tmp_path / "uvicorn"), "app:app"]),
        (["node", "x.js"], ["node", "x.js"]),
        (["/usr/bin/python3", "x.py"], ["/usr/bin/python3", "x.py"]),
        (["./python", "x.py"], ["./python", "x.py"]),
        (["python3.12", "x.py"], ["python3.12", "x.py"]),
    ):
        assert program(words, interpreter=str(interpreter)) == expected


def test_threads_are_limited_where_the_user_has_not_said_how_many():
    """
    A library without a variable of its own follows OMP_NUM_THREADS, and so does one whose limit is not added.
    """
    one = dict.fromkeys(THREADS, "1")
    assert thread_limits({}) == one
    assert thread_limits({"OMP_NUM_THREADS": "4"}) == {}
    assert thread_limits({"MKL_NUM_THREADS": "4"}) == {name: "1" for name in THREADS if name != "MKL_NUM_THREADS"}


TELLING = """
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        threads = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
        body = json.dumps({"program": sys.executable, **threads}).encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.real("envoy")
@pytest.mark.parametrize(
    ("ours", "services", "versions", "expected"),
    [
        ({}, {}, {}, dict.fromkeys(THREADS, "1")),
        ({}, {"OMP_NUM_THREADS": "3"}, {}, {"OMP_NUM_THREADS": "3"}),
        ({}, {"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "4"}, {"OMP_NUM_THREADS": "4"}),
        ({"OMP_NUM_THREADS": "2"}, {}, {}, {"OMP_NUM_THREADS": "2"}),
        ({"MKL_NUM_THREADS": "2"}, {}, {}, {**dict.fromkeys(THREADS, "1"), "MKL_NUM_THREADS": "2"}),
    ],
    ids=["nothing", "the service", "the version", "the notebook", "one library"],
)
def test_a_server_has_the_threads_that_the_user_chose(monkeypatch, ours, services, versions, expected):
    """
    In env= of the version or the service, or in the environment of the notebook; and "python" is our interpreter.
    """
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", "/nowhere")
    version = ck.Version("v1", command=["python", "-c", TELLING, "{port}"], ready="/", env=versions)
    cluster = LocalCluster()
    try:
        cluster.deploy(ck.Service("telling", version, version, replicas=1, env=services))
        with urllib.request.urlopen(cluster.url) as response:
            told = json.load(response)
    finally:
        cluster.teardown()
    assert told == {"program": sys.executable, **expected}
