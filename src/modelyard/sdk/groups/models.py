"""Models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from modelyard.resources.models.schemas import ModelChange, ModelCreate, ModelList, ModelOne, ModelOut
from modelyard.sdk.api import Api
from modelyard.sdk.groups.resource import Kind, Resources, one_or_many, tag_list
from modelyard.sdk.groups.trainings import AsyncTrainings
from modelyard.sdk.places import Places

MODELS = Kind(
    word="model",
    path="/models",
    one=ModelOne,
    many=ModelList,
    item=lambda answer: answer.model,
    items=lambda answer: (answer.model_list, answer.paging.total_count),
    state=lambda model: model.model_status_code,
    name_filter="modelNameList",
)


class AsyncModels(Resources[ModelOne, ModelList, ModelOut]):
    """`client.models`."""

    def __init__(self, api: Api, trainings: AsyncTrainings, places: Places) -> None:
        super().__init__(api, MODELS)
        self._trainings = trainings
        self._places = places

    async def create(
        self,
        name: str,
        *,
        training: str | None = None,
        artifact: str | None = None,
        format: str | None = None,
        framework_version: str | None = None,
        parameters: Mapping[str, str] | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelOut:
        """Create a model from a COMPLETE `training` (name or id), or from an `artifact` (`obs://…`, `nas://…` or `container/path`).

        `format` is TENSORFLOW, PYTORCH, SKLEARN or ONNX; a training's own framework needs none. `parameters` go to the model server.
        """
        fields = {
            "modelName": name,
            "description": description,
            "tagList": tag_list(tags),
            "modelFormatCode": format,
            "frameworkVersion": framework_version,
            "trainingId": None if training is None else await self._trainings.id_of(training),
            "modelUploadUri": None if artifact is None else await self._places.uri(artifact),
            "parameterList": [
                {"parameterName": key, "parameterValue": value} for key, value in (parameters or {}).items()
            ],
        }
        return await self._create(ModelCreate, fields)

    async def list(
        self, *, name: str | Sequence[str] | None = None, page: int = 1, limit: int | None = None
    ) -> Sequence[ModelOut]:
        """Models, newest first; all of them, or `limit` of them a page."""
        items, _ = await self._page({"modelNameList": one_or_many(name)}, page, limit)
        return items

    def iterate(self, *, name: str | Sequence[str] | None = None) -> AsyncIterator[ModelOut]:
        """All models, fetched page by page."""
        return self._each({"modelNameList": one_or_many(name)})

    async def update(
        self,
        key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ModelOut:
        """Change what is given; the rest stays."""
        fields = {"modelName": name, "description": description, "tagList": tag_list(tags)}
        return await self._change(key, ModelChange, fields)
