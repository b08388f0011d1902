"""Queries on snapshots."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.snapshots.table import SnapshotRow, SnapshotUseRow


async def by_id(
    session: AsyncSession, project_id: str, snapshot_id: str, *, is_held: bool = False
) -> SnapshotRow | None:
    """A snapshot of the project; `is_held`: nobody removes it until the transaction ends."""
    row = await session.get(SnapshotRow, snapshot_id, with_for_update=True if is_held else None)
    return row if row is not None and row.project_id == project_id else None


async def by_digest(session: AsyncSession, project_id: str, digest: str) -> SnapshotRow | None:
    """A snapshot with this content."""
    return await session.scalar(
        select(SnapshotRow).where(SnapshotRow.project_id == project_id, SnapshotRow.digest == digest).limit(1)
    )


async def by_listing(session: AsyncSession, project_id: str, listing_digest: str) -> SnapshotRow | None:
    """A snapshot of a source whose listing looked like this."""
    wanted = (SnapshotRow.project_id == project_id, SnapshotRow.listing_digest == listing_digest)
    return await session.scalar(select(SnapshotRow).where(*wanted).limit(1))


async def used_by(session: AsyncSession, key: str) -> Sequence[SnapshotRow]:
    """The snapshots that a resource uses, held against each other's removal."""
    joined = select(SnapshotRow).join(SnapshotUseRow, SnapshotUseRow.snapshot_id == SnapshotRow.id)
    return (await session.scalars(joined.where(SnapshotUseRow.key == key).with_for_update(of=SnapshotRow))).all()


async def add_use(session: AsyncSession, snapshot_id: str, key: str) -> None:
    """A resource needs a snapshot; saying so again is fine."""
    if await session.get(SnapshotUseRow, (snapshot_id, key)) is None:
        session.add(SnapshotUseRow(snapshot_id=snapshot_id, key=key))


async def drop_uses(session: AsyncSession, key: str) -> None:
    """A resource needs no snapshots any more."""
    await session.execute(delete(SnapshotUseRow).where(SnapshotUseRow.key == key))


async def is_used(session: AsyncSession, snapshot_id: str) -> bool:
    """Whether any resource needs the snapshot."""
    return bool(await session.scalar(select(exists().where(SnapshotUseRow.snapshot_id == snapshot_id))))


async def unused_since(session: AsyncSession, moment: datetime, limit: int) -> Sequence[SnapshotRow]:
    """Old snapshots that nothing needs, held."""
    is_idle = ~exists().where(SnapshotUseRow.snapshot_id == SnapshotRow.id)
    wanted = select(SnapshotRow).where(SnapshotRow.created_at < moment, is_idle).limit(limit)
    return (await session.scalars(wanted.with_for_update(of=SnapshotRow))).all()


async def known_ids(session: AsyncSession, ids: Collection[str]) -> set[str]:
    """Which of these are snapshots."""
    return set(await session.scalars(select(SnapshotRow.id).where(SnapshotRow.id.in_(ids))))
