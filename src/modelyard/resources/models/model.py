"""What a model is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Parameter(_Frozen):
    """A parameter that the model server is given."""

    name: str
    value: str


class TensorDescription(_Frozen):
    """An input or output as the artifact tells it: numpy's name of its type, and its shape with None for sizes that may vary."""

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None


class SignatureSpec(_Frozen):
    """One way to call the model."""

    name: str
    inputs: tuple[TensorDescription, ...] = ()
    outputs: tuple[TensorDescription, ...] = ()


class FileSeen(_Frozen):
    """A file of the artifact: its name relative to it, and bytes."""

    name: str
    size: int


class ArtifactSeen(_Frozen):
    """What was found at a model's path when it was made.

    Attributes:
        kind: SAVED_MODEL, TORCH_ARCHIVE, TORCHSCRIPT, TORCH_EXPORT, TORCH_WEIGHTS, ONNX or SKLEARN.
        path: the directory or file that is loaded, relative to the artifact.
        digest: `sha256:…` over names and contents, `tags:…` over names and the store's tags; None where too much would have to be read.
        files: the first of them by name.
        framework_version: of the framework that wrote it.
        facts: what the format tells besides.
        notes: sentences for a person.
    """

    kind: str
    path: str
    size_bytes: int
    file_count: int
    digest: str | None = None
    files: tuple[FileSeen, ...] = ()
    signatures: tuple[SignatureSpec, ...] = ()
    framework_version: str | None = None
    facts: dict[str, str] = {}
    notes: tuple[str, ...] = ()


class ModelSpec(_Frozen):
    """An artifact and how it is served. `training_name` is kept for when the training is gone.

    Attributes:
        keeps_copy: the platform serves a copy of its own, so that the path may be deleted.
    """

    format_code: str
    framework_version: str | None = None
    artifact_uri: str
    training_id: str | None = None
    training_name: str | None = None
    parameters: tuple[Parameter, ...] = ()
    keeps_copy: bool = False


class ModelStatus(_Frozen):
    """What was seen."""

    artifact: ArtifactSeen | None = None
    has_copy: bool = False


class Model(_Frozen):
    """A model as endpoints see it.

    Attributes:
        source_uri: where its model servers get the artifact: its path, or the platform's copy.
        framework_version: as given, else as the artifact tells.
    """

    id: str
    project_id: str
    name: str
    state: str
    message: str | None = None
    spec: ModelSpec
    source_uri: str
    framework_version: str | None = None
