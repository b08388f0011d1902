"""Table of experiments."""

from __future__ import annotations

from sqlalchemy import Index

from modelyard.db.columns import ResourceColumns, Table


class ExperimentRow(ResourceColumns, Table):
    """An experiment. Names are unique in a project: the official client finds experiments by name."""

    __tablename__ = "experiments"
    __table_args__ = (Index("uq_experiments_name", "project_id", "name", unique=True),)
