"""Wire shapes of trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, cast

from pydantic import (
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from modelyard.easymaker import HYPERPARAMETER, as_newest
from modelyard.kit.names import environment_suffix
from modelyard.resources.experiments.schemas import ExperimentOut
from modelyard.resources.flavors.schemas import FlavorOut
from modelyard.resources.images.schemas import ImageOut
from modelyard.wire import (
    MAX_DELETIONS,
    Description,
    Header,
    Id,
    Line,
    Moment,
    Name,
    NoneAsEmpty,
    Paging,
    ResourceOut,
    Tags,
    Wire,
    fields_of,
)

TRAINING_SORTS = ("createdDatetime", "updatedDatetime", "trainingName", "trainingStatusCode")
MAX_HYPERPARAMETERS = 100
MAX_DATASETS = 10
MAX_INSTANCES = 10
MAX_TIMEOUT_MINUTES = 720 * 60
MAX_RESTARTS = 10
MAX_URI_CHARACTERS = 255


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


class Hyperparameter(Wire):
    """A hyperparameter. Clients have named its fields in three ways; answers use the newest."""

    parameter_name: str = Field(min_length=1, max_length=255)
    parameter_value: Annotated[str, BeforeValidator(_as_text)] = Field(max_length=1000)

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, value: Any) -> Any:
        return as_newest(value, HYPERPARAMETER)

    @field_validator("parameter_name", "parameter_value")
    @classmethod
    def _check_text(cls, value: str) -> str:
        if "\x00" in value:
            raise ValueError("must not contain a NUL character")
        if "⟦modelyard:" in value:
            raise ValueError("must not contain '⟦modelyard:' (the platform marks its own values so)")
        return value


class Dataset(Wire):
    """An input data set: its name becomes `EM_DATASET_{NAME}`."""

    dataset_name: Line = Field(min_length=1, max_length=36)
    data_uri: str = Field(min_length=1, max_length=MAX_URI_CHARACTERS)


class StorageOut(Wire):
    """Storage of an instance, in GiB."""

    storage_size: int


class TrainingCreate(Wire):
    """`POST /trainings`."""

    training_name: Name
    training_type_code: str = "NORMAL"
    description: Description = None
    tag_list: Tags = []
    experiment_id: Id | None = None
    experiment_name: Name | None = None
    experiment_description: Description = None
    image_id: str
    flavor_id: str
    instance_count: int = Field(default=1, ge=1, le=MAX_INSTANCES)
    data_storage_size: int | None = Field(default=None, ge=1, le=10000)
    source_dir_uri: str | None = Field(default=None, max_length=MAX_URI_CHARACTERS)
    source_snapshot_id: str | None = Field(
        default=None,
        description="Run the source that another training of the project ran with, instead of sourceDirUri.",
    )
    entry_point: str | None = Field(default=None, max_length=MAX_URI_CHARACTERS)
    algorithm_id: str | None = None
    hyperparameter_list: Annotated[list[Hyperparameter], NoneAsEmpty, Field(max_length=MAX_HYPERPARAMETERS)] = []
    dataset_list: Annotated[list[Dataset], NoneAsEmpty, Field(max_length=MAX_DATASETS)] = []
    check_point_input_uri: str | None = Field(default=None, max_length=MAX_URI_CHARACTERS)
    check_point_upload_uri: str | None = Field(default=None, max_length=MAX_URI_CHARACTERS)
    model_upload_uri: str = Field(min_length=1, max_length=MAX_URI_CHARACTERS)
    timeout_minutes: int = Field(default=MAX_TIMEOUT_MINUTES, ge=1, le=MAX_TIMEOUT_MINUTES)
    use_log: bool = False
    use_torchrun: bool = False
    nproc_per_node: int | None = None
    max_restart_count: int = Field(
        default=0, ge=0, le=MAX_RESTARTS, description="How often a run that has failed is started again."
    )

    @field_validator(
        "training_type_code",
        "instance_count",
        "timeout_minutes",
        "use_log",
        "use_torchrun",
        "max_restart_count",
        mode="before",
    )
    @classmethod
    def _none_as_absent(cls, value: Any, info: ValidationInfo) -> Any:
        # Clients before 2.1 send null for what is not given.
        return cls.model_fields[str(info.field_name)].get_default() if value is None else value

    @field_validator("dataset_list", mode="wrap")
    @classmethod
    def _check_datasets(cls, value: Any, read: ValidatorFunctionWrapHandler) -> list[Dataset]:
        names = _texts(value, "datasetName")
        faults = [
            f"the names '{one}' and '{other}' would share the variable EM_DATASET_{variable}"
            for one, other, variable in _clashes(names)
        ]
        return _all_told(value, read, faults, MAX_DATASETS)

    @field_validator("hyperparameter_list", mode="wrap")
    @classmethod
    def _check_hyperparameters(cls, value: Any, read: ValidatorFunctionWrapHandler) -> list[Hyperparameter]:
        items = [as_newest(item, HYPERPARAMETER) for item in cast(list[Any], value)] if isinstance(value, list) else []
        faults = [
            f"the key '{one}' is given more than once"
            if one == other
            else f"the keys '{one}' and '{other}' would share the variable EM_HP_{variable}"
            for one, other, variable in _clashes(_texts(items, "parameterName"))
        ]
        return _all_told(value, read, faults, MAX_HYPERPARAMETERS)


def _texts(items: Any, field: str) -> list[str]:
    """What stands in this field of the items of a list, as far as it is a text."""
    found = [fields_of(item) for item in cast(list[Any], items)] if isinstance(items, list) else []
    return [text for fields in found if fields is not None and isinstance(text := fields.get(field), str) and text]


def _clashes(names: Iterable[str]) -> list[tuple[str, str, str]]:
    """Names that would share a variable with one before them: the earlier, the later, the variable's end; each pair once, the first ten."""
    seen: dict[str, str] = {}
    found: dict[tuple[str, str, str], None] = {}
    for name in names:
        variable = environment_suffix(name)
        if variable in seen:
            found[seen[variable], name, variable] = None
        seen.setdefault(variable, name)
    return list(found)[:10]


def _all_told(value: Any, read: ValidatorFunctionWrapHandler, faults: Sequence[str], limit: int) -> Any:
    """The list as it is read; where that fails, where it is too long and where there are faults, with all of these."""
    found: list[InitErrorDetails] = []
    items: Any = None
    try:
        items = read(value)
    except ValidationError as error:
        found += [
            InitErrorDetails(type=each["type"], loc=each["loc"], input=each["input"], ctx=each.get("ctx", {}))
            for each in error.errors()
        ]
        length = len(cast(list[Any], value)) if isinstance(value, list) else 0
        if length > limit and all(each["type"] != "too_long" for each in found):
            too_many = {"field_type": "List", "max_length": limit, "actual_length": length}
            found.append(InitErrorDetails(type="too_long", input=value, ctx=too_many))
    clashes = (PydanticCustomError("clash", "{fault}", {"fault": each}) for each in faults)
    found += [InitErrorDetails(type=each, input=value) for each in clashes]
    if found:
        raise ValidationError.from_exception_data("TrainingCreate", found)
    return items


@dataclass(frozen=True, slots=True)
class TrainingDraft:
    """A request as far as it can be read.

    Attributes:
        request: what was asked for; fields that are wrong hold stand-ins.
        wrong: the wire names of those.
        datasets: the input data sets that can be read, each with its place in the list.
    """

    request: TrainingCreate
    wrong: frozenset[str] = frozenset()
    datasets: Sequence[tuple[int, Dataset]] = ()

    @staticmethod
    def of(request: TrainingCreate) -> TrainingDraft:
        """A request without faults of form."""
        return TrainingDraft(request, datasets=tuple(enumerate(request.dataset_list)))

    @staticmethod
    def salvaged(body: Any) -> TrainingDraft | None:
        """What can be read of a body that is not a good request; None when it is no JSON object."""
        fields = fields_of(body)
        if fields is None:
            return None
        datasets = _readable_datasets(fields.pop("datasetList", None))
        wrong: set[str] = set()
        while True:
            try:
                request = TrainingCreate.model_validate(_STAND_INS | fields)
            except ValidationError as error:
                named = {str(item["loc"][0]) for item in error.errors() if item["loc"]} - wrong
                if not named:  # a fault that belongs to no field, so that leaving fields out doesn't help
                    return None
                wrong |= named
                fields = {name: value for name, value in fields.items() if name not in wrong}
                continue
            missing = {name for name in _STAND_INS if name not in fields}
            return TrainingDraft(request, frozenset(wrong | missing), datasets)


_STAND_INS: dict[str, Any] = {"trainingName": "x", "imageId": "", "flavorId": "", "modelUploadUri": "x"}
"""For the fields that a request must have."""


def _readable_datasets(items: Any) -> tuple[tuple[int, Dataset], ...]:
    if not isinstance(items, list):
        return ()
    found: list[tuple[int, Dataset]] = []
    for index, item in enumerate(cast(list[Any], items)[:MAX_DATASETS]):
        with suppress(ValidationError):
            found.append((index, Dataset.model_validate(item)))
    return tuple(found)


class TrainingChange(Wire):
    """`PUT /trainings/{id}`: fields that are absent stay as they are."""

    training_name: Name | None = None
    description: Description = None
    tag_list: Tags | None = None


class DatasetProvenance(Wire):
    """What an input data set looked like when the run listed it. `note`: why it was not listed."""

    dataset_name: str
    data_uri: str
    listing_digest: str | None = None
    file_count: int | None = None
    size_bytes: int | None = None
    note: str | None = None


class ProvenanceOut(Wire):
    """Where a training's result comes from. Digests are SHA-256 in hex.

    `sourceDigest` is of the content that the platform has kept as `sourceSnapshotId`; where it has kept none, `snapshotNote` says why and
    `sourceListingDigest` is of names, sizes and checksums.
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
    dataset_list: list[DatasetProvenance] = []


class TrainingDeletion(Wire):
    """`POST /trainings/bulk-delete`."""

    training_id_list: list[Id] = Field(min_length=1, max_length=MAX_DELETIONS)


class TrainingCopy(Wire):
    """`GET /trainings/{id}/copy`: `trainingRequest` is the body that creates the same training again."""

    header: Header = Header()
    training_request: TrainingCreate


class TrainingOut(ResourceOut):
    """A training."""

    training_id: str
    training_name: str
    training_type_code: str = "NORMAL"
    training_status_code: str
    experiment: ExperimentOut | None = None
    image: ImageOut | None = None
    flavor: FlavorOut | None = None
    instance_count: int
    nproc_per_node: int | None = None
    source_dir_uri: str | None = None
    entry_point: str | None = None
    model_upload_uri: str
    check_point_input_uri: str | None = None
    check_point_upload_uri: str | None = None
    timeout_minutes: int
    elapsed_time_seconds: int
    hyperparameter_list: list[Hyperparameter]
    dataset_list: list[Dataset]
    data_storage_list: list[StorageOut]
    use_log: bool
    use_torchrun: bool
    max_restart_count: int = 0
    restart_count: int = 0
    tensorboard_access_uri: str | None = None
    started_datetime: Moment | None = None
    finished_datetime: Moment | None = None
    exit_code: int | None = None
    last_log_lines: list[str] = []
    provenance: ProvenanceOut | None = None


class TrainingList(Wire):
    """`GET /trainings`."""

    header: Header = Header()
    training_list: list[TrainingOut]
    paging: Paging


class TrainingOne(Wire):
    """One training."""

    header: Header = Header()
    training: TrainingOut
