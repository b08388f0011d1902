"""Queries on sign-ins, visits, codes and failures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.resources.sessions.table import CodeRow, FailureRow, SessionRow, VisitRow


async def by_token(session: AsyncSession, token_hash: str) -> SessionRow | None:
    """The sign-in of this token."""
    return await session.scalar(select(SessionRow).where(SessionRow.token_hash == token_hash))


async def by_id(session: AsyncSession, session_id: str) -> SessionRow | None:
    """One sign-in."""
    return await session.get(SessionRow, session_id)


async def page(
    session: AsyncSession, now: datetime, offset: int, limit: int | None, user_id: str | None = None
) -> tuple[Sequence[SessionRow], int]:
    """Sign-ins that have not expired, the newest first, and how many there are."""
    wanted = select(SessionRow).where(SessionRow.expires_at > now)
    count = select(func.count()).select_from(SessionRow).where(SessionRow.expires_at > now)
    if user_id is not None:
        wanted, count = wanted.where(SessionRow.user_id == user_id), count.where(SessionRow.user_id == user_id)
    wanted = wanted.order_by(SessionRow.id.desc()).offset(offset).limit(limit)
    return (await session.scalars(wanted)).all(), await session.scalar(count) or 0


async def remove_expired(session: AsyncSession, now: datetime, idle_since: datetime, failures_before: datetime) -> None:
    """Forget what is over."""
    await session.execute(delete(SessionRow).where((SessionRow.expires_at <= now) | (SessionRow.seen_at <= idle_since)))
    await session.execute(delete(CodeRow).where(CodeRow.expires_at <= now))
    await session.execute(delete(FailureRow).where(FailureRow.last_at <= failures_before))


async def take_code(session: AsyncSession, code_hash: str) -> CodeRow | None:
    """The code of this digest, which nobody else can take after this."""
    row = await session.get(CodeRow, code_hash)
    if row is None:
        return None
    session.expunge(row)
    gone: CursorResult[Any] = await session.execute(delete(CodeRow).where(CodeRow.code_hash == code_hash))  # type: ignore[assignment]  # what a delete answers
    return row if gone.rowcount == 1 else None


async def visit(session: AsyncSession, token_hash: str) -> VisitRow | None:
    """One visit."""
    return await session.get(VisitRow, token_hash)


async def visits(session: AsyncSession) -> Sequence[VisitRow]:
    """Every visit that is known."""
    return (await session.scalars(select(VisitRow))).all()


async def failures(session: AsyncSession, keys: Sequence[str]) -> dict[str, FailureRow]:
    """Failures by their keys."""
    rows = (await session.scalars(select(FailureRow).where(FailureRow.key.in_(keys)))).all()
    return {row.key: row for row in rows}
