"""Queries on users."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.users.table import UserRow


async def by_id(session: AsyncSession, user_id: str) -> UserRow | None:
    """One user."""
    return await session.get(UserRow, user_id)


async def by_ids(session: AsyncSession, user_ids: Sequence[str]) -> Sequence[UserRow]:
    """Several users."""
    return (await session.scalars(select(UserRow).where(UserRow.id.in_(user_ids)))).all()


async def by_name(session: AsyncSession, name: str) -> UserRow | None:
    """The user of this name."""
    return await session.scalar(select(UserRow).where(UserRow.name == name))
