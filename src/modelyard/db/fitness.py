"""Whether a database has the tables that this version works on.

The revision alone does not tell: until the first release there is one revision, made anew whenever a table changes, and a restored or
half-restored database may claim what it does not have. Told at the start this is a sentence; found out by a query it would be a riddle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import MetaData, text

from modelyard.db.engine import Database

_SHOWN_COUNT = 3
_SQLITE_COLUMNS = """
    SELECT m.name, p.name, p."notnull" FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS p WHERE m.type = 'table'"""
_SQLITE_INDEXES = "SELECT name FROM sqlite_master WHERE type = 'index'"
_POSTGRESQL_COLUMNS = """
    SELECT c.relname, a.attname, a.attnotnull FROM pg_attribute AS a JOIN pg_class AS c ON a.attrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"""
_POSTGRESQL_INDEXES = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('i', 'I')"
)


class SchemaOfAnotherVersion(Exception):
    """The database was made by another version."""

    def __init__(self, place: str, differences: Sequence[str]) -> None:
        shown = ", ".join(differences[:_SHOWN_COUNT])
        rest = len(differences) - _SHOWN_COUNT
        super().__init__(
            f"the database {place} was made by another version of Modelyard: {shown}{f' and {rest} more' if rest > 0 else ''}. "
            "There is no way to convert it; go on with the version that made it, or begin anew with another --home (or --database-url)"
        )


async def check_schema(database: Database, parts: Iterable[MetaData]) -> None:
    """Compare tables, columns, which of them must have a value, and indexes, by name. Raises `SchemaOfAnotherVersion`.

    Tables that this version does not know may be anybody's and are passed over.
    """
    columns, indexes = (
        (_SQLITE_COLUMNS, _SQLITE_INDEXES) if database.is_sqlite else (_POSTGRESQL_COLUMNS, _POSTGRESQL_INDEXES)
    )
    async with database.read() as session:
        found = {
            (str(table), str(column)): bool(is_needed)
            for table, column, is_needed in await session.execute(text(columns))
        }
        found_indexes = {str(name) for (name,) in await session.execute(text(indexes))}
    tables = [table for part in parts for table in part.tables.values()]
    wanted = {(table.name, column.name): not column.nullable for table in tables for column in table.columns}
    known = {table.name for table in tables}
    present = {table for table, _ in found}
    differences = [f"it has no table {name}" for name in sorted(known - present)]
    differences += [
        f"{table} has no column {column}" for table, column in sorted(wanted.keys() - found.keys()) if table in present
    ]
    differences += [
        f"{table} has a column {column} that this version does not know"
        for table, column in sorted(found.keys() - wanted.keys())
        if table in known
    ]
    differences += [
        f"{table}.{column} {'may' if is_needed else 'must not'} be empty there"
        for (table, column), is_needed in sorted(wanted.items())
        if found.get((table, column), is_needed) != is_needed
    ]
    wanted_indexes = {str(index.name): table.name for table in tables for index in table.indexes}
    differences += [
        f"{wanted_indexes[name]} has no index {name}"
        for name in sorted(wanted_indexes.keys() - found_indexes)
        if wanted_indexes[name] in present
    ]
    if differences:
        raise SchemaOfAnotherVersion(database.url.render_as_string(hide_password=True), differences)
