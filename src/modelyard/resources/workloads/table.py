"""Table of workloads."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import ResourceColumns, Table


class WorkloadRow(ResourceColumns, Table):
    """A workload. What it holds while it is admitted stands in columns, so that admission is one sum."""

    __tablename__ = "workloads"

    owner_kind: Mapped[str] = mapped_column(String(48))
    owner_id: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(32))
    instances_count: Mapped[int | None] = mapped_column(
        Integer, default=None
    )  # once it was resized; else as in the spec
    has_output_to_ship: Mapped[bool] = mapped_column(default=False)
    is_admitted: Mapped[bool] = mapped_column(default=False)
    is_spare: Mapped[bool] = mapped_column(default=False)
    held_cpus: Mapped[float] = mapped_column(Float, default=0.0)
    held_memory_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    held_gpus: Mapped[int] = mapped_column(Integer, default=0)

    __table_args__ = (
        Index("ix_workloads_owner", "owner_kind", "owner_id"),
        Index("ix_workloads_admitted", "is_admitted"),
    )
