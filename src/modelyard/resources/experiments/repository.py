"""Queries on experiments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.listing import Listing, Wanted
from modelyard.kit.ids import first_id
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.experiments.table import ExperimentRow

LISTING = Listing(
    ExperimentRow,
    {
        "updatedDatetime": ExperimentRow.updated_at,
        "experimentName": ExperimentRow.name,
        "experimentStatusCode": ExperimentRow.state,
    },
)
_IS_THERE = ExperimentRow.desired != literal_column("'delete'")


@dataclass(frozen=True, slots=True)
class ExperimentFilter:
    """Which experiments; empty means all. `created_from` is the first moment that is in, `created_to` the first that is out again."""

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    states: Sequence[str] = ()
    name_part: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def by_id(session: AsyncSession, project_id: str, experiment_id: str) -> ExperimentRow | None:
    """An experiment of the project."""
    row = await session.get(ExperimentRow, experiment_id)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def held(session: AsyncSession, project_id: str, experiment_id: str) -> ExperimentRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(ExperimentRow, experiment_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


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
    statement = select(ExperimentRow).where(
        ExperimentRow.project_id == project_id, ExperimentRow.name == name, _IS_THERE
    )
    return await session.scalar(statement)


async def count(session: AsyncSession, project_id: str, limit: int) -> int:
    """How many experiments the project has; counts no further than `limit`."""
    found = select(ExperimentRow.id).where(ExperimentRow.project_id == project_id, _IS_THERE).limit(limit)
    return await session.scalar(select(func.count()).select_from(found.subquery())) or 0


async def page(
    session: AsyncSession, project_id: str, wanted: ExperimentFilter, request: PageRequest
) -> Page[ExperimentRow]:
    """Experiments of the project, as the request sorts them."""
    conditions: list[ColumnElement[bool]] = [ExperimentRow.project_id == project_id, _IS_THERE]
    if wanted.ids:
        conditions.append(ExperimentRow.id.in_(wanted.ids))
    if wanted.names:
        conditions.append(ExperimentRow.name.in_(wanted.names))
    if wanted.states:
        conditions.append(ExperimentRow.state.in_(wanted.states))
    if wanted.name_part:
        conditions.append(ExperimentRow.name.icontains(wanted.name_part, autoescape=True))
    if wanted.created_from is not None:
        conditions.append(ExperimentRow.id >= first_id(wanted.created_from))
    if wanted.created_to is not None:
        conditions.append(ExperimentRow.id < first_id(wanted.created_to))
    return await LISTING.page(session, Wanted(conditions), request)
