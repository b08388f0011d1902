"""Tables of notebooks, and of those that are kept ready for whoever creates one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import Json, ResourceColumns, Table, Utc


class NotebookRow(ResourceColumns, Table):
    """A notebook."""

    __tablename__ = "notebooks"

    __table_args__ = (
        Index("ix_notebooks_project_newest", "project_id", "created_at", "id"),
        Index("ix_notebooks_project_name", "project_id", "name"),
    )


class ShapeRow(Table):
    """What was created lately: an example of each shape of a project, and when one was created last."""

    __tablename__ = "notebook_shapes"

    project_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    shape: Mapped[str] = mapped_column(String(200), primary_key=True)
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    used_at: Mapped[datetime] = mapped_column(Utc)


class SpareRow(Table):
    """A notebook that is kept ready and is nobody's yet. Its id becomes that of the notebook: storage and account are named by it."""

    __tablename__ = "notebook_spares"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(36))
    shape: Mapped[str] = mapped_column(String(200))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    is_leaving: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(Utc)

    __table_args__ = (Index("ix_notebook_spares_shape", "project_id", "shape"),)
