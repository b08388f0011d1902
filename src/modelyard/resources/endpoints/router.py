"""HTTP door of endpoints, stages and the models on them."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query, Request

from modelyard.kit.paging import PageRequest
from modelyard.resources.endpoints.schemas import (
    EndpointChange,
    EndpointCreate,
    EndpointList,
    EndpointModelList,
    EndpointModelOne,
    EndpointOne,
    EndpointStageCreate,
    EndpointStageList,
    EndpointStageOne,
)
from modelyard.resources.endpoints.service import Endpoints
from modelyard.resources.logs.output import events_out, follow, output_out
from modelyard.resources.logs.schemas import EventList, OutputOne
from modelyard.resources.projects.access import Access
from modelyard.resources.projects.model import Caller
from modelyard.web import WireRoute, listed, page_request, paging_of, whole
from modelyard.wire import Empty


def create_router(endpoints: Endpoints, access: Access) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = APIRouter(route_class=WireRoute, dependencies=[Depends(access)])
    _add_endpoints(router, endpoints, access)
    _add_stages(router, endpoints, access)
    _add_models(router, endpoints, access)
    return router


def _add_endpoints(router: APIRouter, endpoints: Endpoints, access: Access) -> None:
    tags: list[str] = ["endpoints"]

    @router.get("/endpoints", tags=[*tags])
    async def list_endpoints(
        request: Request, caller: Caller = Depends(access), page: PageRequest = Depends(page_request)
    ) -> EndpointList:
        """Endpoints, newest first; `endpointIdList` and `endpointNameList` choose."""
        found = await endpoints.list(
            caller, listed(request, "endpointIdList"), listed(request, "endpointNameList"), page
        )
        return EndpointList(endpoint_list=list(found.items), paging=paging_of(found))

    @router.post("/endpoints", tags=[*tags])
    async def create_endpoint(body: EndpointCreate, caller: Caller = Depends(access)) -> EndpointOne:
        """A new endpoint with its default stage."""
        return EndpointOne(endpoint=await endpoints.create(caller, body))

    @router.get("/endpoints/{endpoint_id}", tags=[*tags])
    async def get_endpoint(endpoint_id: str, caller: Caller = Depends(access)) -> EndpointOne:
        """One endpoint."""
        return EndpointOne(endpoint=await endpoints.get(caller, endpoint_id))

    @router.put("/endpoints/{endpoint_id}", tags=[*tags])
    async def change_endpoint(endpoint_id: str, body: EndpointChange, caller: Caller = Depends(access)) -> EndpointOne:
        """Change name, description or tags."""
        return EndpointOne(endpoint=await endpoints.change(caller, endpoint_id, body))

    @router.delete("/endpoints/{endpoint_id}", tags=[*tags])
    async def delete_endpoint(endpoint_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete an endpoint that has no stage besides its default one."""
        await endpoints.delete(caller, endpoint_id)
        return Empty()

    @router.get("/endpoints/{endpoint_id}/events", tags=[*tags])
    async def list_endpoint_events(endpoint_id: str, caller: Caller = Depends(access)) -> EventList:
        """What has happened to an endpoint, oldest first."""
        return EventList(event_list=events_out(await endpoints.events(caller, endpoint_id)))


def _add_stages(router: APIRouter, endpoints: Endpoints, access: Access) -> None:
    tags: list[str] = ["endpoint stages"]

    @router.get("/endpoint-stages", tags=[*tags])
    async def list_stages(
        endpoint_id: str | None = Query(default=None, alias="endpointId"), caller: Caller = Depends(access)
    ) -> EndpointStageList:
        """Stages of an endpoint, the default one first."""
        items = await endpoints.list_stages(caller, endpoint_id)
        return EndpointStageList(endpoint_stage_list=list(items), paging=whole(len(items)))

    @router.post("/endpoint-stages", tags=[*tags])
    async def create_stage(body: EndpointStageCreate, caller: Caller = Depends(access)) -> EndpointStageOne:
        """One more stage of an endpoint."""
        return EndpointStageOne(endpoint_stage=await endpoints.create_stage(caller, body))

    @router.get("/endpoint-stages/{stage_id}", tags=[*tags])
    async def get_stage(stage_id: str, caller: Caller = Depends(access)) -> EndpointStageOne:
        """One stage."""
        return EndpointStageOne(endpoint_stage=await endpoints.get_stage(caller, stage_id))

    @router.delete("/endpoint-stages/{stage_id}", tags=[*tags])
    async def delete_stage(stage_id: str, caller: Caller = Depends(access)) -> Empty:
        """Delete a stage that is not the default one."""
        await endpoints.delete_stage(caller, stage_id)
        return Empty()

    @router.get("/endpoint-stages/{stage_id}/logs", tags=[*tags])
    async def read_stage_logs(
        stage_id: str,
        instance: int = Query(default=0, ge=0, le=99),
        offset: int = Query(default=0, ge=0),
        limit_bytes: int = Query(default=65536, ge=1, le=1048576, alias="limitBytes"),
        wait_seconds: float = Query(default=0.0, ge=0.0, le=20.0, alias="waitSeconds"),
        caller: Caller = Depends(access),
    ) -> OutputOne:
        """What a model server of the stage has printed, from `offset` on."""
        chunk = await follow(
            lambda: endpoints.read_output(caller, stage_id, instance, offset, limit_bytes), wait_seconds
        )
        return OutputOne(output=output_out(chunk))

    @router.get("/endpoint-stages/{stage_id}/events", tags=[*tags])
    async def list_stage_events(stage_id: str, caller: Caller = Depends(access)) -> EventList:
        """What has happened to a stage, oldest first."""
        return EventList(event_list=events_out(await endpoints.stage_events(caller, stage_id)))


def _add_models(router: APIRouter, endpoints: Endpoints, access: Access) -> None:
    tags: list[str] = ["endpoint models"]

    @router.get("/endpoint-models", tags=[*tags])
    async def list_endpoint_models(
        stage_id: str | None = Query(default=None, alias="endpointStageId"),
        endpoint_id: str | None = Query(default=None, alias="endpointId"),
        caller: Caller = Depends(access),
    ) -> EndpointModelList:
        """Models on a stage (`endpointStageId`) or on all stages of an endpoint (`endpointId`)."""
        items = await endpoints.list_models(caller, stage_id, endpoint_id)
        return EndpointModelList(endpoint_model_list=list(items), paging=whole(len(items)))

    @router.get("/endpoint-models/{endpoint_model_id}", tags=[*tags])
    async def get_endpoint_model(endpoint_model_id: str, caller: Caller = Depends(access)) -> EndpointModelOne:
        """One model on a stage."""
        return EndpointModelOne(endpoint_model=await endpoints.get_model(caller, endpoint_model_id))
