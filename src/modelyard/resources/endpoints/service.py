"""Use cases of endpoints, their stages, and the models on them."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import LogChunk
from modelyard.control.events import Event, events_of
from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import MAX_BLOCKERS, Fault, Invalid, NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.errors import (
    BeingDeleted,
    EndpointHasStages,
    EndpointNameTaken,
    GatewayQuotaExceeded,
    StageIsDefault,
    StageNameTaken,
)
from modelyard.resources.endpoints.lifecycle import (
    ENDPOINT,
    ENDPOINT_MODEL,
    STAGE,
    EndpointModelState,
    EndpointState,
    StageState,
)
from modelyard.resources.endpoints.model import (
    DEFAULT_STAGE_NAME,
    EndpointModelSpec,
    EndpointSpec,
    StageSpec,
    StageStatus,
)
from modelyard.resources.endpoints.schemas import (
    EndpointCreate,
    EndpointModelCreate,
    EndpointModelOut,
    EndpointOut,
    EndpointStageCreate,
    EndpointStageOut,
)
from modelyard.resources.endpoints.table import EndpointModelRow, EndpointRow, StageRow
from modelyard.resources.endpoints.views import StageView, Views
from modelyard.resources.flavors.errors import UnknownFlavor
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.flavors.service import Flavors
from modelyard.resources.images.errors import NoServingImage
from modelyard.resources.images.service import Images
from modelyard.resources.models.errors import ModelInUse
from modelyard.resources.models.model import Model
from modelyard.resources.models.schemas import ServingOptions
from modelyard.resources.models.service import Models
from modelyard.resources.projects.model import Caller
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.service import Storages
from modelyard.resources.workloads.errors import NeverFits
from modelyard.resources.workloads.service import Workloads
from modelyard.wire import Change

ENDPOINT_KIND = "endpoint"
STAGE_KIND = "endpoint_stage"
_SERVICE_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class GatewayQuota:
    """How much of the gateway a project may have. A service is an endpoint."""

    services: int = 100
    stages_per_service: int = 10


class Endpoints:
    """Creates, finds, changes and deletes endpoints and stages."""

    def __init__(
        self,
        database: Database,
        models: Models,
        images: Images,
        flavors: Flavors,
        storages: Storages,
        workloads: Workloads,
        views: Views,
        quota: GatewayQuota | None = None,
    ) -> None:
        self._database = database
        self._models = models
        self._images = images
        self._flavors = flavors
        self._storages = storages
        self._workloads = workloads
        self._views = views
        self._quota = quota or GatewayQuota()

    async def create(self, caller: Caller, request: EndpointCreate) -> EndpointOut:
        """A new endpoint with its default stage."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.read() as session:
            known_id = await recall(session, project_id, ENDPOINT_KIND, key)
        if known_id is not None:
            return await self.get(caller, known_id)
        flavor, models = await self._check(caller, request)
        now = utc_now()
        service_id = "".join(secrets.choice(_SERVICE_ALPHABET) for _ in range(12))
        async with self._database.write() as session:
            known_id = await claim(session, project_id, ENDPOINT_KIND, key)
            if known_id is not None:
                return (await self._endpoints_out(session, caller, [await _endpoint(session, caller, known_id)]))[0]
            if await repository.endpoint_by_name(session, project_id, request.endpoint_name) is not None:
                raise EndpointNameTaken(request.endpoint_name)
            if await repository.count_endpoints(session, project_id) >= self._quota.services:
                raise GatewayQuotaExceeded("API gateway services (endpoints) in a project", self._quota.services)
            row = EndpointRow(
                id=new_id(),
                project_id=caller.project.id,
                name=request.endpoint_name,
                description=request.description,
                tags=[tag.model_dump(by_alias=True) for tag in request.tag_list],
                spec=EndpointSpec(service_id=service_id).model_dump(mode="json"),
                status={},
                desired="run",
                created_by=caller.actor,
                created_at=now,
                updated_at=now,
            )
            born(session, ENDPOINT, row, actor=caller.actor)
            session.add(row)
            await session.flush()
            await self._add_stage(session, caller, row, DEFAULT_STAGE_NAME, request, flavor, models, is_default=True)
            remember(session, project_id, ENDPOINT_KIND, key, row.id)
            await enqueue(session, ENDPOINT_KIND, row.id)
        return await self.get(caller, row.id)

    async def create_stage(self, caller: Caller, request: EndpointStageCreate) -> EndpointStageOut:
        """One more stage of an endpoint."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.read() as session:
            known_id = await recall(session, project_id, STAGE_KIND, key)
        if known_id is not None:
            return await self.get_stage(caller, known_id)
        flavor, models = await self._check(caller, request)
        async with self._database.write() as session:
            known_id = await claim(session, project_id, STAGE_KIND, key)
            if known_id is not None:
                stage = await _stage(session, caller, known_id)
                return (await self._stage_views(session, caller, [stage]))[0].out
            endpoint = await _endpoint(session, caller, request.endpoint_id)
            if endpoint.desired == "delete":
                raise BeingDeleted("endpoint", endpoint.name)
            stages = await repository.stages_of(session, [endpoint.id])
            if any(stage.name == request.apigw_stage_name for stage in stages):
                raise StageNameTaken(request.apigw_stage_name)
            if len(stages) >= self._quota.stages_per_service:
                raise GatewayQuotaExceeded("stages of an API gateway service", self._quota.stages_per_service)
            row = await self._add_stage(
                session, caller, endpoint, request.apigw_stage_name, request, flavor, models, is_default=False
            )
            remember(session, project_id, STAGE_KIND, key, row.id)
            await enqueue(session, ENDPOINT_KIND, endpoint.id)
        return await self.get_stage(caller, row.id)

    async def list(
        self, caller: Caller, ids: Sequence[str], names: Sequence[str], request: PageRequest
    ) -> Page[EndpointOut]:
        """Endpoints of the project, newest first."""
        async with self._database.read() as session:
            page = await repository.endpoints(session, caller.project.id, ids, names, request)
            outs = await self._endpoints_out(session, caller, page.items)
        return Page(outs, page.total_count, request)

    async def get(self, caller: Caller, endpoint_id: str) -> EndpointOut:
        """One endpoint."""
        async with self._database.read() as session:
            row = await _endpoint(session, caller, endpoint_id)
            return (await self._endpoints_out(session, caller, [row]))[0]

    async def list_stages(self, caller: Caller, endpoint_id: str | None) -> Sequence[EndpointStageOut]:
        """Stages of an endpoint, or of all."""
        async with self._database.read() as session:
            if endpoint_id is None:
                rows = await repository.stages_of_project(session, caller.project.id)
            else:
                endpoint = await _endpoint(session, caller, endpoint_id)
                rows = await repository.stages_of(session, [endpoint.id])
            return [view.out for view in await self._stage_views(session, caller, rows)]

    async def get_stage(self, caller: Caller, stage_id: str) -> EndpointStageOut:
        """One stage."""
        async with self._database.read() as session:
            row = await _stage(session, caller, stage_id)
            return (await self._stage_views(session, caller, [row]))[0].out

    async def list_models(
        self, caller: Caller, stage_id: str | None, endpoint_id: str | None
    ) -> Sequence[EndpointModelOut]:
        """Models on a stage, or on all stages of an endpoint, or of the project."""
        if stage_id is not None:
            return (await self.get_stage(caller, stage_id)).endpoint_model_list
        stages = await self.list_stages(caller, endpoint_id)
        return [model for stage in stages for model in stage.endpoint_model_list]

    async def get_model(self, caller: Caller, endpoint_model_id: str) -> EndpointModelOut:
        """One model on a stage."""
        async with self._database.read() as session:
            row = await repository.endpoint_model(session, caller.project.id, endpoint_model_id)
        if row is None:
            raise NotFound("endpoint model", endpoint_model_id)
        stage = await self.get_stage(caller, row.stage_id)
        return next(model for model in stage.endpoint_model_list if model.endpoint_model_id == endpoint_model_id)

    async def change(self, caller: Caller, endpoint_id: str, change: Change) -> EndpointOut:
        """Change name, description or tags."""
        async with self._database.write() as session:
            row = await _endpoint(session, caller, endpoint_id)
            if change.name is not None and change.name != row.name:
                if await repository.endpoint_by_name(session, caller.project.id, change.name) is not None:
                    raise EndpointNameTaken(change.name)
                row.name = change.name
            if "description" in change.model_fields_set:
                row.description = change.description
            if change.tag_list is not None:
                row.tags = [tag.model_dump(by_alias=True) for tag in change.tag_list]
            row.updated_at = utc_now()
        return await self.get(caller, endpoint_id)

    async def delete(self, caller: Caller, endpoint_id: str) -> None:
        """Delete an endpoint with its default stage. Raises `EndpointHasStages` while it has others."""
        async with self._database.write() as session:
            row = await _endpoint(session, caller, endpoint_id)
            stages = await repository.stages_of(session, [row.id])
            others = [stage.name for stage in stages if not stage.is_default and stage.desired != "delete"]
            if others:
                raise EndpointHasStages(others)
            row.desired = "delete"
            row.generation += 1
            move(session, ENDPOINT, row, EndpointState.DELETE_IN_PROGRESS, actor=caller.actor)
            for stage in stages:
                await self._ask_stage_delete(session, stage, caller.actor)
            await enqueue(session, ENDPOINT_KIND, row.id)

    async def delete_stage(self, caller: Caller, stage_id: str) -> None:
        """Delete a stage. Raises `StageIsDefault`."""
        async with self._database.write() as session:
            row = await _stage(session, caller, stage_id)
            if row.is_default:
                raise StageIsDefault(row.name)
            await self._ask_stage_delete(session, row, caller.actor)
            await enqueue(session, ENDPOINT_KIND, row.endpoint_id)

    async def read_output(self, caller: Caller, stage_id: str, index: int, offset: int, limit_bytes: int) -> LogChunk:
        """A piece of what a replica of the stage's first model has printed."""
        async with self._database.read() as session:
            row = await _stage(session, caller, stage_id)
            models = await repository.models_of_stages(session, [row.id])
        return await self._workloads.read_output(models[0].id, index, offset, limit_bytes)

    async def events(self, caller: Caller, endpoint_id: str) -> Sequence[Event]:
        """What has happened to an endpoint, oldest first."""
        async with self._database.read() as session:
            row = await _endpoint(session, caller, endpoint_id)
            return await events_of(session, ENDPOINT_KIND, row.id)

    async def stage_events(self, caller: Caller, stage_id: str) -> Sequence[Event]:
        """What has happened to a stage, oldest first."""
        async with self._database.read() as session:
            row = await _stage(session, caller, stage_id)
            return await events_of(session, STAGE_KIND, row.id)

    async def guard_model(self, session: AsyncSession, model_id: str) -> None:
        """Raise `ModelInUse` while the model is deployed somewhere."""
        endpoints = await repository.endpoints_using(session, model_id, MAX_BLOCKERS + 1)
        if endpoints:
            raise ModelInUse(endpoints)

    async def _check(
        self, caller: Caller, request: EndpointCreate | EndpointStageCreate
    ) -> tuple[Flavor, list[EndpointModelSpec]]:
        faults: list[Fault] = []
        flavor: Flavor | None = None
        try:
            flavor = self._flavors.get(request.flavor_id)
            wanted = request.node_count * len(request.endpoint_model_resource_list)
            await self._workloads.check_ever_fits(flavor.vcpus, flavor.memory_bytes, flavor.gpus, wanted)
        except (UnknownFlavor, NeverFits) as fault:
            faults.extend(fault.faults)
        specs: list[EndpointModelSpec] = []
        paths: set[str] = set()
        for index, item in enumerate(request.endpoint_model_resource_list):
            field = f"endpointModelResourceList[{index}]"
            spec = await self._check_model(caller, item, field, faults)
            if spec is not None:
                specs.append(spec)
            if item.apigw_resource_uri is not None:
                if item.apigw_resource_uri in paths:
                    faults.append(Fault(f"{field}.apigwResourceUri", "is used by another model of this stage"))
                paths.add(item.apigw_resource_uri)
        names = [spec.model_name for spec in specs]
        if len(set(names)) != len(names):
            faults.append(Fault("endpointModelResourceList", "two models of one stage can't have the same name"))
        if faults or flavor is None:
            raise Invalid(faults)
        return flavor, specs

    async def _check_model(
        self, caller: Caller, item: EndpointModelCreate, field: str, faults: list[Fault]
    ) -> EndpointModelSpec | None:
        async with self._database.read() as session:
            model = await self._models.find(session, caller.project.id, item.model_id)
        if model is None:
            faults.append(Fault(f"{field}.modelId", f"there is no model '{item.model_id}' in this project"))
            return None
        try:
            await self._storages.check_readable(caller.project, model.spec.artifact_uri)
            return self._model_spec(model, item)
        except StoragePathFault as fault:
            faults.append(Fault(f"{field}.modelId", f"the artifact of '{model.name}' can't be read: {fault.message}"))
        except NoServingImage as fault:
            faults.append(Fault(f"{field}.modelId", fault.faults[0].message))
        return None

    def _model_spec(self, model: Model, item: EndpointModelCreate) -> EndpointModelSpec:
        image = self._images.for_serving(model.spec.format_code, model.spec.framework_version)
        return EndpointModelSpec(
            model_id=model.id,
            model_name=model.name,
            format_code=model.spec.format_code,
            artifact_uri=model.spec.artifact_uri,
            image_id=image.id,
            resource_path=item.apigw_resource_uri,
            parameters=tuple((parameter.name, parameter.value) for parameter in model.spec.parameters),
            serving=item.serving_options or ServingOptions(),
        )

    async def _add_stage(
        self,
        session: AsyncSession,
        caller: Caller,
        endpoint: EndpointRow,
        name: str,
        request: EndpointCreate | EndpointStageCreate,
        flavor: Flavor,
        models: Sequence[EndpointModelSpec],
        *,
        is_default: bool,
    ) -> StageRow:
        now = utc_now()
        for model_id in sorted(
            {model.model_id for model in models}
        ):  # in order: two that wait for each other wait for ever
            await self._models.hold(session, caller.project.id, model_id)
        spec = StageSpec(
            flavor_id=flavor.id, flavor_name=flavor.name, node_count=request.node_count, use_log=request.use_log
        )
        stage = StageRow(
            id=new_id(),
            project_id=endpoint.project_id,
            name=name,
            description=request.description,
            tags=[tag.model_dump(by_alias=True) for tag in request.tag_list],
            spec=spec.model_dump(mode="json"),
            status=StageStatus().model_dump(mode="json"),
            desired="run",
            created_by=caller.actor,
            created_at=now,
            updated_at=now,
            endpoint_id=endpoint.id,
            is_default=is_default,
        )
        born(session, STAGE, stage, actor=caller.actor)
        session.add(stage)
        await session.flush()
        for model, item in zip(models, request.endpoint_model_resource_list, strict=True):
            row = EndpointModelRow(
                id=new_id(),
                project_id=endpoint.project_id,
                name=model.model_name,
                description=item.description,
                tags=[],
                spec=model.model_dump(mode="json"),
                status={},
                desired="run",
                created_by=caller.actor,
                created_at=now,
                updated_at=now,
                endpoint_id=endpoint.id,
                stage_id=stage.id,
                model_id=model.model_id,
            )
            born(session, ENDPOINT_MODEL, row, actor=caller.actor)
            session.add(row)
        await enqueue(session, STAGE_KIND, stage.id)
        return stage

    async def _ask_stage_delete(self, session: AsyncSession, stage: StageRow, actor: str) -> None:
        if stage.desired == "delete":
            return
        stage.desired = "delete"
        stage.generation += 1
        move(session, STAGE, stage, StageState.DELETE_IN_PROGRESS, actor=actor)
        for model in await repository.models_of_stages(session, [stage.id]):
            move(session, ENDPOINT_MODEL, model, EndpointModelState.DELETE_IN_PROGRESS, actor=actor)
        await enqueue(session, STAGE_KIND, stage.id)

    async def _endpoints_out(
        self, session: AsyncSession, caller: Caller, rows: Sequence[EndpointRow]
    ) -> list[EndpointOut]:
        stages = await repository.stages_of(session, [row.id for row in rows])
        views = await self._stage_views(session, caller, stages)
        return [
            self._views.endpoint(row, caller.project, [view for view in views if view.endpoint_id == row.id])
            for row in rows
        ]

    async def _stage_views(
        self, session: AsyncSession, caller: Caller, rows: Sequence[StageRow]
    ) -> Sequence[StageView]:
        endpoints = {row.endpoint_id: await _endpoint(session, caller, row.endpoint_id) for row in rows}
        models = await repository.models_of_stages(session, [row.id for row in rows])
        return await self._views.stages(session, caller.project, rows, endpoints, models)


async def _endpoint(session: AsyncSession, caller: Caller, endpoint_id: str) -> EndpointRow:
    row = await repository.endpoint(session, caller.project.id, endpoint_id)
    if row is None:
        raise NotFound("endpoint", endpoint_id)
    return row


async def _stage(session: AsyncSession, caller: Caller, stage_id: str) -> StageRow:
    row = await repository.stage(session, caller.project.id, stage_id)
    if row is None:
        raise NotFound("endpoint stage", stage_id)
    return row
