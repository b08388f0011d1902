"""HTTP door of models."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends, Request

from modelyard.kit.errors import Fault, Invalid
from modelyard.kit.paging import PageRequest
from modelyard.resources.logs.output import events_out
from modelyard.resources.logs.schemas import EventList
from modelyard.resources.models.repository import ModelFilter
from modelyard.resources.models.schemas import ModelChange, ModelCreate, ModelList, ModelOne
from modelyard.resources.models.service import Models
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import listed, page_request, paging_of
from modelyard.wire import Empty


def create_router(models: Models, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access, "models")

    @router.get("/models")
    async def list_models(
        request: Request, caller: Caller = Depends(access), page: PageRequest = Depends(page_request)
    ) -> ModelList:
        """Models, newest first; `modelIdList`, `modelNameList`, `modelVersionList` and `aliasList` choose."""
        wanted = ModelFilter(
            ids=listed(request, "modelIdList"),
            names=listed(request, "modelNameList"),
            versions=_numbers(listed(request, "modelVersionList")),
            aliases=listed(request, "aliasList"),
        )
        found = await models.list(caller, wanted, page)
        return ModelList(model_list=list(found.items), paging=paging_of(found))

    @router.post("/models")
    async def create_model(body: ModelCreate, caller: Caller = Depends(access)) -> ModelOne:
        """A model of a COMPLETE training, or of an artifact."""
        return ModelOne(model=await models.create(caller, body))

    @router.get("/models/{model_id}")
    async def get_model(model_id: str, caller: Caller = Depends(access)) -> ModelOne:
        """One model."""
        return ModelOne(model=await models.get(caller, model_id))

    @router.put("/models/{model_id}")
    async def change_model(model_id: str, body: ModelChange, caller: Caller = Depends(access)) -> ModelOne:
        """Change name, description or tags."""
        return ModelOne(model=await models.change(caller, model_id, body))

    @router.put("/models/{model_id}/aliases/{alias}")
    async def set_model_alias(model_id: str, alias: str, caller: Caller = Depends(access)) -> ModelOne:
        """Let an alias mean this model; another model of the same name that had it loses it."""
        return ModelOne(model=await models.set_alias(caller, model_id, alias))

    @router.delete("/models/{model_id}/aliases/{alias}")
    async def drop_model_alias(model_id: str, alias: str, caller: Caller = Depends(access)) -> ModelOne:
        """Take an alias away."""
        return ModelOne(model=await models.drop_alias(caller, model_id, alias))

    @router.get("/models/{model_id}/events")
    async def list_model_events(model_id: str, caller: Caller = Depends(access)) -> EventList:
        """What happened to the model."""
        return EventList(event_list=events_out(await models.events(caller, model_id)))

    @router.delete("/models/{model_id}")
    async def delete_model(model_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete a model that no endpoint uses. Its artifact stays; the platform's copy of it goes."""
        await models.delete(caller, model_id)
        return Empty()

    return router


def _numbers(texts: Sequence[str]) -> list[int]:
    wrong = next((text for text in texts if not (text.isascii() and text.isdigit() and len(text) <= 9)), None)
    if wrong is not None:
        raise Invalid([Fault("modelVersionList", f"'{wrong}' is no version; versions are whole numbers")])
    return [int(text) for text in texts]
