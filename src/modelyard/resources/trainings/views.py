"""How a training looks on the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from modelyard.resources.experiments.schemas import ExperimentOut
from modelyard.resources.flavors.service import Flavors, flavor_out
from modelyard.resources.images.schemas import ImageOut
from modelyard.resources.metrics.model import Owner, Run
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.model import Provenance, TrainingSpec, TrainingStatus
from modelyard.resources.trainings.schemas import DatasetProvenance, ProvenanceOut, TrainingCreate, TrainingOut
from modelyard.resources.trainings.table import TrainingRow


def metrics_owner(row: TrainingRow) -> Owner:
    """A training as an owner of metrics."""
    spec = TrainingSpec.model_validate(row.spec)
    return Owner("training", row.id, row.project_id, row.experiment_id, spec.instance_count)


def run_of(row: TrainingRow) -> Run:
    """A training as metrics see it."""
    spec = TrainingSpec.model_validate(row.spec)
    return run_from(
        row.id,
        row.name,
        row.state,
        row.created_at,
        row.experiment_id,
        row.status,
        [parameter.model_dump() for parameter in spec.parameters],
    )


def run_from(
    training_id: str,
    name: str,
    state: str,
    created_at: datetime,
    experiment_id: str | None,
    status: Mapping[str, Any],
    parameters: Sequence[Mapping[str, str]],
) -> Run:
    """The same from the few columns that are read where there are many."""
    return Run(
        id=training_id,
        name=name,
        state=state,
        created_at=created_at,
        group_id=experiment_id,
        started_at=_moment(status.get("started_at")),
        ended_at=_moment(status.get("ended_at")),
        parameters={item["name"]: item["value"] for item in parameters},
    )


def training_out(
    row: TrainingRow,
    app_key: str,
    experiments: Mapping[str, ExperimentOut],
    images: Mapping[str, ImageOut],
    flavors: Flavors,
    now: datetime,
    tensorboard_address: str | None = None,
) -> TrainingOut:
    """The wire form."""
    spec = TrainingSpec.model_validate(row.spec)
    status = TrainingStatus.model_validate(row.status)
    flavor = flavors.find(spec.flavor_id)
    ended_at = status.ended_at or (None if LIFECYCLE.is_final(TrainingState(row.state)) else now)
    elapsed_seconds = (ended_at - status.started_at).total_seconds() if status.started_at and ended_at else 0.0
    return TrainingOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "training_id": row.id,
            "training_name": row.name,
            "training_status_code": row.state,
            "status_reason": row.reason,
            "status_message": row.message,
            "description": row.description,
            "app_key": app_key,
            "tag_list": row.tags,
            "created_datetime": row.created_at,
            "updated_datetime": row.updated_at,
            "experiment": experiments.get(row.experiment_id or ""),
            "image": images.get(spec.image_id),
            "flavor": None if flavor is None else flavor_out(flavor),
            "instance_count": spec.instance_count,
            "nproc_per_node": spec.nproc_per_node,
            "source_dir_uri": spec.source_uri,
            "entry_point": spec.entry_point,
            "model_upload_uri": spec.model_uri,
            "check_point_input_uri": spec.checkpoint_input_uri,
            "check_point_upload_uri": spec.checkpoint_uri,
            "timeout_minutes": spec.timeout_minutes,
            "elapsed_time_seconds": max(0, round(elapsed_seconds)),
            "hyperparameter_list": _parameters(spec),
            "dataset_list": _datasets(spec),
            "data_storage_list": [{"storageSize": spec.data_storage_gib}] if spec.data_storage_gib else [],
            "use_log": spec.use_log,
            "use_torchrun": spec.use_torchrun,
            "max_restart_count": spec.max_restart_count,
            "restart_count": status.restart_count,
            "started_datetime": status.started_at,
            "finished_datetime": status.ended_at,
            "exit_code": status.exit_code,
            "tensorboard_access_uri": tensorboard_address,
            "last_log_lines": list(status.last_lines),
            "provenance": None if status.provenance is None else _provenance_out(status.provenance),
        }
    )


def _provenance_out(known: Provenance) -> ProvenanceOut:
    datasets = [
        DatasetProvenance(dataset_name=each.name, data_uri=each.uri, **each.model_dump(exclude={"name", "uri"}))
        for each in known.datasets
    ]
    return ProvenanceOut(**known.model_dump(exclude={"datasets", "is_complete"}), dataset_list=datasets)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def uris_of(spec: TrainingSpec) -> list[str]:
    """All storage paths of a training."""
    paths = [spec.source_uri, spec.model_uri, spec.checkpoint_uri, spec.checkpoint_input_uri]
    return [*(path for path in paths if path), *(dataset.uri for dataset in spec.datasets)]


def request_of(row: TrainingRow) -> TrainingCreate:
    """The request that would create this training again."""
    spec = TrainingSpec.model_validate(row.spec)
    return TrainingCreate.model_validate(
        {
            "training_name": row.name,
            "description": row.description,
            "tag_list": row.tags,
            "experiment_id": row.experiment_id,
            "image_id": spec.image_id,
            "flavor_id": spec.flavor_id,
            "instance_count": spec.instance_count,
            "data_storage_size": spec.data_storage_gib,
            "source_dir_uri": spec.source_uri or None,
            "source_snapshot_id": spec.source_snapshot_id,
            "entry_point": spec.entry_point,
            "hyperparameter_list": _parameters(spec),
            "dataset_list": _datasets(spec),
            "check_point_input_uri": spec.checkpoint_input_uri,
            "check_point_upload_uri": spec.checkpoint_uri,
            "model_upload_uri": spec.model_uri,
            "timeout_minutes": spec.timeout_minutes,
            "use_log": spec.use_log,
            "use_torchrun": spec.use_torchrun,
            "nproc_per_node": spec.nproc_per_node,
            "max_restart_count": spec.max_restart_count,
        }
    )


def _parameters(spec: TrainingSpec) -> list[dict[str, str]]:
    return [{"parameterName": item.name, "parameterValue": item.value} for item in spec.parameters]


def _datasets(spec: TrainingSpec) -> list[dict[str, str]]:
    return [{"datasetName": item.name, "dataUri": item.uri} for item in spec.datasets]
