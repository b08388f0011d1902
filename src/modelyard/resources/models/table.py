"""Tables of models."""

from __future__ import annotations

from sqlalchemy import Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class ModelRow(ResourceColumns, Table):
    """A model. `version` counts the models of its name."""

    __tablename__ = "models"

    training_id: Mapped[str | None] = mapped_column(String(36), index=True)
    version: Mapped[int]

    __table_args__ = (
        Index("ix_models_project_newest", "project_id", "id"),
        UniqueConstraint("project_id", "name", "version", name="uq_models_version"),
    )


class ModelNameRow(Table):
    """How far the versions of a name have come: a number is never given twice, also when its model is gone."""

    __tablename__ = "model_names"

    project_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    last_version: Mapped[int]


class ModelAliasRow(Table):
    """A word of the user's for one of the models of a name."""

    __tablename__ = "model_aliases"

    project_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    model_id: Mapped[str] = mapped_column(String(36), index=True)
