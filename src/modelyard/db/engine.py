"""Sessions on the database, SQLite or PostgreSQL.

SQLite allows one writer at a time. Writers therefore queue in the process (an asyncio lock costs nothing; a busy database costs a
sleep) and begin with `BEGIN IMMEDIATE`, so that a transaction that reads and then writes can't be told half-way that somebody else was
first. Readers have connections of their own and, with the write-ahead log, never wait. On PostgreSQL both are plain sessions of one pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

_TOPICS = "topics"
_SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # a commit survives a power cut, not only a crash
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
    "PRAGMA cache_size=-8000",
)


class Database:
    """Opens sessions. `url` is `sqlite:///path`, or `postgresql://user:password@host/name`."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            parsed = parsed.set(drivername="sqlite+aiosqlite")
            self._writer = _sqlite_engine(parsed, pool_size=1, begin="BEGIN IMMEDIATE")
            self._reader = _sqlite_engine(parsed, pool_size=4, begin="BEGIN")
        else:
            parsed = parsed.set(drivername="postgresql+asyncpg")
            self._writer = create_async_engine(parsed, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True)
            self._reader = self._writer
        self.url = parsed
        self._write_lock = asyncio.Lock()
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._write_sessions = async_sessionmaker(self._writer, expire_on_commit=False)
        self._read_sessions = async_sessionmaker(self._reader, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncSession]:
        """A session that only reads; what it sees is one moment of the database."""
        async with self._read_sessions() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises."""
        async with AsyncExitStack() as stack:
            if self.is_sqlite:
                await stack.enter_async_context(self._write_lock)
            session = await stack.enter_async_context(self._write_sessions())
            async with session.begin():
                yield session
            topics = frozenset[str](session.info.pop(_TOPICS, ()))
        if topics:
            for listener in self._listeners:
                listener(topics)

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Call `listener` after each commit in this process that announced topics (`announce`). Hints, never the record."""
        self._listeners.append(listener)

    @property
    def engine(self) -> AsyncEngine:
        """The engine that writes, for migrations."""
        return self._writer

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


def announce(session: AsyncSession, topic: str) -> None:
    """Let the listeners of this process know about `topic` once the session's transaction is committed."""
    session.info.setdefault(_TOPICS, set()).add(topic)


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    return f"sqlite:///{path}"


def _sqlite_engine(url: Any, *, pool_size: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(url, poolclass=AsyncAdaptedQueuePool, pool_size=pool_size, max_overflow=0)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]  # called by the event
        # The driver's own transaction handling would begin too late (at the first write); we begin ourselves below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # called by the event
        connection.exec_driver_sql(begin)

    return engine
