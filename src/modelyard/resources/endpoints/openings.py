"""Reads what a stage asks of requests: its settings, its endpoint's API keys, and the stage that gets copies."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.work import enqueue
from modelyard.resources.endpoints import repository
from modelyard.resources.endpoints.model import ENDPOINT_KIND, STAGE_KIND, EndpointModelSpec, StageSpec
from modelyard.resources.endpoints.opening import SETTINGS_LABEL, Opening, rate_of
from modelyard.resources.endpoints.stage_settings import RateLimit, StageSettings
from modelyard.resources.endpoints.table import ApiKeyRow, StageRow
from modelyard.resources.routes.lifecycle import RouteState
from modelyard.resources.routes.model import ApiKey, Route
from modelyard.resources.workloads.service import Workloads


def settings_of(stage: StageRow) -> StageSettings:
    """The settings of a stage."""
    return StageSpec.model_validate(stage.spec).settings


def limit_of(row: ApiKeyRow) -> RateLimit | None:
    """The limit of an API key's own."""
    return None if row.rate_limit is None else RateLimit.model_validate(row.rate_limit)


async def read_opening(session: AsyncSession, workloads: Workloads, stage: StageRow) -> Opening:
    """What the stage asks of requests. A mirror of which no model server is ready is left out until one is."""
    settings = settings_of(stage)
    keys: tuple[ApiKey, ...] = ()
    if settings.is_api_key_required:
        rows = await repository.api_keys(session, stage.endpoint_id)
        keys = tuple(ApiKey(row.id, row.digest, rate_of(limit_of(row))) for row in rows)
    if settings.mirror is None:
        return Opening(stage.id, settings, keys)
    models = await repository.staying_models(session, [settings.mirror.endpoint_stage_id])
    seen = await workloads.get_many(session, [model.id for model in models])
    addresses = {model.id: seen[model.id].ready_addresses for model in models if model.id in seen}
    if not models or not all(addresses.get(model.id) for model in models):
        return Opening(stage.id, settings, keys)
    specs = [(model.id, EndpointModelSpec.model_validate(model.spec)) for model in models]
    return Opening(stage.id, settings, keys, specs, addresses)


def keeps(route: Route | None, opening: Opening) -> bool:
    """Whether the gateway has the route with these settings."""
    if route is None or route.state is not RouteState.ACTIVE or not route.is_current:
        return False
    return route.spec.labels.get(SETTINGS_LABEL) == opening.digest


async def wake(session: AsyncSession, stage: StageRow) -> None:
    """Let the routes that keep this stage's settings be looked at."""
    await enqueue(session, STAGE_KIND, stage.id)
    await enqueue(session, ENDPOINT_KIND, stage.endpoint_id)


async def wake_mirrored(session: AsyncSession, mirror: StageRow) -> None:
    """Let the stages be looked at whose requests are copied to this one: its model servers came or went."""
    for stage in await repository.stages_of(session, [mirror.endpoint_id]):
        settings = settings_of(stage)
        if settings.mirror is not None and settings.mirror.endpoint_stage_id == mirror.id:
            await wake(session, stage)


async def end_mirrors(session: AsyncSession, mirror: StageRow) -> None:
    """The stage goes: nobody's requests are copied to it any more."""
    for stage in await repository.stages_of(session, [mirror.endpoint_id]):
        spec = StageSpec.model_validate(stage.spec)
        if spec.settings.mirror is not None and spec.settings.mirror.endpoint_stage_id == mirror.id:
            settings = spec.settings.model_copy(update={"mirror": None})
            stage.spec = spec.model_copy(update={"settings": settings}).model_dump(mode="json")
            stage.generation += 1
            await wake(session, stage)
