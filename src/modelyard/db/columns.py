"""Columns that tables share, and column types that behave alike on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

Json = JSON().with_variant(JSONB(), "postgresql")


class Utc(TypeDecorator[datetime]):
    """A moment. Always carries the UTC offset in Python, also on SQLite, which keeps none."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a moment without an offset: which one would be meant?"""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs its offset")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Put the offset back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    """Parent of every mapped table; its metadata is the schema."""


class ResourceColumns:
    """What every long-lived resource has.

    Attributes:
        spec: what was asked for. Only the API writes it.
        status: what was seen. Only the reconciler writes it.
        desired: what is wanted now: `run`, `stop` or `delete`.
        state: the word on the screen, from the resource's lifecycle.
        reason: a stable word for why, e.g. `OUT_OF_MEMORY`.
        message: the sentence for a person.
        generation: grows with each change of spec or desired.
    """

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(36), index=True)
    name: Mapped[str] = mapped_column(String(128))
    description: Mapped[str | None] = mapped_column(String(512))
    tags: Mapped[list[dict[str, str]]] = mapped_column(Json, default=list)
    spec: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    status: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    desired: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(48), index=True)
    reason: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(default=1)
    created_by: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Utc)
    updated_at: Mapped[datetime] = mapped_column(Utc)
