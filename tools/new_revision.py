"""Write a new Alembic revision from the difference between the newest one and the tables: `python tools/new_revision.py 0002 "What changed"`.

Read what it has written before you commit it, and raise `HEAD` in modelyard/db/migrate.py.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from alembic import command
from sqlalchemy import Connection

from modelyard.db.engine import Database, sqlite_url
from modelyard.db.migrate import alembic_config
from modelyard.server.schema import all_metadata


def _write(connection: Connection, revision: str, message: str) -> None:
    config = alembic_config(connection, all_metadata())
    command.upgrade(config, "head")
    command.revision(config, message=message, autogenerate=True, rev_id=revision)


async def _main(revision: str, message: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        database = Database(sqlite_url(Path(directory) / "empty.db"))
        async with database.engine.begin() as connection:
            await connection.run_sync(_write, revision, message)
        await database.close()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2]))
