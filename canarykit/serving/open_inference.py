"""The Open Inference Protocol v2 with binary tensor data, as pure functions between bytes and arrays.

Nothing of a request is ignored: what the server does not know is refused, so that nobody believes that it was heeded.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from canarykit.serving.tensors import DATATYPES, BadRequest, datatype_of, from_binary, from_json, to_binary

__all__ = ["EXTENSIONS", "HEADER_LENGTH", "BadRequest", "Inference", "answer", "metadata", "read"]

EXTENSIONS = ("binary_tensor_data",)

HEADER_LENGTH = "inference-header-content-length"
"""Header with the length of the JSON, where binary data follow it."""

_INPUT, _OUTPUT = "input", "label"
_LARGEST_DIMENSION = 2**31 - 1


@dataclass(frozen=True)
class Inference:
    """What a request asks for.

    Parameters
    ----------
    inputs : array
        Rows for the model.
    datatype : str
        As the client calls it.
    request_id : str, optional
        Returned with the answer.
    binary : bool
        Whether the answer is written as binary data.
    """

    inputs: np.ndarray
    datatype: str
    request_id: str | None
    binary: bool


def metadata(name: str, version: str, features: int | None) -> dict[str, Any]:
    """Model metadata."""
    return {
        "name": name,
        "versions": [version],
        "platform": "sklearn",
        "inputs": [{"name": _INPUT, "datatype": "FP64", "shape": [-1, -1 if features is None else features]}],
        "outputs": [{"name": _OUTPUT, "datatype": "INT64", "shape": [-1]}],
    }


def read(body: bytes, header_length: str | None, features: int | None) -> Inference:
    """Read a request.

    Parameters
    ----------
    body : bytes
        JSON, and binary data after it where the header says so.
    header_length : str, optional
        Header `HEADER_LENGTH`.
    features : int, optional
        Columns that the model takes.

    Raises
    ------
    BadRequest
        Says what is wrong with it.
    """
    text, binary = _parts(body, header_length)
    try:
        request = json.loads(text)
    except RecursionError:
        raise BadRequest("the request has too many arrays or objects within each other") from None
    except ValueError as error:
        raise BadRequest(f"the request is no JSON: {error}") from error
    _check_keys("the request", request, needed=(), known={"id", "inputs", "outputs", "parameters"})
    request_id = request.get("id")
    if request_id is not None and not isinstance(request_id, str):
        raise BadRequest('"id" must be a text')
    usual = _flag("the request", _parameters("the request", request, {"binary_data_output"}), "binary_data_output", False)
    datatype, inputs = _input(request.get("inputs"), binary if header_length is not None else None, features)
    return Inference(inputs, datatype, request_id, _output(request.get("outputs"), usual))


def answer(name: str, version: str, asked: Inference, labels: Any) -> tuple[bytes, int | None]:
    """Return the body of an answer, and the length of its JSON where binary data follow it.

    Parameters
    ----------
    name, version : str
        Name and version of the model.
    asked : Inference
        The request that it answers; a given id is returned.
    labels : array_like
        The model's answer.
    """
    values = np.asarray(labels)
    datatype = datatype_of(values)
    output: dict[str, Any] = {"name": _OUTPUT, "datatype": datatype, "shape": list(values.shape)}
    raw = to_binary(values, datatype) if asked.binary else b""
    if asked.binary:
        output["parameters"] = {"binary_data_size": len(raw)}
    else:
        output["data"] = [str(value) for value in values.ravel()] if datatype == "BYTES" else values.ravel().tolist()
    body: dict[str, Any] = {"model_name": name, "model_version": version}
    if asked.request_id is not None:
        body["id"] = asked.request_id
    text = json.dumps({**body, "outputs": [output]}, separators=(",", ":"), allow_nan=False).encode()
    return text + raw, len(text) if asked.binary else None


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON of a request, and the binary data after it."""
    if header_length is None:
        return body, b""
    if not (header_length.isascii() and header_length.isdigit()) or len(header_length) > 18 or int(header_length) > len(body):
        raise BadRequest(f"{HEADER_LENGTH} must be the length of the JSON in bytes, at most {len(body)}, not {header_length!r}")
    return body[: int(header_length)], body[int(header_length) :]


def _check_keys(what: str, found: Any, *, needed: Collection[str], known: Collection[str]) -> None:
    if not isinstance(found, dict):
        raise BadRequest(f"{what} must be a JSON object")
    if missing := [key for key in needed if key not in found]:
        raise BadRequest(f"{what} lacks {', '.join(sorted(missing))}")
    if strange := sorted(set(found) - set(known)):
        raise BadRequest(f"{what} has {', '.join(map(repr, strange))}, which is not known here: leave it out")


def _parameters(what: str, found: Mapping[str, Any], known: Collection[str]) -> Mapping[str, Any]:
    parameters: Mapping[str, Any] = found.get("parameters", {})
    _check_keys(f'"parameters" of {what}', parameters, needed=(), known=known)
    return parameters


def _flag(what: str, parameters: Mapping[str, Any], name: str, usual: bool) -> bool:
    value = parameters.get(name, usual)
    if not isinstance(value, bool):
        raise BadRequest(f'"{name}" of {what} must be true or false')
    return value


def _input(inputs: Any, binary: bytes | None, features: int | None) -> tuple[str, np.ndarray]:
    """Datatype and values of the one input."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest('"inputs" must be a list with one tensor')
    tensor, what = inputs[0], "the input tensor"
    _check_keys(what, tensor, needed=("name", "shape", "datatype"), known=("name", "shape", "datatype", "data", "parameters"))
    size = _parameters(what, tensor, {"binary_data_size"}).get("binary_data_size")
    if ("data" in tensor) == (size is not None):
        raise BadRequest(f'{what} must have either "data" or the parameter "binary_data_size"')
    if tensor["name"] != _INPUT:
        raise BadRequest(f"the model has no input {tensor['name']!r}: its input is {_INPUT!r}")
    datatype, shape = tensor["datatype"], tensor["shape"]
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadRequest(f"datatype {datatype!r} is not one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n <= _LARGEST_DIMENSION for n in shape):
        raise BadRequest('"shape" must be a list of whole numbers')
    if len(shape) != 2 or not shape[0] or (features is not None and shape[1] != features):
        raise BadRequest(f"the model takes shape [n, {features or 'features'}] with n of 1 or more, not {shape}")
    if "data" in tensor:
        if binary:
            raise BadRequest(f"{len(binary):,} bytes follow the JSON, and no input says that they are its own")
        return datatype, from_json(tensor["data"], datatype, shape)
    if binary is None:
        raise BadRequest(f"{what} is binary data, and the header {HEADER_LENGTH} is missing")
    if type(size) is not int or size != len(binary):
        raise BadRequest(f'"binary_data_size" of {what} is {size!r}, and {len(binary):,} bytes follow the JSON')
    return datatype, from_binary(binary, datatype, shape)


def _output(outputs: Any, usual: bool) -> bool:
    """Whether the one output is written as binary data."""
    if outputs is None or outputs == []:
        return usual
    if not isinstance(outputs, list):
        raise BadRequest('"outputs" must be a list of the outputs that are wanted')
    for output in outputs:
        _check_keys("a requested output", output, needed={"name"}, known=("name", "parameters"))
        if output["name"] != _OUTPUT:
            raise BadRequest(f"the model has no output {output['name']!r}: its output is {_OUTPUT!r}")
    if len(outputs) > 1:
        raise BadRequest(f"the output {_OUTPUT!r} is requested {len(outputs)} times")
    what = f"the requested output {_OUTPUT!r}"
    return _flag(what, _parameters(what, outputs[0], {"binary_data"}), "binary_data", usual)
