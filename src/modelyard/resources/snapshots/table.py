"""Tables of snapshots and of what uses them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import Table, Utc


class SnapshotRow(Table):
    """A snapshot. `listing_digest` names what the listing of the source looked like, so that the same source is not read again."""

    __tablename__ = "source_snapshots"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(36))
    digest: Mapped[str] = mapped_column(String(64))
    listing_digest: Mapped[str] = mapped_column(String(64))
    requirements_digest: Mapped[str | None] = mapped_column(String(64))
    source_uri: Mapped[str] = mapped_column(String(1024))
    file_count: Mapped[int]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(Utc)

    __table_args__ = (
        Index("ix_source_snapshots_digest", "project_id", "digest"),
        Index("ix_source_snapshots_listing", "project_id", "listing_digest"),
    )


class SnapshotUseRow(Table):
    """A resource that needs a snapshot."""

    __tablename__ = "source_snapshot_uses"

    snapshot_id: Mapped[str] = mapped_column(ForeignKey("source_snapshots.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(36), primary_key=True, index=True)
