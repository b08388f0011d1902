"""Table of TensorBoards."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table, Utc


class TensorBoardRow(ResourceColumns, Table):
    """A TensorBoard that is wanted. `used_at`: when somebody last looked, to the minute."""

    __tablename__ = "tensorboards"

    owner_id: Mapped[str] = mapped_column(String(36), unique=True)
    used_at: Mapped[datetime] = mapped_column(Utc)
