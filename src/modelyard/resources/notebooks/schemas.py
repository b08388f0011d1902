"""Wire shapes of notebooks."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator

from modelyard.resources.flavors.schemas import FlavorOut
from modelyard.resources.images.schemas import ImageOut
from modelyard.wire import Description, Header, Moment, Name, NoneAsEmpty, Paging, ResourceOut, Tags, Wire

STORAGE_STEP_GB = 10
MAX_STORAGE_GB = 2040
MAX_URI_CHARACTERS = 255
MAX_IDLE_MINUTES = 30 * 24 * 60
_DIRECTORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,35}")


def _checked_size(value: int) -> int:
    if not STORAGE_STEP_GB <= value <= MAX_STORAGE_GB or value % STORAGE_STEP_GB:
        raise ValueError(
            f"must be a multiple of {STORAGE_STEP_GB} (GB) from {STORAGE_STEP_GB} to {MAX_STORAGE_GB}, not {value}"
        )
    return value


class NasMount(Wire):
    """A NAS path, and the name of the directory below `/root/nas` at which the notebook sees it."""

    mount_directory_name: str
    nas_uri: str = Field(min_length=1, max_length=MAX_URI_CHARACTERS)

    @field_validator("mount_directory_name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if not _DIRECTORY.fullmatch(value):
            raise ValueError(
                "must have 1 to 36 characters of A-Z, a-z, 0-9, '_', '-' and '.', and begin with a letter, a digit or '_'"
            )
        return value


class NotebookCreate(Wire):
    """`POST /notebooks`. Sizes are in GB and can't be changed later."""

    notebook_name: Name
    description: Description = None
    tag_list: Tags = []
    image_id: str
    flavor_id: str
    boot_storage_size: int
    data_storage_size: int
    nas_mount_list: Annotated[list[NasMount], NoneAsEmpty, Field(max_length=20)] = []
    idle_stop_minutes: int | None = Field(default=None, ge=1, le=MAX_IDLE_MINUTES)

    @field_validator("boot_storage_size", "data_storage_size")
    @classmethod
    def _check_size(cls, value: int) -> int:
        return _checked_size(value)

    @field_validator("nas_mount_list")
    @classmethod
    def _check_mounts(cls, value: list[NasMount]) -> list[NasMount]:
        names = [mount.mount_directory_name for mount in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the directory name '{name}' is given more than once")
        return value


class NotebookChange(Wire):
    """`PUT /notebooks/{id}`: fields that are absent stay as they are. An `idleStopMinutes` of 0 switches the stop off."""

    notebook_name: Name | None = None
    description: Description = None
    tag_list: Tags | None = None
    idle_stop_minutes: int | None = Field(default=None, ge=0, le=MAX_IDLE_MINUTES)


class NotebookStart(Wire):
    """`PUT /notebooks/{id}/start`. Start-up scripts can be left out, which helps when one of them breaks the start."""

    skips_scripts: bool = False


class NotebookResize(Wire):
    """`PUT /notebooks/{id}/resize`."""

    flavor_id: str


class StepOut(Wire):
    """A step on the way to a usable notebook. `seconds` is absent while it goes on."""

    step: str
    seconds: float | None = None
    detail: str | None = None


class StorageUse(Wire):
    """Bytes used and in all."""

    used_bytes: int
    total_bytes: int


class NotebookOut(ResourceOut):
    """A notebook.

    `keptEnvironmentList` and `resetPackageList` say what a stop keeps and what it takes away: environments below `custom-conda-envs`, and packages
    that were installed into the default environment.
    """

    notebook_id: str
    notebook_name: str
    notebook_status_code: str
    image: ImageOut | None = None
    flavor: FlavorOut | None = None
    boot_storage_size: int
    data_storage_size: int
    nas_mount_list: list[NasMount] = []
    idle_stop_minutes: int | None = None
    url: str | None = None
    started_datetime: Moment | None = None
    last_activity_datetime: Moment | None = None
    kept_environment_list: list[str] = []
    reset_package_list: list[str] = []
    step_list: list[StepOut] = []
    last_log_lines: list[str] = []


class NotebookUsage(Wire):
    """What a running notebook takes now. `cpuSeconds` counts from its start, `cpuCores` is over the last moment; storage is as the notebook says."""

    memory_bytes: int
    memory_limit_bytes: int
    cpu_seconds: float
    cpu_cores: float
    cpu_limit_cores: float
    boot_storage: StorageUse | None = None
    data_storage: StorageUse | None = None
    last_activity_datetime: Moment | None = None


class NotebookList(Wire):
    """`GET /notebooks`."""

    header: Header = Header()
    notebook_list: list[NotebookOut]
    paging: Paging


class NotebookOne(Wire):
    """One notebook."""

    header: Header = Header()
    notebook: NotebookOut


class UsageOne(Wire):
    """`GET /notebooks/{id}/usage`."""

    header: Header = Header()
    usage: NotebookUsage


def storage_use(value: Any) -> StorageUse | None:
    """The wire form of a pair of used and total bytes."""
    return None if value is None else StorageUse(used_bytes=value[0], total_bytes=value[1])
