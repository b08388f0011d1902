"""Alembic's way in. The caller gives the connection, and for autogeneration the metadata; see `modelyard.db.migrate`."""

from __future__ import annotations

from alembic import context

options = context.config.attributes
context.configure(
    connection=options["connection"],
    target_metadata=options.get("target_metadata"),
    render_as_batch=True,  # SQLite changes a table by copying it
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
