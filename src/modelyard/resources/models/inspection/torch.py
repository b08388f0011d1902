"""PyTorch: archives with their configuration, TorchScript, exported programs, weights. Names inside zip files, and JSON; never a pickle.

Whether the name fits is asked with the model server's own functions, on a copy of the little that they read: so creation and endpoint
can't disagree.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any, cast

from modelyard.resources.models.inspection.files import Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed
from modelyard.resources.models.model import SignatureSpec, TensorDescription
from modelyard.serving.errors import LoadFailed
from modelyard.serving.runtimes.archive import MANIFEST, Manifest, choose_archive, read_manifest

_SMALL_BYTES = 1024 * 1024
_PROGRAM_BYTES = 16 * 1024 * 1024
_MAX_ARCHIVES = 20
# The numbers of torch._export.serde.schema.ScalarType.
_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
}


def look_at_archive(files: Files, model_name: str) -> Findings:
    """The archive that would be served under the model's name. Raises `InspectionFailed`, also where the names differ."""
    findings = Findings("TORCH_ARCHIVE", ".")
    if any(name.endswith(".tar.gz") for name in files.sizes):
        findings.notes.append("a .tar.gz archive is not looked into before an endpoint loads it")
        return findings
    archives = [name for name in files.sizes if name.endswith(".mar")]
    if not archives and not any(name.endswith((MANIFEST, "config.properties")) for name in files.sizes):
        findings.facts["handler"] = next(name for name in files.sizes if name.endswith("handler.py"))
        return findings
    with tempfile.TemporaryDirectory(prefix="modelyard-inspection-") as directory:
        root = Path(directory)
        members = _shadow(files, archives, root)
        try:
            choice = choose_archive(root, model_name)
            manifest = read_manifest(choice.path)
        except LoadFailed as fault:
            raise InspectionFailed(fault.message) from fault
        findings.path = str(choice.path.relative_to(root))
    _check_files(manifest, members.get(findings.path), findings.path)
    findings.facts |= {
        "modelName": manifest.model_name,
        "modelVersion": manifest.model_version,
        "handler": manifest.handler,
    }
    if choice.envelope:
        findings.facts["serviceEnvelope"] = choice.envelope
    return findings


def look_at_export(files: Files, name: str) -> Findings:
    """A program of `torch.export`: its inputs stand in JSON. Raises `InspectionFailed`."""
    findings = Findings("TORCH_EXPORT", name)
    with _zip(files, name) as archive:
        _describe_export(archive, findings)
    return findings


def look_at_file(files: Files, name: str) -> Findings:
    """A `.pt` or `.pth`: what it holds follows from the names inside. Raises `InspectionFailed`."""
    if files.head(name, 2) != b"PK":
        return Findings("TORCH_WEIGHTS", name, notes=["it was saved in the older form, which is not looked into"])
    with _zip(files, name) as archive:
        inside = archive.namelist()
        if _program(inside) is not None:
            findings = Findings("TORCH_EXPORT", name)
            _describe_export(archive, findings)
            return findings
    if any(each.endswith("constants.pkl") for each in inside):
        return Findings("TORCHSCRIPT", name)
    findings = Findings("TORCH_WEIGHTS", name)
    model_file = str(Path(name).with_name("model.py"))
    if model_file not in files.sizes:
        findings.notes.append(
            f"{name} can be served if it is a whole pickled module; weights alone need {model_file} beside them"
        )
    return findings


def _shadow(files: Files, archives: list[str], root: Path) -> dict[str, list[str]]:
    """The configuration and the manifests as files below `root`; the names inside each archive."""
    members: dict[str, list[str]] = {}
    for name in files.sizes:
        if name.endswith(("config.properties", MANIFEST)):
            place = root / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(files.head(name, _SMALL_BYTES))
    for name in archives[:_MAX_ARCHIVES]:
        with _zip(files, name) as archive:
            members[name] = archive.namelist()
            manifest = _member(archive, MANIFEST, _SMALL_BYTES) if MANIFEST in members[name] else None
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(place, "w") as copy:
            if manifest is not None:
                copy.writestr(MANIFEST, manifest)
    return members


def _check_files(manifest: Manifest, members: list[str] | None, path: str) -> None:
    if members is None:
        return
    for name in (manifest.serialized_file, manifest.model_file, manifest.requirements_file, manifest.config_file):
        if name and name not in members:
            raise InspectionFailed(f"{path} names '{name}' in its manifest, but does not hold it")


def _program(inside: list[str]) -> str | None:
    return next(
        (name for name in inside if name.endswith(("models/model.json", "serialized_exported_program.json"))), None
    )


def _describe_export(archive: zipfile.ZipFile, findings: Findings) -> None:
    name = _program(archive.namelist())
    if name is None:
        raise InspectionFailed(f"{findings.path} is no program of torch.export: it has no models/model.json")
    try:
        document: Any = json.loads(_member(archive, name, _PROGRAM_BYTES))
        graph_module = document["graph_module"]
        values = cast("dict[str, Any]", graph_module["graph"]["tensor_values"])
        signature = graph_module["signature"]
        inputs = _tensors(signature["input_specs"], "user_input", values)
        outputs = _tensors(signature["output_specs"], "user_output", values)
    except InspectionFailed:
        findings.notes.append("the program is too large to be looked into")
        return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        findings.notes.append("the program is of a release whose form is not known here; its inputs are not shown")
        return
    version = document.get("torch_version")
    if isinstance(version, str):
        findings.facts["torch"] = version
    findings.signatures.append(SignatureSpec(name="forward", inputs=tuple(inputs), outputs=tuple(outputs)))


def _tensors(specs: Any, kind: str, values: dict[str, Any]) -> list[TensorDescription]:
    found: list[TensorDescription] = []
    for spec in specs:
        argument = spec.get(kind, {}).get("arg", {}).get("as_tensor")
        if argument is None:
            continue
        meta = values[argument["name"]]
        sizes = tuple(size.get("as_int") for size in meta["sizes"])
        name = argument["name"] if kind == "user_input" else f"output_{len(found)}"
        found.append(TensorDescription(name=name, dtype=_DTYPES.get(meta["dtype"]), shape=sizes))
    return found


def _zip(files: Files, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(files.open(name))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise InspectionFailed(f"{name} can't be read as a zip file, which it should be: {error}") from error


def _member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        with archive.open(name) as member:
            content = member.read(limit + 1)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise InspectionFailed(f"{name} in {archive.filename or 'the archive'} can't be read: {error}") from error
    if len(content) > limit:
        raise InspectionFailed(f"{name} in the archive is larger than {limit} bytes")
    return content
