"""Which stages answer an endpoint's requests: the default stage, a split over several, and what answered when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.transitions import move
from modelyard.control.work import enqueue
from modelyard.db.engine import Database
from modelyard.kit.clock import utc_now
from modelyard.kit.errors import Fault, Invalid
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.ending import ask_stage_delete
from modelyard.resources.endpoints.errors import BeingDeleted, NothingToRevert, StageAsksForLess, StageNotReady
from modelyard.resources.endpoints.instances import resource_path
from modelyard.resources.endpoints.lifecycle import ENDPOINT, EndpointState, StageState
from modelyard.resources.endpoints.model import (
    ENDPOINT_KIND,
    STAGE_KIND,
    EndpointModelSpec,
    EndpointSpec,
    Former,
    ServingStage,
    Share,
    StageSpec,
)
from modelyard.resources.endpoints.schemas import (
    DefaultStageChange,
    StageGatewaySettings,
    TrafficChange,
    TrafficEntry,
    TrafficModel,
    TrafficStage,
)
from modelyard.resources.endpoints.table import EndpointRow, StageRow
from modelyard.resources.endpoints.views import settings_out
from modelyard.resources.projects.model import Caller
from modelyard.resources.routes.service import Routes

_HISTORY_LIMIT = 1000


class Traffic:
    """Changes and tells which stages answer."""

    def __init__(self, database: Database, routes: Routes) -> None:
        self._database = database
        self._routes = routes

    async def change_default(self, caller: Caller, endpoint_id: str, change: DefaultStageChange) -> None:
        """Make another stage the default one: it takes over at once, and the old one's resources go (`keepMinutes` later).

        Raises `StageNotReady` for a stage that could not answer. Asking again for the stage that is the default one changes nothing.
        """
        async with self._database.write() as session:
            endpoint = await _living(session, caller, endpoint_id)
            stages = await repository.stages_of(session, [endpoint.id])
            chosen = _chosen(stages, change.endpoint_stage_id, "endpointStageId")
            if not chosen.is_default:
                if not change.is_weaker_allowed:
                    _check_not_weaker(stages, chosen)
                await _make_default(session, endpoint, stages, chosen, change.keep_minutes, caller.actor)

    async def revert(self, caller: Caller, endpoint_id: str) -> None:
        """Give the former default stage its place back; the one that had taken over is kept for as long. Raises `NothingToRevert`."""
        async with self._database.write() as session:
            endpoint = await _living(session, caller, endpoint_id)
            former = EndpointSpec.model_validate(endpoint.spec).former
            stages = await repository.stages_of(session, [endpoint.id])
            chosen = next((stage for stage in stages if former is not None and stage.id == former.stage_id), None)
            if former is None or chosen is None or chosen.desired == "delete":
                raise NothingToRevert(endpoint.name)
            _check_ready(chosen)
            _check_not_weaker(stages, chosen)
            remaining = (former.until - utc_now()).total_seconds() / 60
            await _make_default(session, endpoint, stages, chosen, max(0, round(remaining)), caller.actor)

    async def split(self, caller: Caller, endpoint_id: str, change: TrafficChange) -> None:
        """Spread the endpoint's requests over stages by weight. An empty list sends all to the default stage again."""
        async with self._database.write() as session:
            endpoint = await _living(session, caller, endpoint_id)
            stages = await repository.stages_of(session, [endpoint.id])
            faults: list[Fault] = []
            shares: list[Share] = []
            for index, item in enumerate(change.share_list):
                try:
                    stage = _chosen(stages, item.endpoint_stage_id, f"shareList[{index}].endpointStageId")
                    shares.append(Share(stage_id=stage.id, weight=item.weight))
                except Invalid as fault:
                    faults.extend(fault.faults)
            if len({share.stage_id for share in shares}) != len(shares):
                faults.append(Fault("shareList", "names a stage twice"))
            if change.share_list and not sum(item.weight for item in change.share_list):
                faults.append(Fault("shareList", "one weight at least must be above 0"))
            if not faults:
                faults.extend(await _unlike(session, stages, shares))
            if faults:
                raise Invalid(faults)
            spec = EndpointSpec.model_validate(endpoint.spec)
            await _rewrite(session, endpoint, spec.model_copy(update={"shares": tuple(shares)}), caller.actor)

    async def deploy(self, caller: Caller, stage_id: str) -> None:
        """Deploy the stage at the gateway anew, whatever the gateway has. Raises `StageNotReady` while it was never deployed."""
        async with self._database.write() as session:
            stage = await repository.stage_or_404(session, caller.project.id, stage_id)
            ids = [stage.id, *([stage.endpoint_id] if stage.is_default else [])]
            asked = [await self._routes.deploy(session, id, actor=caller.actor) for id in ids]
            if not all(asked):
                raise StageNotReady(stage.name, stage.state)

    async def gateway_settings(self, caller: Caller, stage_id: str) -> StageGatewaySettings:
        """What is deployed at the gateway for a stage: in words, and in the gateway's own language as it has it now."""
        async with self._database.read() as session:
            stage = await repository.stage_or_404(session, caller.project.id, stage_id)
            route = await self._routes.get(session, stage.id)
        if route is None:
            raise StageNotReady(stage.name, stage.state)
        settings = StageSpec.model_validate(stage.spec).settings
        return settings_out(route, settings, await self._routes.read_configuration(route.id))

    async def history(self, caller: Caller, endpoint_id: str, at: datetime | None) -> Sequence[TrafficEntry]:
        """Which stages and models answered since when, newest first; with `at`, what answered at that moment (nothing before the first)."""
        async with self._database.read() as session:
            endpoint = await repository.endpoint_or_404(session, caller.project.id, endpoint_id)
            rows = await repository.traffic_history(session, endpoint.id, at, _HISTORY_LIMIT)
        return [
            TrafficEntry(since=row.since, stage_list=[_stage_out(ServingStage.model_validate(s)) for s in row.stages])
            for row in rows
        ]


async def _make_default(
    session: AsyncSession,
    endpoint: EndpointRow,
    stages: Sequence[StageRow],
    chosen: StageRow,
    keep_minutes: int,
    actor: str,
) -> None:
    spec = EndpointSpec.model_validate(endpoint.spec)
    old = next((stage for stage in stages if stage.is_default), None)
    for stage in stages:
        stage.is_default = stage.id == chosen.id
    if spec.former is not None and spec.former.stage_id != chosen.id:  # who waits for a revert waits in vain now
        for stage in stages:
            if stage.id == spec.former.stage_id:
                await ask_stage_delete(session, stage, actor=actor)
    former = None
    if old is not None:
        former = Former(stage_id=old.id, until=utc_now() + timedelta(minutes=keep_minutes))
    changed = spec.model_copy(update={"shares": (), "former": former})
    await _rewrite(session, endpoint, changed, actor, f"'{chosen.name}' becomes the default stage.")
    for stage in (chosen, old):
        if stage is not None:
            await enqueue(session, STAGE_KIND, stage.id)


async def _rewrite(
    session: AsyncSession, endpoint: EndpointRow, spec: EndpointSpec, actor: str, message: str | None = None
) -> None:
    endpoint.spec = spec.model_dump(mode="json")
    endpoint.generation += 1
    endpoint.updated_at = utc_now()
    state = EndpointState.UPDATE_IN_PROGRESS
    if EndpointState(endpoint.state) in (EndpointState.ACTIVE, EndpointState.UPDATE_FAILED, state):
        move(session, ENDPOINT, endpoint, state, reason="TRAFFIC_CHANGED", message=message, actor=actor)
    await enqueue(session, ENDPOINT_KIND, endpoint.id)


async def _living(session: AsyncSession, caller: Caller, endpoint_id: str) -> EndpointRow:
    endpoint = await repository.held_endpoint(session, caller.project.id, endpoint_id)
    if endpoint.desired == "delete":
        raise BeingDeleted("endpoint", endpoint.name)
    return endpoint


def _chosen(stages: Sequence[StageRow], stage_id: str, field: str) -> StageRow:
    stage = next((stage for stage in stages if stage.id == stage_id), None)
    if stage is None:
        raise Invalid([Fault(field, f"the endpoint has no stage '{stage_id}'")])
    _check_ready(stage)
    return stage


def _check_not_weaker(stages: Sequence[StageRow], chosen: StageRow) -> None:
    """The endpoint's address keeps the settings of its default stage: whoever takes over must not open it by mistake."""
    default = next((stage for stage in stages if stage.is_default), None)
    if default is None:
        return
    before, after = (StageSpec.model_validate(stage.spec).settings for stage in (default, chosen))
    missing: list[str] = []
    if before.is_api_key_required and not after.is_api_key_required:
        missing.append("an API key")
    if before.allow_address_list and not after.allow_address_list:
        missing.append("clients of listed addresses")
    if missing:
        raise StageAsksForLess(chosen.name, default.name, missing)


def _check_ready(stage: StageRow) -> None:
    if stage.desired == "delete" or stage.state != StageState.ACTIVE.value:
        raise StageNotReady(stage.name, stage.state)


async def _unlike(session: AsyncSession, stages: Sequence[StageRow], shares: Sequence[Share]) -> list[Fault]:
    """A request must mean the same on each stage that may get it: all of them answer on the same resource paths."""
    default = next(stage for stage in stages if stage.is_default)
    wanted = await paths_of(session, default.id)
    by_id = {stage.id: stage for stage in stages}
    faults: list[Fault] = []
    for index, share in enumerate(shares):
        paths = await paths_of(session, share.stage_id)
        if paths != wanted:
            faults.append(
                Fault(
                    f"shareList[{index}].endpointStageId",
                    f"'{by_id[share.stage_id].name}' answers on {listed_paths(paths)}, the default stage on {listed_paths(wanted)}; "
                    "stages that share requests must answer on the same paths",
                )
            )
    return faults


async def paths_of(session: AsyncSession, stage_id: str) -> set[str]:
    """The paths that the models of a stage answer on."""
    models = [
        EndpointModelSpec.model_validate(row.spec) for row in await repository.staying_models(session, [stage_id])
    ]
    found = (resource_path(model, len(models)) or f"/v1/models/{model.model_name}" for model in models)
    return set(found)


def listed_paths(paths: set[str]) -> str:
    """The paths in a sentence."""
    return ", ".join(f"'{path}'" for path in sorted(paths))


def _stage_out(stage: ServingStage) -> TrafficStage:
    return TrafficStage(
        endpoint_stage_id=stage.stage_id,
        name=stage.stage_name,
        weight=stage.weight,
        model_list=[
            TrafficModel(
                endpoint_model_id=model.endpoint_model_id,
                model_id=model.model_id,
                model_name=model.model_name,
                model_upload_uri=model.artifact_uri,
            )
            for model in stage.models
        ],
    )
