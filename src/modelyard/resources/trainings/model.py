"""What a training is asked to be, and what is seen of it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Parameter(_Frozen):
    """A hyperparameter."""

    name: str
    value: str


class DataPath(_Frozen):
    """An input data set."""

    name: str
    uri: str


class TrainingSpec(_Frozen):
    """What was asked for. `image_name`, `framework`, `framework_version` are kept for when the catalogue has changed."""

    image_id: str
    image_name: str
    framework: str
    framework_version: str
    flavor_id: str
    flavor_name: str
    instance_count: int = 1
    data_storage_gib: int | None = None
    source_uri: str
    source_snapshot_id: str | None = None
    entry_point: str
    parameters: tuple[Parameter, ...] = ()
    datasets: tuple[DataPath, ...] = ()
    checkpoint_input_uri: str | None = None
    checkpoint_uri: str | None = None
    model_uri: str
    timeout_minutes: int
    use_log: bool = False
    use_torchrun: bool = False
    nproc_per_node: int | None = None
    max_restart_count: int = 0


class DataSeen(_Frozen):
    """What a data set looked like when it was listed. `note`: why it was not."""

    name: str
    uri: str
    listing_digest: str | None = None
    file_count: int | None = None
    size_bytes: int | None = None
    note: str | None = None


class Provenance(_Frozen):
    """Where the result comes from; digests are hex.

    Attributes:
        started_by: who asked for the training.
        source_digest: of the content, where the platform has kept the source; `source_listing_digest` of its listing otherwise.
        snapshot_note: why the source was not kept.
        is_complete: the run's listings are in; nothing is changed any more.
    """

    started_by: str | None = None
    image_name: str
    image_digest: str
    source_digest: str | None = None
    source_listing_digest: str | None = None
    source_snapshot_id: str | None = None
    source_file_count: int | None = None
    source_bytes: int | None = None
    snapshot_note: str | None = None
    requirements_digest: str | None = None
    datasets: tuple[DataSeen, ...] = ()
    is_complete: bool = False


class TrainingStatus(_Frozen):
    """What was seen. Times are those of the user's process, not of what was made ready for it.

    `exit_code` is that of the instance that was to blame, minus the number of the signal where one ended it.
    """

    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    restart_count: int = 0
    last_lines: tuple[str, ...] = ()
    provenance: Provenance | None = None


class Finished(_Frozen):
    """What others need of a COMPLETE training, e.g. to make a model of it."""

    id: str
    name: str
    state: str
    framework: str
    framework_version: str
    image_id: str
    model_uri: str
