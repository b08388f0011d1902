"""Reads a whole directory of files, wherever it lies, as the account that a training acts as.

Object stores are read through the platform's own port. Volumes are walked from descriptor to descriptor and no link is followed: they are
written by workloads, and the platform that reads them may be root.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.objectstore.access import Access, Principal
from modelyard.objectstore.hosts import StoreHosts
from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import ChecksAccess, NoSuchPath, ObjectStore, StoreRefused, StoreUnreachable
from modelyard.resources.storages.errors import TreeUnreadable
from modelyard.resources.storages.walking import objects_below, open_below
from modelyard.runner.names import UnsafeName, check_name

_AT_ONCE = 8
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a tree may be to be read."""

    size_bytes: int
    file_count: int


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a tree: its name relative to the top, what is said of its content (an md5, say), and when it was written (seconds)."""

    name: str
    size: int
    mark: str
    modified_at: float


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that was copied, and the SHA-256 of its content. `is_as_listed`: it is known to be what the listing spoke of."""

    name: str
    size: int
    digest: str
    is_as_listed: bool


class ObjectTree:
    """Files in an object store."""

    def __init__(self, hosts: StoreHosts, path: ObsPath, principal: Principal) -> None:
        self._hosts = hosts
        self._path = path
        self._principal = principal

    async def files(self, limits: Limits) -> Sequence[TreeFile]:
        """What is there. Raises `TreeUnreadable`."""
        try:
            store = self._hosts.find(self._path, project_id=self._principal.project_id)
            if isinstance(store, ChecksAccess):
                fault = await store.access_fault(self._path, self._principal, Access.READ)
                if fault is not None:
                    raise TreeUnreadable(fault)
            return checked([file async for file in self._list(store, limits)], limits)
        except (NoSuchPath, StoreRefused, StoreUnreachable) as problem:
            raise TreeUnreadable(str(problem)) from None

    async def copy(self, files: Sequence[TreeFile], target: Path) -> Sequence[Kept]:
        """Copy these files below the target. Raises `TreeUnreadable`."""
        store = self._hosts.find(self._path, project_id=self._principal.project_id)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def _one(file: TreeFile) -> Kept:
            async with turns:
                return await self._copy_one(store, file, target)

        try:
            return await asyncio.gather(*map(_one, files))
        except (NoSuchPath, StoreRefused, StoreUnreachable) as problem:
            raise TreeUnreadable(f"it changed or went away while it was read: {problem}") from None

    async def _list(self, store: ObjectStore, limits: Limits) -> AsyncIterator[TreeFile]:
        count = 0
        async for name, found in objects_below(store, self._path):
            count += 1
            if count > limits.file_count:
                raise TreeUnreadable(f"there are more than {limits.file_count} files")
            yield TreeFile(name, found.size, found.etag, found.modified_at.timestamp())

    async def _copy_one(self, store: ObjectStore, file: TreeFile, target: Path) -> Kept:
        place = target / file.name
        digest, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        size = 0
        await asyncio.to_thread(place.parent.mkdir, parents=True, exist_ok=True)
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
        try:
            async for piece in store.get(self._path.child(file.name)):
                digest.update(piece)
                md5.update(piece)
                size += len(piece)
                await asyncio.to_thread(_write, descriptor, piece)
        finally:
            os.close(descriptor)
        if size != file.size:
            raise TreeUnreadable(f"'{file.name}' was changed while it was read")
        os.utime(place, (file.modified_at, file.modified_at))
        return Kept(file.name, size, digest.hexdigest(), is_as_listed=md5.hexdigest() == file.mark)


class VolumeTree:
    """Files on a NAS volume.

    Args:
        root: the volume's directory; `path` lies below it.
    """

    def __init__(self, root: Path, path: str) -> None:
        self._root = root
        self._path = path

    async def files(self, limits: Limits) -> Sequence[TreeFile]:
        """What is there. Raises `TreeUnreadable`."""
        try:
            return checked(await asyncio.to_thread(lambda: list(self._walk(limits))), limits)
        except OSError as error:
            raise TreeUnreadable(f"it can't be read: {error.strerror}") from None

    async def copy(self, files: Sequence[TreeFile], target: Path) -> Sequence[Kept]:
        """Copy these files below the target. Raises `TreeUnreadable`."""
        try:
            return await asyncio.to_thread(lambda: [self._copy_one(file, target) for file in files])
        except OSError as error:
            raise TreeUnreadable(f"it changed or went away while it was read: {error.strerror}") from None

    def _walk(self, limits: Limits) -> Iterator[TreeFile]:
        top = open_below(self._root, self._path, os.O_DIRECTORY)
        count = 0
        try:
            for place, directories, names, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
                prefix = "" if place == "." else place.removeprefix("./") + "/"
                for name in (*names, *directories):
                    seen = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if stat.S_ISLNK(seen.st_mode):
                        raise TreeUnreadable(f"there is a link ('{prefix}{name}')")
                    if stat.S_ISREG(seen.st_mode):
                        count += 1
                        if count > limits.file_count:
                            raise TreeUnreadable(f"there are more than {limits.file_count} files")
                        yield TreeFile(prefix + name, seen.st_size, _mark(seen), seen.st_mtime)
        finally:
            os.close(top)

    def _copy_one(self, file: TreeFile, target: Path) -> Kept:
        place = target / file.name
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        size = 0
        read = open_below(self._root, f"{self._path}/{file.name}" if self._path else file.name)
        try:
            written = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444)
            try:
                while size <= file.size and (piece := os.read(read, _BLOCK_BYTES)):
                    digest.update(piece)
                    size += len(piece)
                    _write(written, piece)
            finally:
                os.close(written)
            mark = _mark(os.fstat(read))
        finally:
            os.close(read)
        if size != file.size:
            raise TreeUnreadable(f"'{file.name}' was changed while it was read")
        os.utime(place, (file.modified_at, file.modified_at))
        return Kept(file.name, size, digest.hexdigest(), is_as_listed=mark == file.mark)


def checked(files: Sequence[TreeFile], limits: Limits) -> Sequence[TreeFile]:
    """The files in the order of their names. Raises `TreeUnreadable` for what can't be kept."""
    if not files:
        raise TreeUnreadable("there are no files")
    size = sum(file.size for file in files)
    if size > limits.size_bytes:
        raise TreeUnreadable(f"there are {size / 2**20:.1f} MiB, and up to {limits.size_bytes / 2**20:g} MiB are kept")
    names = {file.name for file in files}
    for file in files:
        try:
            check_name(file.name)
        except UnsafeName as fault:
            raise TreeUnreadable(str(fault)) from None
        if any(str(parent) in names for parent in Path(file.name).parents):
            raise TreeUnreadable(f"'{file.name}' lies below a name that is a file itself")
    return sorted(files, key=lambda file: file.name)


def listing_digest(uri: str, files: Sequence[TreeFile]) -> str:
    """64 hex digits that name what the listing says."""
    digest = hashlib.sha256(uri.encode() + b"\0")
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.mark}\0".encode())
    return digest.hexdigest()


def content_digest(kept: Sequence[Kept]) -> str:
    """64 hex digits that name what the files hold; SHA-256 over `{name}\\0{SHA-256 of the content}\\0` of each."""
    digest = hashlib.sha256()
    for file in sorted(kept, key=lambda file: file.name):
        digest.update(f"{file.name}\0{file.digest}\0".encode())
    return digest.hexdigest()


def _mark(seen: os.stat_result) -> str:
    return f"{seen.st_mtime_ns}.{seen.st_ino}.{seen.st_size}"


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]
