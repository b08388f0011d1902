"""The own store on SQLite and PostgreSQL: blobs are shared, released and swept; writers don't disturb each other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from modelyard.db.engine import Database
from modelyard.objectstore.backends.local.blobs import DirectoryBlobs
from modelyard.objectstore.backends.local.large import Piece
from modelyard.objectstore.backends.local.model import (
    ContainerChange,
    ContainerNotEmpty,
    ListingRequest,
    NewObject,
    NoSuchContainer,
    NoSuchObject,
    ObjectExists,
    StoredObject,
    Subdirectory,
)
from modelyard.objectstore.backends.local.store import LocalStore
from modelyard.objectstore.backends.local.tables import objects

A = "AUTH_tenant"
BlobFiles = Callable[[], list[Path]]


async def write(store: LocalStore, name: str, data: bytes, container: str = "c", **options: Any) -> StoredObject:
    blob = store.new_blob()
    await blob.write(data)
    etag = await blob.finish()
    new = NewObject(blob.key, len(data), len(data), etag, "t/t", {}, options.pop("delete_at", None))
    return await store.put(A, container, name, new, **options)


async def read(store: LocalStore, name: str, container: str = "c") -> bytes:
    _, found = await store.find(A, container, name)
    assert found is not None
    return b"".join([part async for part in store.read([Piece(found.size, found)])])


async def copy(store: LocalStore, source: str, target: str) -> StoredObject:
    _, found = await store.find(A, "c", source)
    assert found is not None
    new = NewObject(found.blob_key, found.size, found.stored_size, found.etag, found.content_type, found.headers)
    return await store.put(A, "c", target, new, is_copy=True)


@pytest.fixture
async def home(store: LocalStore) -> None:
    await store.put_container(A, "c", ContainerChange())


@pytest.mark.usefixtures("home")
class TestBlobs:
    async def test_names_never_become_file_names(self, store: LocalStore, blob_files: BlobFiles) -> None:
        for name in ("../../etc/passwd", "a\nb", "..", "/abs", "x" * 1024, "한"):
            await write(store, name, name.encode())
            assert await read(store, name) == name.encode()
        assert all(len(path.name) == 36 and len(path.parent.name) == 2 for path in blob_files())

    async def test_replaced_and_deleted_objects_leave_no_blob(self, store: LocalStore, blob_files: BlobFiles) -> None:
        await write(store, "o", b"1")
        await write(store, "o", b"2")
        assert len(blob_files()) == 1
        await store.delete(A, "c", "o")
        assert blob_files() == []
        with pytest.raises(NoSuchObject):
            await store.delete(A, "c", "o")

    async def test_copies_share_a_blob_until_the_last_goes(self, store: LocalStore, blob_files: BlobFiles) -> None:
        await write(store, "o", b"shared")
        await copy(store, "o", "p")
        await copy(store, "p", "q")
        await copy(store, "q", "q")
        assert len(blob_files()) == 1
        await store.delete(A, "c", "o")
        await write(store, "p", b"other")
        assert await read(store, "q") == b"shared"
        await store.delete(A, "c", "q")
        await store.delete(A, "c", "p")
        assert blob_files() == []

    async def test_reader_of_a_deleted_object_reads_on(self, store: LocalStore) -> None:
        data = random.Random(1).randbytes(3_000_000)
        stored = await write(store, "o", data)
        pieces = store.read([Piece(stored.size, stored)])
        first = await anext(pieces)
        await store.delete(A, "c", "o")
        assert first + b"".join([piece async for piece in pieces]) == data

    async def test_crash_before_the_row_leaves_an_orphan_for_the_sweep(
        self, store: LocalStore, blob_files: BlobFiles
    ) -> None:
        await write(store, "kept", b"kept")
        blob = store.new_blob()
        await blob.write(b"never named")
        await blob.finish()
        assert await store.sweep() == 0
        for path in blob_files():
            os.utime(path, (time.time() - 90_000,) * 2)
        assert await store.sweep() == 1
        assert await read(store, "kept") == b"kept"
        assert len(blob_files()) == 1

    async def test_discarded_blob_leaves_nothing(self, store: LocalStore, blob_files: BlobFiles) -> None:
        blob = store.new_blob()
        await blob.write(b"x" * 3_000_000)
        assert len(blob_files()) == 1
        await blob.discard()
        assert blob_files() == []


@pytest.mark.usefixtures("home")
class TestObjects:
    async def test_counts(self, store: LocalStore) -> None:
        await write(store, "a", b"12345")
        await write(store, "b", b"1")
        await write(store, "a", b"12")
        await copy(store, "a", "c")
        await store.delete(A, "c", "b")
        container = await store.container(A, "c")
        assert (container.object_count, container.bytes_used) == (2, 4)
        account = await store.account(A)
        assert (account.container_count, account.object_count, account.bytes_used) == (1, 2, 4)

    async def test_must_be_new(self, store: LocalStore, now: Any) -> None:
        await write(store, "o", b"1", must_be_new=True, delete_at=int(now().timestamp()) + 10)
        with pytest.raises(ObjectExists):
            await write(store, "o", b"2", must_be_new=True)
        now.pass_seconds(11)
        await write(store, "o", b"3", must_be_new=True)
        assert await read(store, "o") == b"3"

    async def test_expired_objects_are_gone_and_swept(self, store: LocalStore, now: Any, blob_files: BlobFiles) -> None:
        await write(store, "o", b"1", delete_at=int(now().timestamp()) + 10)
        now.pass_seconds(11)
        assert (await store.find(A, "c", "o"))[1] is None
        assert await store.find_many(A, [("c", "o")]) == {}
        assert await store.sweep() == 1
        assert blob_files() == []
        assert (await store.container(A, "c")).object_count == 0

    async def test_container_with_objects_stays(self, store: LocalStore) -> None:
        await write(store, "o", b"1")
        with pytest.raises(ContainerNotEmpty):
            await store.delete_container(A, "c")
        await store.delete(A, "c", "o")
        await store.delete_container(A, "c")
        with pytest.raises(NoSuchContainer):
            await write(store, "o", b"1")

    async def test_many_lookups_at_once(self, store: LocalStore) -> None:
        for number in range(5):
            await write(store, f"o{number}", b"x")
        places = [("c", f"o{number % 7}") for number in range(1000)] + [("nowhere", "o1")]
        assert set(await store.find_many(A, places)) == {("c", f"o{number}") for number in range(5)}


@pytest.mark.usefixtures("home")
class TestListings:
    NAMES = (
        "a",
        "a/b",
        "a/c/d",
        "a0",
        "b/",
        "b//c",
        "é",
        "Z",
        "한",
        "\U0001f600",
        "\ue000",
        "a/\U0010ffff",
        "a/\U0010ffffx",
    )

    async def names(self, store: LocalStore, **wanted: Any) -> list[str]:
        container = await store.container(A, "c")
        return [entry.name for entry in await store.list_objects(container, ListingRequest(**wanted))]

    @pytest.fixture
    async def filled(self, store: LocalStore) -> LocalStore:
        for name in self.NAMES:
            await write(store, name, b"x")
        return store

    async def test_order_is_that_of_bytes(self, filled: LocalStore) -> None:
        assert await self.names(filled) == sorted(self.NAMES, key=str.encode)
        assert await self.names(filled, is_reverse=True) == sorted(self.NAMES, key=str.encode, reverse=True)

    async def test_against_a_plain_model(self, filled: LocalStore) -> None:
        rng = random.Random(7)
        choices = ["", "", *self.NAMES, "a/", "b", "zz"]
        for _ in range(150):
            wanted = ListingRequest(
                limit=rng.choice([1, 2, 3, 100]),
                marker=rng.choice(choices),
                end_marker=rng.choice(choices),
                prefix=rng.choice(["", "a", "a/", "b/", "한"]),
                delimiter=rng.choice(["", "/", "//"]),
                is_reverse=rng.random() < 0.4,
            )
            container = await filled.container(A, "c")
            found = [entry.name for entry in await filled.list_objects(container, wanted)]
            assert found == model(self.NAMES, wanted), wanted

    async def test_paging_reaches_everything_once(self, filled: LocalStore) -> None:
        for delimiter in ("", "/"):
            pages: list[str] = []
            while page := await self.names(filled, limit=2, marker=pages[-1] if pages else "", delimiter=delimiter):
                pages += page
            assert pages == await self.names(filled, delimiter=delimiter)

    async def test_directories_cost_by_what_is_shown(self, store: LocalStore, database: Database) -> None:
        container = await store.container(A, "c")
        row = {"container_id": container.id, "size": 0, "stored_size": 0, "etag": "", "content_type": "t/t"}
        rows = [{**row, "name": f"dir/{number:05}", "modified_at": 1, "headers": {}} for number in range(2100)]
        async with database.write() as session:
            await session.execute(insert(objects), rows)
        await write(store, "tail", b"x")
        entries = await store.list_objects(container, ListingRequest(delimiter="/"))
        assert [entry.name for entry in entries] == ["dir/", "tail"]
        assert isinstance(entries[0], Subdirectory)
        backwards = await store.list_objects(container, ListingRequest(delimiter="/", is_reverse=True))
        assert [entry.name for entry in backwards] == ["tail", "dir/"]


def model(names: tuple[str, ...], wanted: ListingRequest) -> list[str]:
    """The rules of a listing, said as plainly as possible."""
    low, high = (wanted.end_marker, wanted.marker) if wanted.is_reverse else (wanted.marker, wanted.end_marker)
    found: list[str] = []
    for name in sorted(names, key=str.encode, reverse=wanted.is_reverse):
        key = name.encode()
        if not name.startswith(wanted.prefix) or (low and key <= low.encode()) or (high and key >= high.encode()):
            continue
        end = name.find(wanted.delimiter, len(wanted.prefix)) if wanted.delimiter else -1
        if end >= 0:
            name = name[: end + len(wanted.delimiter)]
            if name in (wanted.marker, wanted.end_marker) or name in found[-1:]:
                continue
        found.append(name)
    return found[: wanted.limit]


@pytest.mark.usefixtures("home")
class TestManyWriters:
    """Several server processes are several `Database` objects: no lock of this process helps them."""

    async def test_writers_of_one_container(self, store: LocalStore, database_url: str, blobs: DirectoryBlobs) -> None:
        others = [Database(database_url) for _ in range(3)]
        stores = [store, *(LocalStore(other, blobs) for other in others)]
        rng = random.Random(3)

        async def work(number: int) -> None:
            mine = stores[number % len(stores)]
            for _ in range(6):
                name = f"o{rng.randrange(3)}"
                if rng.random() < 0.6:
                    await write(mine, name, rng.randbytes(rng.randrange(1, 50)))
                elif rng.random() < 0.5:
                    try:
                        await copy(mine, name, f"o{rng.randrange(3)}")
                    except Exception as error:
                        if type(error).__name__ not in {"AssertionError", "BlobMissing"}:
                            raise
                else:
                    with contextlib.suppress(NoSuchObject):
                        await mine.delete(A, "c", name)

        try:
            await asyncio.gather(*(work(number) for number in range(8)))
            container = await store.container(A, "c")
            entries = [
                entry
                for entry in await store.list_objects(container, ListingRequest())
                if isinstance(entry, StoredObject)
            ]
            assert container.object_count == len(entries)
            assert container.bytes_used == sum(entry.stored_size for entry in entries)
            for entry in entries:
                assert len(await read(store, entry.name)) == entry.size
            named = {entry.blob_key for entry in entries}
            on_disk = {path.name for path in blobs.root.rglob("*") if path.is_file()}
            assert on_disk == named
        finally:
            for other in others:
                await other.close()

    async def test_container_is_created_once(self, database_url: str, blobs: DirectoryBlobs) -> None:
        databases = [Database(database_url) for _ in range(4)]
        try:
            stores = [LocalStore(database, blobs) for database in databases]
            created = await asyncio.gather(*(each.put_container(A, "race", ContainerChange()) for each in stores))
            assert sorted(created) == [False, False, False, True]
        finally:
            for database in databases:
                await database.close()
