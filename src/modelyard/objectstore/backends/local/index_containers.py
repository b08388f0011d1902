"""All queries on accounts and containers. Every function works inside a transaction of its caller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, Table, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.ids import new_id
from modelyard.objectstore.backends.local.model import (
    MAX_META_COUNT,
    MAX_META_TOTAL,
    Account,
    Container,
    ContainerChange,
    ContainerNotEmpty,
    NoSuchContainer,
    TooMuchMetadata,
)
from modelyard.objectstore.backends.local.tables import accounts, containers

# The limit counts names without their `X-Container-Meta-`, which are kept here with it.
_BY_NAME = select(containers).where(
    containers.c.account == bindparam("account"), containers.c.name == bindparam("name")
)
_META_ROOM = MAX_META_TOTAL + MAX_META_COUNT * len("X-Container-Meta-")


async def find_account(session: AsyncSession, name: str, now: int) -> Account:
    """An account with its totals; one that has never been used is empty and begins now (`now` in ticks)."""
    row = (await session.execute(select(accounts).where(accounts.c.name == name))).one_or_none()
    totals = (
        await session.execute(
            select(
                func.count(),
                func.coalesce(func.sum(containers.c.object_count), 0),
                func.coalesce(func.sum(containers.c.bytes_used), 0),
            ).where(containers.c.account == name)
        )
    ).one()
    counts = [int(total) for total in totals]
    if row is None:
        return Account(name, now, {}, *counts)
    return Account(name, row.created_at, row.headers, *counts)


async def change_account(session: AsyncSession, name: str, changes: Mapping[str, str], now: int) -> None:
    """Set metadata headers of an account; an empty value removes one."""
    await _ensure_account(session, name, now)
    query = select(accounts.c.headers).where(accounts.c.name == name).with_for_update()
    headers = (await session.execute(query)).scalar_one()
    await session.execute(update(accounts).where(accounts.c.name == name).values(headers=_merged(headers, changes)))


async def find_container(session: AsyncSession, account: str, name: str) -> Container:
    """A container. Raises `NoSuchContainer`."""
    row = (await session.execute(_BY_NAME, {"account": account, "name": name})).one_or_none()
    if row is None:
        raise NoSuchContainer(name)
    return to_container(row)


async def lock_container(session: AsyncSession, account: str, name: str) -> Container:
    """A container that no other transaction changes until this one ends. Raises `NoSuchContainer`."""
    query = select(containers).where(containers.c.account == account, containers.c.name == name).with_for_update()
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise NoSuchContainer(name)
    return to_container(row)


async def put_container(session: AsyncSession, account: str, name: str, change: ContainerChange, now: int) -> bool:
    """Create a container or change an existing one. Whether it was created."""
    await _ensure_account(session, account, now)
    values = {
        "id": new_id(),
        "account": account,
        "name": name,
        "created_at": now,
        "modified_at": now,
        "object_count": 0,
        "bytes_used": 0,
        "headers": _merged({}, change.headers),
        "read_acl": change.read_acl or None,
        "write_acl": change.write_acl or None,
        "is_acl_set": change.sets_acl,
    }
    created = await _insert_if_new(session, containers, values)
    if not created:
        await change_container(session, account, name, change, now)
    return created


async def change_container(session: AsyncSession, account: str, name: str, change: ContainerChange, now: int) -> None:
    """Set metadata and lists. Raises `NoSuchContainer`."""
    container = await lock_container(session, account, name)
    values: dict[str, Any] = {"headers": _merged(container.headers, change.headers), "modified_at": now}
    if change.read_acl is not None:
        values["read_acl"] = change.read_acl or None
    if change.write_acl is not None:
        values["write_acl"] = change.write_acl or None
    if change.sets_acl:
        values["is_acl_set"] = True
    await session.execute(update(containers).where(containers.c.id == container.id).values(values))


async def delete_container(session: AsyncSession, account: str, name: str) -> None:
    """Delete an empty container. Raises `NoSuchContainer` or `ContainerNotEmpty`."""
    container = await lock_container(session, account, name)
    if container.object_count:
        raise ContainerNotEmpty(name)
    await session.execute(delete(containers).where(containers.c.id == container.id))


async def add_to_totals(session: AsyncSession, container_id: str, *, count: int, size: int) -> None:
    """Add to a container's number of objects and bytes; the caller holds its lock."""
    if count or size:
        await session.execute(
            update(containers)
            .where(containers.c.id == container_id)
            .values(object_count=containers.c.object_count + count, bytes_used=containers.c.bytes_used + size)
        )


def to_container(row: Row[Any]) -> Container:
    """A row of `object_containers` as a value."""
    return Container(**{column.name: getattr(row, column.name) for column in containers.columns})


async def _ensure_account(session: AsyncSession, name: str, now: int) -> None:
    await _insert_if_new(session, accounts, {"name": name, "created_at": now, "headers": {}})


async def _insert_if_new(session: AsyncSession, table: Table, values: Mapping[str, Any]) -> bool:
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    statement = (
        dialect.insert(table).values(dict(values)).on_conflict_do_nothing().returning(*table.primary_key.columns)
    )
    return (await session.execute(statement)).one_or_none() is not None


def _merged(old: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    merged = {name: value for name, value in {**old, **changes}.items() if value}
    if changes and len(merged) > MAX_META_COUNT:
        raise TooMuchMetadata(f"Too many metadata items; max {MAX_META_COUNT}")
    if changes and sum(len(name) + len(value) for name, value in merged.items()) > _META_ROOM:
        raise TooMuchMetadata(f"Total metadata too large; max {MAX_META_TOTAL}")
    return merged
