"""Large objects: what a dynamic or a static large object consists of, worked out before the first byte goes out.

A manifest may name other manifests; they are followed to a fixed depth. Every segment of a static large object is looked up at once, so a
missing or changed one is told with a status instead of a broken transfer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from modelyard.objectstore.backends.local.model import Container, ListingRequest, StoredObject, Subdirectory

MAX_DEPTH = 10

Lookup = Callable[[Iterable[tuple[str, str]]], Awaitable[Mapping[tuple[str, str], tuple[Container, StoredObject]]]]
ListNames = Callable[[str, ListingRequest], Awaitable[Sequence[StoredObject | Subdirectory]]]
ReadAll = Callable[[StoredObject], Awaitable[bytes]]
Permit = Callable[[Container], None]


class SegmentsChanged(Exception):
    """A segment is missing or is not the one that the manifest was made with."""


class TooDeep(Exception):
    """Manifests name manifests too often."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start` to `end` (exclusive) of one stored object's blob, or bytes written into the manifest itself."""

    size: int
    stored: StoredObject | None = None
    start: int = 0
    inline: bytes = b""


@dataclass(frozen=True, slots=True)
class Content:
    """What an object's reader gets: pieces in order, their bytes in all, and the hex tag (quoted in answers for large objects)."""

    pieces: Sequence[Piece]
    size: int
    etag: str
    is_large: bool

    def cut(self, start: int, end: int) -> list[Piece]:
        """The pieces that make bytes `start` to `end` (exclusive)."""
        found: list[Piece] = []
        position = 0
        for piece in self.pieces:
            low, high = max(start - position, 0), min(end - position, piece.size)
            if low < high:
                found.append(_cut(piece, low, high))
            position += piece.size
            if position >= end:
                break
        return found


@dataclass(frozen=True, slots=True)
class Reader:
    """What following manifests needs of the store, for one account and one caller."""

    lookup: Lookup
    list_names: ListNames
    read_all: ReadAll
    permit: Permit
    """Raises when the caller may not read a segment's container."""

    async def content(self, found: StoredObject, depth: int = 0) -> Content:
        """What a reader of the object gets. Raises `SegmentsChanged`, `TooDeep`, and what `permit` raises."""
        if found.slo_etag is not None:
            return await self._static(found, depth)
        if found.dlo_prefix is not None:
            return await self._dynamic(found.dlo_prefix, depth)
        return Content([Piece(found.size, found)], found.size, found.etag, is_large=False)

    async def manifest(self, found: StoredObject) -> list[dict[str, Any]]:
        """The entries of a static large object: `name`, `bytes`, `hash`, … as `multipart-manifest=get` shows them."""
        return orjson.loads(await self.read_all(found))

    async def _dynamic(self, manifest: str, depth: int) -> Content:
        if depth >= MAX_DEPTH:
            raise TooDeep
        container, _, prefix = manifest.lstrip("/").partition("/")
        container, prefix = unquote(container), unquote(prefix)
        digest = hashlib.md5(usedforsecurity=False)
        pieces: list[Piece] = []
        request = ListingRequest(prefix=prefix)
        while True:
            names = await self.list_names(container, request)
            for found in names:
                if isinstance(found, Subdirectory):
                    continue
                # A segment that is a manifest itself is read as what it stands for, except a dynamic one: those don't nest.
                inner = await self.content(found, depth + 1) if found.slo_etag is not None else None
                pieces.extend(inner.pieces if inner else [Piece(found.size, found)])
                digest.update((inner.etag if inner else found.etag).encode())
            if len(names) < request.limit:
                break
            request = ListingRequest(prefix=prefix, marker=names[-1].name)
        return Content(pieces, sum(piece.size for piece in pieces), digest.hexdigest(), is_large=True)

    async def _static(self, found: StoredObject, depth: int) -> Content:
        if depth >= MAX_DEPTH:
            raise TooDeep
        entries = await self.manifest(found)
        segments = await self.lookup(_place(entry["name"]) for entry in entries if "name" in entry)
        pieces: list[Piece] = []
        for entry in entries:
            if "data" in entry:
                inline = base64.b64decode(entry["data"])
                pieces.append(Piece(len(inline), inline=inline))
                continue
            home_and_segment = segments.get(_place(entry["name"]))
            if home_and_segment is None:
                raise SegmentsChanged(entry["name"])
            home, segment = home_and_segment
            self.permit(home)
            inner = await self.content(segment, depth + 1)
            if inner.etag != entry["hash"] or inner.size != entry["bytes"]:
                raise SegmentsChanged(entry["name"])
            start, end = _entry_range(entry, inner.size)
            pieces.extend(inner.cut(start, end))
        return Content(pieces, sum(piece.size for piece in pieces), found.slo_etag or "", is_large=True)


def plain(found: StoredObject) -> Content:
    """The object's own bytes, whatever manifest it is."""
    return Content([Piece(found.stored_size, found)], found.stored_size, found.etag, is_large=False)


def manifest_etag(entries: Sequence[Mapping[str, Any]]) -> str:
    """The tag of a static large object: hex MD5 over the segments' tags, each with its range."""
    digest = hashlib.md5(usedforsecurity=False)
    for entry in entries:
        if "data" in entry:
            digest.update(hashlib.md5(base64.b64decode(entry["data"]), usedforsecurity=False).hexdigest().encode())
        elif entry.get("range"):
            digest.update(f"{entry['hash']}:{entry['range']};".encode())
        else:
            digest.update(entry["hash"].encode())
    return digest.hexdigest()


def manifest_size(entries: Sequence[Mapping[str, Any]]) -> int:
    """Bytes of all segments of a static large object."""
    total = 0
    for entry in entries:
        if "data" in entry:
            total += len(base64.b64decode(entry["data"]))
        else:
            start, end = _entry_range(entry, int(entry["bytes"]))
            total += end - start
    return total


def cut_range(text: str, size: int) -> tuple[int, int] | None:
    """A segment's range (`1-3`, `5-`, `-2`; both ends counted in) on `size` bytes as start and exclusive end; None where it is outside."""
    first, _, last = text.partition("-")
    if not first:
        return (max(size - int(last), 0), size) if int(last) and size else None
    start = int(first)
    if start >= size:
        return None
    return start, min(int(last) + 1, size) if last else size


async def read_pieces(
    pieces: Sequence[Piece], read: Callable[[str, int, int], AsyncIterator[bytes]]
) -> AsyncIterator[bytes]:
    """The bytes of pieces, in order."""
    for piece in pieces:
        if piece.inline:
            yield piece.inline
        elif piece.stored is not None and piece.stored.blob_key is not None and piece.size:
            async for part in read(piece.stored.blob_key, piece.start, piece.start + piece.size):
                yield part


def _place(name: str) -> tuple[str, str]:
    container, _, path = name.lstrip("/").partition("/")
    return container, path


def _entry_range(entry: Mapping[str, Any], size: int) -> tuple[int, int]:
    if not entry.get("range"):
        return 0, size
    found = cut_range(entry["range"], size)
    if found is None:
        raise SegmentsChanged(entry["name"])
    return found


def _cut(piece: Piece, low: int, high: int) -> Piece:
    if piece.inline:
        return Piece(high - low, inline=piece.inline[low:high])
    return Piece(high - low, piece.stored, piece.start + low)
