"""Table of NAS volumes."""

from __future__ import annotations

from modelyard.db.columns import ResourceColumns, Table


class VolumeRow(ResourceColumns, Table):
    """A NAS volume: a directory of the platform's that belongs to one project."""

    __tablename__ = "nas_volumes"
