"""Requests as rows for programs of the user's (PyTorch archives), and their answers as bodies.

Such programs are written for TorchServe, whose contract this follows: a program gets a list of rows, each an object with the key
`body` (or the names of form fields), and gives a list of the same length back. Where the archive has KServe's envelope on,
`{"instances": [...]}` becomes one row per instance and the answer is `{"predictions": [...]}`.

Users write both `row.get("data") or row.get("body")` and `row` itself for an instance. `as_row` makes instances that answer both ways.
Source: https://docs.pytorch.org/serve/custom_service.html
"""

from __future__ import annotations

from collections.abc import Sequence
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, cast
from urllib.parse import parse_qsl

import numpy as np
import orjson

from modelyard.serving.contract import Array, Reply
from modelyard.serving.errors import BadRequest, ModelFailed
from modelyard.serving.protocol.json_text import read_json, write_json
from modelyard.serving.protocol.v2 import V2Request, render_infer

_ITSELF = ("data", "body")


def parse_rows(body: bytes, content_type: str, *, unpacks_instances: bool) -> tuple[list[Any], bool]:
    """The rows of a body, and whether they are instances (so that the answer is an object with `predictions`).

    Args:
        body: as it came.
        content_type: JSON is parsed, forms are taken apart, text is decoded, everything else stays bytes.
        unpacks_instances: whether `{"instances": [...]}` means one row per instance.
    """
    kind = content_type.partition(";")[0].strip().lower()
    is_json = kind.endswith("json") or (kind in ("", "application/x-www-form-urlencoded") and body[:1] in (b"{", b"["))
    if is_json:
        value = read_json(body)
        if unpacks_instances and isinstance(value, dict) and "instances" in value:
            return instance_rows(cast("dict[str, Any]", value)["instances"]), True
        return [{"body": value}], False
    if kind == "multipart/form-data":
        return [_multipart(body, content_type)], False
    if kind == "application/x-www-form-urlencoded":
        return [dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))], False
    if kind.startswith("text/"):
        return [{"body": body.decode("utf-8", "replace")}], False
    return [{"body": bytearray(body)}], False


def instance_rows(instances: Any) -> list[Any]:
    """One row per instance. Raises `BadRequest` unless it is a list with something in it."""
    if not isinstance(instances, list):
        raise BadRequest('"instances" must be a list with one entry per row')
    if not instances:
        raise BadRequest('"instances" is empty')
    return [as_row(instance) for instance in cast("list[Any]", instances)]


def tensor_rows(request: V2Request) -> list[Any]:
    """The rows of a V2 request: the entries along the first dimension; with several tensors, objects that name them."""
    counts = {name: array.shape[0] if array.ndim else -1 for name, array in request.tensors.items()}
    count = next(iter(counts.values()))
    if count < 1 or any(other != count for other in counts.values()):
        raise BadRequest(
            f"the tensors must have the same first dimension, at least 1; they have {list(counts.values())}"
        )
    if len(request.tensors) == 1:
        (array,) = request.tensors.values()
        return [as_row(_plain(row)) for row in array]
    return [as_row({name: _plain(array[index]) for name, array in request.tensors.items()}) for index in range(count)]


def render_rows(reply: Reply, *, is_instances: bool) -> tuple[bytes, str]:
    """The body of an answer and its content type, where the program has not chosen one.

    Instances give `{"predictions": [...]}`. Otherwise the only row is the body: bytes and text as they are, the rest as JSON.
    """
    rows = reply.rows
    if is_instances:
        only: Any = rows[0] if len(rows) == 1 else None
        if isinstance(only, dict) and "predictions" in only:
            return _json(cast("Any", only)), "application/json"
        return _json({"predictions": rows}), "application/json"
    if len(rows) != 1:
        raise ModelFailed(f"the handler got 1 row and answered {len(rows)}")
    row: Any = rows[0]
    if isinstance(row, (bytes, bytearray)):
        return bytes(row), "application/octet-stream"
    if isinstance(row, str):
        return row.encode(), "text/plain; charset=utf-8"
    return _json(row), "application/json"


def render_row_tensors(
    request: V2Request, reply: Reply, name: str, version: str
) -> tuple[bytes, list[bytes | memoryview]]:
    """Rows as the V2 answer: a tensor `output_0` where they are numbers of one shape, else texts that hold JSON."""
    rows = [row.tolist() if hasattr(row, "tolist") else row for row in reply.rows]
    return render_infer(request, {"output_0": _stacked(rows)}, name, version)


def as_row(instance: Any) -> Any:
    """An instance that is itself, and that also answers `get("data")` and `get("body")` with itself."""
    if isinstance(instance, dict):
        return ObjectRow(cast("dict[str, Any]", instance))
    if isinstance(instance, list):
        return ListRow(cast("list[Any]", instance))
    if isinstance(instance, str):
        return TextRow(instance)
    return instance


class ObjectRow(dict[str, Any]):
    """An instance that is a JSON object. Keys that it really has win."""

    def __missing__(self, key: str) -> Any:
        if key in _ITSELF and not any(name in self for name in _ITSELF):
            return dict(self)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As `dict.get`, with the instance itself for `data` and `body`."""
        try:
            return self[key]
        except KeyError:
            return default


class ListRow(list[Any]):
    """An instance that is a list of values."""

    def get(self, key: str, default: Any = None) -> Any:
        """The list itself for `data` and `body`."""
        return list(self) if key in _ITSELF else default

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and key in _ITSELF:
            return list(self)
        return super().__getitem__(cast("Any", key))


class TextRow(str):
    """An instance that is a text."""

    __slots__ = ()

    def get(self, key: str, default: Any = None) -> Any:
        """The text itself for `data` and `body`."""
        return str(self) if key in _ITSELF else default

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str) and key in _ITSELF:
            return str(self)
        return super().__getitem__(cast("Any", key))


def _multipart(body: bytes, content_type: str) -> dict[str, Any]:
    parser = BytesParser(policy=HTTP)
    message = parser.parsebytes(b"content-type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n" + body)
    fields: dict[str, Any] = {}
    for part in message.walk():
        name: Any = part.get_param("name", header="content-disposition")
        if isinstance(name, str) and not part.is_multipart():
            value: Any = part.get_payload(decode=True)
            is_json = part.get_content_type() == "application/json"
            fields[name] = read_json(value) if is_json else bytearray(value)
    if not fields:
        raise BadRequest("the form has no field")
    return fields


def _plain(row: Any) -> Any:
    if isinstance(row, bytes):
        return _decoded(row)
    array: Array = np.asarray(row)
    value: Any = array.tolist()
    return _decoded(value) if array.dtype.kind == "O" else value


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in cast("list[Any]", value)]
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


def _stacked(rows: Sequence[Any]) -> Array:
    try:
        array: Array = np.array(rows)
    except ValueError:  # ragged
        array = np.empty(0, dtype=object)
    if array.dtype.kind in "fiub" and array.size:
        return array
    texts = np.empty(len(rows), dtype=object)
    texts[:] = [row if isinstance(row, bytes) else row.encode() if isinstance(row, str) else _json(row) for row in rows]
    return texts


def _json(value: Any) -> bytes:
    try:
        return write_json(value)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise ModelFailed(f"the handler's answer can't be written as JSON: {error}") from error
