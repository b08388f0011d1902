"""The work queue: which resources are to be looked at, by whom, and since when.

The queue is a table, so that it survives everything, several servers can share it, and a service can ask for attention in the
transaction that gives the reason. A claim is a lease with a fencing token: whoever lost the lease (it slept too long) can't write any
more, because each of its writes checks the token in the same transaction (`Lease.guard`). Clocks only decide how soon an abandoned item is
taken over; that nothing is done twice rests on the token alone.

An item is there while something is to be done about its resource, and no longer: the table stays as small as the work.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import CursorResult, Insert, and_, case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.control.tables import WorkItemRow
from modelyard.db.columns import Table
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


@dataclass(frozen=True, slots=True)
class Finished:
    """An item to give back. It comes again after the seconds given, if any; `error` says why it did not work."""

    item: WorkItem
    again_after_seconds: float | None = None
    error: str | None = None


class LeaseLost(Exception):
    """Somebody else has claimed the item since; nothing of this attempt may be written."""


class Lease:
    """The right to write about one item, for as long as nobody else has claimed it."""

    def __init__(self, item: WorkItem) -> None:
        self.item = item

    async def guard(self, session: AsyncSession) -> None:
        """Raise `LeaseLost` unless the claim still holds; keeps it from being lost until the transaction ends."""
        # A key-share lock keeps claims away, which take the whole row, but not requests for attention, which don't touch the key:
        # two items that wake each other in their transactions would otherwise wait for each other for ever.
        if await session.scalar(self._token().with_for_update(read=True, key_share=True)) != self.item.token:
            raise LeaseLost(f"{self.item.kind} {self.item.key}")

    async def check(self, session: AsyncSession) -> None:
        """Raise `LeaseLost` unless the claim holds at this moment; for a last look before work on the outside."""
        if await session.scalar(self._token()) != self.item.token:
            raise LeaseLost(f"{self.item.kind} {self.item.key}")

    def _token(self):
        return select(WorkItemRow.lease_token).where(
            WorkItemRow.kind == self.item.kind, WorkItemRow.key == self.item.key
        )


async def enqueue(
    session: AsyncSession, kind: str, key: str, *, at: datetime | None = None, is_hint: bool = False
) -> None:
    """Ask for attention to (kind, key), now or at a time, as part of the session's transaction.

    An earlier request stays in force; one made while the item is being reconciled brings it back afterwards. A request (something else is
    wanted now) is heard at once. A hint (something new can be seen) does not shorten the wait after a failure.
    """
    await _enqueue(session, [(kind, key)], at, is_hint=is_hint)
    announce(session, kind)


async def forget(session: AsyncSession, kind: str, key: str) -> None:
    """Remove the item of a resource that is gone."""
    await session.execute(delete(WorkItemRow).where(WorkItemRow.kind == kind, WorkItemRow.key == key))


class WorkQueue:
    """Claims and finishes items for one server process.

    Args:
        owner: names the process, at most 64 characters. A server that comes back under the same name takes over at once what it held when it
            crashed; under another name that waits until the leases have run out.
    """

    def __init__(self, database: Database, owner: str, *, lease_seconds: float = 30.0, clock: Clock = utc_now) -> None:
        self._database = database
        self._owner = owner
        self._clock = clock
        self.lease_seconds = lease_seconds

    async def claim(
        self,
        kinds: Collection[str],
        limit: int,
        *,
        finished: Sequence[Finished] = (),
        hints: Collection[tuple[str, str]] = (),
    ) -> list[WorkItem]:
        """Take up to `limit` due items of these kinds, those that are due longest first; before that, give back what is finished.

        `hints` are kinds and keys about which something new can be seen. All in one transaction: under load that is one flush to disk for
        many items.
        """
        if not finished and not hints and not await self._is_any_due(kinds, limit):
            return []
        async with self._database.write() as session:
            await self._give_back(session, finished)
            await _enqueue(session, sorted(hints), None, is_hint=True)
            return await self._take(session, kinds, limit) if limit > 0 else []

    async def finish(
        self, item: WorkItem, *, again_after_seconds: float | None = None, error: str | None = None
    ) -> None:
        """Give one item back. It comes again after the seconds given, or at once if attention was asked for meanwhile."""
        async with self._database.write() as session:
            await self._give_back(session, [Finished(item, again_after_seconds, error)])

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
            for item in sorted(items, key=_order):
                await session.execute(update(WorkItemRow).where(_held(item)).values(lease_until=until))

    async def release_all(self) -> None:
        """Give back everything that this owner holds, e.g. when it ends or has come back from a crash."""
        async with self._database.write() as session:
            await session.execute(
                update(WorkItemRow)
                .where(WorkItemRow.lease_owner == self._owner)
                .values(lease_owner=None, lease_until=None, due_at=self._clock())
            )

    async def _is_any_due(self, kinds: Collection[str], limit: int) -> bool:
        """Looking costs no write, and most looks find nothing."""
        if limit <= 0:
            return False
        async with self._database.read() as session:
            return (await session.execute(_due(kinds, self._clock(), 1))).first() is not None

    async def _take(self, session: AsyncSession, kinds: Collection[str], limit: int) -> list[WorkItem]:
        now = self._clock()
        statement = _due(kinds, now, limit).with_for_update(skip_locked=True)  # SQLite has one writer, and ignores this
        items: list[WorkItem] = []
        for row in (await session.scalars(statement)).all():
            row.lease_owner = self._owner
            # Random, so that none comes twice, not even for a key that was forgotten and has come back.
            row.lease_token = secrets.randbits(62) + 1
            row.lease_until = now + timedelta(seconds=self.lease_seconds)
            row.due_at = None  # from here on it says whether, and for when, attention was asked for since
            items.append(WorkItem(row.kind, row.key, row.lease_token, row.sequence, row.attempts))
        return items

    async def _give_back(self, session: AsyncSession, finished: Sequence[Finished]) -> None:
        now = self._clock()
        for each in sorted(finished, key=lambda each: _order(each.item)):
            if each.again_after_seconds is None and each.error is None and await _dropped(session, each.item):
                continue
            held = select(WorkItemRow).where(_held(each.item)).with_for_update(key_share=True)
            row = await session.scalar(held)
            if row is None:
                continue  # forgotten, or taken over
            row.due_at = _next_due_at(row, each, now)
            if row.due_at is None:
                await session.delete(row)
                continue
            row.lease_owner = None
            row.lease_until = None
            row.attempts = each.item.attempts + 1 if each.error is not None else 0
            row.last_error = each.error
            announce(session, each.item.kind)


async def _dropped(session: AsyncSession, item: WorkItem) -> bool:
    """Remove an item about which nothing was asked for since; false where something was, or where it is not held any more."""
    statement = delete(WorkItemRow).where(_held(item), WorkItemRow.due_at.is_(None))
    done = await session.execute(statement.execution_options(synchronize_session=False))
    return cast("CursorResult[Any]", done).rowcount > 0


def _next_due_at(row: WorkItemRow, finished: Finished, now: datetime) -> datetime | None:
    asked_at = row.due_at
    if finished.error is not None and row.sequence == finished.item.sequence:
        asked_at = None  # a hint: it does not shorten the wait after a failure
    again_at = None
    if finished.again_after_seconds is not None:
        again_at = now + timedelta(seconds=finished.again_after_seconds)
    return min((at for at in (asked_at, again_at) if at is not None), default=None)


def _due(kinds: Collection[str], now: datetime, limit: int):
    is_free_and_due = and_(WorkItemRow.lease_until.is_(None), WorkItemRow.due_at <= now)
    is_abandoned = WorkItemRow.lease_until < now
    return (
        select(WorkItemRow)
        .where(WorkItemRow.kind.in_(kinds), or_(is_free_and_due, is_abandoned))
        .order_by(func.coalesce(WorkItemRow.lease_until, WorkItemRow.due_at))
        .limit(limit)
    )


def _held(item: WorkItem):
    return and_(WorkItemRow.kind == item.kind, WorkItemRow.key == item.key, WorkItemRow.lease_token == item.token)


def _order(item: WorkItem) -> tuple[str, str]:
    """Whoever locks several rows does it in this order, so that no two wait for each other."""
    return item.kind, item.key


async def _enqueue(
    session: AsyncSession, items: Iterable[tuple[str, str]], at: datetime | None, *, is_hint: bool
) -> None:
    due_at = at or utc_now()
    fresh = {"due_at": due_at, "sequence": 1, "lease_token": 0, "attempts": 0}
    rows: list[dict[str, object]] = [{"kind": kind, "key": key, **fresh} for kind, key in items]
    if rows:
        await session.flush()  # what was done to these very rows comes first
        await session.execute(
            _asking(session.get_bind().dialect.name, is_hint=is_hint), rows if len(rows) > 1 else rows[0]
        )


@cache
def _asking(dialect: str, *, is_hint: bool) -> Insert:
    """The statement that asks for attention. It is built once: that takes longer than running it, and it is the platform's most frequent."""
    is_sqlite = dialect == "sqlite"
    insert = sqlite.insert if is_sqlite else postgresql.insert
    earlier = func.min if is_sqlite else func.least
    table = Table.metadata.tables[WorkItemRow.__tablename__]
    known = table.c
    statement = insert(table)
    asked_at = statement.excluded.due_at
    sooner = earlier(func.coalesce(known.due_at, asked_at), asked_at)
    is_backing_off = and_(known.attempts > 0, known.due_at.is_not(None))
    changes = (
        {"due_at": case((is_backing_off, known.due_at), else_=sooner)}
        if is_hint
        else {"due_at": sooner, "sequence": known.sequence + 1}
    )
    return statement.on_conflict_do_update(index_elements=["kind", "key"], set_=changes)
