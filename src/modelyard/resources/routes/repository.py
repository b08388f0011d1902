"""Queries on routes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.routes.table import RouteRow


async def by_id(session: AsyncSession, route_id: str) -> RouteRow | None:
    """One route."""
    return await session.get(RouteRow, route_id)


async def by_ids(session: AsyncSession, route_ids: Collection[str]) -> Sequence[RouteRow]:
    """The routes of these ids that there are."""
    return (await session.scalars(select(RouteRow).where(RouteRow.id.in_(route_ids)))).all()


async def all_rows(session: AsyncSession) -> Sequence[RouteRow]:
    """Every route."""
    return (await session.scalars(select(RouteRow))).all()


async def by_target(session: AsyncSession, target: str) -> Sequence[RouteRow]:
    """Guarded routes that lead to this target."""
    return (await session.scalars(select(RouteRow).where(RouteRow.access_target == target))).all()


async def all_ids(session: AsyncSession) -> Sequence[str]:
    """Ids of every route."""
    return (await session.scalars(select(RouteRow.id))).all()
