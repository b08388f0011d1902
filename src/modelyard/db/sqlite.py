"""SQLite's driver with one trip to the connection's thread for each statement.

The driver of SQLAlchemy makes a trip for the cursor, one for the statement, one for the rows and one to close the cursor; so a session that
reads one row makes nine, each a switch between threads that both want the interpreter's lock. Here a statement is one trip. The transaction
begins on the trip of its first statement, and what was not begun is neither committed nor rolled back.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
)
from sqlalchemy.util import EMPTY_DICT

Told = tuple[Sequence[Any], Any, int, int | None]
"""Rows, their description, how many rows a statement touched, and the last row's id."""


class OneTripModule(AsyncAdapt_aiosqlite_dbapi):
    """What `create_engine` takes as its `module`."""

    def __init__(self) -> None:
        super().__init__(aiosqlite, sqlite3)

    def connect(self, *arguments: Any, **options: Any) -> OneTripConnection:
        """A new connection."""
        return OneTripConnection(self, super().connect(*arguments, **options)._connection)  # pyright: ignore[reportPrivateUsage]  # that of its parent


class OneTripCursor(AsyncAdapt_aiosqlite_cursor):
    """The rows of one statement. The cursor of the driver is closed by the time that they are here."""

    __slots__ = ("_told", "_trip")

    def __init__(self, connection: OneTripConnection) -> None:  # pyright: ignore[reportMissingSuperCall]  # the parent opens a cursor: a trip
        self._adapt_connection = connection
        self._connection = connection.driver_connection
        self._trip = connection.trip
        self._soft_closed_memoized = EMPTY_DICT
        self._rows = deque()
        self._told: Told = ((), None, -1, None)
        self.arraysize = 1

    @property
    def description(self) -> Any:
        """Of the columns; None for a statement without rows."""
        return self._told[1]

    @property
    def rowcount(self) -> int:
        """How many rows the statement touched."""
        return self._told[2]

    @property
    def lastrowid(self) -> Any:
        """Of the last row that was inserted."""
        return self._told[3]

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` gives."""
        return 1

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        """All rows are here: nothing depends on it."""

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()

    async def _async_soft_close(self) -> None:
        """It is closed."""

    async def _execute_async(self, operation: Any, parameters: Any) -> None:
        await self._take(partial(_execute, operation, parameters or ()))

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> None:
        await self._take(partial(_execute_many, operation, seq_of_parameters))

    async def _take(self, work: Callable[[sqlite3.Connection], Told]) -> None:
        self._told = await self._trip(work)
        self._rows = deque(self._told[0])


class OneTripConnection(AsyncAdapt_aiosqlite_connection):
    """A connection. `begin` says how the transaction is to begin, with its first statement."""

    __slots__ = ("_begin", "_trips")

    _cursor_cls = OneTripCursor

    def __init__(self, dbapi: Any, connection: Any) -> None:
        super().__init__(dbapi, connection)
        self._begin: str | None = None
        self._trips = 0

    def begin(self, statement: str) -> None:
        """Begin a transaction."""
        self._begin = statement

    async def trip(self, work: Callable[[sqlite3.Connection], Told]) -> Told:
        """Do this on the connection's thread, in the transaction."""
        async with self._execute_mutex:
            raw: sqlite3.Connection = self._connection._conn  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]  # the driver's connection has no other door to its thread
            self._trips += 1
            try:
                told = await self._connection._execute(_begun, raw, self._begin, work)  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]  # as above
            except asyncio.CancelledError:
                raise  # the trip goes on: whether a transaction is open nobody knows, so that it counts for ever
            except BaseException:
                self._trips -= 1
                raise
            self._trips -= 1
            if raw.in_transaction:
                self._begin = None
            return told

    def commit(self) -> None:
        """Commit what was begun."""
        if self._is_begun():
            super().commit()

    def rollback(self) -> None:
        """Roll back what was begun."""
        if self._is_begun():
            super().rollback()

    def _is_begun(self) -> bool:
        self._begin = None
        raw: sqlite3.Connection | None = self._connection._connection  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]  # as above
        return self._trips > 0 or (raw is not None and raw.in_transaction)


def _begun(raw: sqlite3.Connection, begin: str | None, work: Callable[[sqlite3.Connection], Told]) -> Told:
    if begin is not None and not raw.in_transaction:
        raw.execute(begin).close()
    return work(raw)


def _execute(statement: str, parameters: Any, raw: sqlite3.Connection) -> Told:
    cursor = raw.cursor()
    try:
        cursor.execute(statement, parameters)
        rows = cursor.fetchall() if cursor.description else ()
        return rows, cursor.description, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()


def _execute_many(statement: str, parameters: Any, raw: sqlite3.Connection) -> Told:
    cursor = raw.cursor()
    try:
        cursor.executemany(statement, parameters)
        return (), None, cursor.rowcount, cursor.lastrowid
    finally:
        cursor.close()
