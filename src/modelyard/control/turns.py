"""Taking turns: what must not be looked at and then done by two transactions side by side.

SQLite lets one transaction write at a time anyway; PostgreSQL is asked for a lock by name, which ends with the transaction.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession


async def take_turn(session: AsyncSession, *name: str) -> None:
    """Wait until no other transaction has the turn of this name; what it has committed can be seen then.

    A transaction that takes several takes them in the same order as all others.
    """
    if session.get_bind().dialect.name == "postgresql":
        digest = hashlib.sha256(":".join(name).encode()).digest()
        lock = int.from_bytes(digest[:8], "big", signed=True)
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
