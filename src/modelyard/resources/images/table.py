"""Tables of environments and of those who wait for one."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class EnvironmentRow(ResourceColumns, Table):
    """An environment; its id is the digest of its content. Several images may share it."""

    __tablename__ = "environments"


class WaiterRow(Table):
    """A resource that is woken when the environment's state changes."""

    __tablename__ = "environment_waiters"

    environment_id: Mapped[str] = mapped_column(ForeignKey("environments.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(48), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
