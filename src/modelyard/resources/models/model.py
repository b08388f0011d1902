"""What a model is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Parameter(_Frozen):
    """A parameter that the model server is given."""

    name: str
    value: str


class ModelSpec(_Frozen):
    """An artifact and how it is served. `training_name` is kept for when the training is gone."""

    format_code: str
    framework_version: str | None = None
    artifact_uri: str
    training_id: str | None = None
    training_name: str | None = None
    parameters: tuple[Parameter, ...] = ()


class Model(_Frozen):
    """A model as endpoints see it."""

    id: str
    project_id: str
    name: str
    spec: ModelSpec
