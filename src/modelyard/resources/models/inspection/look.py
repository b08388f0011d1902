"""From a listing to what the artifact is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modelyard.resources.models.inspection import onnx, saved_model, sklearn, torch
from modelyard.resources.models.inspection.files import BudgetSpent, Files
from modelyard.resources.models.inspection.findings import Findings, InspectionFailed
from modelyard.resources.models.inspection.protobuf import TooManyFields
from modelyard.serving.errors import LoadFailed
from modelyard.serving.find import Kind, find_among

_KINDS = {
    Kind.SAVED_MODEL: "SAVED_MODEL", Kind.TORCH_ARCHIVE: "TORCH_ARCHIVE", Kind.TORCH_EXPORT: "TORCH_EXPORT",
    Kind.TORCH_FILE: "TORCH_FILE", Kind.ONNX: "ONNX", Kind.SKLEARN: "SKLEARN",
}  # fmt: skip


def inspect(files: Files, format_code: str, model_name: str) -> Findings:
    """What an artifact is and takes. Blocks while it reads.

    Args:
        files: all of the artifact's.
        format_code: TENSORFLOW, PYTORCH, ONNX or SKLEARN.
        model_name: the name that a PyTorch archive must have too.

    Raises:
        InspectionFailed: it can't be served.
    """
    try:
        artifact = find_among(files.sizes, format_code)
    except LoadFailed as fault:
        raise InspectionFailed(fault.message.replace("the model directory", "the artifact")) from fault
    path = artifact.path.as_posix()
    looks: dict[Kind, Callable[[], Findings]] = {
        Kind.SAVED_MODEL: lambda: saved_model.look(files, "" if path == "." else f"{path}/"),
        Kind.TORCH_ARCHIVE: lambda: torch.look_at_archive(files, model_name),
        Kind.TORCH_EXPORT: lambda: torch.look_at_export(files, path),
        Kind.TORCH_FILE: lambda: torch.look_at_file(files, path),
        Kind.ONNX: lambda: onnx.look(files, path),
        Kind.SKLEARN: lambda: sklearn.look(files, path),
    }
    try:
        return looks[artifact.kind]()
    except (BudgetSpent, TooManyFields):
        note = "the artifact is too large to be looked into; an endpoint will tell whether it can be served"
        return Findings(_KINDS[artifact.kind], Path(path).as_posix(), notes=[note])
