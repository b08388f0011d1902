"""Endpoints, their stages and the models on them, and predictions."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ConfigDict

from modelyard.resources.endpoints.schemas import (
    AutoScaler,
    CallStatistics,
    CallStatisticsOne,
    DefaultStageChange,
    EndpointChange,
    EndpointCreate,
    EndpointList,
    EndpointModelList,
    EndpointModelOne,
    EndpointModelOut,
    EndpointOne,
    EndpointOut,
    EndpointStageCreate,
    EndpointStageList,
    EndpointStageOne,
    EndpointStageOut,
    StageGatewaySettings,
    StageGatewaySettingsOne,
    TrafficChange,
    TrafficEntry,
    TrafficHistory,
)
from modelyard.resources.endpoints.stage_settings import (
    ApiKeyCreate,
    ApiKeyList,
    ApiKeyOne,
    ApiKeyOut,
    RateLimit,
    StageSettings,
    StageSettingsOne,
    StageSettingsOut,
)
from modelyard.resources.models.schemas import ServingOptions
from modelyard.sdk.api import Api, checked, error_of
from modelyard.sdk.door import Call
from modelyard.sdk.errors import AmbiguousName, UnexpectedAnswer, UnknownName, WaitTimedOut
from modelyard.sdk.groups.catalogue import AsyncFlavors
from modelyard.sdk.groups.models import AsyncModels
from modelyard.sdk.groups.resource import Kind, LongLived, Resources, has_failed, one_or_many, tag_list
from modelyard.wire import Empty

ENDPOINTS = Kind(
    word="endpoint",
    path="/endpoints",
    one=EndpointOne,
    many=EndpointList,
    item=lambda answer: answer.endpoint,
    items=lambda answer: (answer.endpoint_list, answer.paging.total_count),
    state=lambda endpoint: endpoint.endpoint_status_code,
    name_filter="endpointNameList",
)
STAGES = Kind(
    word="stage",
    path="/endpoint-stages",
    one=EndpointStageOne,
    many=EndpointStageList,
    item=lambda answer: answer.endpoint_stage,
    items=lambda answer: (answer.endpoint_stage_list, answer.paging.total_count),
    state=lambda stage: stage.endpoint_stage_status_code,
)


class Served(ServingOptions):
    """How a model is served: `path` is what it answers on (None leaves the choice to the platform); the rest see `ServingOptions`.

    `cpu` (`0.5`, `500m`) and `memory` (`512Mi`) are what each server gets of the stage's instance type: all of it by default.
    """

    model_config = ConfigDict(extra="forbid")

    path: str | None = None
    cpu: str | None = None
    memory: str | None = None


_SETTINGS_POLL_SECONDS = 0.1

ModelsToServe = str | Sequence[str] | Mapping[str, str | Served | None]
"""A model (name or id), or several: a list of them, or each with the path that it answers on, or with a `Served` that says more."""


class AsyncStages(LongLived[EndpointStageOne, EndpointStageList, EndpointStageOut]):
    """`client.stages`. A stage's name is unique only within its endpoint, so a name goes with `endpoint/stage` or an id is used."""

    def __init__(self, api: Api, models: AsyncModels, flavors: AsyncFlavors) -> None:
        super().__init__(api, STAGES)
        self._models = models
        self._flavors = flavors
        self._endpoints = Resources(api, ENDPOINTS)

    async def create(
        self,
        name: str,
        *,
        endpoint: str,
        models: ModelsToServe,
        flavor: str,
        node_count: int = 1,
        use_log: bool = False,
        auto_scaler: AutoScaler | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> EndpointStageOut:
        """Add a stage to an endpoint; see `endpoints.create`."""
        fields = {
            "endpointId": await self._endpoints.id_of(endpoint),
            "apigwStageName": name,
            "description": description,
            "tagList": tag_list(tags),
            **await serving_fields(self._models, self._flavors, models, flavor, node_count, use_log),
            **_scaled(auto_scaler),
        }
        return await self._create(EndpointStageCreate, fields, idempotency_key)

    async def list(self, *, endpoint: str | None = None) -> Sequence[EndpointStageOut]:
        """Stages, of one endpoint or of all."""
        filters = {"endpointId": None if endpoint is None else await self._endpoints.id_of(endpoint)}
        items, _ = await self._page(filters, 1, None)
        return items

    async def find(self, name: str) -> EndpointStageOut:
        """A stage by `endpoint/stage`, or by its name alone where that is unique."""
        endpoint, slash, stage = name.rpartition("/")
        found = [
            item for item in await self.list(endpoint=endpoint if slash else None) if item.apigw_stage_name == stage
        ]
        if len(found) > 1:
            raise AmbiguousName("stage", name, [item.id for item in found])
        if not found:
            raise UnknownName("stage", name)
        return found[0]

    async def deploy(self, key: str) -> EndpointStageOut:
        """Deploy the stage at the gateway anew, e.g. after somebody took it away there."""
        path = f"/endpoint-stages/{await self.id_of(key)}/deploy"
        return (await self._api.ask(EndpointStageOne, "PUT", path)).endpoint_stage

    async def scale(self, key: str, auto_scaler: AutoScaler) -> EndpointStageOut:
        """Let the number of the stage's model servers follow its load as `auto_scaler` says; `AutoScaler(enable=False)` leaves it as it is."""
        path = f"/endpoint-stages/{await self.id_of(key)}/auto-scaler"
        return (await self._api.ask(EndpointStageOne, "PUT", path, body=auto_scaler)).endpoint_stage

    async def gateway_settings(self, key: str) -> StageGatewaySettings:
        """What is deployed at the gateway for the stage, in words and in the gateway's own language."""
        path = f"/endpoint-stages/{await self.id_of(key)}/gateway-settings"
        return (await self._api.ask(StageGatewaySettingsOne, "GET", path)).gateway_settings

    async def settings(self, key: str) -> StageSettingsOut:
        """What the stage's address asks of requests, and whether the gateway keeps it already."""
        path = f"/endpoint-stages/{await self.id_of(key)}/settings"
        return (await self._api.ask(StageSettingsOne, "GET", path)).stage_settings

    async def change_settings(
        self, key: str, *, wait: bool = True, wait_seconds: float = 60.0, **settings: Any
    ) -> StageSettingsOut:
        """Change what the stage's address asks of requests; what is not named stays, None takes a setting away. No request fails.

        Names are those of `StageSettings`, e.g. `max_body_bytes=2**20, rate_limit={"requests": 100, "seconds": 1},
        is_api_key_required=True, cors={"allow_origin_list": ["https://app.example.com"]}, allow_address_list=["203.0.113.0/24"]`;
        `mirror={"endpoint_stage_id": …, "percent": 10}`. With `wait` it returns when the gateway keeps them. Raises `WaitTimedOut`
        after `wait_seconds`.
        """
        if unknown := settings.keys() - StageSettings.model_fields.keys():
            raise TypeError(f"there is no setting '{min(unknown)}'; there are {', '.join(StageSettings.model_fields)}")
        id = await self.id_of(key)
        body = checked(StageSettings, settings, has_nulls=True)
        path = f"/endpoint-stages/{id}/settings"
        seen = (await self._api.ask(StageSettingsOne, "PUT", path, body=body)).stage_settings
        deadline = time.monotonic() + wait_seconds
        while wait and not seen.is_deployed:
            if time.monotonic() > deadline:
                stage = await self.get(id)
                raise WaitTimedOut("stage", id, stage.apigw_stage_name, stage.deploy_status, wait_seconds)
            await self._api.door.sleep(_SETTINGS_POLL_SECONDS)
            seen = await self.settings(id)
        return seen

    def logs(
        self, key: str, *, model: str | None = None, instance: int = 0, offset: int = 0, follow: bool = False
    ) -> AsyncIterator[str]:
        """The output of a server of `model` (the stage's first one if absent) from byte `offset` on; with `follow`, until it is gone."""
        return self._output(key, instance, offset, follow, model=model)

    async def models(self, *, stage: str | None = None, endpoint: str | None = None) -> Sequence[EndpointModelOut]:
        """The models on a stage, or on all stages of an endpoint."""
        params = {
            "endpointStageId": None if stage is None else await self.id_of(stage),
            "endpointId": None if endpoint is None else await self._endpoints.id_of(endpoint),
        }
        answer = await self._api.ask(EndpointModelList, "GET", "/endpoint-models", params=params)
        return answer.endpoint_model_list

    async def model(self, id: str) -> EndpointModelOut:
        """One model on a stage, by its id."""
        return (await self._api.ask(EndpointModelOne, "GET", f"/endpoint-models/{id}")).endpoint_model

    async def delete_model(self, id: str) -> None:
        """Take a model off its stage."""
        await self._api.ask(Empty, "DELETE", f"/endpoint-models/{id}")


class AsyncEndpoints(LongLived[EndpointOne, EndpointList, EndpointOut]):
    """`client.endpoints`."""

    def __init__(self, api: Api, models: AsyncModels, flavors: AsyncFlavors) -> None:
        super().__init__(api, ENDPOINTS)
        self._models = models
        self._flavors = flavors

    async def create(
        self,
        name: str,
        *,
        models: ModelsToServe,
        flavor: str,
        node_count: int = 1,
        use_log: bool = False,
        auto_scaler: AutoScaler | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> EndpointOut:
        """Create an endpoint with its default stage.

        `models` is one model (name or id), a list of them, or a mapping of models to the paths that they answer on, e.g.
        `{"iris": "/inference"}`, or to a `Served` with more, e.g. `{"iris": Served(max_batch_size=32)}`. `node_count` model servers of
        `flavor` share the requests; with `auto_scaler`, as many as their load needs.
        """
        fields = {
            "endpointName": name,
            "description": description,
            "tagList": tag_list(tags),
            **await serving_fields(self._models, self._flavors, models, flavor, node_count, use_log),
            **_scaled(auto_scaler),
        }
        return await self._create(EndpointCreate, fields, idempotency_key)

    async def list(
        self, *, name: str | Sequence[str] | None = None, page: int = 1, limit: int | None = None
    ) -> Sequence[EndpointOut]:
        """Endpoints, newest first; all of them, or `limit` of them a page."""
        items, _ = await self._page({"endpointNameList": one_or_many(name)}, page, limit)
        return items

    def iterate(self, *, name: str | Sequence[str] | None = None) -> AsyncIterator[EndpointOut]:
        """All endpoints, fetched page by page."""
        return self._each({"endpointNameList": one_or_many(name)})

    async def update(
        self,
        key: str,
        *,
        name: str | None = None,
        description: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> EndpointOut:
        """Change what is given; the rest stays."""
        fields = {"endpointName": name, "description": description, "tagList": tag_list(tags)}
        return await self._change(key, EndpointChange, fields)

    async def change_default_stage(
        self, key: str, stage: str, *, keep_minutes: int = 0, allow_weaker: bool = False
    ) -> EndpointOut:
        """Make another stage (name or id) the default one: it takes over without a failed request.

        The stage that was the default one is deleted, `keep_minutes` later; until then `revert_default_stage` takes the change back.
        A stage that asks for no API key or takes clients from anywhere, where the default one does not, takes over only with `allow_weaker`.
        """
        endpoint = await self.get(key)
        fields: dict[str, Any] = {
            "endpointStageId": _chosen_stage(endpoint, stage).id,
            "keepMinutes": keep_minutes,
            "isWeakerAllowed": allow_weaker,
        }
        path = f"/endpoints/{endpoint.id}/default-stage"
        body = DefaultStageChange.model_validate(fields)
        return (await self._api.ask(EndpointOne, "PUT", path, body=body)).endpoint

    async def revert_default_stage(self, key: str) -> EndpointOut:
        """Take the last change of the default stage back, while the former one is kept."""
        path = f"/endpoints/{await self.id_of(key)}/default-stage/revert"
        return (await self._api.ask(EndpointOne, "PUT", path)).endpoint

    async def split_traffic(self, key: str, weights: Mapping[str, int]) -> EndpointOut:
        """Spread the endpoint's requests over stages, e.g. `{"default": 90, "candidate": 10}`. Without any, all go to the default stage."""
        endpoint = await self.get(key)
        shares = [
            {"endpointStageId": _chosen_stage(endpoint, stage).id, "weight": weight}
            for stage, weight in weights.items()
        ]
        body = TrafficChange.model_validate({"shareList": shares})
        return (await self._api.ask(EndpointOne, "PUT", f"/endpoints/{endpoint.id}/traffic", body=body)).endpoint

    async def traffic(self, key: str, *, at: datetime | None = None) -> Sequence[TrafficEntry]:
        """Which stages and models answered since when, newest first; with `at` (with its UTC offset), what answered then."""
        params = {"at": None if at is None else at.isoformat()}
        path = f"/endpoints/{await self.id_of(key)}/traffic"
        return (await self._api.ask(TrafficHistory, "GET", path, params=params)).traffic_list

    async def statistics(
        self,
        key: str,
        *,
        resolution_seconds: int = 60,
        start: datetime | None = None,
        end: datetime | None = None,
        series: Sequence[str] = (),
    ) -> CallStatistics:
        """Calls over time in spans of 10, 60 or 3600 seconds, as a whole and by stage and model; the last hour by default.

        `start` and `end` need their UTC offset. `series` says of what the spans are told, beside the totals of all: `ENDPOINT`, `STAGE`,
        `MODEL`, or ids of stages and models; of all by default.
        """
        params = {
            "resolutionSeconds": str(resolution_seconds),
            "from": None if start is None else start.isoformat(),
            "to": None if end is None else end.isoformat(),
            "seriesList": ",".join(series) or None,
        }
        path = f"/endpoints/{await self.id_of(key)}/statistics"
        return (await self._api.ask(CallStatisticsOne, "GET", path, params=params)).statistics

    async def api_keys(self, key: str) -> Sequence[ApiKeyOut]:
        """The endpoint's API keys, oldest first, with when they were last used."""
        path = f"/endpoints/{await self.id_of(key)}/api-keys"
        return (await self._api.ask(ApiKeyList, "GET", path)).api_key_list

    async def create_api_key(
        self,
        key: str,
        name: str,
        *,
        rate_limit: Mapping[str, int] | RateLimit | None = None,
        idempotency_key: str | None = None,
    ) -> ApiKeyOut:
        """Make an API key that all stages take which ask for one. Its `api_key` is told this once: keep it.

        `rate_limit`, e.g. `{"requests": 10, "seconds": 1}`, holds instead of a stage's `key_rate_limit`.
        """
        body = checked(ApiKeyCreate, {"name": name, "rateLimit": rate_limit})
        path = f"/endpoints/{await self.id_of(key)}/api-keys"
        return (await self._api.ask(ApiKeyOne, "POST", path, body=body, idempotency_key=idempotency_key)).api_key

    async def revoke_api_key(self, key: str, api_key: str) -> None:
        """Revoke an API key (its name or id). Rotate by making another one first."""
        endpoint_id = await self.id_of(key)
        known = await self.api_keys(endpoint_id)
        found = next((item for item in known if api_key in {item.name, item.api_key_id}), None)
        if found is None:
            raise UnknownName("API key", api_key, [item.name for item in known])
        await self._api.ask(Empty, "DELETE", f"/endpoints/{endpoint_id}/api-keys/{found.api_key_id}")

    async def predict(
        self,
        key: str,
        body: Any,
        *,
        stage: str | None = None,
        model: str | None = None,
        timeout_seconds: float = 60.0,
        api_key: str | None = None,
    ) -> Any:
        """Call a model and return its answer.

        `body` is sent as JSON, e.g. `{"instances": [[5.1, 3.5, 1.4, 0.2]]}`. It goes to the default stage unless `stage` names another; `model`
        (name or id) chooses where a stage has several; `api_key` is needed where the stage asks for one.
        Raises `BadRequest` with the model server's sentence when the body doesn't fit.
        """
        served = _chosen_model(_chosen_stage(await self.get(key), stage), model)
        return await self.call(served.apigw_endpoint_uri, body, timeout_seconds=timeout_seconds, api_key=api_key)

    async def call(self, url: str, body: Any, *, timeout_seconds: float = 60.0, api_key: str | None = None) -> Any:
        """POST a body as JSON to an inference URL (over HTTPS where the URL has no scheme) and return the answer.

        No credential is sent but `api_key`, where it is given.
        """
        address = url if "://" in url else f"https://{url}"
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if api_key is not None:
            headers["X-Api-Key"] = api_key
        call = Call(
            "POST",
            address,
            {},
            headers,
            json.dumps(body, separators=(",", ":")).encode(),
            is_repeatable=False,
            timeout_seconds=timeout_seconds,
        )
        answer = await self._api.send(call)
        if not 200 <= answer.status < 300:
            raise error_of(answer, call)
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise UnexpectedAnswer(f"{address} didn't answer with JSON: {error}") from error

    def _state_shown(self, resource: EndpointOut) -> object:
        return resource.endpoint_status_code, [item.endpoint_stage_status_code for item in resource.endpoint_stage_list]

    def _is_done(self, resource: EndpointOut) -> bool:
        """Ready means that calls are answered: the endpoint and its default stage are ACTIVE."""
        default = [item for item in resource.endpoint_stage_list if item.is_default_stage]
        return super()._is_done(resource) and all(item.endpoint_stage_status_code == "ACTIVE" for item in default)

    def _failed_part(self, resource: EndpointOut) -> Any:
        for stage in resource.endpoint_stage_list:
            if stage.is_default_stage and has_failed(stage.endpoint_stage_status_code):
                return stage
        return super()._failed_part(resource)


async def serving_fields(
    models: AsyncModels, flavors: AsyncFlavors, wanted: ModelsToServe, flavor: str, node_count: int, use_log: bool
) -> dict[str, Any]:
    """The fields that endpoints and stages have in common, on the wire."""
    resources: list[dict[str, Any]] = []
    for key, served in served_models(wanted).items():
        item: dict[str, Any] = {"modelId": await models.id_of(key)}
        if served.path is not None:
            item["apigwResourceUri"] = served.path
        if options := served.model_dump(by_alias=True, exclude_unset=True, exclude={"path", "cpu", "memory"}):
            item["servingOptions"] = options
        if served.cpu is not None or served.memory is not None:
            item["resourceOptionDetail"] = {"cpu": served.cpu, "memory": served.memory}
        resources.append(item)
    return {
        "flavorId": await flavors.id_of(flavor),
        "nodeCount": node_count,
        "endpointModelResourceList": resources,
        "useLog": use_log,
    }


def served_models(wanted: ModelsToServe) -> Mapping[str, Served]:
    """Which models, and how."""
    names = [wanted] if isinstance(wanted, str) else wanted
    pairs: Mapping[str, str | Served | None] = names if isinstance(names, Mapping) else dict.fromkeys(names)
    return {key: how if isinstance(how, Served) else Served(path=how) for key, how in pairs.items()}


def _scaled(auto_scaler: AutoScaler | None) -> dict[str, Any]:
    return {} if auto_scaler is None else {"autoScaler": auto_scaler}


def _chosen_stage(endpoint: EndpointOut, name: str | None) -> EndpointStageOut:
    for stage in endpoint.endpoint_stage_list:
        if stage.is_default_stage if name is None else name in {stage.id, stage.apigw_stage_name}:
            return stage
    names = [stage.apigw_stage_name for stage in endpoint.endpoint_stage_list]
    raise UnknownName(f"stage of endpoint '{endpoint.name}' called", name or "default", names)


def _chosen_model(stage: EndpointStageOut, key: str | None) -> EndpointModelOut:
    served = stage.endpoint_model_list
    if key is None and len(served) == 1:
        return served[0]
    names = [item.model.name for item in served if item.model is not None]
    if key is None:
        raise (
            AmbiguousName("model", stage.apigw_stage_name, names)
            if served
            else UnknownName("model on stage", stage.apigw_stage_name)
        )
    for item in served:
        if key in {item.model_id, item.id} or (item.model is not None and item.model.name == key):
            return item
    raise UnknownName(f"model on stage '{stage.apigw_stage_name}' called", key, names)
