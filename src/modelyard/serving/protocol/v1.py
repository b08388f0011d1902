"""The V1 protocol: TensorFlow Serving's REST API, which KServe's V1 is a part of.

A request is a JSON object with either `instances` (one entry per row) or `inputs` (whole tensors), and perhaps
`signature_name`. Rows are answered with `predictions`, tensors with `outputs`.
Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from modelyard.serving.contract import STRING, Array, Signature, TensorRuntime, Tensors, TensorSpec
from modelyard.serving.errors import BadRequest
from modelyard.serving.protocol.arrays import check_names, check_shape, example_value, to_array, to_columns
from modelyard.serving.protocol.json_text import jsonable, write_json

_TENSORFLOW_DTYPES = {
    "float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE", "bfloat16": "DT_BFLOAT16", "bool": "DT_BOOL",
    "int8": "DT_INT8", "int16": "DT_INT16", "int32": "DT_INT32", "int64": "DT_INT64",
    "uint8": "DT_UINT8", "uint16": "DT_UINT16", "uint32": "DT_UINT32", "uint64": "DT_UINT64",
    STRING: "DT_STRING",
}  # fmt: skip


@dataclass(frozen=True)
class V1Request:
    """A request that fits a signature. `is_rows` remembers the form, because the answer has the same."""

    signature: Signature
    inputs: Tensors
    is_rows: bool


def parse_predict(body: Any, model: TensorRuntime) -> V1Request:
    """A request of a parsed JSON body. Raises `BadRequest` that says what the model wants and gives an example."""
    if not isinstance(body, dict):
        raise BadRequest('the body must be a JSON object with "instances" or "inputs"')
    fields = cast("dict[str, Any]", body)
    signature = _signature(fields.get("signature_name"), model)
    try:
        is_rows = _is_rows(fields)
        inputs = _rows(fields["instances"], signature) if is_rows else _columns(fields["inputs"], signature)
    except BadRequest as error:
        raise BadRequest(f"{error.message}. {explain(signature)}") from error
    return V1Request(signature, inputs, is_rows)


def render_predict(request: V1Request, outputs: Tensors) -> bytes:
    """The answer in the form of the request."""
    if not request.is_rows:
        if len(outputs) == 1:
            ((name, only),) = outputs.items()
            return write_json({"outputs": _value(name, only)})
        return write_json({"outputs": {name: _value(name, array) for name, array in outputs.items()}})
    if len(outputs) == 1:
        ((name, only),) = outputs.items()
        return write_json({"predictions": _value(name, only)})
    return write_json({"predictions": _joined_rows(outputs)})


def explain(signature: Signature) -> str:
    """What the signature wants, with an example body where that is short."""
    examples = {spec.name: example_value(spec, is_row=True) for spec in signature.inputs}
    if not examples or any(example is None for example in examples.values()):
        return f"The {signature}"
    row: Any = next(iter(examples.values())) if len(examples) == 1 else examples
    example = write_json({"instances": [row]}).decode()
    return f"The {signature}; for example {example}"


def describe(name: str, version: str, model: TensorRuntime) -> dict[str, Any]:
    """The answer to `GET /v1/models/{name}/metadata`."""
    signatures = {
        signature.name: {
            "inputs": {spec.name: _tensor_info(spec) for spec in signature.inputs},
            "outputs": {spec.name: _tensor_info(spec) for spec in signature.outputs},
            "method_name": "tensorflow/serving/predict",
        }
        for signature in model.signatures.values()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def status(name: str, version: str, *, is_ready: bool) -> dict[str, Any]:
    """The answer to `GET /v1/models/{name}`: KServe's two fields and TensorFlow Serving's one."""
    state = "AVAILABLE" if is_ready else "LOADING"
    return {
        "name": name,
        "ready": is_ready,
        "model_version_status": [
            {"version": version, "state": state, "status": {"error_code": "OK", "error_message": ""}}
        ],
    }


def _signature(name: Any, model: TensorRuntime) -> Signature:
    if name is None or name == "":
        return model.signatures[model.default_signature]
    if not isinstance(name, str) or name not in model.signatures:
        known = ", ".join(f"'{known}'" for known in model.signatures)
        raise BadRequest(f"the model has no signature {name!r}; it has {known}")
    return model.signatures[name]


def _is_rows(fields: Mapping[str, Any]) -> bool:
    has_rows, has_columns = "instances" in fields, "inputs" in fields
    if has_rows and has_columns:
        raise BadRequest('the body has both "instances" and "inputs"; send one of them')
    if not has_rows and not has_columns:
        raise BadRequest('the body has neither "instances" nor "inputs"')
    return has_rows


def _rows(instances: Any, signature: Signature) -> dict[str, Array]:
    if not isinstance(instances, list):
        raise BadRequest('"instances" must be a list with one entry per row')
    rows = cast("list[Any]", instances)
    if not rows:
        raise BadRequest('"instances" is empty')
    if not signature.inputs:
        raise BadRequest("this signature takes no input")
    if not _is_named(rows[0]):
        return _unnamed_rows(rows, signature)
    for index, row in enumerate(rows):
        if not _is_named(row):
            raise BadRequest(f"instances[{index}] is not an object where instances[0] is one")
        check_names(row, signature, f"instances[{index}]")
    named = cast("list[dict[str, Any]]", rows)
    arrays: dict[str, Array] = {}
    for spec in signature.inputs:
        arrays[spec.name] = to_array([row[spec.name] for row in named], spec, f"'{spec.name}' of instances")
        check_shape(arrays[spec.name], spec, f"'{spec.name}' of all instances together")
    return arrays


def _unnamed_rows(rows: list[Any], signature: Signature) -> dict[str, Array]:
    if signature.is_table:
        columns = to_columns(rows, signature, "instances")
        for spec in signature.inputs:
            check_shape(columns[spec.name], spec, f"'{spec.name}' of instances")
        return columns
    if len(signature.inputs) != 1:
        raise BadRequest("the model has several inputs, so each instance must be an object that names them")
    (spec,) = signature.inputs
    array = to_array(rows, spec, "instances")
    check_shape(array, spec, "instances")
    return {spec.name: array}


def _columns(columns: Any, signature: Signature) -> dict[str, Array]:
    if _is_named(columns):
        check_names(columns, signature, '"inputs"')
        named = cast("dict[str, Any]", columns)
    elif len(signature.inputs) == 1:
        named = {signature.inputs[0].name: columns}
    else:
        raise BadRequest('"inputs" must be an object that names the inputs')
    arrays: dict[str, Array] = {}
    for spec in signature.inputs:
        where = f"inputs['{spec.name}']" if _is_named(columns) else "inputs"
        arrays[spec.name] = to_array(named[spec.name], spec, where)
        check_shape(arrays[spec.name], spec, where)
    return arrays


def _is_named(value: Any) -> bool:
    return isinstance(value, dict) and set(cast("dict[str, Any]", value)) != {"b64"}


def _joined_rows(outputs: Tensors) -> list[dict[str, Any]]:
    counts = {array.shape[0] if array.ndim else -1 for array in outputs.values()}
    if len(counts) != 1 or -1 in counts:
        shapes = ", ".join(f"'{name}' {list(array.shape)}" for name, array in outputs.items())
        raise BadRequest(f'the outputs have not one row each ({shapes}); use "inputs" in place of "instances"')
    values = {name: _value(name, array) for name, array in outputs.items()}
    return [{name: value[index] for name, value in values.items()} for index in range(counts.pop())]


def _value(name: str, array: Array) -> Any:
    return jsonable(array, is_binary=name.endswith("_bytes"))


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    dims = [{"size": str(-1 if size is None else size), "name": ""} for size in spec.shape or ()]
    return {
        "dtype": _TENSORFLOW_DTYPES.get(spec.dtype or "", "DT_INVALID"),
        "tensor_shape": {"dim": dims, "unknown_rank": spec.shape is None},
        "name": spec.name,
    }
