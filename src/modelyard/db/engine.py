"""Sessions on the database, SQLite or PostgreSQL.

SQLite allows one writer at a time. Writers therefore queue in the process (an asyncio lock costs nothing; a busy database costs a
sleep) and begin with `BEGIN IMMEDIATE`, so that a transaction that reads and then writes can't be told half-way that somebody else was
first. Readers have connections of their own and, with the write-ahead log, never wait. On PostgreSQL both come from one pool; a reader's
transaction is repeatable, so that on both databases it sees one moment.

A task has one session at a time: one that held a connection and waited for a second would, with enough of its like, wait for ever.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Insert, event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from modelyard.db.sqlite import OneTripModule

_TOPICS = "topics"
_LAST = "last"
_SQLITE_PRAGMAS = (
    "PRAGMA busy_timeout=10000",  # before all else: the others may meet another process's lock
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # a commit survives a power cut, not only a crash
    "PRAGMA foreign_keys=ON",
    "PRAGMA cache_size=-8000",
)
_POSTGRESQL_SETTINGS = (
    "SET random_page_cost = 1.1",  # as on the disks of today: else lists hash whole tables where a few looks would do
    "SET plan_cache_mode = force_custom_plan",  # whether a filter leaves many rows or few, its values alone tell
    "SET jit = off",  # it takes longer than what it speeds up: nothing here runs for seconds
)
_SQLITE_READER_PRAGMAS = (*_SQLITE_PRAGMAS, "PRAGMA query_only=ON")

log = logging.getLogger(__name__)


class _Connection(sqlite3.Connection):
    """Gives its locks back when it is closed.

    A task that is cancelled in the middle of a statement has its connection closed. A statement that something still refers to (the
    traceback, for one) keeps SQLite from closing it in truth, and the transaction with its lock would stay open for as long.
    """

    def close(self) -> None:
        """Roll back, then close."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


class NestedSession(Exception):
    """A programming error: a session was opened inside another one of the same task."""

    def __init__(self) -> None:
        super().__init__("a session is open in this task already; pass it on, or close it first")


class Database:
    """Opens sessions. `url` is `sqlite:///path`, or `postgresql://user:password@host/name`."""

    def __init__(self, url: str, *, pool_size: int = 8) -> None:
        parsed = make_url(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        if self.is_sqlite:
            parsed = parsed.set(drivername="sqlite+aiosqlite")
            self._writer = _sqlite_engine(parsed, pool_size=1, begin="BEGIN IMMEDIATE", pragmas=_SQLITE_PRAGMAS)
            self._reader = _sqlite_engine(parsed, pool_size=4, begin="BEGIN", pragmas=_SQLITE_READER_PRAGMAS)
        else:
            parsed = parsed.set(drivername="postgresql+asyncpg")
            self._writer = _postgresql_engine(parsed, pool_size=pool_size)
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self.url = parsed
        self._write_lock = asyncio.Lock()
        self._holders: set[asyncio.Task[Any] | None] = set()
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self._write_sessions = async_sessionmaker(self._writer, expire_on_commit=False)
        self._read_sessions = async_sessionmaker(self._reader, expire_on_commit=False)

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncSession]:
        """A session that only reads; what it sees is one moment of the database. Raises `NestedSession`."""
        with self._one_at_a_time():
            async with self._read_sessions() as session:
                yield session

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncSession]:
        """One transaction: committed when the block ends, rolled back when it raises. Raises `NestedSession`."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self._one_at_a_time())
            if self.is_sqlite:
                await stack.enter_async_context(self._write_lock)
            session = await stack.enter_async_context(self._write_sessions())
            async with session.begin():
                yield session
                for statement, rows in session.info.pop(_LAST, {}).items():
                    await session.flush()  # rows that others refer to come first
                    await session.execute(statement, rows)
            topics = frozenset[str](session.info.pop(_TOPICS, ()))
        if topics:
            for listener in self._listeners:
                try:
                    listener(topics)
                except Exception:  # the transaction is committed; its writer must not be told otherwise
                    log.exception("A listener failed")

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
        if self.is_sqlite:
            await self._reader.dispose()

    @contextmanager
    def _one_at_a_time(self) -> Generator[None]:
        task = asyncio.current_task()
        if task in self._holders:
            raise NestedSession
        self._holders.add(task)
        try:
            yield
        finally:
            self._holders.discard(task)


def announce(session: AsyncSession, topic: str) -> None:
    """Let the listeners of this process know about `topic` once the session's transaction is committed."""
    session.info.setdefault(_TOPICS, set()).add(topic)


def write_last(session: AsyncSession, statement: Insert, row: dict[str, object]) -> None:
    """Insert the row when the session's block ends, with all others of this very statement: a row that nobody reads before costs least so."""
    session.info.setdefault(_LAST, {}).setdefault(statement, []).append(row)


def sqlite_url(path: Path) -> str:
    """The URL of a database file."""
    return f"sqlite:///{path}"


def _postgresql_engine(url: Any, *, pool_size: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True)

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]  # called by the event
        cursor = connection.cursor()
        for setting in _POSTGRESQL_SETTINGS:
            cursor.execute(setting)
        cursor.close()
        connection.commit()  # what is set in a transaction goes with it when that is rolled back

    return engine


def _sqlite_engine(url: Any, *, pool_size: int, begin: str, pragmas: Sequence[str]) -> AsyncEngine:
    engine = create_async_engine(
        url,
        module=OneTripModule(),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=pool_size,
        max_overflow=0,
        connect_args={"factory": _Connection},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _configure(connection: Any, _record: object) -> None:  # pyright: ignore[reportUnusedFunction]  # called by the event
        # The driver's own transaction handling would begin too late (at the first write); we begin ourselves below.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in pragmas:
            cursor.execute(pragma)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:  # pyright: ignore[reportUnusedFunction]  # called by the event
        connection.connection.dbapi_connection.begin(begin)

    return engine
