"""Queries on trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.trainings.table import TrainingRow


@dataclass(frozen=True, slots=True)
class TrainingFilter:
    """Which trainings; empty means all."""

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    states: Sequence[str] = ()
    experiment_id: str | None = None


async def by_id(session: AsyncSession, project_id: str, training_id: str) -> TrainingRow | None:
    """A training of the project."""
    row = await session.get(TrainingRow, training_id)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def held(session: AsyncSession, project_id: str, training_id: str) -> TrainingRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(TrainingRow, training_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id and row.desired != "delete" else None


async def by_key(session: AsyncSession, training_id: str) -> TrainingRow | None:
    """A training of any project, for the reconciler."""
    return await session.get(TrainingRow, training_id)


async def names_in_experiment(session: AsyncSession, experiment_id: str, limit: int) -> Sequence[str]:
    """Names of some trainings of an experiment."""
    statement = select(TrainingRow.name).where(
        TrainingRow.experiment_id == experiment_id, TrainingRow.desired != "delete"
    )
    return (await session.scalars(statement.limit(limit))).all()


async def page(
    session: AsyncSession, project_id: str, wanted: TrainingFilter, request: PageRequest
) -> Page[TrainingRow]:
    """Trainings of the project, newest first."""
    conditions = _conditions(project_id, wanted)
    counted = select(func.count(TrainingRow.id)).where(*conditions)
    ordered = (
        select(TrainingRow)
        .where(*conditions)
        .order_by(TrainingRow.id.desc())
        .limit(request.limit)
        .offset(request.offset)
    )
    return Page((await session.scalars(ordered)).all(), await session.scalar(counted) or 0, request)


def _conditions(project_id: str, wanted: TrainingFilter) -> list[ColumnElement[bool]]:
    conditions = [TrainingRow.project_id == project_id, TrainingRow.desired != "delete"]
    if wanted.ids:
        conditions.append(TrainingRow.id.in_(wanted.ids))
    if wanted.names:
        conditions.append(TrainingRow.name.in_(wanted.names))
    if wanted.states:
        conditions.append(TrainingRow.state.in_(wanted.states))
    if wanted.experiment_id is not None:
        conditions.append(TrainingRow.experiment_id == wanted.experiment_id)
    return conditions
