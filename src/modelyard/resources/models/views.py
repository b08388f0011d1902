"""Models in wire form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from modelyard.easymaker import newer_format, older_format
from modelyard.resources.models.model import ArtifactSeen, ModelSpec, ModelStatus, TensorDescription
from modelyard.resources.models.schemas import (
    ModelArtifact,
    ModelFile,
    ModelOut,
    ModelSignature,
    ModelTensor,
    ModelTraining,
)
from modelyard.resources.models.table import ModelRow
from modelyard.resources.trainings.model import Finished


def model_out(row: ModelRow, app_key: str, training: Finished | None, aliases: Sequence[str]) -> ModelOut:
    """A model in wire form."""
    spec = ModelSpec.model_validate(row.spec)
    artifact = ModelStatus.model_validate(row.status).artifact
    seen_version = None if artifact is None else artifact.framework_version
    older = older_format(spec.format_code)
    return ModelOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "model_id": row.id,
            "model_name": row.name,
            "model_status_code": row.state,
            "status_reason": row.reason,
            "status_message": row.message,
            "description": row.description,
            "app_key": app_key,
            "tag_list": row.tags,
            "created_datetime": row.created_at,
            "updated_datetime": row.updated_at,
            "model_format_code": newer_format(spec.format_code),
            "model_type_code": older,
            "framework_code": older,
            "framework_version": spec.framework_version or seen_version,
            "model_version": row.version,
            "alias_list": [*aliases],
            "keeps_copy": spec.keeps_copy,
            "artifact": None if artifact is None else _artifact_out(artifact),
            "model_upload_uri": spec.artifact_uri,
            "training": None
            if training is None
            else ModelTraining(
                training_id=training.id, training_name=training.name, training_status_code=training.state
            ),
            "parameter_list": [{"parameterName": item.name, "parameterValue": item.value} for item in spec.parameters],
        }
    )


def _artifact_out(seen: ArtifactSeen) -> ModelArtifact:
    return ModelArtifact(
        artifact_kind_code=seen.kind,
        load_path=seen.path,
        size_bytes=seen.size_bytes,
        file_count=seen.file_count,
        file_list=[ModelFile(file_name=file.name, size_bytes=file.size) for file in seen.files],
        digest=seen.digest,
        signature_list=[
            ModelSignature(
                signature_name=signature.name,
                input_list=_tensors(signature.inputs),
                output_list=_tensors(signature.outputs),
            )
            for signature in seen.signatures
        ],
        facts=seen.facts,
        notes=[*seen.notes],
    )


def _tensors(tensors: Iterable[TensorDescription]) -> list[ModelTensor]:
    return [
        ModelTensor(tensor_name=each.name, data_type=each.dtype, shape=None if each.shape is None else [*each.shape])
        for each in tensors
    ]
