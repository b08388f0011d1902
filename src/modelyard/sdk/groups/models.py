"""Models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import quote

from modelyard.resources.models.schemas import ModelChange, ModelCreate, ModelList, ModelOne, ModelOut
from modelyard.sdk.api import Api
from modelyard.sdk.groups.resource import Kind, LongLived, one_or_many, tag_list
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


class AsyncModels(LongLived[ModelOne, ModelList, ModelOut]):
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
        keeps_copy: bool | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> ModelOut:
        """Create a model from a COMPLETE `training` (name or id), or from an `artifact` (`obs://…`, `nas://…` or `container/path`).

        `format` is TENSORFLOW, PYTORCH, SKLEARN or ONNX; a training's own framework needs none. `parameters` go to the model server. With
        `keeps_copy` the platform serves a copy of its own. The answer has what was found in the artifact, unless looking takes longer
        than two seconds: `wait` for it then.
        """
        fields = {
            "modelName": name,
            "description": description,
            "tagList": tag_list(tags),
            "modelFormatCode": format,
            "frameworkVersion": framework_version,
            "trainingId": None if training is None else await self._trainings.id_of(training),
            "modelUploadUri": None if artifact is None else await self._places.uri(artifact),
            "keepsCopy": keeps_copy,
            "parameterList": [
                {"parameterName": key, "parameterValue": value} for key, value in (parameters or {}).items()
            ],
        }
        return await self._create(ModelCreate, fields, idempotency_key)

    async def find(self, name: str) -> ModelOut:
        """One model by its name: the newest version of it, or the one that `NAME:VERSION` or `NAME@ALIAS` says. Raises `UnknownName`."""
        items, _ = await self._page({"modelNameList": one_or_many(name)}, 1, 1)
        if items:
            return items[0]
        for mark, field in (("@", "aliasList"), (":", "modelVersionList")):
            plain, separator, which = name.rpartition(mark)
            if separator and (mark == "@" or which.isdigit()):
                items, _ = await self._page({"modelNameList": one_or_many(plain), field: one_or_many(which)}, 1, 1)
                if items:
                    return items[0]
        return await super().find(name)

    async def list(
        self,
        *,
        name: str | Sequence[str] | None = None,
        alias: str | Sequence[str] | None = None,
        page: int = 1,
        limit: int | None = None,
    ) -> Sequence[ModelOut]:
        """Models, newest first; all of them, or `limit` of them a page."""
        items, _ = await self._page({"modelNameList": one_or_many(name), "aliasList": one_or_many(alias)}, page, limit)
        return items

    async def set_alias(self, key: str, alias: str) -> ModelOut:
        """Let an alias mean this version of its name; another version that had it loses it."""
        path = self._at(await self.id_of(key), f"/aliases/{quote(alias, safe='')}")
        return (await self._api.ask(ModelOne, "PUT", path)).model

    async def drop_alias(self, key: str, alias: str) -> ModelOut:
        """Take an alias away."""
        path = self._at(await self.id_of(key), f"/aliases/{quote(alias, safe='')}")
        return (await self._api.ask(ModelOne, "DELETE", path)).model

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
