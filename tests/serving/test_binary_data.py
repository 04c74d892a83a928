"""Binary tensor data of the Open Inference Protocol: what `tritonclient` sends and reads unless it is told otherwise."""

import json
import re
import struct

import numpy as np
import pytest
from starlette.testclient import TestClient

from canarykit.serving import digits, storage
from canarykit.serving.open_inference import HEADER_LENGTH
from canarykit.serving.server import ModelServer
from canarykit.serving.tensors import DATATYPES, BadRequest, from_binary, from_json, to_binary

IMAGES, LABELS = digits.held_out()
PATH = "/v2/models/digits/infer"


class Echo:
    """A model that remembers its input and answers what a test says."""

    def __init__(self, answers):
        self.answers, self.seen = answers, None

    def predict(self, rows):
        """Answer."""
        self.seen = rows
        return np.asarray(self.answers)


@pytest.fixture(scope="module")
def client(models):
    """A client of a server of the good model."""
    return TestClient(ModelServer(storage.load(models["good"]), "digits", "v2").app(), raise_server_exceptions=False)


def echo(answers):
    """A model that remembers, and a client of a server of it."""
    model = Echo(answers)
    return model, TestClient(ModelServer(model, "digits", "v2").app(), raise_server_exceptions=False)


def post(client, raw, *, shape, datatype, size=None, length=None, **more):
    """Ask with one binary tensor; `size` and `length` are right unless they are given."""
    parameters = {"binary_data_size": len(raw) if size is None else size}
    tensor = {"name": "input", "shape": shape, "datatype": datatype, "parameters": parameters}
    text = json.dumps({"inputs": [tensor], **more}).encode()
    headers = {HEADER_LENGTH: str(len(text) if length is None else length)} if length != "" else {}
    return client.post(PATH, content=text + raw, headers=headers)


def outputs(response):
    """JSON of an answer with binary data, and what follows it."""
    assert response.status_code == 200, response.text
    length = int(response.headers[HEADER_LENGTH])
    assert response.headers["content-type"] == "application/octet-stream"
    return json.loads(response.content[:length]), response.content[length:]


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "FP16", "UINT8", "INT16", "INT64"])
def test_numbers_are_read_and_labels_written(client, datatype):
    """
    Little-endian, in each datatype that holds grey levels; the answer has its size, no data, and the id.
    """
    raw = IMAGES[:10].astype(DATATYPES[datatype]).tobytes()
    more = {"id": "abc", "parameters": {"binary_data_output": True}}
    answer, binary = outputs(post(client, raw, shape=[10, 64], datatype=datatype, **more))
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "v2", "abc")
    (output,) = answer["outputs"]
    assert output == {"name": "label", "datatype": "INT64", "shape": [10], "parameters": {"binary_data_size": 80}}
    assert np.mean(np.frombuffer(binary, "<i8") == LABELS[:10]) >= 0.9


@pytest.mark.parametrize(
    ("more", "binary"),
    [
        ({}, False),
        ({"outputs": []}, False),
        ({"outputs": [{"name": "label"}]}, False),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": True}}]}, True),
        ({"outputs": [{"name": "label"}], "parameters": {"binary_data_output": True}}, True),
        (
            {"outputs": [{"name": "label", "parameters": {"binary_data": False}}], "parameters": {"binary_data_output": True}},
            False,
        ),
    ],
)
def test_who_asks_chooses_how_the_answer_is_written(client, more, binary):
    """
    For all outputs, or for one, which goes first; JSON in and binary out, and the other way round.
    """
    raw = IMAGES[:1].astype("<f8").tobytes()
    as_binary = post(client, raw, shape=[1, 64], datatype="FP64", **more)
    tensor = {"name": "input", "shape": [1, 64], "datatype": "FP64", "data": IMAGES[0].tolist()}
    as_json = client.post(PATH, json={"inputs": [tensor], **more})
    for response in (as_binary, as_json):
        if binary:
            assert outputs(response)[1] == struct.pack("<q", LABELS[0])
        else:
            assert HEADER_LENGTH not in response.headers
            assert response.json()["outputs"][0]["data"] == [LABELS[0]]


def test_texts_go_in_and_out():
    """
    BYTES: each after its length in four bytes, empty ones and line feeds among them.
    """
    model, client = echo(["cat", "", "ü\0\n"])
    texts = ["a", "", "ß\n", "b" * 1000]
    raw = b"".join(struct.pack("<I", len(text.encode())) + text.encode() for text in texts)
    answer, binary = outputs(post(client, raw, shape=[2, 2], datatype="BYTES", parameters={"binary_data_output": True}))
    assert model.seen.tolist() == [["a", ""], ["ß\n", "b" * 1000]]
    assert (answer["outputs"][0]["datatype"], answer["outputs"][0]["shape"]) == ("BYTES", [3])
    assert binary == b"\3\0\0\0cat\0\0\0\0\4\0\0\0\xc3\xbc\0\n"


def test_truth_values_go_in_and_out():
    """
    BOOL: a byte each.
    """
    model, client = echo([True, False])
    answer, binary = outputs(post(client, b"\1\0\0\1", shape=[2, 2], datatype="BOOL", parameters={"binary_data_output": True}))
    assert model.seen.tolist() == [[True, False], [False, True]]
    assert (answer["outputs"][0]["datatype"], binary) == ("BOOL", b"\1\0")
    tensor = {"name": "input", "shape": [1, 2], "datatype": "BOOL", "data": [True, False]}
    assert client.post(PATH, json={"inputs": [tensor]}).json()["outputs"][0]["data"] == [True, False]


ROW = bytes(512)


@pytest.mark.parametrize(
    ("raw", "options", "complaint"),
    [
        (ROW[:-8], {}, "has 504 bytes, and FP64 of shape .* takes 512"),
        (ROW + b"\0", {}, "has 513 bytes"),
        (b"", {}, "has 0 bytes"),
        (ROW, {"size": 511}, '"binary_data_size" of the input tensor is 511, and 512 bytes follow'),
        (ROW, {"size": "512"}, "is '512', and 512 bytes follow"),
        (ROW, {"size": True}, "is True, and 512 bytes follow"),
        (ROW, {"size": -512}, "is -512, and 512 bytes follow"),
        (ROW, {"length": ""}, "is no JSON"),
        (b"", {"length": "", "size": 0}, f"the header {HEADER_LENGTH} is missing"),
        (ROW, {"length": 10_000}, f"{HEADER_LENGTH} must be the length of the JSON in bytes"),
        (ROW, {"length": -1}, "must be the length of the JSON"),
        (ROW, {"length": "9" * 5000}, "must be the length of the JSON"),
        (ROW, {"length": "half"}, "must be the length of the JSON"),
        (ROW, {"length": 5}, "is no JSON"),
        (ROW, {"shape": [1, 63]}, r"takes shape \[n, 64\]"),
        (ROW, {"datatype": "FP32"}, "has 512 bytes, and FP32 of shape .* takes 256"),
        (ROW, {"datatype": "BF16"}, "'BF16' is not one of"),
        (struct.pack("<d", float("nan")) + ROW[8:], {}, "holds NaN"),
        (b"\2" * 64, {"datatype": "BOOL"}, "is not BOOL, which takes bytes of 0 and 1"),
        (b"\1\0\0\0\xff" * 64, {"datatype": "BYTES"}, "element 0 of BYTES is no text in UTF-8"),
        (b"\1\0\0\0a" * 63, {"datatype": "BYTES"}, "needs 64 elements of BYTES, and binary data has 63"),
        (b"\1\0\0\0a" * 65, {"datatype": "BYTES"}, "needs 64 elements of BYTES, and binary data has more than 64"),
        (b"\1\0\0\0a" * 63 + b"\xff\xff\xff\xff", {"datatype": "BYTES"}, "ends within an element"),
        (b"\1\0\0\0a" * 63 + b"\1\0", {"datatype": "BYTES"}, "ends within an element"),
        (b"\1\0\0\0a" * 64, {"datatype": "BYTES"}, "the model does not take these BYTES"),
    ],
)
def test_binary_data_that_are_not_what_they_say_are_refused(client, raw, options, complaint):
    """
    400 with a sentence: sizes, the header, datatypes, shapes, values.
    """
    response = post(client, raw, **{"shape": [1, 64], "datatype": "FP64", **options})
    assert response.status_code == 400
    assert re.search(complaint, response.json()["error"]), response.json()


def test_bytes_that_no_input_claims_are_refused(client):
    """
    JSON data, and a header that leaves something over.
    """
    tensor = {"name": "input", "shape": [1, 64], "datatype": "FP64", "data": IMAGES[0].tolist()}
    text = json.dumps({"inputs": [tensor]}).encode()
    response = client.post(PATH, content=text + b"12", headers={HEADER_LENGTH: str(len(text))})
    assert response.status_code == 400
    assert "2 bytes follow the JSON, and no input says that they are its own" in response.json()["error"]
    assert client.post(PATH, content=text, headers={HEADER_LENGTH: str(len(text))}).status_code == 200


@pytest.mark.parametrize("datatype", DATATYPES)
def test_what_is_written_is_read_again(datatype):
    """
    Each datatype, through JSON and through bytes.
    """
    plain = (
        ["a", "ü", "", "x\0"] if datatype == "BYTES" else [True, False, False, True] if datatype == "BOOL" else [0, 1, 2, 100]
    )
    array = from_json([plain[:2], plain[2:]], datatype, (2, 2))
    assert array.tolist() == [plain[:2], plain[2:]]
    assert from_binary(to_binary(array, datatype), datatype, (2, 2)).tolist() == array.tolist()
    with pytest.raises(BadRequest):
        from_binary(to_binary(array, datatype)[:-1], datatype, (2, 2))
