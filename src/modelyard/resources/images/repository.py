"""Queries on environments."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.db.rows import row_of
from modelyard.resources.images.table import EnvironmentRow, WaiterRow


async def by_digest(session: AsyncSession, digest: str) -> EnvironmentRow | None:
    """One environment."""
    return await row_of(session, EnvironmentRow, digest)


async def by_digests(session: AsyncSession, digests: Collection[str]) -> Sequence[EnvironmentRow]:
    """Several environments."""
    if not digests:
        return ()
    return (await session.scalars(select(EnvironmentRow).where(EnvironmentRow.id.in_(digests)))).all()


async def waiters(session: AsyncSession, digest: str) -> Sequence[WaiterRow]:
    """Who waits for it."""
    return (await session.scalars(select(WaiterRow).where(WaiterRow.environment_id == digest))).all()


async def waiter(session: AsyncSession, digest: str, kind: str, key: str) -> WaiterRow | None:
    """Whether this one waits for it."""
    return await session.get(WaiterRow, (digest, kind, key))


async def drop_waiter(session: AsyncSession, digest: str, kind: str, key: str) -> None:
    """This one waits no more."""
    await session.execute(
        delete(WaiterRow).where(WaiterRow.environment_id == digest, WaiterRow.kind == kind, WaiterRow.key == key)
    )
