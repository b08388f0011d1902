"""Table of routes."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class RouteRow(ResourceColumns, Table):
    """A route.

    Attributes:
        access_target: `{kind}/{id}` of what a guarded route leads to.
        access_epoch: grows when connections that are open are to end.
    """

    __tablename__ = "routes"

    owner_kind: Mapped[str] = mapped_column(String(48))
    owner_id: Mapped[str] = mapped_column(String(64))

    access_target: Mapped[str | None] = mapped_column(String(96))
    access_epoch: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        Index("ix_routes_owner", "owner_kind", "owner_id"),
        Index("ix_routes_access_target", "access_target"),
    )
