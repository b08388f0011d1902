"""The own store as one thing: the index in the database and the blobs beside it.

The order makes it safe. A blob is written and synced first, then one transaction puts the row; so no reader ever sees half an object, and a
crash leaves nothing but a blob without a name. A row goes first and its blob after the commit; so a reader who found the row a moment ago
may find the blob gone, and looks the row up again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from modelyard.kit.clock import Clock, utc_now
from modelyard.objectstore.backends.local import index_containers, index_objects, listing
from modelyard.objectstore.backends.local.blobs import Blobs, BlobWriter
from modelyard.objectstore.backends.local.large import Permit, Piece, Reader, read_pieces
from modelyard.objectstore.backends.local.model import (
    Account,
    BlobMissing,
    BlobStoreFull,
    Container,
    ContainerChange,
    ListingRequest,
    NewObject,
    NoSuchContainer,
    NoSuchObject,
    StoredObject,
    Subdirectory,
    ticks_now,
)

T = TypeVar("T")

_log = logging.getLogger(__name__)

# A blob without a name is left alone so long, because an upload that takes all day is still being written or about to be named.
ORPHAN_AGE_SECONDS = 86_400.0
# What SQLite and PostgreSQL say when a write finds no room; the transaction has been rolled back then.
_FULL = ("database or disk is full", "No space left on device")
_SWEEP_BATCH = 500
_RETRIES = 5


class Sessions(Protocol):
    """Opens sessions on the platform's database (`modelyard.db.engine.Database` has this shape)."""

    def read(self) -> AbstractAsyncContextManager[AsyncSession]:
        """A session that only reads."""
        ...

    def write(self) -> AbstractAsyncContextManager[AsyncSession]:
        """One transaction, committed at the end of the block."""
        ...


class LocalStore:
    """Accounts, containers and objects. Names arrive checked; permissions are the door's business."""

    def __init__(self, sessions: Sessions, blobs: Blobs, *, clock: Clock = utc_now) -> None:
        self._sessions = sessions
        self._blobs = blobs
        self._clock = clock

    def now(self) -> int:
        """The store's time in ticks of 10 µs."""
        return ticks_now(self._clock)

    async def account(self, name: str) -> Account:
        """An account with its totals."""
        async with self._sessions.read() as session:
            return await index_containers.find_account(session, name, self.now())

    async def change_account(self, name: str, changes: Mapping[str, str]) -> None:
        """Set metadata headers; an empty value removes one."""
        async with self._transaction() as session:
            await index_containers.change_account(session, name, changes, self.now())

    async def list_containers(self, account: str, request: ListingRequest) -> list[Container | Subdirectory]:
        """Containers of an account in order of names."""
        async with self._sessions.read() as session:
            rows = await listing.list_containers(session, account, request)
        return [row if isinstance(row, Subdirectory) else index_containers.to_container(row) for row in rows]

    async def container(self, account: str, name: str) -> Container:
        """A container. Raises `NoSuchContainer`."""
        async with self._sessions.read() as session:
            return await index_containers.find_container(session, account, name)

    async def put_container(self, account: str, name: str, change: ContainerChange) -> bool:
        """Create or change. Whether it was created."""
        async with self._transaction() as session:
            return await index_containers.put_container(session, account, name, change, self.now())

    async def change_container(self, account: str, name: str, change: ContainerChange) -> None:
        """Set metadata and lists. Raises `NoSuchContainer`."""
        async with self._transaction() as session:
            await index_containers.change_container(session, account, name, change, self.now())

    async def delete_container(self, account: str, name: str) -> None:
        """Delete an empty container. Raises `NoSuchContainer` or `ContainerNotEmpty`."""
        async with self._transaction() as session:
            await index_containers.delete_container(session, account, name)

    async def list_objects(self, container: Container, request: ListingRequest) -> list[StoredObject | Subdirectory]:
        """Objects and directories of a container in order of names."""
        async with self._sessions.read() as session:
            return await listing.list_objects(session, container.id, request)

    async def find(self, account: str, container: str, name: str) -> tuple[Container, StoredObject | None]:
        """A container and the object of that name, unless its time is over. Raises `NoSuchContainer`."""
        async with self._sessions.read() as session:
            home, found = await index_objects.find_object(session, account, container, name)
        if found is not None and index_objects.is_expired(found, self.now()):
            return home, None
        return home, found

    async def find_many(
        self, account: str, places: Iterable[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[Container, StoredObject]]:
        """Objects by `(container, name)`; what does not exist is left out."""
        async with self._sessions.read() as session:
            found = await index_objects.find_objects(session, account, places)
        now = self.now()
        return {place: pair for place, pair in found.items() if not index_objects.is_expired(pair[1], now)}

    @asynccontextmanager
    async def _transaction(self) -> AsyncGenerator[AsyncSession, None]:
        try:
            async with self._sessions.write() as session:
                yield session
        except DBAPIError as error:
            if any(words in str(error.orig) for words in _FULL):
                raise BlobStoreFull("the disk of the object store's index is full") from error
            raise

    def new_blob(self) -> BlobWriter:
        """Begin to write bytes; `put` names them, `discard` forgets them."""
        return self._blobs.new()

    async def put(
        self,
        account: str,
        container: str,
        name: str,
        new: NewObject,
        *,
        is_copy: bool = False,
        must_be_new: bool = False,
    ) -> StoredObject:
        """Name a finished blob (or, `is_copy`, that of another object).

        Raises `NoSuchContainer`, `ObjectExists`, `BlobMissing`, `BlobStoreFull`; nothing is written then.
        """
        async with self._transaction() as session:
            stored, unnamed = await index_objects.put_object(
                session, account, container, name, new, self.now(), is_copy=is_copy, must_be_new=must_be_new
            )
        await self._forget(unnamed)
        return stored

    async def put_small(
        self, account: str, container: str, items: Sequence[tuple[str, NewObject, bytes]]
    ) -> list[StoredObject]:
        """Write several small objects, all or none, in one transaction; each name comes once.

        Raises `NoSuchContainer`, `BlobStoreFull`; nothing is written then.
        """
        filled = [content for _, _, content in items if content]
        keys = await self._blobs.write_small(filled)
        following = iter(keys)
        named = [
            (
                name,
                replace(
                    new, blob_key=next(following) if content else None, size=len(content), stored_size=len(content)
                ),
            )
            for name, new, content in items
        ]
        try:
            async with self._transaction() as session:
                stored, unnamed = await index_objects.put_objects(session, account, container, named, self.now())
        except (
            NoSuchContainer,
            BlobStoreFull,
        ):  # after any other failure nobody knows; the sweep finds what was not committed
            await self._forget(keys)
            raise
        await self._forget(unnamed)
        return stored

    async def change(
        self,
        account: str,
        container: str,
        name: str,
        *,
        headers: Mapping[str, str],
        content_type: str | None,
        delete_at: int | None,
    ) -> None:
        """Replace an object's metadata. Raises `NoSuchContainer` or `NoSuchObject`."""
        async with self._transaction() as session:
            await index_objects.change_object(
                session,
                account,
                container,
                name,
                headers=headers,
                content_type=content_type,
                delete_at=delete_at,
                now=self.now(),
            )

    async def delete(self, account: str, container: str, name: str) -> None:
        """Delete an object. Raises `NoSuchContainer` or `NoSuchObject`."""
        async with self._transaction() as session:
            was_there, unnamed = await index_objects.delete_object(session, account, container, name, self.now())
        await self._forget(unnamed)
        if not was_there:
            raise NoSuchObject(name)

    def reader(self, account: str, permit: Permit = lambda container: None) -> Reader:
        """Follows manifests of an account's large objects; `permit` raises where the caller may not read a container."""

        async def lookup(places: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[Container, StoredObject]]:
            return await self.find_many(account, places)

        async def list_names(name: str, request: ListingRequest) -> Sequence[StoredObject | Subdirectory]:
            try:
                home = await self.container(account, name)
            except NoSuchContainer:
                return []
            permit(home)
            return await self.list_objects(home, request)

        return Reader(lookup, list_names, self.read_all, permit)

    async def read_all(self, found: StoredObject) -> bytes:
        """The whole blob of a small object. Raises `BlobMissing`."""
        return b"".join([part async for part in self.read([Piece(found.stored_size, found)])])

    async def read_small(self, found: Sequence[StoredObject]) -> list[bytes | None]:
        """The whole blobs of several small objects, in their order; None for one that has gone meanwhile."""
        wanted = [(each.blob_key, each.stored_size) for each in found if each.blob_key is not None]
        contents = iter(await self._blobs.read_small(wanted))
        return [b"" if each.blob_key is None else next(contents) for each in found]

    def read(self, pieces: Sequence[Piece]) -> AsyncIterator[bytes]:
        """Bytes of pieces of objects. Raises `BlobMissing`."""
        return read_pieces(pieces, self._blobs.read)

    async def sweep(self, *, orphan_age_seconds: float = ORPHAN_AGE_SECONDS) -> int:
        """Remove objects whose time is over and old blobs without a name. The number of things removed; safe to run anywhere, any time."""
        return await self._sweep_expired() + await self._sweep_orphans(orphan_age_seconds)

    async def _sweep_expired(self) -> int:
        removed = 0
        while True:
            async with self._sessions.read() as session:
                expired = await index_objects.list_expired(session, self.now(), _SWEEP_BATCH)
            for account, container, name in expired:
                try:
                    async with self._transaction() as session:
                        _, unnamed = await index_objects.delete_object(
                            session, account, container, name, self.now(), only_expired=True
                        )
                except NoSuchContainer:
                    continue
                await self._forget(unnamed)
                removed += 1
            if len(expired) < _SWEEP_BATCH:
                return removed

    async def _sweep_orphans(self, age_seconds: float) -> int:
        removed = 0
        batch: list[str] = []
        async for key in self._blobs.list_older(age_seconds):
            batch.append(key)
            if len(batch) == _SWEEP_BATCH:
                removed += await self._remove_unknown(batch)
                batch = []
        return removed + await self._remove_unknown(batch)

    async def _remove_unknown(self, keys: Sequence[str]) -> int:
        if not keys:
            return 0
        async with self._sessions.read() as session:
            known = await index_objects.known_blobs(session, keys)
        unknown = [key for key in keys if key not in known]
        await self._blobs.delete(unknown)
        return len(unknown)

    async def _forget(self, keys: Sequence[str]) -> None:
        # The objects are gone whatever happens here: what can't be removed now is an orphan for the sweep.
        if not keys:
            return
        try:
            await self._blobs.delete(keys)
        except Exception:
            _log.exception("blobs %s could not be removed; the sweep will", keys)


async def retry_moved(act: Callable[[], Awaitable[T]]) -> T:
    """Do something that looks up an object and then needs its blob; again while the blob has just gone. Raises `BlobMissing` at last."""
    for _ in range(_RETRIES - 1):
        try:
            return await act()
        except BlobMissing:
            await asyncio.sleep(0)  # somebody replaced or deleted the object between the two steps
    return await act()
