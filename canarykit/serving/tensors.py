"""Tensors of the Open Inference Protocol v2: arrays from and to JSON, and from and to its binary tensor data. Pure."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["DATATYPES", "BadRequest", "datatype_of", "from_binary", "from_json", "to_binary"]

DATATYPES: Mapping[str, Any] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
"""As they are written in binary tensor data: little-endian. Texts are objects."""

_VALUES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "b": ((bool,), "true and false"),
    "u": ((int,), "whole numbers"),
    "i": ((int,), "whole numbers"),
    "f": ((int, float), "numbers"),
    "O": ((str,), "texts"),
}
"""What JSON has for each kind of datatype. Nothing is converted: 1.5 is no INT64, "1" no number, and true no 1."""

_LENGTH = struct.Struct("<I")


class BadRequest(ValueError):
    """The client's request is not what the protocol or the model takes."""


def from_json(data: Any, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """Read a tensor's ``data``.

    Parameters
    ----------
    data : object
        Parsed JSON: a list of all values in row-major order, or lists in lists as the shape says.
    datatype : str
        One of `DATATYPES`.
    shape : sequence of int
        Sizes, none below 0.

    Raises
    ------
    BadRequest
        The data are of another datatype or shape, or hold NaN or infinity.
    """
    dtype, size = DATATYPES[datatype], math.prod(shape)
    values = _flat(data, shape)
    if len(values) != size:
        raise BadRequest(f"shape {list(shape)} needs {size:,} values, and data has {len(values):,}")
    types, called = _VALUES[dtype.kind]
    strange = next((value for value in values if type(value) not in types), None)
    if strange is not None or None in values:
        raise BadRequest(f"data is not {datatype}, which takes {called}, and not {_called(strange)}")
    try:
        if dtype.kind in "iu" and values and not (np.iinfo(dtype).min <= min(values) and max(values) <= np.iinfo(dtype).max):
            raise OverflowError
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=dtype)
    except OverflowError as error:
        raise BadRequest(f"data is not {datatype}: a number is too large or too small for it") from error
    return _checked(array, datatype).reshape(shape)


def from_binary(raw: bytes, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """Read a tensor's binary data.

    Parameters
    ----------
    raw : bytes
        All of it, in row-major order.
    datatype, shape
        See `from_json`.

    Raises
    ------
    BadRequest
        It has another size, or holds NaN, infinity, or texts that are not in UTF-8.
    """
    dtype, size = DATATYPES[datatype], math.prod(shape)
    if datatype == "BYTES":
        return np.array(_texts(raw, shape), dtype=object).reshape(shape)
    if len(raw) != size * dtype.itemsize:
        raise BadRequest(
            f"binary data has {len(raw):,} bytes, and {datatype} of shape {list(shape)} takes {size * dtype.itemsize:,}"
        )
    if datatype == "BOOL" and raw.strip(b"\0\1"):
        raise BadRequest("binary data is not BOOL, which takes bytes of 0 and 1")
    return _checked(np.frombuffer(raw, dtype=dtype), datatype).reshape(shape)


def to_binary(array: np.ndarray, datatype: str) -> bytes:
    """Return an array as binary tensor data: numbers little-endian, each text in UTF-8 after its length in four bytes."""
    if datatype != "BYTES":
        return array.astype(DATATYPES[datatype]).tobytes()
    texts = (str(value).encode() for value in array.ravel())
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)


def datatype_of(array: np.ndarray) -> str:
    """Datatype in which a model's answers are written."""
    return {"b": "BOOL", "i": "INT64", "u": "INT64", "f": "FP64"}.get(array.dtype.kind, "BYTES")


def _flat(data: Any, shape: Sequence[int]) -> list[Any]:
    """All values of lists in lists; `data` may be one list of them."""
    if not isinstance(data, list):
        raise BadRequest("data must be a list of values, or lists in lists as the shape says")
    if not any(isinstance(value, list) for value in data):
        return data
    rows = [row for row in data if isinstance(row, list)]
    if len(shape) < 2 or len(data) != shape[0] or len(rows) != len(data):
        raise BadRequest(f"data is nested otherwise than its shape {list(shape)} says")
    inner, found = shape[1:], []
    for row in rows:
        values = _flat(row, inner)
        if len(values) != math.prod(inner):
            raise BadRequest(f"data is ragged: shape {list(shape)} needs rows of {math.prod(inner):,} values")
        found += values
    return found


def _texts(raw: bytes, shape: Sequence[int]) -> list[str]:
    """Texts, each after its length."""
    texts: list[str] = []
    at, size = 0, math.prod(shape)
    while at < len(raw) and len(texts) <= size:
        length = _LENGTH.unpack_from(raw, at)[0] if at + _LENGTH.size <= len(raw) else len(raw)
        at += _LENGTH.size
        if at + length > len(raw):
            raise BadRequest(
                "binary data of BYTES ends within an element: each is its length in four bytes, and then its bytes"
            )
        try:
            texts.append(raw[at : at + length].decode())
        except UnicodeDecodeError as error:
            raise BadRequest(f"element {len(texts)} of BYTES is no text in UTF-8") from error
        at += length
    if len(texts) != size:
        more = "more than " if len(texts) > size else ""
        raise BadRequest(
            f"shape {list(shape)} needs {size:,} elements of BYTES, and binary data has {more}{min(len(texts), size):,}"
        )
    return texts


def _checked(array: np.ndarray, datatype: str) -> np.ndarray:
    if datatype.startswith("FP") and not np.isfinite(array).all():
        raise BadRequest(f"data holds NaN, infinity, or a number too large for {datatype}")
    return array


def _called(value: Any) -> str:
    names: Mapping[type, str] = {
        bool: "true or false",
        int: "numbers",
        float: "numbers with a fraction",
        str: "text",
        dict: "objects",
    }
    return "null" if value is None else names.get(type(value), "lists")
