"""Reading the history of a resource."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.tables import EventRow

_MAX_EVENTS = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One change of state: who, when, why. `old_state` is None for the creation."""

    at: datetime
    actor: str
    old_state: str | None
    new_state: str
    reason: str | None
    message: str | None


async def events_of(session: AsyncSession, kind: str, key: str) -> Sequence[Event]:
    """The newest thousand events of a resource, oldest first."""
    statement = select(EventRow).where(EventRow.kind == kind, EventRow.key == key)
    rows = (await session.scalars(statement.order_by(EventRow.id.desc()).limit(_MAX_EVENTS))).all()
    return [Event(row.at, row.actor, row.old_state, row.new_state, row.reason, row.message) for row in reversed(rows)]


async def forget_events(session: AsyncSession, kind: str, key: str) -> None:
    """Drop the history of a resource that is gone for good."""
    await session.execute(delete(EventRow).where(EventRow.kind == kind, EventRow.key == key))
