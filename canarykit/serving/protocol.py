"""The Open Inference Protocol v2, as pure functions between JSON and arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["BadRequest", "answer", "metadata", "read_inputs"]

_DATATYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


class BadRequest(ValueError):
    """The client's request is not what the protocol or the model takes."""


def metadata(name: str, version: str, features: int | None) -> dict[str, Any]:
    """Model metadata."""
    return {
        "name": name,
        "versions": [version],
        "platform": "sklearn",
        "inputs": [{"name": "input", "datatype": "FP64", "shape": [-1, -1 if features is None else features]}],
        "outputs": [{"name": "label", "datatype": "INT64", "shape": [-1]}],
    }


def read_inputs(request: Any, features: int | None) -> np.ndarray:
    """Array that a request's single input tensor holds.

    Parameters
    ----------
    request : object
        Parsed JSON.
    features : int, optional
        Columns that the model takes.

    Raises
    ------
    BadRequest
        Says what is wrong with it.
    """
    if not isinstance(request, dict):
        raise BadRequest("the request must be a JSON object")
    inputs = request.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest('"inputs" must be a list with one tensor')
    tensor = inputs[0]
    missing = [key for key in ("name", "shape", "datatype", "data") if key not in tensor]
    if missing:
        raise BadRequest(f"the input tensor lacks {', '.join(missing)}")
    datatype = tensor["datatype"]
    if datatype not in _DATATYPES:
        raise BadRequest(f"datatype {datatype!r} is not one of {', '.join(_DATATYPES)}")
    shape = tensor["shape"]
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise BadRequest('"shape" must be a list of whole numbers')
    array = _array(tensor["data"], datatype)
    if array.size != math.prod(shape):
        raise BadRequest(f"shape {shape} needs {math.prod(shape)} values, and data has {array.size}")
    array = array.reshape(shape)
    if len(shape) != 2 or not shape[0] or (features is not None and shape[1] != features):
        raise BadRequest(f"the model takes shape [n, {features or 'features'}] with n of 1 or more, not {shape}")
    return array


def _array(data: Any, datatype: str) -> np.ndarray:
    try:
        array = np.asarray(data, dtype=_DATATYPES[datatype])
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRequest(f"data is not {datatype}, or is ragged: {error}") from error
    if datatype.startswith("FP") and not np.isfinite(array).all():
        raise BadRequest("data holds NaN or infinity")
    return array.ravel()


def answer(name: str, version: str, request_id: str | None, labels: Any) -> dict[str, Any]:
    """Response body; a given id is returned."""
    values = np.asarray(labels)
    datatype = "INT64" if values.dtype.kind in "iu" else "FP64" if values.dtype.kind == "f" else "BYTES"
    body: dict[str, Any] = {"model_name": name, "model_version": version}
    if request_id is not None:
        body["id"] = request_id
    body["outputs"] = [{"name": "label", "datatype": datatype, "shape": list(values.shape), "data": values.ravel().tolist()}]
    return body
