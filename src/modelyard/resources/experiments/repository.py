"""Queries on experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.experiments.table import ExperimentRow


@dataclass(frozen=True, slots=True)
class ExperimentFilter:
    """Which experiments; empty means all."""

    ids: Sequence[str] = ()
    names: Sequence[str] = ()


async def by_id(session: AsyncSession, project_id: str, experiment_id: str) -> ExperimentRow | None:
    """An experiment of the project."""
    row = await session.get(ExperimentRow, experiment_id)
    return row if row is not None and row.project_id == project_id else None


async def held(session: AsyncSession, project_id: str, experiment_id: str) -> ExperimentRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(ExperimentRow, experiment_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id else None


async def by_key(session: AsyncSession, experiment_id: str) -> ExperimentRow | None:
    """An experiment of any project, for the reconciler."""
    return await session.get(ExperimentRow, experiment_id)


async def by_ids(session: AsyncSession, ids: Sequence[str]) -> Sequence[ExperimentRow]:
    """Several experiments."""
    if not ids:
        return ()
    return (await session.scalars(select(ExperimentRow).where(ExperimentRow.id.in_(ids)))).all()


async def by_name(session: AsyncSession, project_id: str, name: str) -> ExperimentRow | None:
    """The experiment of this name."""
    statement = select(ExperimentRow).where(ExperimentRow.project_id == project_id, ExperimentRow.name == name)
    return await session.scalar(statement)


async def count(session: AsyncSession, project_id: str, limit: int) -> int:
    """How many experiments the project has; counts no further than `limit`."""
    found = select(ExperimentRow.id).where(ExperimentRow.project_id == project_id).limit(limit)
    return await session.scalar(select(func.count()).select_from(found.subquery())) or 0


async def page(
    session: AsyncSession, project_id: str, wanted: ExperimentFilter, request: PageRequest
) -> Page[ExperimentRow]:
    """Experiments of the project, newest first."""
    statement = select(ExperimentRow).where(ExperimentRow.project_id == project_id)
    if wanted.ids:
        statement = statement.where(ExperimentRow.id.in_(wanted.ids))
    if wanted.names:
        statement = statement.where(ExperimentRow.name.in_(wanted.names))
    total_count = await session.scalar(select(func.count()).select_from(statement.subquery())) or 0
    ordered = statement.order_by(ExperimentRow.id.desc()).limit(request.limit).offset(request.offset)
    return Page((await session.scalars(ordered)).all(), total_count, request)
