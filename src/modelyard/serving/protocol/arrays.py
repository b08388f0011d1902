"""JSON values as arrays that fit a model's input, or a sentence that says where they do not.

The messages are the point of this module: a caller reads them instead of the model's source. Numbers are never made of text,
booleans or null; whole numbers are accepted where floating point is wanted, and `1.0` where whole numbers are.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Any, cast

import numpy as np

from modelyard.serving.contract import STRING, Array, Signature, TensorSpec
from modelyard.serving.errors import BadRequest

_EXAMPLE_NUMBERS = 64
_MAX_DIMENSIONS = 32


def to_array(value: Any, spec: TensorSpec, where: str) -> Array:
    """A JSON value as an array of the spec's dtype; of shape whatever the value has.

    Args:
        value: numbers, booleans, texts or `{"b64": …}` objects, nested in lists.
        spec: what the model wants.
        where: how the caller knows the value, e.g. `instances`.

    Raises:
        BadRequest: ragged lists, a wrong type, or a number that does not fit.
    """
    if spec.dtype == STRING:
        return _to_strings(value, where)
    try:
        raw: Array = np.array(value)
    except (ValueError, OverflowError, TypeError) as error:
        raise BadRequest(_ragged(value, where) or f"{where} can't be read as numbers: {error}") from error
    kind = raw.dtype.kind
    if kind == "U" and spec.dtype is None:
        return _to_strings(value, where)
    is_bool_right = spec.dtype is None or (kind == "b") == (spec.dtype == "bool")
    if kind not in "fiub" or not (is_bool_right or raw.size == 0):
        raise BadRequest(_wrong_type(value, spec, where))
    return _converted(_exact(raw, value, spec, where), spec, where)


def check_shape(array: Array, spec: TensorSpec, where: str) -> None:
    """Raise `BadRequest` unless the array has the spec's shape."""
    shape = spec.shape
    if shape is None:
        return
    if len(shape) == array.ndim:
        for wanted, given in zip(shape, array.shape, strict=True):
            if wanted is not None and wanted != given:
                break
        else:
            return
    wanted_text = "[" + ", ".join("*" if size is None else str(size) for size in shape) + "]"
    raise BadRequest(f"{where} has the shape {list(array.shape)}, but '{spec.name}' wants {wanted_text}")


def to_columns(rows: list[Any], signature: Signature, where: str) -> dict[str, Array]:
    """Rows of a table, each a list with one value per input, as an array per input. Raises `BadRequest`."""
    specs = signature.inputs
    for index, row in enumerate(rows):
        if not isinstance(row, list) or len(cast("list[Any]", row)) != len(specs):
            names = ", ".join(spec.name for spec in specs)
            raise BadRequest(f"{where}[{index}] must be a list of {len(specs)} values ({names}) or an object")
    values = zip(*cast("list[list[Any]]", rows), strict=True)
    return {
        spec.name: to_array(list(column), spec, f"'{spec.name}' of {where}")
        for spec, column in zip(specs, values, strict=True)
    }


def check_names(given: Any, signature: Signature, where: str) -> None:
    """Raise `BadRequest` unless exactly the signature's inputs are named."""
    missing = [spec.name for spec in signature.inputs if spec.name not in given]
    extra = [str(name) for name in given if name not in signature.by_name]
    if missing or extra:
        faults = [f"lacks {_quoted(missing)}"] if missing else []
        faults += [f"has {_quoted(extra)}, which the model does not take"] if extra else []
        raise BadRequest(f"{where} " + " and ".join(faults))


def example_value(spec: TensorSpec, *, is_row: bool) -> Any:
    """A small JSON value that fits the spec (without its first dimension, if `is_row`), or None where it would be long."""
    if spec.shape is None:
        return None
    shape = [1 if size is None else size for size in (spec.shape[1:] if is_row else spec.shape)]
    if math.prod(shape) > _EXAMPLE_NUMBERS:
        return None
    leaf: Any = "text" if spec.dtype == STRING else False if spec.dtype == "bool" else 0.0
    if spec.dtype is not None and spec.dtype.startswith(("int", "uint")):
        leaf = 0
    for size in reversed(shape):
        leaf = [leaf] * size
    return leaf


def _to_strings(value: Any, where: str) -> Array:
    complaint = _ragged(value, where)
    if complaint:
        raise BadRequest(complaint)
    return np.array(_bytes(value, where), dtype=object)


def _bytes(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_bytes(item, f"{where}[{index}]") for index, item in enumerate(cast("list[Any]", value))]
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"{where} is not valid text: {error}") from error
    if isinstance(value, dict) and set(cast("dict[str, Any]", value)) == {"b64"}:
        text: Any = cast("dict[str, Any]", value)["b64"]
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError, TypeError) as error:
            raise BadRequest(f"{where} is not valid base64: {error}") from error
    raise BadRequest(f'{where} must be text or {{"b64": "..."}}, not {_kind(value)}')


def _exact(raw: Array, value: Any, spec: TensorSpec, where: str) -> Array:
    """Whole numbers that numpy made floating ones of, for a neighbour's sake (`1.0`, or one beyond int64), as they were given."""
    if (
        raw.dtype.kind != "f"
        or not raw.size
        or spec.dtype in (None, "bfloat16")
        or np.dtype(spec.dtype).kind not in "iu"
    ):
        return raw
    if not (np.isfinite(raw) & (raw == np.trunc(raw))).all():
        raise BadRequest(
            f"{where} has numbers with a fraction (or NaN or Infinity), but '{spec.name}' wants {spec.dtype}"
        )
    try:
        return np.array(value, dtype="uint64" if raw.min() >= 0 else "int64")
    except OverflowError as error:
        raise BadRequest(f"{where} has numbers that do not fit in {spec.dtype}: {error}") from error


def _converted(raw: Array, spec: TensorSpec, where: str) -> Array:
    if spec.dtype is None:
        return raw.astype(spec.open_dtype) if raw.dtype.kind == "f" or raw.size == 0 else raw
    wanted = np.dtype(np.float32 if spec.dtype == "bfloat16" else spec.dtype)
    if raw.dtype == wanted:
        return raw
    if wanted.kind in "iu" and raw.size:
        limits = np.iinfo(wanted.name)
        low, high = int(raw.min()), int(raw.max())
        if low < limits.min or high > limits.max:
            raise BadRequest(f"{where} has {low if low < limits.min else high}, which does not fit in {spec.dtype}")
    with np.errstate(over="ignore"):  # a number beyond the type's range becomes infinite, as in the frameworks
        return raw.astype(wanted)


def _wrong_type(value: Any, spec: TensorSpec, where: str) -> str:
    ragged = _ragged(value, where)
    if ragged:
        return ragged
    wanted = spec.dtype or "numbers"
    for path, leaf in _leaves(value, where):
        is_right = (
            isinstance(leaf, bool)
            if spec.dtype == "bool"
            else isinstance(leaf, (int, float)) and not isinstance(leaf, bool)
        )
        if not is_right:
            return f"{path} is {_kind(leaf)}, but '{spec.name}' wants {wanted}"
    return f"{where} holds numbers too large for '{spec.name}' ({wanted})"


def _leaves(value: Any, where: str) -> Any:
    if not isinstance(value, list):
        yield where, value
        return
    for index, item in enumerate(cast("list[Any]", value)):
        yield from _leaves(item, f"{where}[{index}]")


def _ragged(value: Any, where: str) -> str | None:
    """The first place where a nested list has not the shape of its first branch, as a sentence."""
    shape: list[int] = []
    branch = value
    while isinstance(branch, list):
        items = cast("list[Any]", branch)
        shape.append(len(items))
        if len(shape) > _MAX_DIMENSIONS:
            return f"{where} is nested deeper than {_MAX_DIMENSIONS} levels"
        branch = items[0] if items else None
    return _uneven(value, shape, 0, where)


def _uneven(value: Any, shape: list[int], depth: int, where: str) -> str | None:
    if depth == len(shape):
        if isinstance(value, list):
            return f"{where} is a list where its neighbours are single values; all rows must have the same shape"
        return None
    if not isinstance(value, list):
        if depth == len(shape) - 1 and shape[depth] == 0:
            return None
        return f"{where} is {_kind(value)} where its neighbours are lists; all rows must have the same shape"
    items = cast("list[Any]", value)
    if len(items) != shape[depth]:
        return f"{where} has {len(items)} values where its neighbours have {shape[depth]}; all rows must have the same shape"
    for index, item in enumerate(items):
        complaint = _uneven(item, shape, depth + 1, f"{where}[{index}]")
        if complaint:
            return complaint
    return None


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:30]!r}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "a list" if isinstance(value, list) else "an object"


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names[:10]) + (" and more" if len(names) > 10 else "")
