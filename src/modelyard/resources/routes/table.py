"""Table of routes."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class RouteRow(ResourceColumns, Table):
    """A route."""

    __tablename__ = "routes"

    owner_kind: Mapped[str] = mapped_column(String(48))
    owner_id: Mapped[str] = mapped_column(String(64))

    __table_args__ = (Index("ix_routes_owner", "owner_kind", "owner_id"),)
