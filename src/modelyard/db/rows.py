"""Rows by their id, with statements that are built once: to build one takes longer than to run it, and these are the most frequent of all."""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeVar

from sqlalchemy import Select, bindparam, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.util import identity_key

from modelyard.db.columns import Table

R = TypeVar("R", bound=Table)
Lock = Literal["wait", "skip"]
"""Whether to wait for a row that somebody else has locked, or to find none."""


async def row_of(session: AsyncSession, kind: type[R], key: str, *, lock: Lock | None = None) -> R | None:
    """The row with this primary key; the session's own where it has it already.

    With `lock` it is read as it is now, and nobody else changes it until the transaction ends. SQLite has one writer, and ignores that.
    """
    if lock is None:
        known = session.sync_session.identity_map.get(identity_key(kind, key))
        if known is not None:
            return known
    return await session.scalar(_by_key(kind, lock), {"key": key})


@cache
def _by_key(kind: type[R], lock: Lock | None) -> Select[R]:
    (column,) = inspect(kind).primary_key
    statement = select(kind).where(column == bindparam("key"))
    if lock is not None:
        statement = statement.with_for_update(skip_locked=lock == "skip").execution_options(populate_existing=True)
    return statement
