"""The V2 protocol: the Open Inference Protocol with the binary tensor data extension.

Tensors come with name, shape and datatype; their values are JSON (flat or nested) or, after a JSON header whose length is told by
`Inference-Header-Content-Length`, raw little-endian bytes.
Sources: https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from modelyard.serving.contract import STRING, Array, Signature, TensorRuntime, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest
from modelyard.serving.protocol.arrays import check_names, check_shape, example_value, to_array
from modelyard.serving.protocol.json_text import jsonable, read_json, write_json
from modelyard.serving.protocol.v2_binary import from_bytes, to_bytes

_DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
    "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
    "FP16": "float16", "FP32": "float32", "FP64": "float64", "BF16": "bfloat16", "BYTES": STRING,
}  # fmt: skip
_WORDS = {dtype: word for word, dtype in _DATATYPES.items()}
_MAX_DIMENSIONS = 32
_MAX_VALUES = 2**40
HEADER_LENGTH = "inference-header-content-length"


@dataclass(frozen=True)
class V2Request:
    """A parsed request.

    Attributes:
        id: the caller's id, given back.
        tensors: the inputs by name, with the datatypes of the request.
        signature_name: a model's signature, from `parameters.signature_name`.
        wanted: names of outputs, in order; empty for all.
        binary: for named outputs whether they go back as bytes; for others `is_binary` holds.
        is_binary: whether outputs go back as bytes where nothing is said about them.
    """

    id: str | None
    tensors: Mapping[str, Array]
    signature_name: str | None = None
    wanted: tuple[str, ...] = ()
    binary: Mapping[str, bool] = field(default_factory=dict[str, bool])
    is_binary: bool = False


def looks_like_v2(body: Any) -> bool:
    """Whether a parsed body is of this protocol, though it came to a path of the other."""
    if not isinstance(body, dict):
        return False
    tensors: Any = cast("dict[str, Any]", body).get("inputs")
    if not isinstance(tensors, list) or not tensors:
        return False
    return all(
        isinstance(tensor, dict) and {"name", "shape", "datatype"} <= tensor.keys()
        for tensor in cast("list[Any]", tensors)
    )


def parse_body(body: bytes, header_length: str | None) -> V2Request:
    """A request of a body. Raises `BadRequest`.

    Args:
        body: JSON, or JSON followed by raw tensors.
        header_length: the header `Inference-Header-Content-Length`: how many bytes of the body are JSON.
    """
    if header_length is None:
        return parse_infer(read_json(body), memoryview(b""))
    if not header_length.isascii() or not header_length.isdigit() or int(header_length) > len(body):
        raise BadRequest(f"Inference-Header-Content-Length is {header_length!r}, but the body has {len(body)} bytes")
    view = memoryview(body)
    return parse_infer(read_json(view[: int(header_length)]), view[int(header_length) :])


def parse_infer(body: Any, raw: memoryview) -> V2Request:
    """A request of a parsed JSON body and the raw bytes that followed it. Raises `BadRequest`."""
    if not isinstance(body, dict):
        raise BadRequest('the body must be a JSON object with "inputs"')
    fields = cast("dict[str, Any]", body)
    entries = _objects(fields.get("inputs"), "inputs")
    if not entries:
        raise BadRequest('"inputs" is missing or empty')
    tensors: dict[str, Array] = {}
    for index, entry in enumerate(entries):
        name, array, used = _tensor(entry, f"inputs[{index}]", raw)
        if name in tensors:
            raise BadRequest(f"the input '{name}' is given twice")
        tensors[name] = array
        raw = raw[used:]
    if len(raw):
        raise BadRequest(
            f"{len(raw)} bytes follow the last tensor; every input's binary_data_size must say how many are its own"
        )
    outputs = _objects(fields.get("outputs"), "outputs")
    parameters = _parameters(fields, "the body")
    wanted = tuple(str(entry.get("name", "")) for entry in outputs)
    binary: dict[str, bool] = {}
    for name, entry in zip(wanted, outputs, strict=True):
        choice: Any = _parameters(entry, f"the output '{name}'").get("binary_data")
        if isinstance(choice, bool):
            binary[name] = choice
    identifier, signature_name = fields.get("id"), parameters.get("signature_name")
    return V2Request(
        id=None if identifier is None else str(identifier),
        tensors=tensors,
        signature_name=None if signature_name is None else str(signature_name),
        wanted=wanted,
        binary=binary,
        is_binary=parameters.get("binary_data_output") is True,
    )


def fit(request: V2Request, model: TensorRuntime) -> tuple[Signature, Tensors]:
    """The signature that a request is for, and its tensors with the dtypes of the model. Raises `BadRequest`."""
    name = request.signature_name or model.default_signature
    if name not in model.signatures:
        known = ", ".join(f"'{known}'" for known in model.signatures)
        raise BadRequest(f"the model has no signature '{name}'; it has {known}")
    signature = model.signatures[name]
    tensors = _columns(request.tensors, signature) if signature.is_table else request.tensors
    try:
        check_names(tensors, signature, "inputs")
        inputs = {spec.name: _fitted(tensors[spec.name], spec) for spec in signature.inputs}
    except BadRequest as error:
        raise BadRequest(f"{error.message}. {explain(signature)}") from error
    return signature, inputs


def explain(signature: Signature) -> str:
    """What the signature wants, with an example body where that is short."""
    tensors: list[dict[str, Any]] = []
    for spec in signature.inputs:
        example = example_value(spec, is_row=False)
        if example is None:
            return f"The {signature}"
        shape = [1 if size is None else size for size in spec.shape or ()]
        datatype = _WORDS.get(spec.dtype or "float32", "FP32")
        tensors.append({"name": spec.name, "shape": shape, "datatype": datatype, "data": example})
    return f"The {signature}; for example {write_json({'inputs': tensors}).decode()}"


def render_infer(
    request: V2Request, outputs: Tensors, name: str, version: str
) -> tuple[bytes, list[bytes | memoryview]]:
    """The answer's JSON, and the raw tensors that follow it."""
    unknown = [wanted for wanted in request.wanted if wanted not in outputs]
    if unknown:
        raise BadRequest(
            f"the model has no output '{unknown[0]}'; it has " + ", ".join(f"'{known}'" for known in outputs)
        )
    entries: list[dict[str, Any]] = []
    raw: list[bytes | memoryview] = []
    for output in request.wanted or outputs:
        array = outputs[output]
        if array.dtype.name not in _WORDS and array.dtype.kind not in "OSU":
            array = array.astype(np.float32)
        datatype = "BYTES" if array.dtype.kind in "OSU" else _WORDS[array.dtype.name]
        entry: dict[str, Any] = {"name": output, "datatype": datatype, "shape": list(array.shape)}
        if request.binary.get(output, request.is_binary):
            raw.append(to_bytes(array))
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["datatype"] = "FP32" if datatype == "BF16" else datatype
            entry["data"] = jsonable(array.reshape(-1))
        entries.append(entry)
    answer: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": entries}
    if request.id is not None:
        answer["id"] = request.id
    return write_json(answer), raw


def describe(name: str, version: str, platform: str, signature: Signature | None) -> dict[str, Any]:
    """The answer to `GET /v2/models/{name}`. A row runtime has no signature: its tensors belong to the user's program."""
    return {
        "name": name,
        "versions": [version],
        "platform": platform,
        "inputs": [_metadata(spec) for spec in signature.inputs] if signature else [],
        "outputs": [_metadata(spec) for spec in signature.outputs] if signature else [],
    }


def _tensor(entry: Mapping[str, Any], where: str, raw: memoryview) -> tuple[str, Array, int]:
    name, shape, datatype = entry.get("name"), entry.get("shape"), entry.get("datatype")
    if not isinstance(name, str) or not name:
        raise BadRequest(f"{where} has no name")
    where = f"the input '{name}'"
    if datatype not in _DATATYPES:
        raise BadRequest(f"{where} has the datatype {datatype!r}; known are {', '.join(_DATATYPES)}")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in cast("list[Any]", shape)):
        raise BadRequest(f"{where} needs a shape: a list of whole numbers that are not negative")
    sizes = cast("list[int]", shape)
    if len(sizes) > _MAX_DIMENSIONS or math.prod(size or 1 for size in sizes) > _MAX_VALUES:
        raise BadRequest(f"{where} has a shape that is too large")
    dtype = _DATATYPES[cast("str", datatype)]
    size = _parameters(entry, where).get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(raw):
            raise BadRequest(f"{where} says binary_data_size {size!r}, but {len(raw)} bytes follow")
        return name, from_bytes(raw[:size], dtype, sizes, where), size
    if "data" not in entry:
        raise BadRequest(f"{where} has neither data nor binary_data_size")
    array = to_array(entry["data"], TensorSpec(name, dtype), f"data of {where}")
    if array.size != math.prod(sizes):
        raise BadRequest(f"{where} has {array.size} values, but the shape {sizes} wants {math.prod(sizes)}")
    return name, array.reshape(sizes), 0


def _columns(tensors: Mapping[str, Array], signature: Signature) -> Mapping[str, Array]:
    """A table may come as one tensor with all columns; other tensors of columns may have a second dimension of 1."""
    only = next(iter(tensors.values())) if len(tensors) == 1 else None
    if only is not None and only.ndim == 2 and only.shape[1] == len(signature.inputs):
        return {spec.name: only[:, index] for index, spec in enumerate(signature.inputs)}
    return {name: array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array for name, array in tensors.items()}


def _fitted(array: Array, spec: TensorSpec) -> Array:
    where = f"the input '{spec.name}'"
    check_shape(array, spec, where)
    if spec.dtype is None or spec.dtype == "bfloat16":
        return array
    is_text = array.dtype.kind == "O"
    if is_text != (spec.dtype == STRING) or not (is_text or np.can_cast(array.dtype, spec.dtype, "same_kind")):
        given = "BYTES" if is_text else _WORDS.get(array.dtype.name, array.dtype.name)
        raise BadRequest(f"{where} is {given}, but the model wants {_WORDS[spec.dtype]}")
    return array if is_text else array.astype(spec.dtype, copy=False)


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in cast("list[Any]", value)):
        raise BadRequest(f'"{where}" must be a list of objects')
    return cast("list[dict[str, Any]]", value)


def _parameters(entry: Mapping[str, Any], where: str) -> dict[str, Any]:
    value: Any = entry.get("parameters")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"the parameters of {where} must be an object")
    return cast("dict[str, Any]", value)


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [-1] if spec.shape is None else [-1 if size is None else size for size in spec.shape]
    return {"name": spec.name, "datatype": _WORDS.get(spec.dtype or "float32", "FP32"), "shape": shape}
