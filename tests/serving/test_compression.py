"""Compressed requests and answers of the sample server."""

import gzip
import json
import zlib

import pytest
from starlette.testclient import TestClient

from canarykit.serving import compression, digits, storage
from canarykit.serving.compression import chosen
from canarykit.serving.server import ModelServer

IMAGES, LABELS = digits.held_out()
PATH = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def client(models):
    """A client of a server of the good model, which asks for no encoding unless a test does."""
    server = ModelServer(storage.load(models["good"]), "digits", "v2")
    return TestClient(server.app(), raise_server_exceptions=False, headers={"accept-encoding": "identity"})


def request(rows):
    """A request for some labels."""
    tensor = {"name": "input", "shape": [rows, 64], "datatype": "FP64", "data": IMAGES[:rows].ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
    ],
    ids=["gzip", "capitals", "x-gzip", "deflate", "identity"],
)
def test_compressed_requests_are_read(client, encoding, pack):
    """
    As they are without compression.
    """
    response = client.post(PATH, content=pack(request(3)), headers={"content-encoding": encoding})
    assert response.json()["outputs"][0]["data"] == client.post(PATH, content=request(3)).json()["outputs"][0]["data"]


@pytest.mark.parametrize(
    ("encoding", "body", "status", "says"),
    [
        ("gzip", b"{}", 400, "not encoded in gzip"),
        ("gzip", gzip.compress(request(1))[:-9], 400, "not encoded in gzip"),
        ("deflate", b"\xff\xff", 400, "not encoded in deflate"),
        ("br", b"{}", 415, "content-encoding 'br' is not read here"),
        ("gzip, deflate", b"{}", 415, "is not read here"),
    ],
    ids=["plain text", "cut", "nonsense", "brotli", "two"],
)
def test_what_is_not_encoded_as_it_says_is_refused(client, encoding, body, status, says):
    """
    With a sentence, and not as JSON that is none.
    """
    response = client.post(PATH, content=body, headers={"content-encoding": encoding})
    assert response.status_code == status
    assert says in response.json()["error"]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity"])
def test_a_request_that_grows_is_refused_at_a_bound(client, monkeypatch, encoding):
    """
    413, before all of it is decoded: a thousandth may be sent.
    """
    monkeypatch.setattr(compression, "LARGEST_BODY", 1_000_000)
    body = b" " * 3_000_000
    packed = {"gzip": gzip.compress, "deflate": zlib.compress, "identity": bytes}[encoding](body)
    response = client.post(PATH, content=packed, headers={"content-encoding": encoding})
    assert response.status_code == 413
    assert "more than 1,000,000 bytes, decoded" in response.json()["error"]


@pytest.mark.parametrize(
    ("encoding", "unpack"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)], ids=["gzip", "deflate"]
)
def test_long_answers_are_compressed_for_who_asks(client, encoding, unpack):
    """
    With the header, its length, and a word for caches; short ones are not worth it.
    """
    headers = {"accept-encoding": encoding}
    with client.stream("POST", PATH, content=request(900), headers=headers) as response:
        raw = b"".join(response.iter_raw())
    assert (response.headers["content-encoding"], response.headers["vary"]) == (encoding, "accept-encoding")
    assert int(response.headers["content-length"]) == len(raw)
    assert json.loads(unpack(raw))["outputs"][0]["shape"] == [900]
    plain = client.post(PATH, content=request(900))
    assert "content-encoding" not in plain.headers
    assert plain.content == unpack(raw)
    short = client.post(PATH, content=request(1), headers=headers)
    assert "content-encoding" not in short.headers


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("", None),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate;q=1, gzip;q=0.5", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0, deflate", "deflate"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("br", None),
        ("identity, gzip;q=0.5", None),
        ("X-GZIP ; q=0.8", "gzip"),
        ("gzip;q=high", None),
    ],
)
def test_who_asks_chooses_the_encoding(accepted, encoding):
    """
    By weight; what is refused, unknown or unreadable is not taken.
    """
    assert chosen(accepted) == encoding
