"""Queries on endpoints, stages and the models on them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.rows import row_of
from modelyard.kit.errors import Blocker, NotFound
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.endpoints.table import (
    ApiKeyRow,
    CallBlockRow,
    CallMarkRow,
    EndpointModelRow,
    EndpointRow,
    StageRow,
    TrafficRow,
)


async def endpoint(session: AsyncSession, project_id: str, endpoint_id: str) -> EndpointRow | None:
    """An endpoint of the project."""
    row = await session.get(EndpointRow, endpoint_id)
    return row if row is not None and row.project_id == project_id else None


async def endpoint_or_404(session: AsyncSession, project_id: str, endpoint_id: str) -> EndpointRow:
    """An endpoint of the project. Raises `NotFound`."""
    row = await endpoint(session, project_id, endpoint_id)
    if row is None:
        raise NotFound("endpoint", endpoint_id)
    return row


async def held_endpoint(session: AsyncSession, project_id: str, endpoint_id: str) -> EndpointRow:
    """An endpoint of the project, as it is now, and for this transaction alone. Raises `NotFound`.

    Who changes an endpoint's spec, or a stage's, or what of them is wanted, holds the endpoint: so nobody writes over what another has
    written since it was read, or rests on what is no longer so.
    """
    row = await row_of(session, EndpointRow, endpoint_id, lock="wait")
    if row is None or row.project_id != project_id:
        raise NotFound("endpoint", endpoint_id)
    return row


async def endpoint_by_key(session: AsyncSession, endpoint_id: str) -> EndpointRow | None:
    """An endpoint of any project, for the reconciler."""
    return await session.get(EndpointRow, endpoint_id)


async def endpoint_by_name(session: AsyncSession, project_id: str, name: str) -> EndpointRow | None:
    """The endpoint of this name."""
    statement = select(EndpointRow).where(EndpointRow.project_id == project_id, EndpointRow.name == name)
    return await session.scalar(statement)


async def endpoints(
    session: AsyncSession, project_id: str, ids: Collection[str], names: Collection[str], request: PageRequest
) -> Page[EndpointRow]:
    """Endpoints of the project, newest first."""
    conditions = [EndpointRow.project_id == project_id]
    if ids:
        conditions.append(EndpointRow.id.in_(ids))
    if names:
        conditions.append(EndpointRow.name.in_(names))
    counted = select(func.count(EndpointRow.id)).where(*conditions)
    ordered = select(EndpointRow).where(*conditions).order_by(EndpointRow.id.desc())
    rows = (await session.scalars(ordered.limit(request.limit).offset(request.offset))).all()
    return Page(rows, await session.scalar(counted) or 0, request)


async def count_endpoints(session: AsyncSession, project_id: str) -> int:
    """How many endpoints the project has."""
    counted = select(func.count(EndpointRow.id)).where(EndpointRow.project_id == project_id)
    return await session.scalar(counted) or 0


async def stage(session: AsyncSession, project_id: str, stage_id: str) -> StageRow | None:
    """A stage of the project."""
    row = await session.get(StageRow, stage_id)
    return row if row is not None and row.project_id == project_id else None


async def stage_or_404(session: AsyncSession, project_id: str, stage_id: str) -> StageRow:
    """A stage of the project. Raises `NotFound`."""
    row = await stage(session, project_id, stage_id)
    if row is None:
        raise NotFound("endpoint stage", stage_id)
    return row


async def held_stage(session: AsyncSession, project_id: str, stage_id: str) -> StageRow:
    """A stage of the project, as it is while its endpoint is held. Raises `NotFound`."""
    seen = await stage_or_404(session, project_id, stage_id)
    await held_endpoint(session, project_id, seen.endpoint_id)
    row = await session.get(StageRow, stage_id, populate_existing=True)
    if row is None:
        raise NotFound("endpoint stage", stage_id)
    return row


async def stage_by_key(session: AsyncSession, stage_id: str) -> StageRow | None:
    """A stage of any project, for the reconciler."""
    return await session.get(StageRow, stage_id)


async def stages_of(session: AsyncSession, endpoint_ids: Collection[str]) -> Sequence[StageRow]:
    """Stages of the endpoints, the default one first, then oldest first."""
    statement = select(StageRow).where(StageRow.endpoint_id.in_(endpoint_ids))
    return (await session.scalars(statement.order_by(StageRow.is_default.desc(), StageRow.id))).all()


async def stages_of_project(session: AsyncSession, project_id: str) -> Sequence[StageRow]:
    """All stages of a project."""
    return (await session.scalars(select(StageRow).where(StageRow.project_id == project_id))).all()


async def endpoint_model(session: AsyncSession, project_id: str, endpoint_model_id: str) -> EndpointModelRow | None:
    """A model on a stage of the project."""
    row = await session.get(EndpointModelRow, endpoint_model_id)
    return row if row is not None and row.project_id == project_id else None


async def models_of_stages(session: AsyncSession, stage_ids: Collection[str]) -> Sequence[EndpointModelRow]:
    """Models on the stages, in the order in which they were given."""
    statement = select(EndpointModelRow).where(EndpointModelRow.stage_id.in_(stage_ids))
    return (await session.scalars(statement.order_by(EndpointModelRow.id))).all()


async def staying_models(session: AsyncSession, stage_ids: Collection[str]) -> Sequence[EndpointModelRow]:
    """Models on the stages but those that are being taken off."""
    return [row for row in await models_of_stages(session, stage_ids) if row.desired != "delete"]


async def stages_by_ids(session: AsyncSession, ids: Collection[str]) -> Sequence[StageRow]:
    """The stages of these ids that there are, of all projects."""
    return (await session.scalars(select(StageRow).where(StageRow.id.in_(ids)))).all()


async def default_stages(session: AsyncSession, endpoint_ids: Collection[str]) -> Sequence[StageRow]:
    """The default stages of these endpoints, of all projects."""
    statement = select(StageRow).where(StageRow.endpoint_id.in_(endpoint_ids), StageRow.is_default.is_(True))
    return (await session.scalars(statement)).all()


async def api_keys(session: AsyncSession, endpoint_id: str) -> Sequence[ApiKeyRow]:
    """API keys of an endpoint, oldest first."""
    statement = select(ApiKeyRow).where(ApiKeyRow.endpoint_id == endpoint_id)
    return (await session.scalars(statement.order_by(ApiKeyRow.created_at, ApiKeyRow.id))).all()


async def api_keys_by_ids(session: AsyncSession, ids: Collection[str]) -> Sequence[ApiKeyRow]:
    """The API keys of these ids that there are, of all projects."""
    return (await session.scalars(select(ApiKeyRow).where(ApiKeyRow.id.in_(ids)))).all()


async def traffic_history(
    session: AsyncSession, endpoint_id: str, at: datetime | None, limit: int
) -> Sequence[TrafficRow]:
    """What an endpoint's requests went to, newest first; with `at`, only what held then."""
    statement = select(TrafficRow).where(TrafficRow.endpoint_id == endpoint_id)
    if at is not None:
        statement = statement.where(TrafficRow.since <= at)
    ordered = statement.order_by(TrafficRow.since.desc(), TrafficRow.id.desc())
    return (await session.scalars(ordered.limit(limit if at is None else 1))).all()


async def models_by_ids(session: AsyncSession, ids: Collection[str]) -> Sequence[EndpointModelRow]:
    """The models of these ids that there are, of all projects."""
    return (await session.scalars(select(EndpointModelRow).where(EndpointModelRow.id.in_(ids)))).all()


async def model_by_key(session: AsyncSession, endpoint_model_id: str) -> EndpointModelRow | None:
    """A model on a stage of any project."""
    return await session.get(EndpointModelRow, endpoint_model_id)


async def call_marks(session: AsyncSession, ids: Collection[str]) -> dict[str, CallMarkRow]:
    """What the counters of these models said last."""
    rows = await session.scalars(select(CallMarkRow).where(CallMarkRow.endpoint_model_id.in_(ids)))
    return {row.endpoint_model_id: row for row in rows}


async def marked_ids(session: AsyncSession) -> frozenset[str]:
    """Everything whose counters were read."""
    return frozenset(await session.scalars(select(CallMarkRow.endpoint_model_id)))


async def counted_keys(session: AsyncSession) -> frozenset[str]:
    """API keys that the gateway has counted calls of."""
    return frozenset(await session.scalars(select(ApiKeyRow.id).where(ApiKeyRow.gateway_count > 0)))


async def call_blocks(
    session: AsyncSession, endpoint_id: str, span_seconds: int, first: int, last: int, besides: Collection[int] = ()
) -> Sequence[CallBlockRow]:
    """Blocks of an endpoint that start from `first` to `last`, oldest first, without those that start at a time of `besides`."""
    statement = select(CallBlockRow).where(
        CallBlockRow.endpoint_id == endpoint_id,
        CallBlockRow.span_seconds == span_seconds,
        CallBlockRow.starts_at.between(first, last),
        CallBlockRow.starts_at.not_in(besides),
    )
    return (await session.scalars(statement.order_by(CallBlockRow.starts_at))).all()


async def call_block(
    session: AsyncSession, endpoint_model_id: str, span_seconds: int, starts_at: int
) -> CallBlockRow | None:
    """One block."""
    return await session.get(CallBlockRow, (endpoint_model_id, span_seconds, starts_at))


async def forget_old_calls(session: AsyncSession, span_seconds: int, before: int) -> None:
    """Delete the blocks that start before that moment."""
    old = CallBlockRow.span_seconds == span_seconds, CallBlockRow.starts_at < before
    await session.execute(delete(CallBlockRow).where(*old))


async def forget_calls(session: AsyncSession, endpoint_id: str) -> None:
    """Delete all blocks of an endpoint."""
    await session.execute(delete(CallBlockRow).where(CallBlockRow.endpoint_id == endpoint_id))


async def forget_call_mark(session: AsyncSession, endpoint_model_id: str) -> None:
    """Delete what the counters of a model said last."""
    await session.execute(delete(CallMarkRow).where(CallMarkRow.endpoint_model_id == endpoint_model_id))


async def endpoints_using(session: AsyncSession, model_id: str, limit: int) -> Sequence[Blocker]:
    """Some endpoints that a model is deployed on, oldest first."""
    statement = (
        select(EndpointRow.id, EndpointRow.name)
        .join(EndpointModelRow, EndpointModelRow.endpoint_id == EndpointRow.id)
        .where(EndpointModelRow.model_id == model_id)
        .distinct()
        .order_by(EndpointRow.id)
        .limit(limit)
    )
    return [Blocker("endpoint", id, name) for id, name in await session.execute(statement)]


async def scaled_stages(session: AsyncSession) -> Sequence[StageRow]:
    """The stages of all projects of which the number of model servers follows the load."""
    statement = select(StageRow).where(StageRow.is_scaled.is_(True), StageRow.desired == "run")
    return (await session.scalars(statement.order_by(StageRow.id))).all()
