"""What the platform has, in the words of the file, so that the two can be compared field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modelyard.resources.endpoints.resource_option import ResourceOption
from modelyard.resources.endpoints.schemas import EndpointOut, EndpointStageOut
from modelyard.resources.notebooks.schemas import NotebookOut
from modelyard.resources.trainings.schemas import TrainingOut
from modelyard.sdk.apply.manifest import Item
from modelyard.sdk.client import AsyncGroups
from modelyard.sdk.errors import UnknownName
from modelyard.sdk.groups.endpoints import Served, served_models

_PATHS = frozenset({"source", "model_upload", "checkpoint_upload", "checkpoint_input", "artifact"})
_BY_NAME_OR_ID = frozenset({"image", "flavor", "experiment", "training", "endpoint"})


async def find(client: AsyncGroups, item: Item) -> Any | None:
    """The resource that the item names; None where there is none. Raises `AmbiguousName`."""
    if item.kind.section == "containers":
        return await client.storage.grants(item.name)
    group = getattr(client, item.kind.section)
    try:
        return await group.find(item.key)
    except UnknownName:
        return None


def as_file(resource: Any, section: str) -> Mapping[str, Any]:
    """The resource's fields under the names that they have in a file. Those that the platform does not show are missing."""
    if section == "containers":
        return {"read": list(resource.read), "write": list(resource.write)}
    shared = {"description": resource.description, "tags": {tag.tag_key: tag.tag_value for tag in resource.tag_list}}
    return {**shared, **_OWN[section](resource)}


async def same(client: AsyncGroups, name: str, wanted: Any, seen: Any) -> bool:
    """Whether a field of the file says what the platform has. What can be written in several ways is compared by what it means."""
    if name in _PATHS:
        return await client.storage.uri(wanted) == seen
    if name == "datasets":
        return {key: await client.storage.uri(place) for key, place in wanted.items()} == seen
    if name == "hyperparameters":
        return {key: _text(value) for key, value in wanted.items()} == seen
    if name in _BY_NAME_OR_ID:
        return seen is not None and wanted in seen
    if name == "models":
        pairs = served_models(wanted)
        return len(pairs) == len(seen) and all(
            any(key in keys and _is_served(how, at, options) for keys, at, options in seen)
            for key, how in pairs.items()
        )
    if name == "idle_stop_minutes":
        return (wanted or None) == seen  # 0 switches it off
    if name == "auto_scaler":
        return wanted.scaling() == seen.scaling()
    if name in {"read", "write"}:
        return sorted(wanted) == sorted(seen)
    return wanted == seen


def _training(training: TrainingOut) -> dict[str, Any]:
    return {
        "experiment": _keys(training.experiment),
        "image": _keys(training.image),
        "flavor": _keys(training.flavor),
        "source": training.source_dir_uri,
        "entry_point": training.entry_point,
        "model_upload": training.model_upload_uri,
        "checkpoint_upload": training.check_point_upload_uri,
        "checkpoint_input": training.check_point_input_uri,
        "hyperparameters": {item.parameter_name: item.parameter_value for item in training.hyperparameter_list},
        "datasets": {item.dataset_name: item.data_uri for item in training.dataset_list},
        "instance_count": training.instance_count,
        "timeout_minutes": training.timeout_minutes,
        "use_log": training.use_log,
        "use_torchrun": training.use_torchrun,
    }


def _notebook(notebook: NotebookOut) -> dict[str, Any]:
    return {
        "image": _keys(notebook.image),
        "flavor": _keys(notebook.flavor),
        "boot_storage_size": notebook.boot_storage_size,
        "data_storage_size": notebook.data_storage_size,
        "nas": {mount.mount_directory_name: mount.nas_uri for mount in notebook.nas_mount_list},
        "idle_stop_minutes": notebook.idle_stop_minutes,
    }


def _model(model: Any) -> dict[str, Any]:
    training = model.training
    return {
        "training": None if training is None else (training.training_id, training.training_name),
        "artifact": model.model_upload_uri,
        "framework_version": model.framework_version,
        "parameters": {item.parameter_name: item.parameter_value for item in model.parameter_list},
    }


def _stage(stage: EndpointStageOut) -> dict[str, Any]:
    return {
        "flavor": _keys(stage.flavor),
        # What follows the load says nothing about what was asked for.
        **({} if stage.auto_scaler.enable else {"node_count": stage.node_count}),
        "auto_scaler": stage.auto_scaler,
        "models": [
            (
                (each.model_id, each.model.name if each.model is not None else each.model_id),
                each.apigw_resource_uri,
                {
                    **each.serving_options.model_dump(),
                    **(each.resource_option_detail or ResourceOption()).model_dump(),
                },
            )
            for each in stage.endpoint_model_list
        ],
    }


def _endpoint(endpoint: EndpointOut) -> dict[str, Any]:
    default = [stage for stage in endpoint.endpoint_stage_list if stage.is_default_stage]
    return _stage(default[0]) if default else {}


def _is_served(wanted: Served, path: str | None, options: Mapping[str, Any]) -> bool:
    """Whether a model is served as the file says; what it leaves out may be as it is."""
    given = wanted.model_dump(exclude_unset=True, exclude={"path"})
    return wanted.path in (None, path) and all(options[name] == value for name, value in given.items())


def _nothing(_resource: Any) -> dict[str, Any]:
    return {}


_OWN: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "nas_volumes": _nothing,
    "notebooks": _notebook,
    "experiments": _nothing,
    "trainings": _training,
    "models": _model,
    "endpoints": _endpoint,
    "stages": _stage,
}


def _keys(resource: Any) -> tuple[str, str] | None:
    return None if resource is None else (resource.id, resource.name)


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
