"""Wire shapes of models. How releases of the official client name and spell the format is `modelyard.easymaker`'s part."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from modelyard.easymaker import MODEL, as_newest, newest_format
from modelyard.wire import Description, Header, Name, NoneAsEmpty, Paging, ResourceOut, Tags, Wire

FORMATS = ("TENSORFLOW", "PYTORCH", "SKLEARN", "ONNX")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class ModelParameter(Wire):
    """A parameter that the model server is given."""

    parameter_name: str = Field(min_length=1, max_length=64)
    parameter_value: str = Field(max_length=255)


MAX_WORKERS = 16


class ServingOptions(Wire):
    """How the model server of an endpoint answers. What is left out is as the platform's settings say.

    Attributes:
        max_batch_size: rows of different requests that are predicted together; 1 is off.
        max_batch_delay_milliseconds: how long a request may wait for others that are on their way.
        queue_size: requests that may wait; more are answered 429.
        deadline_seconds: slower predictions are answered 504.
        log_sample_rate: which part of the inferences is logged where the stage's log is on, 0 to 1.
        log_max_bytes: more of a logged body is cut off.
        worker_count: processes of each model server, as far as its memory goes; left out: one for each core of the flavor, or one where requests
            are batched.
        converts_to_onnx: whether ONNX Runtime answers for a SavedModel once its converted graphs were seen to agree with it; what does not agree
            stays with TensorFlow, and the log says why.
    """

    max_batch_size: int = Field(default=1, ge=1, le=1024)
    max_batch_delay_milliseconds: float = Field(default=5.0, ge=0, le=1000, allow_inf_nan=False)
    queue_size: int = Field(default=128, ge=0, le=10_000)
    deadline_seconds: float | None = Field(default=None, gt=0, le=1200, allow_inf_nan=False)
    log_sample_rate: float = Field(default=1.0, ge=0, le=1, allow_inf_nan=False)
    log_max_bytes: int = Field(default=4096, ge=0, le=24 * 1024)
    worker_count: int | None = Field(default=None, ge=1, le=MAX_WORKERS)
    converts_to_onnx: bool = False


class ModelCreate(Wire):
    """`POST /models`: from a COMPLETE training (`trainingId`) or from an artifact (`modelUploadUri`)."""

    model_name: Name
    description: Description = None
    tag_list: Tags = []
    model_format_code: str | None = None
    framework_version: str | None = Field(default=None, max_length=50)
    training_id: str | None = None
    model_upload_uri: str | None = Field(default=None, max_length=255)
    parameter_list: Annotated[list[ModelParameter], NoneAsEmpty, Field(max_length=10)] = []
    keeps_copy: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_older_names(cls, value: Any) -> Any:
        return as_newest(value, MODEL)

    @field_validator("model_format_code")
    @classmethod
    def _check_format(cls, value: str | None) -> str | None:
        if value is None:
            return None
        value = newest_format(value)
        if value not in FORMATS:
            raise ValueError(f"'{value}' is not a format that can be served here; choose one of {', '.join(FORMATS)}")
        return value


class ModelChange(Wire):
    """`PUT /models/{id}`: fields that are absent stay as they are."""

    model_name: Name | None = None
    description: Description = None
    tag_list: Tags | None = None


class ModelTensor(Wire):
    """An input or output: numpy's name of its type, and its shape with null for sizes that may vary; null where the artifact does not say."""

    tensor_name: str
    data_type: str | None = None
    shape: list[int | None] | None = None


class ModelSignature(Wire):
    """One way to call the model."""

    signature_name: str
    input_list: list[ModelTensor]
    output_list: list[ModelTensor]


class ModelFile(Wire):
    """A file of the artifact."""

    file_name: str
    size_bytes: int


class ModelArtifact(Wire):
    """What was found at the path when the model was made. `fileList` has the first hundred of `fileCount` files."""

    artifact_kind_code: str
    load_path: str
    size_bytes: int
    file_count: int
    file_list: list[ModelFile]
    digest: str | None = None
    signature_list: list[ModelSignature]
    facts: dict[str, str] = {}
    notes: list[str] = []


class ModelTraining(Wire):
    """The training that a model was made from."""

    training_id: str
    training_name: str
    training_status_code: str


class ModelOut(ResourceOut):
    """A model. The format stands under its newest name and, in the spelling of their time, under the two older ones."""

    model_id: str
    model_name: str
    model_status_code: str
    model_format_code: str | None = None
    model_type_code: str | None = None
    framework_code: str | None = None
    framework_version: str | None = None
    model_upload_uri: str
    model_version: int = 1
    alias_list: list[str] = []
    training: ModelTraining | None = None
    parameter_list: list[ModelParameter] = []
    keeps_copy: bool = False
    artifact: ModelArtifact | None = None


class ModelList(Wire):
    """`GET /models`."""

    header: Header = Header()
    model_list: list[ModelOut]
    paging: Paging


class ModelOne(Wire):
    """One model."""

    header: Header = Header()
    model: ModelOut


def alias_fault(alias: str) -> str | None:
    """What is wrong with an alias; it can't look like a version."""
    if _ALIAS.fullmatch(alias):
        return None
    return f"'{alias}' is no alias: 1 to 64 letters, digits, '-', '_' and '.', beginning with a letter"
