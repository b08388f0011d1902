"""One history for both databases, that ends where the tables in the code are."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from modelyard.db.engine import Database
from modelyard.db.migrate import HEAD, SchemaTooNew, alembic_config, upgrade
from modelyard.server.schema import all_metadata


def _scripts(connection: Connection) -> ScriptDirectory:
    return ScriptDirectory.from_config(alembic_config(connection))


async def test_the_constant_is_the_end_of_the_history(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    async with database.engine.begin() as connection:
        scripts = await connection.run_sync(_scripts)
    assert scripts.get_heads() == [HEAD]
    await database.close()


async def test_the_history_leads_to_the_tables_in_the_code(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    await upgrade(database)

    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        metadata = all_metadata()
        known = {table for part in metadata for table in part.tables}
        differences: list[object] = []
        for part in metadata:
            for difference in compare_metadata(context, part):
                is_of_another_part = (
                    isinstance(difference, tuple)
                    and difference[0] in ("remove_table", "remove_index")
                    and getattr(difference[1], "name", None) in known | {"alembic_version"}
                )
                is_index_of_another = (
                    isinstance(difference, tuple)
                    and difference[0] == "remove_index"
                    and difference[1].table.name in known - set(part.tables)
                )
                if not is_of_another_part and not is_index_of_another:
                    differences.append(difference)
        return differences

    async with database.engine.begin() as connection:
        assert await connection.run_sync(compare) == []
        tables = await connection.run_sync(lambda sync: set(inspect(sync).get_table_names()))
    assert tables == {name for part in all_metadata() for name in part.tables} | {"alembic_version"}
    await database.close()


async def test_upgrading_twice_changes_nothing(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    await upgrade(database)
    async with database.write() as session:
        await session.execute(
            text("INSERT INTO work_items (kind, key, sequence, lease_token, attempts) VALUES ('a', 'b', 1, 0, 0)")
        )
    await upgrade(database)
    async with database.read() as session:
        assert await session.scalar(text("SELECT count(*) FROM work_items")) == 1
        assert await session.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
    await database.close()


async def test_a_newer_schema_is_refused_and_left_alone(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    await upgrade(database)
    async with database.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match=f"revision 9999, this one knows {HEAD}.*upgrade Modelyard"):
        await upgrade(database)
    async with database.read() as session:
        assert await session.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    await database.close()


_UPGRADE = """
import asyncio, sys
from modelyard.db.engine import Database
from modelyard.db.migrate import upgrade

async def main():
    database = Database(sys.argv[1])
    await upgrade(database)
    await database.close()

asyncio.run(main())
"""


@pytest.mark.slow
async def test_several_processes_upgrade_at_once(empty_database_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", _UPGRADE, empty_database_url, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    for process in processes:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, errors.decode()
    database = Database(empty_database_url)
    async with database.read() as session:
        assert await session.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
    await database.close()
