"""Queries on models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.errors import Blocker
from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.models.table import ModelRow


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """Which models; empty means all."""

    ids: Sequence[str] = ()
    names: Sequence[str] = ()


async def by_id(session: AsyncSession, project_id: str, model_id: str) -> ModelRow | None:
    """A model of the project."""
    row = await session.get(ModelRow, model_id)
    return row if row is not None and row.project_id == project_id else None


async def held(session: AsyncSession, project_id: str, model_id: str) -> ModelRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: what a guard has seen stays true."""
    row = await session.get(ModelRow, model_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id else None


async def by_ids(session: AsyncSession, ids: Sequence[str]) -> Sequence[ModelRow]:
    """Several models."""
    if not ids:
        return ()
    return (await session.scalars(select(ModelRow).where(ModelRow.id.in_(ids)))).all()


async def of_training(session: AsyncSession, training_id: str, limit: int) -> Sequence[Blocker]:
    """Some models that were made from a training, oldest first."""
    statement = select(ModelRow.id, ModelRow.name).where(ModelRow.training_id == training_id)
    found = await session.execute(statement.order_by(ModelRow.id).limit(limit))
    return [Blocker("model", id, name) for id, name in found]


async def page(session: AsyncSession, project_id: str, wanted: ModelFilter, request: PageRequest) -> Page[ModelRow]:
    """Models of the project, newest first."""
    conditions = [ModelRow.project_id == project_id]
    if wanted.ids:
        conditions.append(ModelRow.id.in_(wanted.ids))
    if wanted.names:
        conditions.append(ModelRow.name.in_(wanted.names))
    counted = select(func.count(ModelRow.id)).where(*conditions)
    ordered = select(ModelRow).where(*conditions).order_by(ModelRow.id.desc())
    rows = (await session.scalars(ordered.limit(request.limit).offset(request.offset))).all()
    return Page(rows, await session.scalar(counted) or 0, request)
