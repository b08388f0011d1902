"""The work queue: which resources are to be looked at, by whom, and since when.

The queue is a table, so that it survives everything, several servers can share it, and a service can ask for attention in the
transaction that gives the reason. A claim is a lease with a fencing token: whoever lost the lease (it slept too long) can't write any
more, because each of its writes checks the token in the same transaction (`Lease.guard`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.tables import WorkItemRow
from modelyard.db.engine import Database, announce
from modelyard.kit.clock import Clock, utc_now


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A claimed item: what to reconcile, and the token that proves the claim."""

    kind: str
    key: str
    token: int
    sequence: int
    attempts: int


class LeaseLost(Exception):
    """Somebody else has claimed the item since; nothing of this attempt may be written."""


class Lease:
    """The right to write about one item, for as long as nobody else has claimed it."""

    def __init__(self, item: WorkItem) -> None:
        self.item = item

    async def guard(self, session: AsyncSession) -> None:
        """Raise `LeaseLost` unless the claim still holds; keeps it from being lost until the transaction ends."""
        statement = (
            select(WorkItemRow.lease_token)
            .where(WorkItemRow.kind == self.item.kind, WorkItemRow.key == self.item.key)
            .with_for_update()
        )
        if await session.scalar(statement) != self.item.token:
            raise LeaseLost(f"{self.item.kind} {self.item.key}")


async def enqueue(session: AsyncSession, kind: str, key: str, *, at: datetime | None = None) -> None:
    """Ask for attention to (kind, key), now or at a time, as part of the session's transaction.

    An earlier request stays in force; one made while the item is being reconciled brings it back afterwards.
    """
    due_at = at or utc_now()
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(WorkItemRow).values(kind=kind, key=key, due_at=due_at, sequence=1, lease_token=0, attempts=0)
    earlier = func.min if session.get_bind().dialect.name == "sqlite" else func.least
    statement = statement.on_conflict_do_update(
        index_elements=["kind", "key"],
        set_={
            "due_at": earlier(func.coalesce(WorkItemRow.due_at, statement.excluded.due_at), statement.excluded.due_at),
            "sequence": WorkItemRow.sequence + 1,
        },
    )
    await session.execute(statement)
    announce(session, kind)


async def forget(session: AsyncSession, kind: str, key: str) -> None:
    """Remove the item of a resource that is gone."""
    await session.execute(delete(WorkItemRow).where(WorkItemRow.kind == kind, WorkItemRow.key == key))


class WorkQueue:
    """Claims and finishes items for one server process (`owner`)."""

    def __init__(self, database: Database, owner: str, *, lease_seconds: float = 30.0, clock: Clock = utc_now) -> None:
        self._database = database
        self._owner = owner
        self._clock = clock
        self.lease_seconds = lease_seconds

    async def claim(self, kinds: Collection[str], limit: int) -> Sequence[WorkItem]:
        """Take up to `limit` due items of these kinds, those that are due longest first."""
        now = self._clock()
        async with self._database.read() as session:  # looking costs no write; most looks find nothing
            if not (await session.execute(_due(kinds, now, 1))).first():
                return []
        async with self._database.write() as session:
            statement = _due(kinds, now, limit)
            if not self._database.is_sqlite:
                statement = statement.with_for_update(skip_locked=True)
            rows = (await session.scalars(statement)).all()
            items: list[WorkItem] = []
            for row in rows:
                row.lease_owner = self._owner
                row.lease_token += 1
                row.lease_until = now + timedelta(seconds=self.lease_seconds)
                items.append(WorkItem(row.kind, row.key, row.lease_token, row.sequence, row.attempts))
            return items

    async def next_due_at(self, kinds: Collection[str]) -> datetime | None:
        """When the next free item of these kinds is due."""
        statement = select(func.min(WorkItemRow.due_at)).where(
            WorkItemRow.kind.in_(kinds), WorkItemRow.lease_until.is_(None)
        )
        async with self._database.read() as session:
            return await session.scalar(statement)

    async def renew(self, items: Collection[WorkItem]) -> None:
        """Extend the leases of items that are still being worked on."""
        until = self._clock() + timedelta(seconds=self.lease_seconds)
        async with self._database.write() as session:
            for item in items:
                await session.execute(update(WorkItemRow).where(_held(item)).values(lease_until=until))

    async def finish(
        self, item: WorkItem, *, again_after_seconds: float | None = None, error: str | None = None
    ) -> None:
        """Give the item back. It comes again after the seconds given, or at once if attention was asked for meanwhile."""
        now = self._clock()
        async with self._database.write() as session:
            row = await session.scalar(select(WorkItemRow).where(_held(item)).with_for_update())
            if row is None:
                return
            row.lease_owner = None
            row.lease_until = None
            row.attempts = item.attempts + 1 if error is not None else 0
            row.last_error = error
            if row.sequence == item.sequence:
                row.due_at = None if again_after_seconds is None else now + timedelta(seconds=again_after_seconds)
            else:
                # Asked for again while it was being worked on. After a failure the back-off still holds.
                row.due_at = now + timedelta(seconds=again_after_seconds or 0.0) if error is not None else now
            if row.due_at is not None:
                announce(session, item.kind)

    async def release_all(self) -> None:
        """Give back everything that this owner holds, e.g. when it ends or has come back from a crash."""
        async with self._database.write() as session:
            await session.execute(
                update(WorkItemRow)
                .where(WorkItemRow.lease_owner == self._owner)
                .values(lease_owner=None, lease_until=None, due_at=self._clock())
            )


def _due(kinds: Collection[str], now: datetime, limit: int):
    is_free_and_due = and_(WorkItemRow.lease_until.is_(None), WorkItemRow.due_at <= now)
    is_abandoned = WorkItemRow.lease_until < now
    return (
        select(WorkItemRow)
        .where(WorkItemRow.kind.in_(kinds), or_(is_free_and_due, is_abandoned))
        .order_by(WorkItemRow.due_at)
        .limit(limit)
    )


def _held(item: WorkItem):
    return and_(WorkItemRow.kind == item.kind, WorkItemRow.key == item.key, WorkItemRow.lease_token == item.token)
