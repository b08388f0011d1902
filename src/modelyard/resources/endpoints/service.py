"""Use cases of endpoints, their stages, and the models on them."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.compute.port import LogChunk
from modelyard.control.events import Event, events_of
from modelyard.control.idempotency import claim, recall, remember
from modelyard.control.transitions import born, move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import MAX_BLOCKERS, Blocker, NotFound
from modelyard.kit.ids import new_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.ending import ask_stage_delete
from modelyard.resources.endpoints.errors import (
    BeingDeleted,
    EndpointHasStages,
    EndpointNameTaken,
    GatewayQuotaExceeded,
    OnlyModelOfStage,
    StageIsDefault,
    StageNameReserved,
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
    ENDPOINT_KIND,
    STAGE_KIND,
    EndpointModelSpec,
    EndpointSpec,
    StageSpec,
    StageStatus,
)
from modelyard.resources.endpoints.openings import settings_of
from modelyard.resources.endpoints.preflight import GatewayQuota, StagePreflight, first_count
from modelyard.resources.endpoints.schemas import (
    EndpointCreate,
    EndpointModelOut,
    EndpointOut,
    EndpointStageCreate,
    EndpointStageOut,
)
from modelyard.resources.endpoints.stage_settings import StageSettings
from modelyard.resources.endpoints.table import EndpointModelRow, EndpointRow, StageRow
from modelyard.resources.endpoints.views import StageView, Views
from modelyard.resources.flavors.model import Flavor
from modelyard.resources.models.errors import ModelInUse
from modelyard.resources.models.service import Models
from modelyard.resources.projects.model import Caller
from modelyard.resources.workloads.service import Workloads
from modelyard.wire import Change

_SERVICE_ALPHABET = string.ascii_lowercase + string.digits


class Endpoints:
    """Creates, finds, changes and deletes endpoints and stages."""

    def __init__(
        self,
        database: Database,
        models: Models,
        workloads: Workloads,
        preflight: StagePreflight,
        views: Views,
        quota: GatewayQuota | None = None,
    ) -> None:
        self._database = database
        self._models = models
        self._workloads = workloads
        self._preflight = preflight
        self._views = views
        self._quota = quota or GatewayQuota()

    async def create(self, caller: Caller, request: EndpointCreate) -> EndpointOut:
        """A new endpoint with its default stage."""
        project_id, key = caller.project.id, caller.idempotency_key
        async with self._database.read() as session:
            known_id = await recall(session, project_id, ENDPOINT_KIND, key)
        if known_id is not None:
            return await self.get(caller, known_id)
        flavor, models = await self._preflight.check(caller, request)
        now = utc_now()
        service_id = "".join(secrets.choice(_SERVICE_ALPHABET) for _ in range(12))
        async with self._database.write() as session:
            known_id = await claim(session, project_id, ENDPOINT_KIND, key)
            if known_id is not None:
                return (
                    await self._endpoints_out(
                        session, caller, [await repository.endpoint_or_404(session, caller.project.id, known_id)]
                    )
                )[0]
            if await repository.endpoint_by_name(session, project_id, request.endpoint_name) is not None:
                raise EndpointNameTaken(request.endpoint_name)
            if await repository.count_endpoints(session, project_id) >= self._quota.services:
                raise GatewayQuotaExceeded("API gateway services (endpoints) in a project", self._quota.services)
            self._check_resources(len(models))
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
        flavor, models = await self._preflight.check(caller, request)
        async with self._database.write() as session:
            known_id = await claim(session, project_id, STAGE_KIND, key)
            if known_id is not None:
                stage = await repository.stage_or_404(session, caller.project.id, known_id)
                return (await self._stage_views(session, caller, [stage]))[0].out
            endpoint = await repository.held_endpoint(session, caller.project.id, request.endpoint_id)
            if endpoint.desired == "delete":
                raise BeingDeleted("endpoint", endpoint.name)
            if request.apigw_stage_name == DEFAULT_STAGE_NAME:
                raise StageNameReserved(DEFAULT_STAGE_NAME)
            stages = await repository.stages_of(session, [endpoint.id])
            if any(stage.name == request.apigw_stage_name for stage in stages):
                raise StageNameTaken(request.apigw_stage_name)
            if len(stages) >= self._quota.stages_per_service:
                raise GatewayQuotaExceeded("stages of an API gateway service", self._quota.stages_per_service)
            known = await repository.models_of_stages(session, [stage.id for stage in stages])
            self._check_resources(len(known) + len(models))
            row = await self._add_stage(
                session,
                caller,
                endpoint,
                request.apigw_stage_name,
                request,
                flavor,
                models,
                is_default=False,
                settings=_inherited(stages),
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
            row = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            return (await self._endpoints_out(session, caller, [row]))[0]

    async def list_stages(self, caller: Caller, endpoint_id: str | None) -> Sequence[EndpointStageOut]:
        """Stages of an endpoint, or of all."""
        async with self._database.read() as session:
            if endpoint_id is None:
                rows = await repository.stages_of_project(session, caller.project.id)
            else:
                endpoint = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
                rows = await repository.stages_of(session, [endpoint.id])
            return [view.out for view in await self._stage_views(session, caller, rows)]

    async def get_stage(self, caller: Caller, stage_id: str) -> EndpointStageOut:
        """One stage."""
        async with self._database.read() as session:
            row = await repository.stage_or_404(session, caller.project.id, stage_id)
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
            row = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
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
            row = await repository.held_endpoint(session, caller.project.id, endpoint_id)
            stages = await repository.stages_of(session, [row.id])
            spec = EndpointSpec.model_validate(row.spec)
            former = spec.former
            passing = set[str]()  # on its way out; until its time has come it is one that somebody keeps
            if former is not None and former.until <= utc_now() and not spec.is_former_in_use:
                passing.add(former.stage_id)
            others = [
                Blocker("stage", stage.id, stage.name)
                for stage in stages
                if not stage.is_default and stage.desired != "delete" and stage.id not in passing
            ]
            if others:
                raise EndpointHasStages(others)
            row.desired = "delete"
            row.generation += 1
            move(session, ENDPOINT, row, EndpointState.DELETE_IN_PROGRESS, actor=caller.actor)
            for stage in stages:
                await ask_stage_delete(session, stage, actor=caller.actor)
            await enqueue(session, ENDPOINT_KIND, row.id)

    async def delete_stage(self, caller: Caller, stage_id: str) -> None:
        """Delete a stage. Raises `StageIsDefault`."""
        async with self._database.write() as session:
            row = await repository.held_stage(session, caller.project.id, stage_id)
            if row.is_default:
                raise StageIsDefault(row.name)
            await ask_stage_delete(session, row, actor=caller.actor)
            await enqueue(session, ENDPOINT_KIND, row.endpoint_id)

    async def delete_model(self, caller: Caller, endpoint_model_id: str) -> None:
        """Take a model off its stage: no new request goes to it, then its servers end. Raises `OnlyModelOfStage`."""
        async with self._database.write() as session:
            row = await repository.endpoint_model(session, caller.project.id, endpoint_model_id)
            if row is None:
                raise NotFound("endpoint model", endpoint_model_id)
            if row.desired == "delete":
                return
            stage = await repository.stage_or_404(session, caller.project.id, row.stage_id)
            await session.refresh(stage, with_for_update=True)  # two at once must not take each other's last one off
            if len(await repository.staying_models(session, [stage.id])) == 1:
                raise OnlyModelOfStage(row.name, stage.name)
            row.desired = "delete"
            move(session, ENDPOINT_MODEL, row, EndpointModelState.DELETE_IN_PROGRESS, actor=caller.actor)
            await enqueue(session, STAGE_KIND, stage.id)

    async def read_output(
        self, caller: Caller, stage_id: str, model: str | None, index: int, offset: int, limit_bytes: int
    ) -> LogChunk:
        """A piece of what a server of one of the stage's models (its name or id; None is the first one) has printed.

        Of servers that could not be started there are the last lines.
        """
        async with self._database.read() as session:
            row = await repository.stage_or_404(session, caller.project.id, stage_id)
            models = await repository.models_of_stages(session, [row.id])
        wanted = next((item for item in models if model in (None, item.id, item.name)), None)
        if wanted is None:
            raise NotFound("endpoint model", str(model))
        chunk = await self._workloads.read_output(wanted.id, index, offset, limit_bytes)
        kept = StageStatus.model_validate(row.status).last_lines
        if row.state == StageState.CREATE_FAILED and kept and chunk.is_end and chunk.next_offset == offset:
            data = "".join(f"{line}\n" for line in kept).encode()
            piece = data[offset : offset + limit_bytes]
            return LogChunk(offset, piece, offset + len(piece), is_end=offset + len(piece) >= len(data))
        return chunk

    async def events(self, caller: Caller, endpoint_id: str) -> Sequence[Event]:
        """What has happened to an endpoint, oldest first."""
        async with self._database.read() as session:
            row = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            return await events_of(session, ENDPOINT_KIND, row.id)

    async def stage_events(self, caller: Caller, stage_id: str) -> Sequence[Event]:
        """What has happened to a stage, oldest first."""
        async with self._database.read() as session:
            row = await repository.stage_or_404(session, caller.project.id, stage_id)
            return await events_of(session, STAGE_KIND, row.id)

    def _check_resources(self, count: int) -> None:
        if count > self._quota.resources_per_service:
            what = "resources (models on stages) of an API gateway service"
            raise GatewayQuotaExceeded(what, self._quota.resources_per_service)

    async def guard_model(self, session: AsyncSession, model_id: str) -> None:
        """Raise `ModelInUse` while the model is deployed somewhere."""
        endpoints = await repository.endpoints_using(session, model_id, MAX_BLOCKERS + 1)
        if endpoints:
            raise ModelInUse(endpoints)

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
        settings: StageSettings | None = None,
    ) -> StageRow:
        now = utc_now()
        for model_id in sorted(
            {model.model_id for model in models}
        ):  # in order: two that wait for each other wait for ever
            await self._models.hold(session, caller.project.id, model_id)
        spec = StageSpec(
            flavor_id=flavor.id,
            flavor_name=flavor.name,
            node_count=first_count(request),
            use_log=request.use_log,
            scaling=None if request.auto_scaler is None else request.auto_scaler.scaling(),
            settings=request.stage_settings or settings or StageSettings(),
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
            is_scaled=spec.scaling is not None,
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
        endpoints = {
            row.endpoint_id: await repository.endpoint_or_404(session, caller.project.id, row.endpoint_id)
            for row in rows
        }
        models = await repository.models_of_stages(session, [row.id for row in rows])
        return await self._views.stages(session, caller.project, rows, endpoints, models)


def _inherited(stages: Sequence[StageRow]) -> StageSettings | None:
    """A new stage asks for what the default one asks for, so that it can take over without opening the endpoint to more."""
    default = next((stage for stage in stages if stage.is_default), None)
    return None if default is None else settings_of(default).model_copy(update={"mirror": None})
