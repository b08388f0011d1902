"""Brings a database to the newest schema."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, inspect, text

from modelyard.db.engine import Database

HEAD = "0001"
"""The newest revision; a test keeps it equal to the history's head. Knowing it here spares every start the loading of Alembic."""

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = 0x6D69677261


class SchemaTooNew(Exception):
    """The database was written by a newer version."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database has the schema of a newer version of Modelyard (revision {found}, this one knows {HEAD}); upgrade Modelyard"
        )


async def upgrade(database: Database) -> None:
    """Create or upgrade the schema. Several servers may call this at once; one does the work. Raises `SchemaTooNew`."""
    async with database.engine.begin() as connection:
        if not database.is_sqlite:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    found = _revision(connection)
    if found == HEAD:
        return
    # Loaded only when there is something to do: it would cost every start a quarter of a second.
    from alembic import command  # noqa: PLC0415  # see above
    from alembic.script import ScriptDirectory  # noqa: PLC0415  # see above

    config = alembic_config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise SchemaTooNew(found)
    command.upgrade(config, "head")


def alembic_config(connection: Connection, target_metadata: Any = None) -> Any:
    """Alembic's configuration for a connection."""
    from alembic.config import Config  # noqa: PLC0415  # as in `_upgrade`: most starts don't need it

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    config.attributes["target_metadata"] = target_metadata
    return config


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
