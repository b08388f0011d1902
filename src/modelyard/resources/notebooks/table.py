"""Table of notebooks."""

from __future__ import annotations

from sqlalchemy import Index

from modelyard.db.columns import ResourceColumns, Table


class NotebookRow(ResourceColumns, Table):
    """A notebook."""

    __tablename__ = "notebooks"

    __table_args__ = (
        Index("ix_notebooks_project_newest", "project_id", "id"),
        Index("ix_notebooks_project_name", "project_id", "name"),
    )
