"""Table of experiments."""

from __future__ import annotations

from sqlalchemy import Index, text

from modelyard.db.columns import ResourceColumns, Table

_IS_THERE = text("desired <> 'delete'")


class ExperimentRow(ResourceColumns, Table):
    """An experiment. Names are unique in a project: the official client finds experiments by name. What is being deleted has none any more."""

    __tablename__ = "experiments"
    __table_args__ = (
        Index(
            "uq_experiments_name",
            "project_id",
            "name",
            unique=True,
            sqlite_where=_IS_THERE,
            postgresql_where=_IS_THERE,
        ),
        Index("ix_experiments_newest", "project_id", "id", sqlite_where=_IS_THERE, postgresql_where=_IS_THERE),
    )
