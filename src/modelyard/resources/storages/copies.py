"""The platform's own copies of what lies at storage paths: read-only directories that users can't reach, one for each copy.

A copy is whole or not there: it is made beside its place, flushed, and renamed.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path, PurePosixPath

from modelyard.kit.errors import RetryLater
from modelyard.resources.storages.errors import StoragePathFault
from modelyard.resources.storages.model import PathReader, StoredFile

_PIECE_BYTES = 8 * 1024 * 1024
_FILE_MODE, _DIRECTORY_MODE = 0o444, 0o755


class Copies:
    """Copies below a directory, of each project its own.

    Args:
        root: the directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def place(self, project_id: str, copy_id: str) -> Path:
        """Where a copy is, or would be."""
        return self._root / project_id / copy_id

    async def keep(self, reader: PathReader, files: Sequence[StoredFile], project_id: str, copy_id: str) -> str:
        """Copy files that a reader reads; the digest of names and contents (`sha256:…`). A copy that is there is left as it is.

        Raises:
            StoragePathFault: a file has gone or changed, or has a name that no file can have.
            RetryLater: the store or the disk does not allow it now.
        """
        place = self.place(project_id, copy_id)
        beside = place.with_name(f".{copy_id}.new")
        if await asyncio.to_thread(place.exists):
            return await digest_of(reader_of(place), files)
        try:
            await asyncio.to_thread(_clear, beside)
            digest = await self._fill(beside, reader, files)
            await asyncio.to_thread(_settle, beside, place)
        except OSError as error:
            await asyncio.to_thread(_clear_quietly, beside)
            raise RetryLater(f"the artifact can't be copied: {error.strerror or error}") from error
        return digest

    async def remove(self, project_id: str, copy_id: str) -> None:
        """Take a copy away; what is not there is fine."""
        place = self.place(project_id, copy_id)
        for each in (place, place.with_name(f".{copy_id}.new")):
            await asyncio.to_thread(_clear, each)

    async def _fill(self, beside: Path, reader: PathReader, files: Sequence[StoredFile]) -> str:
        lines: list[str] = []
        for file in sorted(files, key=lambda each: each.name):
            target = _target(beside, file.name)
            await asyncio.to_thread(target.parent.mkdir, parents=True, exist_ok=True)
            content = hashlib.sha256()
            with target.open("xb") as output:
                async for piece in _pieces(reader, file):
                    content.update(piece)
                    await asyncio.to_thread(output.write, piece)
                await asyncio.to_thread(_flush, output.fileno())
            lines.append(f"{content.hexdigest()} {file.size} {file.name}\n")
        return _digest(lines)


def reader_of(place: Path) -> PathReader:
    """Reads a copy."""
    return _CopyReader(place)


async def digest_of(reader: PathReader, files: Sequence[StoredFile]) -> str:
    """The digest of names and contents, as `Copies.keep` has it: every byte is read."""
    lines: list[str] = []
    for file in sorted(files, key=lambda each: each.name):
        content = hashlib.sha256()
        async for piece in _pieces(reader, file):
            content.update(piece)
        lines.append(f"{content.hexdigest()} {file.size} {file.name}\n")
    return _digest(lines)


def digest_of_tags(files: Sequence[StoredFile]) -> str | None:
    """A digest of names and the store's tags, for which no content is read; None where a file has no tag."""
    if not all(file.tag for file in files):
        return None
    lines = [f"{file.tag} {file.size} {file.name}\n" for file in sorted(files, key=lambda each: each.name)]
    return "tags:" + hashlib.sha256("".join(lines).encode()).hexdigest()


class _CopyReader:
    def __init__(self, place: Path) -> None:
        self._place = place

    async def list(self, limit: int) -> tuple[Sequence[StoredFile], bool]:
        """Not asked: who made the copy knows its files."""
        raise NotImplementedError

    async def read(self, name: str, offset: int, length: int) -> bytes:
        """A piece of a file."""
        return await asyncio.to_thread(_read, self._place / name, offset, length)


async def _pieces(reader: PathReader, file: StoredFile) -> AsyncIterator[bytes]:
    at = 0
    while at < file.size:
        piece = await reader.read(file.name, at, min(_PIECE_BYTES, file.size - at))
        if not piece:
            raise StoragePathFault(f"'{file.name}' has changed while it was read; try again")
        at += len(piece)
        yield piece


def _digest(lines: Sequence[str]) -> str:
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _target(root: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name:
        raise StoragePathFault(f"'{name}' can't be the name of a file")
    return root.joinpath(*path.parts)


def _settle(beside: Path, place: Path) -> None:
    for directory, _, names in os.walk(beside, topdown=False):
        for name in names:
            (Path(directory) / name).chmod(_FILE_MODE)
        Path(directory).chmod(_DIRECTORY_MODE)
    place.parent.chmod(_DIRECTORY_MODE)
    beside.rename(place)
    descriptor = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush(descriptor: int) -> None:
    os.fsync(descriptor)


def _clear(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)


def _clear_quietly(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)


def _read(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb") as file:
        return os.pread(file.fileno(), length, offset)
