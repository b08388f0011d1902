"""All queries on objects and on the counts of references to blobs.

The order of locks is the same everywhere: the container's row, then blobs by key. So writers of one container take turns, and two
transactions never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Row, bindparam, delete, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.objectstore.backends.local.index_containers import add_to_totals, lock_container, to_container
from modelyard.objectstore.backends.local.model import (
    BlobMissing,
    Container,
    NewObject,
    NoSuchContainer,
    NoSuchObject,
    ObjectExists,
    StoredObject,
)
from modelyard.objectstore.backends.local.tables import blobs, containers, objects

_OBJECT_COLUMNS = tuple(column.name for column in objects.columns)
_LOOKUP_BATCH = 200
_WITH_CONTAINER = (
    select(containers, *(column.label(f"object_{column.name}") for column in objects.columns))
    .outerjoin(objects, (objects.c.container_id == containers.c.id) & (objects.c.name == bindparam("name")))
    .where(containers.c.account == bindparam("account"), containers.c.name == bindparam("container"))
)


async def find_object(
    session: AsyncSession, account: str, container: str, name: str
) -> tuple[Container, StoredObject | None]:
    """A container and the object of that name in it. Raises `NoSuchContainer`."""
    names = {"account": account, "container": container, "name": name}
    row = (await session.execute(_WITH_CONTAINER, names)).one_or_none()
    if row is None:
        raise NoSuchContainer(container)
    found = None
    if row.object_name is not None:
        found = StoredObject(**{column: getattr(row, f"object_{column}") for column in _OBJECT_COLUMNS})
    return to_container(row), found


async def find_objects(
    session: AsyncSession, account: str, names: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[Container, StoredObject]]:
    """Objects by `(container, name)`; those that don't exist are left out."""
    wanted = sorted(set(names))
    found: dict[tuple[str, str], tuple[Container, StoredObject]] = {}
    homes = {name: None for name, _ in wanted}
    rows = await session.execute(
        select(containers).where(containers.c.account == account, containers.c.name.in_(list(homes)))
    )
    by_name = {row.name: to_container(row) for row in rows}
    pairs = [(by_name[home].id, home, name) for home, name in wanted if home in by_name]
    for start in range(0, len(pairs), _LOOKUP_BATCH):
        batch = pairs[start : start + _LOOKUP_BATCH]
        keys = [(container_id, name) for container_id, _, name in batch]
        query = select(objects).where(tuple_(objects.c.container_id, objects.c.name).in_(keys))
        rows_by_key = {(row.container_id, row.name): _to_object(row) for row in await session.execute(query)}
        for container_id, home, name in batch:
            if (container_id, name) in rows_by_key:
                found[home, name] = by_name[home], rows_by_key[container_id, name]
    return found


async def put_object(
    session: AsyncSession,
    account: str,
    container: str,
    name: str,
    new: NewObject,
    now: int,
    *,
    is_copy: bool = False,
    must_be_new: bool = False,
) -> tuple[StoredObject, list[str]]:
    """Write an object's row over what was there. `now` in ticks. `is_copy`: its blob is another object's already.

    Returns the object and the keys of blobs that nothing names any more. Raises `NoSuchContainer`, `ObjectExists`, and `BlobMissing` when
    the blob of a copy's source has gone meanwhile.
    """
    home = await lock_container(session, account, container)
    old = await _object_of(session, home.id, name)
    if old is not None and must_be_new and not is_expired(old, now):
        raise ObjectExists(name)
    stored = StoredObject(container_id=home.id, name=name, modified_at=now, **asdict(new))
    old_key = old.blob_key if old else None
    if stored.blob_key and stored.blob_key != old_key:
        await _name_blob(session, stored.blob_key, stored.stored_size, old_key if is_copy else None, is_copy=is_copy)
    if old is None:
        await session.execute(insert(objects).values(asdict(stored)))
    else:
        await session.execute(update(objects).where(*_is(home.id, name)).values(asdict(stored)))
    unnamed = await _unname_blob(session, old_key) if old_key and old_key != stored.blob_key else []
    await add_to_totals(
        session,
        home.id,
        count=0 if old else 1,
        size=stored.stored_size - (old.stored_size if old else 0),
    )
    return stored, unnamed


async def put_objects(
    session: AsyncSession, account: str, container: str, items: Sequence[tuple[str, NewObject]], now: int
) -> tuple[list[StoredObject], list[str]]:
    """Write the rows of several objects with blobs of their own over what was there; each name comes once. `now` in ticks.

    Returns the objects and the keys of blobs that nothing names any more. Raises `NoSuchContainer`; nothing is written then.
    """
    home = await lock_container(session, account, container)
    stored = [StoredObject(container_id=home.id, name=name, modified_at=now, **asdict(new)) for name, new in items]
    names = [name for name, _ in items]
    old: list[StoredObject] = []
    for start in range(0, len(names), _LOOKUP_BATCH):
        batch = names[start : start + _LOOKUP_BATCH]
        rows = await session.execute(
            select(objects).where(objects.c.container_id == home.id, objects.c.name.in_(batch))
        )
        old += map(_to_object, rows)
    fresh = [{"key": each.blob_key, "size": each.stored_size, "reference_count": 1} for each in stored if each.blob_key]
    if fresh:
        await session.execute(insert(blobs), fresh)
    if old:
        gone = delete(objects).where(objects.c.container_id == home.id, objects.c.name == bindparam("of_name"))
        await session.execute(gone, [{"of_name": each.name} for each in old])
    if stored:
        await session.execute(insert(objects), [asdict(each) for each in stored])
    unnamed = await _unname_blobs(session, sorted(each.blob_key for each in old if each.blob_key))
    size = sum(each.stored_size for each in stored) - sum(each.stored_size for each in old)
    await add_to_totals(session, home.id, count=len(stored) - len(old), size=size)
    return stored, unnamed


async def change_object(
    session: AsyncSession,
    account: str,
    container: str,
    name: str,
    *,
    headers: Mapping[str, str],
    content_type: str | None,
    delete_at: int | None,
    now: int,
) -> None:
    """Replace an object's metadata; None keeps the content type. Raises `NoSuchContainer` or `NoSuchObject`."""
    home = await lock_container(session, account, container)
    old = await _object_of(session, home.id, name)
    if old is None or is_expired(old, now):
        raise NoSuchObject(name)
    values: dict[str, Any] = {"headers": dict(headers), "delete_at": delete_at, "modified_at": now}
    if content_type:
        values["content_type"] = content_type
    await session.execute(update(objects).where(*_is(home.id, name)).values(values))


async def delete_object(
    session: AsyncSession, account: str, container: str, name: str, now: int, *, only_expired: bool = False
) -> tuple[bool, list[str]]:
    """Take an object's row away. Whether there was one to be seen, and the keys of blobs that nothing names any more.

    An object whose time is over counts as not there, yet goes. Raises `NoSuchContainer`.
    """
    home = await lock_container(session, account, container)
    old = await _object_of(session, home.id, name)
    if old is None or (only_expired and not is_expired(old, now)):
        return False, []
    await session.execute(delete(objects).where(*_is(home.id, name)))
    unnamed = await _unname_blob(session, old.blob_key) if old.blob_key else []
    await add_to_totals(session, home.id, count=-1, size=-old.stored_size)
    return not is_expired(old, now), unnamed


async def list_expired(session: AsyncSession, now: int, limit: int) -> Sequence[tuple[str, str, str]]:
    """`(account, container, name)` of objects whose time is over, at most `limit`."""
    query = (
        select(containers.c.account, containers.c.name, objects.c.name.label("object_name"))
        .join(objects, objects.c.container_id == containers.c.id)
        .where(objects.c.delete_at <= now // 100_000)
        .limit(limit)
    )
    return [(row[0], row[1], row[2]) for row in await session.execute(query)]


async def known_blobs(session: AsyncSession, keys: Sequence[str]) -> set[str]:
    """Which of these keys the index names."""
    return set((await session.execute(select(blobs.c.key).where(blobs.c.key.in_(keys)))).scalars())


def is_expired(found: StoredObject, now: int) -> bool:
    """Whether the object's time is over. `now` in ticks."""
    return found.delete_at is not None and found.delete_at <= now // 100_000


async def _name_blob(session: AsyncSession, key: str, size: int, other: str | None, *, is_copy: bool) -> None:
    if not is_copy:
        await session.execute(insert(blobs).values(key=key, size=size, reference_count=1))
        return
    if other:  # both rows will be changed: lock them in order first
        both = select(blobs.c.key).where(blobs.c.key.in_([key, other])).order_by(blobs.c.key).with_for_update()
        (await session.execute(both)).all()
    raised = update(blobs).where(blobs.c.key == key).values(reference_count=blobs.c.reference_count + 1)
    if (await session.execute(raised.returning(blobs.c.key))).one_or_none() is None:
        raise BlobMissing(key)


async def _unname_blob(session: AsyncSession, key: str) -> list[str]:
    lowered = update(blobs).where(blobs.c.key == key).values(reference_count=blobs.c.reference_count - 1)
    if (await session.execute(lowered.returning(blobs.c.reference_count))).scalar_one() > 0:
        return []
    await session.execute(delete(blobs).where(blobs.c.key == key))
    return [key]


async def _unname_blobs(session: AsyncSession, keys: Sequence[str]) -> list[str]:
    """Each key in order, as often as it was named; those that nothing names any more."""
    if not keys:
        return []
    lowered = update(blobs).where(blobs.c.key == bindparam("of_key"))
    await session.execute(
        lowered.values(reference_count=blobs.c.reference_count - 1), [{"of_key": key} for key in keys]
    )
    unnamed = select(blobs.c.key).where(blobs.c.key.in_(keys), blobs.c.reference_count <= 0)
    found = list((await session.execute(unnamed)).scalars())
    await session.execute(delete(blobs).where(blobs.c.key.in_(found)))
    return found


async def _object_of(session: AsyncSession, container_id: str, name: str) -> StoredObject | None:
    row = (await session.execute(select(objects).where(*_is(container_id, name)))).one_or_none()
    return None if row is None else _to_object(row)


def _is(container_id: str, name: str) -> tuple[Any, Any]:
    return objects.c.container_id == container_id, objects.c.name == name


def _to_object(row: Row[Any]) -> StoredObject:
    return StoredObject(**{column: getattr(row, column) for column in _OBJECT_COLUMNS})
