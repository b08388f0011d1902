"""Queries on notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.paging import Page, PageRequest
from modelyard.resources.notebooks.table import NotebookRow


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
        .order_by(NotebookRow.id.desc())
        .limit(request.limit)
        .offset(request.offset)
    )
    return Page((await session.scalars(ordered)).all(), await session.scalar(counted) or 0, request)


def _conditions(project_id: str, wanted: NotebookFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [NotebookRow.project_id == project_id]
    if wanted.ids:
        conditions.append(NotebookRow.id.in_(wanted.ids))
    if wanted.names:
        conditions.append(NotebookRow.name.in_(wanted.names))
    if wanted.states:
        conditions.append(NotebookRow.state.in_(wanted.states))
    return conditions
