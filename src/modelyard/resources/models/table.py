"""Table of models."""

from __future__ import annotations

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class ModelRow(ResourceColumns, Table):
    """A model."""

    __tablename__ = "models"

    training_id: Mapped[str | None] = mapped_column(String(36), index=True)

    __table_args__ = (Index("ix_models_project_newest", "project_id", "id"),)
