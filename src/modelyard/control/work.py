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
from typing import Any

from sqlalchemy import (
    Delete,
    Insert,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)
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
        if await session.scalar(_token(is_kept=True), self._names()) != self.item.token:
            raise LeaseLost(f"{self.item.kind} {self.item.key}")

    async def check(self, session: AsyncSession) -> None:
        """Raise `LeaseLost` unless the claim holds at this moment; for a last look before work on the outside."""
        if await session.scalar(_token(is_kept=False), self._names()) != self.item.token:
            raise LeaseLost(f"{self.item.kind} {self.item.key}")

    def _names(self) -> dict[str, str]:
        return {"kind": self.item.kind, "key": self.item.key}


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
            rows = [_named(item) | {"until": until} for item in sorted(items, key=_order)]
            await session.execute(update(_TABLE).where(_HELD).values(lease_until=bindparam("until")), rows)

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
            due = await session.execute(_due(is_claimed=False), _due_now(kinds, self._clock(), 1))
            return due.first() is not None

    async def _take(self, session: AsyncSession, kinds: Collection[str], limit: int) -> list[WorkItem]:
        now = self._clock()
        due = (await session.execute(_due(is_claimed=True), _due_now(kinds, now, limit))).all()
        # Tokens are random, so that none comes twice, not even for a key that was forgotten and has come back.
        items = [WorkItem(row.kind, row.key, secrets.randbits(62) + 1, row.sequence, row.attempts) for row in due]
        if items:
            until = now + timedelta(seconds=self.lease_seconds)
            await session.execute(
                _claiming(), [_named(item) | {"owner": self._owner, "until": until} for item in items]
            )
        return items

    async def _give_back(self, session: AsyncSession, finished: Sequence[Finished]) -> None:
        """In as few statements as there are kinds: under load this is what the server does most."""
        now = self._clock()
        done: list[dict[str, object]] = []
        again: list[dict[str, object]] = []
        by_kind: dict[str, dict[str, Finished]] = {}
        for each in sorted(finished, key=lambda each: _order(each.item)):
            by_kind.setdefault(each.item.kind, {})[each.item.key] = each
        for kind, items in by_kind.items():
            for row in (await session.execute(_asked_since(), {"kind": kind, "keys": list(items)})).all():
                each = items[row.key]
                if row.lease_token != each.item.token:
                    continue  # taken over
                due_at = _next_due_at(row.due_at, row.sequence, each, now)
                if due_at is None:
                    done.append(_named(each.item))
                    continue
                attempts = each.item.attempts + 1 if each.error is not None else 0
                again.append(_named(each.item) | {"due": due_at, "failures": attempts, "error": each.error})
                announce(session, kind)
        if done:
            await session.execute(_dropping(), done)
        if again:
            await session.execute(_returning(), again)


def _next_due_at(asked_at: datetime | None, sequence: int, finished: Finished, now: datetime) -> datetime | None:
    if finished.error is not None and sequence == finished.item.sequence:
        asked_at = None  # a hint: it does not shorten the wait after a failure
    again_at = None
    if finished.again_after_seconds is not None:
        again_at = now + timedelta(seconds=finished.again_after_seconds)
    return min((at for at in (asked_at, again_at) if at is not None), default=None)


_TABLE = Table.metadata.tables[WorkItemRow.__tablename__]
_HELD = and_(
    _TABLE.c.kind == bindparam("of_kind"),
    _TABLE.c.key == bindparam("of_key"),
    _TABLE.c.lease_token == bindparam("of_token"),
)


def _named(item: WorkItem) -> dict[str, object]:
    """The item in the statements below."""
    return {"of_kind": item.kind, "of_key": item.key, "of_token": item.token}


# Each of these is built once: that takes longer than running it.


@cache
def _token(*, is_kept: bool) -> Select[Any]:
    statement = select(_TABLE.c.lease_token).where(_TABLE.c.kind == bindparam("kind"), _TABLE.c.key == bindparam("key"))
    return statement.with_for_update(read=True, key_share=True) if is_kept else statement


@cache
def _due(*, is_claimed: bool) -> Select[Any, Any, Any, Any]:
    """What is free and due, or was abandoned; what is being claimed by another server is left out."""
    known, now = _TABLE.c, bindparam("now", type_=_TABLE.c.due_at.type)
    is_free_and_due = and_(known.lease_until.is_(None), known.due_at <= now)
    statement = (
        select(known.kind, known.key, known.sequence, known.attempts)
        .where(known.kind.in_(bindparam("kinds", expanding=True)), or_(is_free_and_due, known.lease_until < now))
        .order_by(func.coalesce(known.lease_until, known.due_at))
        .limit(bindparam("limit", type_=Integer))
    )
    return (
        statement.with_for_update(skip_locked=True) if is_claimed else statement
    )  # SQLite has one writer, and ignores this


def _due_now(kinds: Collection[str], now: datetime, limit: int) -> dict[str, object]:
    return {"kinds": list(kinds), "now": now, "limit": limit}


@cache
def _claiming() -> Update:
    """From here on `due_at` says whether, and for when, attention was asked for since."""
    statement = update(_TABLE).where(_TABLE.c.kind == bindparam("of_kind"), _TABLE.c.key == bindparam("of_key"))
    return statement.values(
        lease_owner=bindparam("owner"), lease_token=bindparam("of_token"), lease_until=bindparam("until"), due_at=None
    )


@cache
def _asked_since() -> Select[Any, Any, Any, Any]:
    known = _TABLE.c
    statement = select(known.key, known.lease_token, known.due_at, known.sequence)
    statement = statement.where(known.kind == bindparam("kind"), known.key.in_(bindparam("keys", expanding=True)))
    return statement.order_by(known.key).with_for_update(key_share=True)


@cache
def _dropping() -> Delete:
    return delete(_TABLE).where(_HELD)


@cache
def _returning() -> Update:
    return (
        update(_TABLE)
        .where(_HELD)
        .values(
            due_at=bindparam("due"),
            lease_owner=None,
            lease_until=None,
            attempts=bindparam("failures"),
            last_error=bindparam("error"),
        )
    )


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
    known = _TABLE.c
    statement = insert(_TABLE)
    asked_at = statement.excluded.due_at
    sooner = earlier(func.coalesce(known.due_at, asked_at), asked_at)
    is_backing_off = and_(known.attempts > 0, known.due_at.is_not(None))
    changes = (
        {"due_at": case((is_backing_off, known.due_at), else_=sooner)}
        if is_hint
        else {"due_at": sooner, "sequence": known.sequence + 1}
    )
    return statement.on_conflict_do_update(index_elements=["kind", "key"], set_=changes)
