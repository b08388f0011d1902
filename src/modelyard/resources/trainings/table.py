"""Table of trainings."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class TrainingRow(ResourceColumns, Table):
    """A training."""

    __tablename__ = "trainings"

    experiment_id: Mapped[str | None] = mapped_column(String(36), index=True)

    __table_args__ = (
        Index("ix_trainings_project_newest", "project_id", "id"),
        Index("ix_trainings_project_name", "project_id", "name"),
    )
