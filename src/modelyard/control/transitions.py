"""The one way to change a state.

A move that the lifecycle does not have is refused; a move that it has is written together with its event, in one transaction, so that
history can't be forgotten.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.tables import EventRow
from modelyard.db.columns import ResourceColumns, Table
from modelyard.db.engine import write_last
from modelyard.kit.clock import utc_now
from modelyard.kit.lifecycle import Lifecycle

S = TypeVar("S", bound=StrEnum)

_EVENT = insert(Table.metadata.tables[EventRow.__tablename__])

CONTROLLER = "controller"
"""The actor of moves that the platform makes by itself."""


def born(session: AsyncSession, lifecycle: Lifecycle[S], row: ResourceColumns, *, actor: str) -> None:
    """Record that the row was created in its initial state."""
    row.state = lifecycle.initial.value
    _write_event(session, lifecycle.name, row, None, actor, reason=row.reason, message=row.message)


def move(
    session: AsyncSession,
    lifecycle: Lifecycle[S],
    row: ResourceColumns,
    new: S,
    *,
    reason: str | None = None,
    message: str | None = None,
    actor: str = CONTROLLER,
    at: datetime | None = None,
) -> bool:
    """Put the row into state `new`, or renew reason and message of the state that it is in; whether anything changed.

    `at` is when that came to be, where it is told of later. Raises `MoveNotAllowed` for a move that is not in the lifecycle's table.
    """
    old = type(new)(row.state)
    lifecycle.check(old, new)
    if old == new and row.reason == reason and row.message == message:
        return False
    row.state = new.value
    row.reason = reason
    row.message = message
    row.updated_at = at or utc_now()
    _write_event(session, lifecycle.name, row, old.value, actor, reason=reason, message=message, at=at)
    return True


def note(
    session: AsyncSession,
    lifecycle: Lifecycle[S],
    row: ResourceColumns,
    *,
    reason: str,
    message: str,
    actor: str = CONTROLLER,
) -> None:
    """Write an event about something that does not change the state, nor what is shown with it."""
    _write_event(session, lifecycle.name, row, row.state, actor, reason=reason, message=message)


def _write_event(
    session: AsyncSession,
    kind: str,
    row: ResourceColumns,
    old: str | None,
    actor: str,
    *,
    reason: str | None = None,
    message: str | None = None,
    at: datetime | None = None,
) -> None:
    event: dict[str, object] = {
        "at": at or utc_now(),
        "kind": kind,
        "key": row.id,
        "project_id": row.project_id,
        "actor": actor,
        "old_state": old,
        "new_state": row.state,
        "reason": reason,
        "message": message,
    }
    write_last(session, _EVENT, event)
