"""A database that another version made is told from one of this version, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from modelyard.db.engine import Database
from modelyard.db.fitness import SchemaOfAnotherVersion, check_schema
from modelyard.db.migrate import upgrade
from modelyard.server.schema import all_metadata


async def test_the_schema_of_the_history_is_this_versions(database_url: str) -> None:
    database = Database(database_url)
    async with database.write() as session:
        await session.execute(text("CREATE TABLE somebody_elses (id INTEGER)"))
    await check_schema(database, all_metadata())
    await database.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DROP TABLE tensorboards", "it has no table tensorboards"),
        ("ALTER TABLE work_items DROP COLUMN attempts", "work_items has no column attempts"),
        ("ALTER TABLE projects ADD COLUMN colour TEXT", "projects has a column colour that this version does not know"),
        ("DROP INDEX {index}", "has no index {index}"),
    ],
)
async def test_what_differs_is_named_with_what_to_do(database_url: str, change: str, words: str) -> None:
    index = next(str(each.name) for part in all_metadata() for table in part.tables.values() for each in table.indexes)
    database = Database(database_url)
    async with database.write() as session:
        await session.execute(text(change.format(index=index)))
    with pytest.raises(SchemaOfAnotherVersion) as refusal:
        await check_schema(database, all_metadata())
    said = str(refusal.value)
    assert words.format(index=index) in said
    assert "was made by another version of Modelyard" in said
    assert "begin anew with another --home" in said
    await database.close()


async def test_a_column_that_must_have_a_value_elsewhere_is_named(pg_url: str) -> None:
    database = Database(pg_url)  # SQLite can't change a column
    await upgrade(database)
    async with database.write() as session:
        await session.execute(text("ALTER TABLE work_items ALTER COLUMN attempts DROP NOT NULL"))
    with pytest.raises(SchemaOfAnotherVersion, match=r"work_items\.attempts may be empty there"):
        await check_schema(database, all_metadata())
    await database.close()


async def test_of_many_differences_some_are_shown_and_no_password(database_url: str) -> None:
    database = Database(database_url)
    async with database.write() as session:
        for table in ("tensorboards", "usage_samples", "visit_codes", "work_items"):
            await session.execute(text(f"DROP TABLE {table}"))
    with pytest.raises(SchemaOfAnotherVersion, match="it has no table visit_codes and 1 more") as refusal:
        await check_schema(database, all_metadata())
    password = database.url.password
    assert password is None or f":{password}@" not in str(refusal.value)
    await database.close()
