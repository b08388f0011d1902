"""A database with the tables of the control loop, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from modelyard.db.engine import Database
from modelyard.testing.workloads import make_tables


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    await make_tables(database)
    yield database
    await database.close()
