"""Raw tensors of the V2 protocol's binary extension: little-endian, row-major; each text is preceded by its length (4 bytes)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from modelyard.serving.contract import STRING, Array
from modelyard.serving.errors import BadRequest

_LENGTH_BYTES = 4


def from_bytes(raw: memoryview, dtype: str, shape: Sequence[int], where: str) -> Array:
    """A tensor of raw bytes; a view without a copy where the dtype allows it. Raises `BadRequest` where the size is wrong.

    Args:
        raw: exactly the tensor's bytes.
        dtype: numpy's name, `bfloat16` (given back as float32) or `string` (given back as objects).
        shape: the dimensions.
        where: how the caller knows the tensor.
    """
    count = math.prod(shape)
    if dtype == STRING:
        return _texts(raw, count, where).reshape(shape)
    item = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
    if len(raw) != count * item:
        raise BadRequest(f"{where} has {len(raw)} bytes, but the shape {list(shape)} wants {count * item}")
    if dtype == "bfloat16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    return np.frombuffer(raw, np.dtype(dtype).newbyteorder("<")).reshape(shape)


def to_bytes(array: Array) -> bytes | memoryview:
    """A tensor as raw bytes; numbers are not copied where they lie as they are sent."""
    if array.dtype.kind not in "OSU":
        flat = np.ascontiguousarray(array).reshape(-1).astype(array.dtype.newbyteorder("<"), copy=False)
        return flat.view(np.uint8).data if flat.size else b""
    pieces: list[bytes] = []
    for item in array.reshape(-1).tolist():
        text = item if isinstance(item, bytes) else str(item).encode()
        pieces += (len(text).to_bytes(_LENGTH_BYTES, "little"), text)
    return b"".join(pieces)


def _texts(raw: memoryview, count: int, where: str) -> Array:
    texts: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[start - _LENGTH_BYTES : start], "little")
        if start > len(raw) or at > len(raw):
            raise BadRequest(f"{where} ends inside a text")
        texts.append(bytes(raw[start:at]))
    if len(texts) != count:
        raise BadRequest(f"{where} has {len(texts)} texts, but its shape wants {count}")
    array = np.empty(count, dtype=object)
    array[:] = texts
    return array
