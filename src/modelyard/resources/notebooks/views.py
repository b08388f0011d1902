"""How a notebook looks on the wire."""

from __future__ import annotations

from collections.abc import Mapping

from modelyard.resources.flavors.service import Flavors, flavor_out
from modelyard.resources.images.schemas import ImageOut
from modelyard.resources.notebooks.model import NotebookSpec, NotebookStatus
from modelyard.resources.notebooks.schemas import NasMount, NotebookOut, StepOut
from modelyard.resources.notebooks.table import NotebookRow


def notebook_out(
    row: NotebookRow, app_key: str, images: Mapping[str, ImageOut], flavors: Flavors, url: str | None
) -> NotebookOut:
    """The wire form. `url` is where it is opened, while it can be."""
    spec = NotebookSpec.model_validate(row.spec)
    status = NotebookStatus.model_validate(row.status)
    flavor = flavors.find(spec.flavor_id)
    return NotebookOut.model_validate(
        {
            "id": row.id,
            "name": row.name,
            "notebook_id": row.id,
            "notebook_name": row.name,
            "notebook_status_code": row.state,
            "status_reason": row.reason,
            "status_message": row.message,
            "description": row.description,
            "app_key": app_key,
            "tag_list": row.tags,
            "created_datetime": row.created_at,
            "updated_datetime": row.updated_at,
            "image": images.get(spec.image_id),
            "flavor": None if flavor is None else flavor_out(flavor),
            "boot_storage_size": spec.boot_gib,
            "data_storage_size": spec.data_gib,
            "nas_mount_list": [NasMount(mount_directory_name=item.name, nas_uri=item.uri) for item in spec.mounts],
            "idle_stop_minutes": spec.idle_minutes,
            "url": url,
            "started_datetime": status.started_at,
            "last_activity_datetime": status.last_activity_at,
            "kept_environment_list": list(status.kept),
            "reset_package_list": list(status.reset),
            "step_list": [
                StepOut(step=step.name, seconds=step.seconds, detail=step.detail or None) for step in status.steps
            ],
            "last_log_lines": list(status.last_lines),
        }
    )
