"""Table of use."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import Table


class UsageRow(Table):
    """What an instance used in a stretch of time of `resolution` seconds that begins at `at` (seconds since 1970).

    Sums are over `sample_count` samples. Every sample goes into a row of each resolution at once, so that nothing has to be condensed later:
    rows that are too fine for their age are only deleted.
    """

    __tablename__ = "usage_samples"

    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    instance: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    resolution: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    sample_count: Mapped[int] = mapped_column(Integer)
    cpu_sum: Mapped[float] = mapped_column(Float(53))
    cpu_max: Mapped[float] = mapped_column(Float(53))
    memory_sum: Mapped[float] = mapped_column(Float(53))
    memory_max: Mapped[int] = mapped_column(BigInteger)
    disk_max: Mapped[int] = mapped_column(BigInteger)
    gpu_count: Mapped[int] = mapped_column(Integer)
    gpu_sum: Mapped[float] = mapped_column(Float(53))
    gpu_memory_max: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index("ix_usage_samples_age", "resolution", "at"),)
