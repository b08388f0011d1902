"""Queries on NAS volumes."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.storages.table import VolumeRow


async def volume(session: AsyncSession, project_id: str, volume_id: str) -> VolumeRow | None:
    """A volume of the project."""
    return await session.scalar(select(VolumeRow).where(VolumeRow.project_id == project_id, VolumeRow.id == volume_id))


async def volumes(session: AsyncSession, project_id: str) -> Sequence[VolumeRow]:
    """All volumes of a project, oldest first."""
    statement = select(VolumeRow).where(VolumeRow.project_id == project_id).order_by(VolumeRow.created_at)
    return (await session.scalars(statement)).all()
