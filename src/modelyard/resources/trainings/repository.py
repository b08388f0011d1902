"""Queries on trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.errors import Blocker
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.trainings.lifecycle import LIFECYCLE, TrainingState
from modelyard.resources.trainings.table import TrainingRow

ACTIVE = tuple(state.value for state in TrainingState if not LIFECYCLE.is_final(state))
"""The states of what has not ended."""

_IS_THERE = TrainingRow.desired != "delete"


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


async def in_experiment(session: AsyncSession, experiment_id: str, limit: int) -> Sequence[Blocker]:
    """Some trainings of an experiment, oldest first."""
    statement = select(TrainingRow.id, TrainingRow.name).where(TrainingRow.experiment_id == experiment_id, _IS_THERE)
    found = await session.execute(statement.order_by(TrainingRow.id).limit(limit))
    return [Blocker("training", id, name) for id, name in found]


async def count_active(session: AsyncSession, project_id: str, limit: int) -> int:
    """How many trainings of the project have not ended; counts no further than `limit`."""
    active = select(TrainingRow.id).where(
        TrainingRow.project_id == project_id, TrainingRow.state.in_(ACTIVE), _IS_THERE
    )
    return await session.scalar(select(func.count()).select_from(active.limit(limit).subquery())) or 0


async def run_columns(session: AsyncSession, project_id: str, experiment_id: str, limit: int) -> Sequence[Any]:
    """Of the trainings of an experiment, newest first, what `views.run_from` takes."""
    statement = select(
        TrainingRow.id,
        TrainingRow.name,
        TrainingRow.state,
        TrainingRow.created_at,
        TrainingRow.experiment_id,
        TrainingRow.status,
        TrainingRow.spec["parameters"],
    ).where(
        TrainingRow.project_id == project_id,
        TrainingRow.experiment_id == experiment_id,
        TrainingRow.desired != "delete",
    )
    return (await session.execute(statement.order_by(TrainingRow.id.desc()).limit(limit))).all()


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
