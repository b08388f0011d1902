"""Queries on notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.notebooks.table import NotebookRow, ShapeRow, SpareRow


@dataclass(frozen=True, slots=True)
class NotebookFilter:
    """Which notebooks; empty means all."""

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    states: Sequence[str] = ()


async def by_id(session: AsyncSession, project_id: str, notebook_id: str) -> NotebookRow | None:
    """A notebook of the project."""
    row = await session.get(NotebookRow, notebook_id)
    return row if row is not None and row.project_id == project_id else None


async def held(session: AsyncSession, project_id: str, notebook_id: str) -> NotebookRow | None:
    """Like `by_id`; until the transaction ends nobody else gets it so: two wishes at once are heard one after the other."""
    row = await session.get(NotebookRow, notebook_id, with_for_update=True)
    return row if row is not None and row.project_id == project_id else None


async def by_key(session: AsyncSession, notebook_id: str, *, is_held: bool = False) -> NotebookRow | None:
    """A notebook of any project, for the reconciler."""
    return await session.get(NotebookRow, notebook_id, with_for_update=True if is_held else None)


async def page(
    session: AsyncSession, project_id: str, wanted: NotebookFilter, request: PageRequest
) -> Page[NotebookRow]:
    """Notebooks of the project, newest first."""
    conditions = _conditions(project_id, wanted)
    counted = select(func.count(NotebookRow.id)).where(*conditions)
    ordered = (
        select(NotebookRow)
        .where(*conditions)
        .order_by(NotebookRow.created_at.desc(), NotebookRow.id.desc())
        .limit(request.limit)
        .offset(request.offset)
    )
    return Page((await session.scalars(ordered)).all(), await session.scalar(counted) or 0, request)


async def shapes(session: AsyncSession) -> Sequence[ShapeRow]:
    """What was created lately, the newest first."""
    return (await session.scalars(select(ShapeRow).order_by(ShapeRow.used_at.desc(), ShapeRow.shape))).all()


async def shape(session: AsyncSession, project_id: str, name: str) -> ShapeRow | None:
    """One of them."""
    return await session.get(ShapeRow, (project_id, name))


async def forget_shapes(session: AsyncSession, before: datetime) -> None:
    """Let go of what nobody has created since."""
    await session.execute(delete(ShapeRow).where(ShapeRow.used_at < before))


async def spares(session: AsyncSession) -> Sequence[SpareRow]:
    """All that are kept ready, are becoming so, or are on their way out, the oldest first."""
    return (await session.scalars(select(SpareRow).order_by(SpareRow.id))).all()


async def free_spares(session: AsyncSession, project_id: str, name: str) -> Sequence[SpareRow]:
    """Those of a shape that nobody takes at this moment; until the transaction ends they are the caller's."""
    statement = select(SpareRow).where(
        SpareRow.project_id == project_id, SpareRow.shape == name, SpareRow.is_leaving.is_(False)
    )
    return (await session.scalars(statement.order_by(SpareRow.id).with_for_update(skip_locked=True))).all()


async def held_spare(session: AsyncSession, spare_id: str) -> SpareRow | None:
    """One of them, if it still is one; until the transaction ends nobody takes it."""
    return await session.get(SpareRow, spare_id, with_for_update=True, populate_existing=True)


def _conditions(project_id: str, wanted: NotebookFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [NotebookRow.project_id == project_id]
    if wanted.ids:
        conditions.append(NotebookRow.id.in_(wanted.ids))
    if wanted.names:
        conditions.append(NotebookRow.name.in_(wanted.names))
    if wanted.states:
        conditions.append(NotebookRow.state.in_(wanted.states))
    return conditions
