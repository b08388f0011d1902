"""The own store behind the port: what reconcilers and services ask before work is started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from modelyard.objectstore.access import Access, Principal, denial, may
from modelyard.objectstore.backends.local.large import Content, SegmentsChanged, TooDeep
from modelyard.objectstore.backends.local.model import (
    DEFAULT_CONTENT_TYPE,
    EMPTY_MD5,
    BlobStoreFull,
    ListingRequest,
    NewObject,
    NoSuchContainer,
    NoSuchObject,
    StoredObject,
    Subdirectory,
    ticks_to_datetime,
)
from modelyard.objectstore.backends.local.store import LocalStore, retry_moved
from modelyard.objectstore.paths import ObsPath
from modelyard.objectstore.port import NoSuchPath, ObjectPage, ObjectStat, StoreFull, StoreRefused


class LocalObjects:
    """The port's verbs over a `LocalStore`, with the rights of the platform itself."""

    def __init__(self, store: LocalStore, *, implicit_system_grants: bool = True) -> None:
        self._store = store
        self._implicit_system_grants = implicit_system_grants

    async def head(self, path: ObsPath) -> ObjectStat:
        """What is known of an object. Raises `NoSuchPath`."""
        found = await self._find(path)
        return _stat(found, await self._content(path, found))

    async def get(self, path: ObsPath, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The object's bytes. Raises `NoSuchPath` before the first piece."""

        async def begin() -> tuple[bytes, AsyncIterator[bytes]]:
            content = await self._content(path, await self._find(path))
            end = content.size if length is None else min(content.size, offset + length)
            pieces = self._store.read(content.cut(offset, end))
            return await anext(pieces, b""), pieces

        first, rest = await retry_moved(begin)
        if first:
            yield first
        async for piece in rest:
            yield piece

    async def put(
        self, path: ObsPath, content: AsyncIterator[bytes], *, size: int | None = None, content_type: str = ""
    ) -> ObjectStat:
        """Write an object in one step. Raises `NoSuchPath` without the container, `StoreFull`."""
        blob = self._store.new_blob()
        try:
            async for piece in content:
                await blob.write(piece)
            if size is not None and blob.size != size:
                raise StoreRefused(f"{path} was announced with {size} bytes and came with {blob.size}")
            etag = await blob.finish() if blob.size else EMPTY_MD5
        except BlobStoreFull as error:
            await blob.discard()
            raise StoreFull(str(error)) from error
        except BaseException:
            await blob.discard()
            raise
        new = NewObject(
            blob_key=blob.key if blob.size else None,
            size=blob.size,
            stored_size=blob.size,
            etag=etag,
            content_type=content_type or DEFAULT_CONTENT_TYPE,
            headers={},
        )
        try:
            stored = await self._store.put(path.account, path.container, path.path, new)
        except NoSuchContainer:
            await blob.discard()
            raise NoSuchPath(f"the container '{path.container}' of {path.account} does not exist") from None
        except BlobStoreFull as error:
            await blob.discard()
            raise StoreFull(str(error)) from error
        return _stat(stored, None)

    async def list(
        self, path: ObsPath, *, prefix: str | None = None, delimiter: str = "", marker: str = "", limit: int = 1000
    ) -> ObjectPage:
        """Objects of the path's container. Raises `NoSuchPath`."""
        wanted = ListingRequest(
            limit=limit + 1,
            marker=marker,
            prefix=path.directory_prefix if prefix is None else prefix,
            delimiter=delimiter,
        )
        try:
            home = await self._store.container(path.account, path.container)
        except NoSuchContainer:
            raise NoSuchPath(f"the container '{path.container}' of {path.account} does not exist") from None
        found = await self._store.list_objects(home, wanted)
        page = found[:limit]
        return ObjectPage(
            objects=[_stat(entry, None) for entry in page if isinstance(entry, StoredObject)],
            prefixes=[entry.name for entry in page if isinstance(entry, Subdirectory)],
            marker=page[-1].name if page and len(found) > limit else None,
        )

    async def delete(self, path: ObsPath) -> None:
        """Take the object away; what is not there is fine."""
        try:
            await self._store.delete(path.account, path.container, path.path)
        except (NoSuchObject, NoSuchContainer):
            return

    async def access_fault(self, path: ObsPath, principal: Principal, wanted: Access) -> str | None:
        """The sentence that says which permission is missing, or None. Raises `NoSuchPath` without the container."""
        try:
            home = await self._store.container(path.account, path.container)
        except NoSuchContainer:
            raise NoSuchPath(f"the container '{path.container}' of {path.account} does not exist") from None
        if may(principal, wanted, home.grants, implicit_system_grants=self._implicit_system_grants):
            return None
        return denial(principal, wanted, home.grants)

    async def _find(self, path: ObsPath) -> StoredObject:
        try:
            _, found = await self._store.find(path.account, path.container, path.path)
        except NoSuchContainer:
            raise NoSuchPath(f"the container '{path.container}' of {path.account} does not exist") from None
        if found is None:
            raise NoSuchPath(f"{path} does not exist")
        return found

    async def _content(self, path: ObsPath, found: StoredObject) -> Content:
        try:
            return await self._store.reader(path.account).content(found)
        except (SegmentsChanged, TooDeep) as error:
            raise NoSuchPath(f"{path} has segments that are missing or have changed: {error}") from error


def _stat(found: StoredObject, content: Content | None) -> ObjectStat:
    stat = ObjectStat(
        name=found.name,
        size=found.size,
        etag=found.slo_etag or found.etag,
        content_type=found.content_type,
        modified_at=ticks_to_datetime(found.modified_at),
        headers=dict(found.headers),
    )
    return stat if content is None else replace(stat, size=content.size, etag=content.etag)
