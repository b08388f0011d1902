"""Tables of the metric store."""

from __future__ import annotations

import math
from datetime import datetime

from sqlalchemy import BigInteger, Dialect, Float, Index, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from modelyard.db.columns import Json, Table, Utc


class AnyNumber(TypeDecorator[float]):
    """A float that may be infinite or no number. SQLite keeps no NaN, so NaN is NULL in both databases."""

    impl = Float(53)
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """NaN goes in as NULL."""
        return None if value is None or math.isnan(value) else value

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        """NULL comes out as NaN."""
        return math.nan if value is None else value


class MetricRunRow(Table):
    """What metrics belong to, e.g. a training. Whoever writes points of it locks this row first.

    Attributes:
        directory: where its event files lie; None for a run that has none.
        is_open: there may be more to come in the event files.
        is_gone: it is being deleted; nothing is added any more.
        notes: what was left out and why, for people.
    """

    __tablename__ = "metric_runs"

    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    owner_kind: Mapped[str] = mapped_column(String(48))
    project_id: Mapped[str] = mapped_column(String(36))
    group_id: Mapped[str | None] = mapped_column(String(36))
    directory: Mapped[str | None] = mapped_column(String(4096))
    instance_count: Mapped[int] = mapped_column(Integer, default=1)
    is_open: Mapped[bool] = mapped_column(default=False, index=True)
    is_gone: Mapped[bool] = mapped_column(default=False)
    notes: Mapped[list[str]] = mapped_column(Json, default=list)
    created_at: Mapped[datetime] = mapped_column(Utc)


class MetricFileRow(Table):
    """How far an event file was read. Written in the transaction that adds its points, so that none is lost and none comes twice."""

    __tablename__ = "metric_files"

    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    path: Mapped[str] = mapped_column(String(400), primary_key=True)
    inode: Mapped[int] = mapped_column(BigInteger)
    offset: Mapped[int] = mapped_column(BigInteger)


class MetricArrivalRow(Table):
    """A write as it came, until its points are put into their series (`arrivals`).

    Attributes:
        waiting: how much of the run waits up to and with this write, in points; the order of arrival.
        content: the points (`arrivals.pack`).
    """

    __tablename__ = "metric_arrivals"

    owner_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    waiting: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class MetricSeriesRow(Table):
    """One metric of one instance of a run: what it comes to, and its newest points.

    Attributes:
        directory: below the run's event files, of the file that it came from; None where it was written directly.
        low…, high…: the lowest and the highest finite value. `odd_count`: how many are infinite or no number.
        packed_count: how many of the points are in blocks; the others are in `tail`, all of which come after those.
    """

    __tablename__ = "metric_series"

    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    owner_id: Mapped[str] = mapped_column(String(36))
    group_id: Mapped[str | None] = mapped_column(String(36))
    instance: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(String(255))
    directory: Mapped[str | None] = mapped_column(String(400))
    point_count: Mapped[int] = mapped_column(BigInteger)
    first_step: Mapped[int] = mapped_column(BigInteger)
    last_step: Mapped[int] = mapped_column(BigInteger)
    last_time: Mapped[int] = mapped_column(BigInteger)
    last_value: Mapped[float] = mapped_column(AnyNumber, nullable=True)
    low_step: Mapped[int | None] = mapped_column(BigInteger)
    low_value: Mapped[float | None] = mapped_column(Float(53))
    high_step: Mapped[int | None] = mapped_column(BigInteger)
    high_value: Mapped[float | None] = mapped_column(Float(53))
    odd_count: Mapped[int] = mapped_column(BigInteger)
    packed_count: Mapped[int] = mapped_column(BigInteger)
    tail: Mapped[bytes] = mapped_column(LargeBinary)

    __table_args__ = (
        UniqueConstraint("owner_id", "instance", "name", name="uq_metric_series_name"),
        Index("ix_metric_series_group", "group_id", "name"),
    )


class MetricBlockRow(Table):
    """About a thousand points, compressed, with what can be drawn of them without unpacking. Blocks of a series don't overlap."""

    __tablename__ = "metric_blocks"

    series_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    first_time: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_step: Mapped[int] = mapped_column(BigInteger)
    last_time: Mapped[int] = mapped_column(BigInteger)
    point_count: Mapped[int] = mapped_column(Integer)
    low_step: Mapped[int | None] = mapped_column(BigInteger)
    low_time: Mapped[int | None] = mapped_column(BigInteger)
    low_value: Mapped[float | None] = mapped_column(Float(53))
    high_step: Mapped[int | None] = mapped_column(BigInteger)
    high_time: Mapped[int | None] = mapped_column(BigInteger)
    high_value: Mapped[float | None] = mapped_column(Float(53))
    odd_step: Mapped[int | None] = mapped_column(BigInteger)
    odd_time: Mapped[int | None] = mapped_column(BigInteger)
    odd_value: Mapped[float] = mapped_column(AnyNumber, nullable=True)
    odd_count: Mapped[int] = mapped_column(Integer)
    content: Mapped[bytes] = mapped_column(LargeBinary)
