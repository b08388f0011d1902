"""Reads listings and pieces of files at storage paths, for the platform's own questions about them."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from modelyard.kit.errors import RetryLater
from modelyard.objectstore.paths import BadStoragePath, ObsPath
from modelyard.objectstore.port import NoSuchPath, ObjectStore, StoreRefused, StoreUnreachable
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.model import StoredFile
from modelyard.resources.storages.walking import objects_below, open_below


class ObjectReader:
    """Of an object store; see `PathReader`."""

    def __init__(self, store: ObjectStore, path: ObsPath, uri: str) -> None:
        self._store = store
        self._path = path
        self._uri = uri

    async def list(self, limit: int) -> tuple[Sequence[StoredFile], bool]:
        """Objects below the path, or the object at it."""
        found: list[StoredFile] = []
        try:
            async for name, item in objects_below(self._store, self._path, limit + 1):
                if len(found) == limit:
                    return found, False
                found.append(StoredFile(name, item.size, item.etag))
            if not found and self._path.path:
                only = await self._store.head(self._path)
                return [StoredFile(self._path.base_name, only.size, only.etag)], True
        except NoSuchPath as missing:
            raise StoragePathFault(f"{self._uri}: {missing}") from None
        except StoreUnreachable as problem:
            raise RetryLater(str(problem)) from problem
        except (StoreRefused, BadStoragePath) as problem:
            raise StoragePathFault(f"{self._uri}: {problem}") from None
        return found, True

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """A piece of an object."""
        try:
            try:
                return await self._piece(self._path.child(name), offset, length)
            except NoSuchPath:
                if name != self._path.base_name:
                    raise
                return await self._piece(self._path, offset, length)
        except NoSuchPath as missing:
            raise StoragePathFault(f"{self._uri}: {missing}") from None
        except StoreUnreachable as problem:
            raise RetryLater(str(problem)) from problem
        except (StoreRefused, BadStoragePath) as problem:
            raise StoragePathFault(f"{self._uri}: {problem}") from None

    async def _piece(self, path: ObsPath, offset: int, length: int) -> bytes:
        return b"".join([piece async for piece in self._store.get(path, offset=offset, length=length)])


class VolumeReader:
    """Of a NAS volume; see `PathReader`. Links that workloads have left there are not followed.

    Args:
        root: the volume's directory.
        relative: the path in it.
    """

    def __init__(self, root: Path, relative: str, uri: str) -> None:
        self._root = root
        self._relative = relative
        self._uri = uri

    async def list(self, limit: int) -> tuple[Sequence[StoredFile], bool]:
        """Files below the path, or the file at it."""
        return await asyncio.to_thread(self._list, limit)

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """A piece of a file."""
        return await asyncio.to_thread(self._read, name, offset, length)

    def _list(self, limit: int) -> tuple[Sequence[StoredFile], bool]:
        try:
            place = open_below(self._root, self._relative)
            try:
                if stat.S_ISREG(os.fstat(place).st_mode):
                    return [StoredFile(self._relative.rpartition("/")[2], os.fstat(place).st_size)], True
                found = _files(place, limit + 1)
            finally:
                os.close(place)
        except OSError as error:
            raise StoragePathFault(f"{self._uri}: {error.strerror or error}") from None
        return found[:limit], len(found) <= limit

    def _read(self, name: str, offset: int, length: int) -> bytes:
        try:
            try:
                file = open_below(self._root, f"{self._relative}/{name}")
            except NotADirectoryError:
                file = open_below(self._root, self._relative)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise StoragePathFault(f"{self._uri}: '{name}' is no file")
                return os.pread(file, length, offset)
            finally:
                os.close(file)
        except OSError as error:
            raise StoragePathFault(f"{self._uri}: '{name}': {error.strerror or error}") from None


def _files(place: int, limit: int) -> list[StoredFile]:
    found: list[StoredFile] = []
    for directory, names_below, names, descriptor in os.fwalk(".", dir_fd=place, follow_symlinks=False):
        names_below.sort()
        for name in sorted(names):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                found.append(StoredFile(f"{directory}/{name}".removeprefix("./"), status.st_size))
        if len(found) >= limit:
            break
    return sorted(found, key=lambda file: file.name)
