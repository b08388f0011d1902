"""JSON in and out, with the two rules that the standard leaves open for models.

In: the tokens `NaN`, `Infinity` and `-Infinity`, which Python's own encoder writes, are read as the numbers. Out: numbers that
JSON can't say become `null`, so that every client can read every answer.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import orjson

from modelyard.serving.contract import Array
from modelyard.serving.errors import BadRequest

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_SHOWN_BYTES = 60


def read_json(body: bytes | memoryview) -> Any:
    """The value in a body. Raises `BadRequest` where it is no JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        text = bytes(body)
        if b"NaN" in text or b"Infinity" in text:
            return _read_with_nan(text)
        start = text[:_SHOWN_BYTES].decode("utf-8", "replace")
        what = f"it begins with {start!r}" if text else "it is empty"
        raise BadRequest(f"the body is not JSON: {error} ({what})") from error


def write_json(value: Any) -> bytes:
    """A value as UTF-8 JSON. Arrays, numpy scalars, tensors, bytes and dates are understood."""
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def jsonable(array: Array, *, is_binary: bool = False) -> Any:
    """An array as something that `write_json` takes without a copy where that is possible.

    Args:
        array: any array; of dtype `object` it holds bytes.
        is_binary: whether bytes are written as `{"b64": …}` even where they are valid UTF-8.
    """
    if array.dtype.kind in "OSU":
        return _texts(array.tolist(), is_binary=is_binary)
    if array.dtype.kind not in "fiub" or array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        array = array.astype(np.float32)
    if array.ndim == 0:
        return array.item()
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))


def _read_with_nan(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def _texts(value: Any, *, is_binary: bool) -> Any:
    if isinstance(value, list):
        return [_texts(item, is_binary=is_binary) for item in cast("list[Any]", value)]
    if not isinstance(value, bytes):
        return value
    if not is_binary:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value).decode("ascii")}


def _plain(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return _texts(bytes(value), is_binary=False)
    if isinstance(value, np.ndarray):
        return jsonable(cast("Array", value))
    if isinstance(value, np.generic):
        return cast("Any", value).item()
    if isinstance(value, Mapping):
        return dict(cast("Mapping[Any, Any]", value))
    if isinstance(value, (set, frozenset, Sequence)):
        return list(cast("Sequence[Any]", value))
    if hasattr(value, "tolist"):  # tensors of every framework
        return value.tolist()
    raise TypeError(f"{type(value).__name__} can't be written as JSON")
