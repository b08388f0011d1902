"""HTTP door of endpoints, stages and the models on them."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Query, Request, Response

from modelyard.kit.paging import PageRequest
from modelyard.resources.endpoints.autoscaler import Autoscaler
from modelyard.resources.endpoints.gatekeeping import Gatekeeping
from modelyard.resources.endpoints.schemas import (
    AutoScaler,
    CallStatisticsOne,
    DefaultStageChange,
    EndpointChange,
    EndpointCreate,
    EndpointList,
    EndpointModelList,
    EndpointModelOne,
    EndpointOne,
    EndpointStageCreate,
    EndpointStageList,
    EndpointStageOne,
    StageGatewaySettingsOne,
    StatisticsQuery,
    TrafficChange,
    TrafficHistory,
)
from modelyard.resources.endpoints.service import Endpoints
from modelyard.resources.endpoints.stage_settings import (
    ApiKeyCreate,
    ApiKeyList,
    ApiKeyOne,
    StageSettings,
    StageSettingsOne,
)
from modelyard.resources.endpoints.statistics import Statistics
from modelyard.resources.endpoints.traffic import Traffic
from modelyard.resources.logs.output import events_out, follow, output_out
from modelyard.resources.logs.schemas import EventList, OutputOne
from modelyard.resources.projects.access import Access, project_router
from modelyard.resources.projects.model import Caller
from modelyard.web import QueryMoment, listed, page_request, paging_of, whole
from modelyard.wire import Empty


def create_router(
    endpoints: Endpoints,
    traffic: Traffic,
    statistics: Statistics,
    autoscaler: Autoscaler,
    gatekeeping: Gatekeeping,
    access: Access,
) -> APIRouter:
    """Routes below `/v1.0/appkeys/{appkey}`."""
    router = project_router(access)
    _add_endpoints(router, endpoints, traffic, statistics, access)
    _add_stages(router, endpoints, traffic, autoscaler, gatekeeping, access)
    _add_api_keys(router, gatekeeping, access)
    _add_models(router, endpoints, access)
    return router


def _add_endpoints(
    router: APIRouter, endpoints: Endpoints, traffic: Traffic, statistics: Statistics, access: Access
) -> None:
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

    @router.put("/endpoints/{endpoint_id}/default-stage", tags=[*tags])
    async def change_default_stage(
        endpoint_id: str, body: DefaultStageChange, caller: Caller = Depends(access)
    ) -> EndpointOne:
        """Make another stage the default one. No request fails; the old default stage is deleted, at once or `keepMinutes` later."""
        await traffic.change_default(caller, endpoint_id, body)
        return EndpointOne(endpoint=await endpoints.get(caller, endpoint_id))

    @router.put("/endpoints/{endpoint_id}/default-stage/revert", tags=[*tags])
    async def revert_default_stage(endpoint_id: str, caller: Caller = Depends(access)) -> EndpointOne:
        """Take the last change of the default stage back, while the former one is kept."""
        await traffic.revert(caller, endpoint_id)
        return EndpointOne(endpoint=await endpoints.get(caller, endpoint_id))

    @router.put("/endpoints/{endpoint_id}/traffic", tags=[*tags])
    async def split_traffic(endpoint_id: str, body: TrafficChange, caller: Caller = Depends(access)) -> EndpointOne:
        """Spread the endpoint's requests over stages by weight."""
        await traffic.split(caller, endpoint_id, body)
        return EndpointOne(endpoint=await endpoints.get(caller, endpoint_id))

    @router.get("/endpoints/{endpoint_id}/traffic", tags=[*tags])
    async def read_traffic_history(
        endpoint_id: str, at: QueryMoment | None = Query(default=None), caller: Caller = Depends(access)
    ) -> TrafficHistory:
        """Which stages and models answered since when, newest first; `at` (ISO 8601) asks for one moment."""
        return TrafficHistory(traffic_list=list(await traffic.history(caller, endpoint_id, at)))

    @router.get("/endpoints/{endpoint_id}/statistics", tags=[*tags], response_model=CallStatisticsOne)
    async def read_statistics(
        request: Request,
        endpoint_id: str,
        resolution_seconds: int = Query(default=60, alias="resolutionSeconds"),
        from_: QueryMoment | None = Query(default=None, alias="from"),
        to: QueryMoment | None = Query(default=None),
        caller: Caller = Depends(access),
    ) -> Response:
        """Calls over time in spans of 10, 60 or 3600 seconds; the last hour when neither `from` nor `to` (ISO 8601) is said.

        `seriesList` says of what the spans are told (`ENDPOINT`, `STAGE`, `MODEL`, or ids of stages and models); of all when absent.
        """
        series = listed(request, "seriesList")
        query = StatisticsQuery(resolution_seconds=resolution_seconds, from_=from_, to=to, series_list=series)
        return Response(await statistics.read(caller, endpoint_id, query), media_type="application/json")

    @router.get("/endpoints/{endpoint_id}/events", tags=[*tags])
    async def list_endpoint_events(endpoint_id: str, caller: Caller = Depends(access)) -> EventList:
        """What has happened to an endpoint, oldest first."""
        return EventList(event_list=events_out(await endpoints.events(caller, endpoint_id)))


def _add_api_keys(router: APIRouter, gatekeeping: Gatekeeping, access: Access) -> None:
    tags: list[str] = ["endpoints"]

    @router.get("/endpoints/{endpoint_id}/api-keys", tags=[*tags])
    async def list_api_keys(endpoint_id: str, caller: Caller = Depends(access)) -> ApiKeyList:
        """API keys of an endpoint, oldest first. The keys themselves are not kept."""
        return ApiKeyList(api_key_list=list(await gatekeeping.keys(caller, endpoint_id)))

    @router.post("/endpoints/{endpoint_id}/api-keys", tags=[*tags])
    async def create_api_key(endpoint_id: str, body: ApiKeyCreate, caller: Caller = Depends(access)) -> ApiKeyOne:
        """A new API key, good on all stages of the endpoint that ask for one. Only this answer shows it."""
        return ApiKeyOne(api_key=await gatekeeping.create_key(caller, endpoint_id, body))

    @router.delete("/endpoints/{endpoint_id}/api-keys/{api_key_id}", tags=[*tags])
    async def revoke_api_key(endpoint_id: str, api_key_id: str, caller: Caller = Depends(access)) -> Empty:
        """Revoke an API key."""
        await gatekeeping.revoke_key(caller, endpoint_id, api_key_id)
        return Empty()


def _add_stages(
    router: APIRouter,
    endpoints: Endpoints,
    traffic: Traffic,
    autoscaler: Autoscaler,
    gatekeeping: Gatekeeping,
    access: Access,
) -> None:
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

    @router.put("/endpoint-stages/{stage_id}/deploy", tags=[*tags])
    async def deploy_stage(stage_id: str, caller: Caller = Depends(access)) -> EndpointStageOne:
        """Deploy a stage at the gateway anew."""
        await traffic.deploy(caller, stage_id)
        return EndpointStageOne(endpoint_stage=await endpoints.get_stage(caller, stage_id))

    @router.put("/endpoint-stages/{stage_id}/auto-scaler", tags=[*tags])
    async def change_auto_scaler(stage_id: str, body: AutoScaler, caller: Caller = Depends(access)) -> EndpointStageOne:
        """Let the number of a stage's model servers follow its load, otherwise than before, or no longer."""
        await autoscaler.change(caller, stage_id, body)
        return EndpointStageOne(endpoint_stage=await endpoints.get_stage(caller, stage_id))

    @router.get("/endpoint-stages/{stage_id}/gateway-settings", tags=[*tags])
    async def get_gateway_settings(stage_id: str, caller: Caller = Depends(access)) -> StageGatewaySettingsOne:
        """What is deployed at the gateway for a stage, in words and in the gateway's own language."""
        return StageGatewaySettingsOne(gateway_settings=await traffic.gateway_settings(caller, stage_id))

    @router.get("/endpoint-stages/{stage_id}/settings", tags=[*tags])
    async def get_stage_settings(stage_id: str, caller: Caller = Depends(access)) -> StageSettingsOne:
        """What a stage's address asks of requests."""
        return StageSettingsOne(stage_settings=await gatekeeping.settings(caller, stage_id))

    @router.put("/endpoint-stages/{stage_id}/settings", tags=[*tags])
    async def change_stage_settings(
        stage_id: str, body: StageSettings, caller: Caller = Depends(access)
    ) -> StageSettingsOne:
        """Change what a stage's address asks of requests: what is absent stays, null takes a setting away. No request fails."""
        return StageSettingsOne(stage_settings=await gatekeeping.change_settings(caller, stage_id, body))

    @router.get("/endpoint-stages/{stage_id}/logs", tags=[*tags])
    async def read_stage_logs(
        stage_id: str,
        model: str | None = Query(default=None, max_length=100),
        instance: int = Query(default=0, ge=0, le=99),
        offset: int = Query(default=0, ge=0),
        limit_bytes: int = Query(default=65536, ge=1, le=1048576, alias="limitBytes"),
        wait_seconds: float = Query(default=0.0, ge=0.0, le=20.0, alias="waitSeconds"),
        caller: Caller = Depends(access),
    ) -> OutputOne:
        """What a server of one of the stage's models (`model`: its name or id; the first one if absent) has printed, from `offset` on.

        Of servers that could not be started there are the last lines.
        """
        chunk = await follow(
            lambda: endpoints.read_output(caller, stage_id, model, instance, offset, limit_bytes), wait_seconds
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

    @router.delete("/endpoint-models/{endpoint_model_id}", tags=[*tags])
    async def delete_endpoint_model(endpoint_model_id: str, caller: Caller = Depends(access)) -> Empty:
        """Take a model off its stage, as long as another one stays there."""
        await endpoints.delete_model(caller, endpoint_model_id)
        return Empty()

    @router.get("/endpoint-models/{endpoint_model_id}", tags=[*tags])
    async def get_endpoint_model(endpoint_model_id: str, caller: Caller = Depends(access)) -> EndpointModelOne:
        """One model on a stage."""
        return EndpointModelOne(endpoint_model=await endpoints.get_model(caller, endpoint_model_id))
