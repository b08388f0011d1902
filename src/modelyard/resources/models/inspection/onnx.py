"""ONNX: producer, operator sets, inputs and outputs of the graph, and whether the files that it keeps weights in are there.

Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import posixpath

from modelyard.resources.models.inspection.files import Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed
from modelyard.resources.models.inspection.protobuf import Malformed, Region
from modelyard.resources.models.model import SignatureSpec, TensorDescription

_DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16",
}  # fmt: skip
_SMALL_TENSOR_BYTES = 4096
_IR_WITHOUT_WEIGHTS_AS_INPUTS = 4


def look(files: Files, name: str) -> Findings:
    """What stands in a file. Raises `InspectionFailed`."""
    findings = Findings("ONNX", name)
    if not files.sizes[name]:
        raise InspectionFailed(f"{name} is empty")
    try:
        with files.open(name) as file:
            _describe(Region(file, 0, files.sizes[name]), files, name, findings)
    except Malformed as error:
        raise InspectionFailed(f"{name} is no ONNX model, or damaged ({error})") from error
    return findings


def _describe(model: Region, files: Files, name: str, findings: Findings) -> None:
    graph: Region | None = None
    ir_version = 0
    for field in model.fields(1, 2, 3, 7, 8):
        if field.number == 1:
            ir_version = field.value
        elif field.number == 2:
            findings.facts["producer"] = field.text
        elif field.number == 3:
            findings.facts["producerVersion"] = field.text
        elif field.number == 7:
            graph = field.message
        else:
            version = field.message.first(2)
            domain = field.message.text(1) or "ai.onnx"
            findings.facts[f"opset {domain}"] = str(0 if version is None else version.signed)
    if graph is None or not ir_version:
        raise InspectionFailed(f"{name} is no ONNX model: it has no graph")
    inputs: list[TensorDescription] = []
    outputs: list[TensorDescription] = []
    weights: set[str] = set()
    for field in graph.fields(5, 11, 12):
        if field.number == 5:
            if field.message.size <= _SMALL_TENSOR_BYTES or ir_version < _IR_WITHOUT_WEIGHTS_AS_INPUTS:
                weights.add(field.message.text(8))
                _check_external(field.message, files, name)
        else:
            (inputs if field.number == 11 else outputs).append(_value(field.message))
    if not outputs:
        raise InspectionFailed(f"{name} has a graph without outputs")
    inputs = [each for each in inputs if each.name not in weights]
    findings.signatures.append(SignatureSpec(name="main", inputs=tuple(inputs), outputs=tuple(outputs)))


def _check_external(tensor: Region, files: Files, name: str) -> None:
    for entry in tensor.fields(13):
        if entry.message.text(1) != "location":
            continue
        place = posixpath.normpath(posixpath.join(posixpath.dirname(name), entry.message.text(2)))
        if place not in files.sizes:
            raise InspectionFailed(f"{name} keeps weights in '{place}', which is not in the artifact")


def _value(info: Region) -> TensorDescription:
    name = info.text(1)
    kind = info.first(2)
    tensor = None if kind is None else kind.message.first(1)
    if tensor is None:
        return TensorDescription(name=name)
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    for field in tensor.message.fields(1, 2):
        if field.number == 1:
            dtype = _DTYPES.get(field.value)
        else:
            shape = tuple(_size(dimension.message) for dimension in field.message.fields(1))
    return TensorDescription(name=name, dtype=dtype, shape=shape)


def _size(dimension: Region) -> int | None:
    value = dimension.first(1)
    return None if value is None or value.signed < 0 else value.signed
