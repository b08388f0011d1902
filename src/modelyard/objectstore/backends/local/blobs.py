"""Where the bytes are: blobs under random keys, written once, never changed.

A blob means nothing until a row of the index names it, so writing needs no atomic rename: a crash leaves a blob that nobody names, and a
sweep removes it when it is old. The directory backend is our own because a commit must survive a power cut and `obstore`'s local store
does not sync; stores with a URL (S3-compatible, Google, Azure) go through `obstore`, where a finished upload is durable.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import ObjectStore as RemoteBlobs
from obstore.store import from_url

from modelyard.kit.ids import is_id, new_id
from modelyard.objectstore.backends.local.model import BlobMissing, BlobStoreFull

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES = 1024 * 1024
UPLOAD_PART_BYTES = 8 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_THREADS = 16  # each waits for a disk most of the time


class BlobWriter(Protocol):
    """A blob that is being written."""

    @property
    def key(self) -> str:
        """The blob's name."""
        ...

    @property
    def size(self) -> int:
        """Bytes taken so far."""
        ...

    async def write(self, piece: bytes) -> None:
        """Take a piece. Raises `BlobStoreFull`."""
        ...

    async def finish(self) -> str:
        """Make it durable; its hex MD5. Raises `BlobStoreFull`."""
        ...

    async def discard(self) -> None:
        """Leave nothing of it, also after `finish`."""
        ...


class Blobs(Protocol):
    """A place for blobs."""

    def new(self) -> BlobWriter:
        """Begin a blob under a new key."""
        ...

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes `start` (inclusive) to `end` (exclusive) in pieces. Raises `BlobMissing`."""
        ...

    async def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Whole small blobs by key and size, in that order; None for one that is missing."""
        ...

    async def write_small(self, contents: Sequence[bytes]) -> list[str]:
        """Write small blobs, make all of them durable, and answer their keys in that order. Leaves nothing behind when it fails.

        Raises `BlobStoreFull`.
        """
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Take blobs away; missing ones are fine."""
        ...

    def list_older(self, seconds: float) -> AsyncIterator[str]:
        """Keys of blobs that were last written at least so long ago."""
        ...


def open_blobs(url: str, options: Mapping[str, str] | None = None) -> Blobs:
    """The blobs at a place: an absolute directory, a `file://` URL, or a URL that obstore knows (`s3://bucket/prefix`, `gs://`, `az://`).

    `options` are obstore's for that store (keys, endpoint, region).
    """
    if "://" not in url:
        return DirectoryBlobs(Path(url))
    if url.startswith("file://"):
        return DirectoryBlobs(Path(unquote(urlsplit(url).path)))
    open_store = cast("Callable[..., RemoteBlobs]", from_url)
    return RemoteStoreBlobs(open_store(url, **dict(options or {})))


class DirectoryBlobs:
    """Blobs as files below a directory, spread over 256 folders by the end of their random keys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="blobs")

    def new(self) -> BlobWriter:
        """Begin a blob under a new key."""
        return _FileWriter(self, new_id())

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes of a blob in pieces of at most 1 MiB; the open file outlives a deletion."""
        if end - start <= PIECE_BYTES:
            yield await self.run(self._read_whole, key, start, end)
            return
        descriptor = await self.run(self._open, key)
        try:
            while start < end:
                piece = await self.run(os.pread, descriptor, min(PIECE_BYTES, end - start), start)
                if not piece:
                    raise BlobMissing(f"blob {key} is shorter than the index says")
                start += len(piece)
                yield piece
        finally:
            os.close(descriptor)

    async def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Whole small blobs, all in one go of one thread: to hand over each would cost more than to read it."""
        return await self.run(lambda: [self._read_if_there(key, size) for key, size in wanted])

    async def write_small(self, contents: Sequence[bytes]) -> list[str]:
        """Write small blobs, all in one go of one thread and in one folder, which is synced once."""
        return await self.run(self._write_small, contents)

    async def delete(self, keys: Sequence[str]) -> None:
        """Take blobs away; missing ones are fine."""
        if keys:
            await self.run(self._delete, keys)

    async def list_older(self, seconds: float) -> AsyncIterator[str]:
        """Keys of blobs that were last written at least so long ago."""
        limit = time.time() - seconds
        for folder in await self.run(lambda: sorted(path for path in self.root.iterdir() if path.is_dir())):
            for key in await self.run(_old_files, folder, limit):
                yield key

    def path(self, key: str) -> Path:
        """The file of a blob."""
        return self.root / key[-2:] / key

    async def run(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run blocking work in the pool of this directory."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*arguments, **keywords))

    def _open(self, key: str) -> int:
        try:
            return os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise BlobMissing(key) from None

    def _read_whole(self, key: str, start: int, end: int) -> bytes:
        descriptor = self._open(key)
        try:
            piece = os.pread(descriptor, end - start, start)
        finally:
            os.close(descriptor)
        if len(piece) != end - start:
            raise BlobMissing(f"blob {key} is shorter than the index says")
        return piece

    def _read_if_there(self, key: str, size: int) -> bytes | None:
        try:
            return self._read_whole(key, 0, size)
        except BlobMissing:
            return None

    def _delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.path(key).unlink(missing_ok=True)

    def create(self, key: str) -> int:
        """A descriptor of a new file for this blob, in a folder that is there for good."""
        path = self.path(key)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self.root)
            return os.open(path, flags, 0o600)

    def _write_small(self, contents: Sequence[bytes]) -> list[str]:
        folder = new_id()[-2:]
        keys = [new_id()[:-2] + folder for _ in contents]
        descriptors: list[int] = []
        try:
            for key, content in zip(keys, contents, strict=True):
                descriptors.append(self.create(key))
                _write_whole(descriptors[-1], content)
            for descriptor in descriptors:  # after all are written: the first brings much of the others to the disk
                os.fsync(descriptor)
            if keys:
                _sync_directory(self.root / folder)
        except BaseException as error:
            self._delete(keys)
            raise _full_or_same(error) if isinstance(error, OSError) else error from error
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return keys


class _FileWriter:
    """Gathers pieces to 1 MiB; hashing and writing happen together in a thread, so the event loop does neither.

    A cancelled request leaves its thread at work. The lock makes `discard` wait for it, and what comes after finds the writer closed, so
    nothing is ever written to a descriptor that belongs to another file by now.
    """

    def __init__(self, blobs: DirectoryBlobs, key: str) -> None:
        self.key = key
        self.size = 0
        self._blobs = blobs
        self._digest = hashlib.md5(usedforsecurity=False)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._descriptor: int | None = None
        self._is_closed = False
        self._lock = threading.Lock()

    async def write(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        self.size += len(piece)
        if self._waiting_bytes >= PIECE_BYTES:
            pieces, self._waiting, self._waiting_bytes = self._waiting, [], 0
            await self._blobs.run(self._flush, pieces)

    async def finish(self) -> str:
        pieces, self._waiting = self._waiting, []
        return await self._blobs.run(self._finish, pieces)

    async def discard(self) -> None:
        self._waiting = []
        await self._blobs.run(self._discard)

    def _flush(self, pieces: list[bytes]) -> None:
        with self._lock:
            self._write(pieces)

    def _finish(self, pieces: list[bytes]) -> str:
        with self._lock:
            descriptor = self._write(pieces)
            try:
                os.fsync(descriptor)
                _sync_directory(self._blobs.path(self.key).parent)
            except OSError as error:
                raise _full_or_same(error) from error
            self._close()
            return self._digest.hexdigest()

    def _discard(self) -> None:
        with self._lock:
            self._close()
            self._blobs.path(self.key).unlink(missing_ok=True)

    def _write(self, pieces: list[bytes]) -> int:
        if self._is_closed:
            raise RuntimeError("the blob was finished or discarded")
        try:
            if self._descriptor is None:
                self._descriptor = self._blobs.create(self.key)
            for piece in pieces:
                self._digest.update(piece)
                _write_whole(self._descriptor, piece)
        except OSError as error:
            raise _full_or_same(error) from error
        return self._descriptor

    def _close(self) -> None:
        self._is_closed = True
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class RemoteStoreBlobs:
    """Blobs in a store that obstore speaks to."""

    def __init__(self, store: RemoteBlobs) -> None:
        self.store = store

    def new(self) -> BlobWriter:
        """Begin a blob under a new key."""
        return _RemoteWriter(self.store, new_id())

    async def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes of a blob in pieces of about 1 MiB."""
        try:
            answer = await obstore.get_async(self.store, key, options={"range": (start, end)})
        except FileNotFoundError:
            raise BlobMissing(key) from None
        async for piece in answer.stream(min_chunk_size=PIECE_BYTES):
            yield bytes(piece)

    async def read_small(self, wanted: Sequence[tuple[str, int]]) -> list[bytes | None]:
        """Whole small blobs, some at a time."""
        at_once = asyncio.Semaphore(_THREADS)

        async def one(key: str, size: int) -> bytes | None:
            async with at_once:
                try:
                    return b"".join([piece async for piece in self.read(key, 0, size)])
                except BlobMissing:
                    return None

        return await asyncio.gather(*(one(key, size) for key, size in wanted))

    async def write_small(self, contents: Sequence[bytes]) -> list[str]:
        """Write small blobs, some at a time."""
        keys = [new_id() for _ in contents]
        at_once = asyncio.Semaphore(_THREADS)

        async def one(key: str, content: bytes) -> None:
            async with at_once:
                await obstore.put_async(self.store, key, content)

        try:
            await asyncio.gather(*map(one, keys, contents))
        except BaseException:
            await self.delete(keys)  # one that still comes is found by the sweep
            raise
        return keys

    async def delete(self, keys: Sequence[str]) -> None:
        """Take blobs away; missing ones are fine."""
        for key in keys:
            try:
                await obstore.delete_async(self.store, key)
            except FileNotFoundError:
                continue

    async def list_older(self, seconds: float) -> AsyncIterator[str]:
        """Keys of blobs that were last written at least so long ago."""
        limit = datetime.fromtimestamp(time.time() - seconds, UTC)
        list_blobs = cast("Callable[..., AsyncIterator[Sequence[Mapping[str, Any]]]]", obstore.list)  # pyright: ignore[reportUnknownMemberType]  # its Arrow overload is untyped
        async for batch in list_blobs(self.store, chunk_size=1000):
            for found in batch:
                key = str(found["path"])
                if is_id(key) and found["last_modified"] <= limit:
                    yield key


class _RemoteWriter:
    """One request for a small blob, a multipart upload for a large one."""

    def __init__(self, store: RemoteBlobs, key: str) -> None:
        self.key = key
        self.size = 0
        self._store = store
        self._digest = hashlib.md5(usedforsecurity=False)
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._upload: Any = None

    async def write(self, piece: bytes) -> None:
        self._waiting.append(piece)
        self._waiting_bytes += len(piece)
        self.size += len(piece)
        if self._waiting_bytes >= UPLOAD_PART_BYTES:
            if self._upload is None:
                self._upload = obstore.open_writer_async(self._store, self.key, buffer_size=UPLOAD_PART_BYTES)
            await self._upload.write(await self._take())

    async def finish(self) -> str:
        rest = await self._take()
        if self._upload is None:
            await obstore.put_async(self._store, self.key, rest)
        else:
            if rest:
                await self._upload.write(rest)
            await self._upload.close()
            self._upload = None
        return self._digest.hexdigest()

    async def discard(self) -> None:
        # An upload that is never closed leaves no object; its parts are the remote store's own business to expire.
        self._upload = None
        self._waiting.clear()
        try:
            await obstore.delete_async(self._store, self.key)
        except FileNotFoundError:
            return

    async def _take(self) -> bytes:
        whole = b"".join(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        await asyncio.to_thread(self._digest.update, whole)
        return whole


def _old_files(folder: Path, limit: float) -> list[str]:
    found: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if re.fullmatch(r"[0-9a-f-]{36}", entry.name) and entry.stat().st_mtime <= limit:
                    found.append(entry.name)
            except FileNotFoundError:
                continue
    return found


def _write_whole(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _full_or_same(error: OSError) -> Exception:
    if error.errno in _FULL:
        return BlobStoreFull("the object store's disk is full")
    return error
