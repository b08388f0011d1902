"""Tables of the control loop: what is to be reconciled, and what has happened."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Index, Integer, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from modelyard.db.columns import Json, Table, Utc


class WorkItemRow(Table):
    """One resource that needs attention: a row per (kind, key), for as long as there is something to do.

    Attributes:
        due_at: when it is to be looked at (again). A claim empties it, so during a reconcile it says what was asked for meanwhile.
        sequence: grows with each request for attention (not with hints), so that one that came during a failing reconcile is heard at once.
        lease_owner: the server process that reconciles it now.
        lease_token: the fencing token; another with each claim, never twice the same, and only its holder may write.
        attempts: failures in a row.
    """

    __tablename__ = "work_items"

    kind: Mapped[str] = mapped_column(String(48), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[datetime | None] = mapped_column(Utc)
    sequence: Mapped[int] = mapped_column(BigInteger, default=1)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_token: Mapped[int] = mapped_column(BigInteger, default=0)
    lease_until: Mapped[datetime | None] = mapped_column(Utc)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("ix_work_items_due", "due_at"), Index("ix_work_items_lease", "lease_until"))


class EventRow(Table):
    """One change of state: who, when, why. Written in the transaction that makes the change."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(Utc)
    kind: Mapped[str] = mapped_column(String(48))
    key: Mapped[str] = mapped_column(String(64))
    project_id: Mapped[str | None] = mapped_column(String(36))
    actor: Mapped[str] = mapped_column(String(64))
    old_state: Mapped[str | None] = mapped_column(String(48))
    new_state: Mapped[str] = mapped_column(String(48))
    reason: Mapped[str | None] = mapped_column(String(64))
    message: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("ix_events_key", "kind", "key", "id"),)


class IdempotencyRow(Table):
    """What a client's `Idempotency-Key` has created, and the answer where it could not be given again from what is there."""

    __tablename__ = "idempotency_keys"

    project_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(48))
    request_digest: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[str] = mapped_column(String(64))
    answer: Mapped[Any | None] = mapped_column(Json)
    created_at: Mapped[datetime] = mapped_column(Utc, index=True)
