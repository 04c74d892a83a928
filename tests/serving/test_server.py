"""The Open Inference Protocol v2, endpoint by endpoint."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from canarykit.metrics import LATENCY_EDGES
from canarykit.serving import digits, server, storage
from canarykit.serving.server import ModelServer

IMAGES, LABELS = digits.held_out()


@pytest.fixture(scope="module")
def client(models):
    """A client of a server of the good model."""
    server = ModelServer(storage.load(models["good"]), "digits", "v2")
    return TestClient(server.app(), raise_server_exceptions=False)


def infer(client, data, path="/v2/models/digits/infer", shape=None, datatype="FP64", **more):
    """Ask for labels."""
    rows = np.asarray(data)
    tensor = {"name": "input", "shape": shape or list(rows.shape), "datatype": datatype, "data": rows.ravel().tolist()}
    return client.post(path, json={"inputs": [tensor], **more})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/health/live", None),
        ("/v2/health/ready", None),
        ("/v2", {"name": "canarykit", "version": "v2", "extensions": ["binary_tensor_data"]}),
        ("/v2/models/digits/ready", {"name": "digits", "ready": True}),
        ("/v2/models/digits/versions/v2/ready", {"name": "digits", "ready": True}),
    ],
)
def test_health_and_metadata_answer(client, path, body):
    """
    The endpoints of the protocol, with and without a version.
    """
    response = client.get(path)
    assert response.status_code == 200
    assert body is None or response.json() == body


def test_model_metadata_says_what_goes_in_and_out(client):
    """
    Names, datatypes and shapes of the tensors.
    """
    found = client.get("/v2/models/digits").json()
    assert (found["name"], found["versions"]) == ("digits", ["v2"])
    assert found["inputs"] == [{"name": "input", "datatype": "FP64", "shape": [-1, 64]}]
    assert found["outputs"] == [{"name": "label", "datatype": "INT64", "shape": [-1]}]


def test_a_batch_is_answered_in_order(client):
    """
    Ten images, ten labels, the id returned, nested and flat data alike.
    """
    answer = infer(client, IMAGES[:10], id="abc").json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "v2", "abc")
    (output,) = answer["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("label", "INT64", [10])
    assert np.mean(np.array(output["data"]) == LABELS[:10]) >= 0.9
    nested = {"inputs": [{"name": "input", "shape": [10, 64], "datatype": "FP64", "data": IMAGES[:10].tolist()}]}
    assert client.post("/v2/models/digits/versions/v2/infer", json=nested).json()["outputs"] == answer["outputs"]
    assert "id" not in infer(client, IMAGES[:1]).json()


def tensor(**changes):
    """A request with one tensor that is as it should be, but for some changes."""
    return {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": [0] * 64, **changes}]}


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "Expecting"),
        (b"[]", "must be a JSON object"),
        (b"{}", '"inputs" must be a list'),
        ({"inputs": []}, '"inputs" must be a list with one tensor'),
        ({"inputs": [{"name": "input"}]}, "lacks datatype, shape"),
        ({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP99", "data": [0] * 64}]}, "FP99"),
        ({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": [0] * 63}]}, "64 values"),
        ({"inputs": [{"name": "input", "shape": [1, 63], "datatype": "FP64", "data": [0] * 63}]}, r"shape \[n, 64\]"),
        ({"inputs": [{"name": "input", "shape": [0, 64], "datatype": "FP64", "data": []}]}, "1 or more"),
        ({"inputs": [{"name": "input", "shape": ["1", 64], "datatype": "FP64", "data": [0] * 64}]}, "whole numbers"),
        ({"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": ["a"] * 64}]}, "not FP64"),
        (b'{"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": [NaN' + b", 0" * 63 + b"]}]}", "NaN"),
        (tensor(data=None), "data must be a list"),
        (tensor(data={"0": 1}), "data must be a list"),
        (tensor(data=[[0] * 64, [0] * 64]), "nested otherwise than its shape"),
        (tensor(data=[[0] * 32 + [[0] * 32]]), "nested otherwise than its shape"),
        (tensor(shape=[2, 64], data=[[0] * 64, [0] * 63]), "ragged: .* rows of 64 values"),
        (tensor(data=["1"] * 64), "not FP64, which takes numbers, and not text"),
        (tensor(data=[True] * 64), "not FP64, which takes numbers, and not true or false"),
        (tensor(data=[0] * 63 + [None]), "not FP64, which takes numbers, and not null"),
        (
            tensor(datatype="INT64", data=[1.5] + [0] * 63),
            "not INT64, which takes whole numbers, and not numbers with a fraction",
        ),
        (tensor(datatype="UINT8", data=[256] + [0] * 63), "not UINT8: a number is too large or too small"),
        (tensor(datatype="INT8", data=[-129] + [0] * 63), "not INT8: a number is too large or too small"),
        (tensor(datatype="UINT64", data=[10**30] + [0] * 63), "not UINT64: a number is too large"),
        (tensor(data=[10**400] + [0] * 63), "not FP64: a number is too large"),
        (tensor(datatype="FP16", data=[70000.0] + [0] * 63), "too large for FP16"),
        (tensor(datatype="BOOL", data=[2] * 64), "not BOOL, which takes true and false, and not numbers"),
        (tensor(datatype="BYTES", data=[1] * 64), "not BYTES, which takes texts"),
        (tensor(datatype="BYTES", data=["a"] * 64), "the model does not take these BYTES"),
        (tensor(datatype=["FP64"]), "is not one of"),
        (tensor(name="images"), "no input 'images': its input is 'input'"),
        (tensor(shape=[1, 10**12]), "whole numbers"),
        (tensor(dtype="FP64"), "'dtype', which is not known"),
        (tensor(parameters={"content_type": "np"}), "'content_type', which is not known"),
        (tensor(parameters=[]), '"parameters" of the input tensor must be a JSON object'),
        (tensor(parameters={"binary_data_size": 512}), 'either "data" or the parameter "binary_data_size"'),
        ({**tensor(), "outputs": [{"name": "score"}]}, "no output 'score': its output is 'label'"),
        ({**tensor(), "outputs": [{"name": "label"}, {"name": "label"}]}, "'label' is requested 2 times"),
        ({**tensor(), "outputs": {"name": "label"}}, '"outputs" must be a list'),
        (
            {**tensor(), "outputs": [{"name": "label", "parameters": {"classification": 3}}]},
            "'classification', which is not known",
        ),
        ({**tensor(), "outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}, "must be true or false"),
        ({**tensor(), "parameters": {"priority": 1}}, "'priority', which is not known"),
        ({**tensor(), "parameters": {"binary_data_output": "yes"}}, "must be true or false"),
        ({**tensor(), "id": 3}, '"id" must be a text'),
        ({**tensor(), "model": "digits"}, "'model', which is not known"),
        (b"[" * 100_000, "within each other"),
        (b"\xff", "is no JSON"),
    ],
)
def test_a_bad_request_is_400_and_says_why(client, body, complaint):
    """
    Never a 500, never a traceback.
    """
    response = client.post("/v2/models/digits/infer", **({"content": body} if isinstance(body, bytes) else {"json": body}))
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert re.search(complaint, response.json()["error"])


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/digits/versions/v1", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/nothing", 404),
        ("GET", "/v2/models/digits/infer", 405),
    ],
)
def test_what_is_not_there_is_said_in_json(client, method, path, code):
    """
    404 and 405 are JSON, too.
    """
    response = client.request(method, path, json={})
    assert response.status_code == code
    assert set(response.json()) == {"error"}


def test_a_model_that_raises_is_a_500_without_a_traceback(models):
    """
    The failing model raises for images with much ink, and only for those.
    """
    client = TestClient(ModelServer(storage.load(models["failing"]), "digits", "v2").app(), raise_server_exceptions=False)
    dark, light = IMAGES[np.argmax(IMAGES.mean(axis=1))], IMAGES[np.argmin(IMAGES.mean(axis=1))]
    response = infer(client, [dark])
    assert response.status_code == 500
    assert response.json()["error"].startswith("the model failed: ValueError")
    assert "Traceback" not in response.text
    assert infer(client, [light]).status_code == 200


@pytest.mark.parametrize("raises", [False, True])
def test_the_first_request_is_not_the_first_prediction(raises):
    """
    The model has predicted once by then, in the thread that answers; one that makes nothing of zeros is served all the same.
    """
    seen = []

    class Model:
        n_features_in_ = 3

        def predict(self, rows):
            seen.append((rows.shape, threading.current_thread()))
            if raises and not rows.any():
                raise ValueError("zeros")
            return np.ones(len(rows))

    service = ModelServer(Model(), "digits", "v1")
    service.warm_up()
    assert infer(TestClient(service.app()), np.ones((2, 3))).status_code == 200
    (warm, where), (asked, there) = seen
    assert (warm, asked) == ((1, 3), (2, 3))
    assert where is there is not threading.current_thread()


def test_a_server_warms_up_before_it_answers(models, monkeypatch):
    """
    Whoever asks whether it is ready is not told so before.
    """
    done = []
    monkeypatch.setattr(ModelServer, "warm_up", lambda service: done.append("ensure_capacity"))
    monkeypatch.setattr(server._Server, "run", lambda *server, sockets: done.append("answers"))
    monkeypatch.setattr(signal, "signal", lambda *handler: None)
    assert server.main(["--model", str(models["good"]), "--name", "digits", "--version", "v2", "--port", "0"]) == 0
    assert done == ["ensure_capacity", "answers"]


def test_metrics_count_requests_by_code(models):
    """
    Prometheus' text format, in the buckets that the gateway's telemetry has too.
    """
    service = ModelServer(storage.load(models["good"]), "digits", "v2")
    client = TestClient(service.app(), raise_server_exceptions=False)
    for _ in range(3):
        infer(client, IMAGES[:1])
    client.post("/v2/models/digits/infer", content=b"{")
    families = {family.name: family for family in text_string_to_metric_families(generate_latest(service.registry).decode())}
    counts = {s.labels["code"]: s.value for s in families["canarykit_requests"].samples if s.name.endswith("_total")}
    assert counts == {"200": 3, "400": 1}
    durations = {sample.name: sample.value for sample in families["canarykit_request_duration_seconds"].samples}
    assert durations["canarykit_request_duration_seconds_count"] == 3  # a quick refusal is no quick answer
    edges = [
        float(sample.labels["le"])
        for sample in families["canarykit_request_duration_seconds"].samples
        if sample.name.endswith("_bucket")
    ]
    assert tuple(edges) == LATENCY_EDGES


def test_metrics_are_at_a_port_of_their_own(models):
    """
    What a gateway leads to has no such page: whoever reaches the service does not read how it is used.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        metrics = free.getsockname()[1]
    with serving(models["good"], "--metrics-port", str(metrics)) as (process, (host, port)):
        with socket.create_connection((host, port), timeout=30) as connection:
            assert b" 404 " in ask(connection, b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
        with urllib.request.urlopen(f"http://{host}:{metrics}/metrics", timeout=10) as page:
            assert b"canarykit_in_flight" in page.read()
        taken = subprocess.run(
            [*process.args[: process.args.index("--fd")], "--port", str(port), "--metrics-port", str(metrics)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (taken.returncode, f"cannot serve metrics at port {metrics}" in taken.stderr) == (1, True)


@contextlib.contextmanager
def serving(path, *options):
    """A server in a process of its own, and its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        command = [sys.executable, "-m", "canarykit.serving", "--model", str(path), "--name", "digits", "--version", "v2"]
        process = subprocess.Popen([*command, "--fd", str(listener.fileno()), *options], pass_fds=[listener.fileno()])
        place = listener.getsockname()
    try:
        yield process, place
    finally:
        process.kill()
        process.wait()


READY = b"GET /v2/health/ready HTTP/1.1\r\nhost: a\r\n\r\n"


def ask(connection, head=READY):
    """The answer to one request; empty when the connection is closed."""
    try:
        connection.sendall(head)
        return connection.recv(4096)
    except ConnectionError:
        return b""


def test_a_server_of_its_own_process_drains_and_ends(models):
    """
    It listens on the loopback address, answers, and ends with 0 on SIGTERM.
    """
    with serving(models["good"]) as (process, (host, port)):
        body = {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": IMAGES[0].tolist()}]}
        request = urllib.request.Request(f"http://{host}:{port}/v2/models/digits/infer", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as response:
            assert json.load(response)["outputs"][0]["data"] == [int(LABELS[0])]
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(("drain", "answered"), [("1", False), ("30", True)])
def test_what_a_server_has_begun_it_finishes_within_the_time_it_has(models, drain, answered):
    """
    A request whose end comes two seconds after SIGTERM.
    """
    data = json.dumps(
        {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP64", "data": IMAGES[0].tolist()}]}
    ).encode()
    head = f"POST /v2/models/digits/infer HTTP/1.1\r\nhost: a\r\ncontent-length: {len(data)}\r\n\r\n".encode()
    with serving(models["good"], "--drain", drain) as (process, place):
        with socket.create_connection(place, timeout=30) as connection:
            assert b"200 OK" in ask(connection)
            connection.sendall(head + data[:10])
            time.sleep(0.3)
            process.terminate()
            time.sleep(2)
            said = ask(connection, data[10:])
        assert (b"200 OK" in said) is answered
        assert process.wait(20) == 0


def test_a_server_that_ends_takes_leave_of_open_connections(models):
    """
    Each is answered once more and told to close; a new one is served too; with none left open the server ends at once.
    """
    with serving(models["good"], "--linger", "60") as (process, place):
        with socket.create_connection(place, timeout=30) as one, socket.create_connection(place, timeout=30) as other:
            for connection in (one, other):
                assert b"connection: close" not in ask(connection)
            process.terminate()
            time.sleep(1)
            said = ask(one)
            assert (b"503" in said, b"connection: close" in said) == (True, True)  # not ready, and there to say so
            assert one.recv(1) == b""
            with socket.create_connection(place, timeout=30) as late:
                assert b"connection: close" in ask(late, READY.replace(b"ready", b"live"))
            assert process.poll() is None
        assert process.wait(20) == 0


def test_a_server_does_not_wait_for_idle_connections_longer_than_asked(models):
    """
    A client that keeps a connection open and sends nothing.
    """
    with serving(models["good"], "--linger", "1") as (process, place), socket.create_connection(place, timeout=30) as idle:
        assert b"200 OK" in ask(idle)
        process.terminate()
        assert process.wait(20) == 0
        assert idle.recv(1) == b""
