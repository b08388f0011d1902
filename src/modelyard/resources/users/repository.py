"""Queries on users."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.users.table import UserRow


async def by_name(session: AsyncSession, name: str) -> UserRow | None:
    """The user of this name."""
    return await session.scalar(select(UserRow).where(UserRow.name == name))
