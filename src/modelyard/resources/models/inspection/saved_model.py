"""TensorFlow's SavedModel: tags, the version that wrote it, and its signatures. The graph itself is passed over.

Source: tensorflow/core/protobuf/{saved_model,meta_graph}.proto and framework/{types,tensor_shape}.proto.
"""

from __future__ import annotations

from modelyard.resources.models.inspection.files import Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed
from modelyard.resources.models.inspection.protobuf import Malformed, Region
from modelyard.resources.models.model import SignatureSpec, TensorDescription

_TAG = "serve"
_DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip


def look(files: Files, directory: str) -> Findings:
    """What stands in `saved_model.pb` of a directory (empty, or ending with `/`). Raises `InspectionFailed`."""
    name = f"{directory}saved_model.pb"
    findings = Findings("SAVED_MODEL", directory.rstrip("/") or ".")
    if name not in files.sizes:
        findings.notes.append("saved_model.pbtxt is text, which is not looked into")
        return findings
    if not files.sizes[name]:
        raise InspectionFailed(f"{name} is empty")
    try:
        with files.open(name) as file:
            graphs = [field.message for field in Region(file, 0, files.sizes[name]).fields(2)]
            served = [graph for graph in graphs if _TAG in _tags(graph)]
            if not served:
                raise InspectionFailed(f"{name} has no graph for serving (tag '{_TAG}')")
            _describe(served[0], findings)
    except Malformed as error:
        raise InspectionFailed(f"{name} is no SavedModel, or damaged ({error})") from error
    if f"{directory}variables/variables.index" not in files.sizes:
        findings.notes.append(
            f"there is no {directory}variables/variables.index: only a graph without variables can be served"
        )
    if not findings.signatures:
        raise InspectionFailed(
            f"{name} has no signature that can be served; export it with model.export(directory), or with "
            "tf.saved_model.save(module, directory, signatures=...)"
        )
    return findings


def _tags(graph: Region) -> list[str]:
    about = graph.first(1)
    return [] if about is None else [field.text for field in about.message.fields(4)]


def _describe(graph: Region, findings: Findings) -> None:
    about = graph.first(1)
    version = "" if about is None else about.message.text(5)
    if version:
        findings.facts["tensorflow"] = version
        findings.framework_version = version
    for entry in graph.fields(5):
        name = entry.message.text(1)
        definition = entry.message.first(2)
        if definition is None or name.startswith("__saved_model"):
            continue
        inputs = tuple(
            sorted((_tensor(field.message) for field in definition.message.fields(1)), key=lambda one: one.name)
        )
        outputs = tuple(
            sorted((_tensor(field.message) for field in definition.message.fields(2)), key=lambda one: one.name)
        )
        if outputs:
            findings.signatures.append(SignatureSpec(name=name, inputs=inputs, outputs=outputs))


def _tensor(entry: Region) -> TensorDescription:
    name, about = entry.text(1), entry.first(2)
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None
    if about is not None:
        for field in about.message.fields(2, 3):
            if field.number == 2:
                dtype = _DTYPES.get(field.value)
            else:
                shape = _shape(field.message)
        shape = () if shape is None else shape  # a scalar's shape has no dimension, and so no bytes
    return TensorDescription(name=name, dtype=dtype, shape=None if shape == _UNKNOWN else shape)


_UNKNOWN: tuple[int | None, ...] = (-1,)


def _shape(shape: Region) -> tuple[int | None, ...]:
    sizes: list[int | None] = []
    for field in shape.fields(2, 3):
        if field.number == 3 and field.value:
            return _UNKNOWN
        if field.number == 2:
            size = field.message.first(1)
            value = 0 if size is None else size.signed
            sizes.append(None if value < 0 else value)
    return tuple(sizes)
