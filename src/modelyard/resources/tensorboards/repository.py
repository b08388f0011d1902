"""Queries on TensorBoards."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.tensorboards.table import TensorBoardRow


async def by_id(session: AsyncSession, id: str) -> TensorBoardRow | None:
    """One TensorBoard."""
    return await session.get(TensorBoardRow, id)


async def by_owner(session: AsyncSession, owner_id: str) -> TensorBoardRow | None:
    """The TensorBoard of a training or an experiment."""
    return await session.scalar(select(TensorBoardRow).where(TensorBoardRow.owner_id == owner_id))
