"""Alembic's way in. The caller gives the connection, and for autogeneration the metadata; see `modelyard.db.migrate`."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import JSON, DateTime, Float
from sqlalchemy.dialects import postgresql


def _render(kind: str, item: Any, _autogenerate: Any) -> str | Literal[False]:
    """Write our own column types in the words of SQLAlchemy, so that old revisions don't depend on today's code."""
    if kind == "type" and isinstance(getattr(item, "impl_instance", None), DateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(getattr(item, "impl_instance", None), Float):
        return f"sa.Float(precision={item.impl_instance.precision})"
    if kind == "type" and isinstance(item, JSON):
        has_variant = isinstance(item.dialect_impl(postgresql.dialect()), postgresql.JSONB)
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")' if has_variant else "sa.JSON()"
    return False


options = context.config.attributes
context.configure(
    connection=options["connection"],
    target_metadata=options.get("target_metadata"),
    render_as_batch=True,  # SQLite changes a table by copying it
    compare_type=True,
    render_item=_render,
)
with context.begin_transaction():
    context.run_migrations()
