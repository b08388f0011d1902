"""Files in the object store.

Places are written `obs://…` or, in the project's own account, `container/path`. Transfers run in parallel, small files a hundred to a
request; every file is checked by its md5, and begun again when the connection broke. How names become local paths, and how files are cut,
is in `modelyard.sdk.transfers`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event

from pydantic import BaseModel, TypeAdapter

from modelyard.objectstore.paths import ObsPath
from modelyard.resources.storages.schemas import StorageAccountOut
from modelyard.sdk.api import Api, error_of
from modelyard.sdk.door import Answer, Call, FileSlice
from modelyard.sdk.errors import ApiError, ConnectionFailed, NotFound, TransferFailed
from modelyard.sdk.places import Places
from modelyard.sdk.transfers import (
    SEGMENT_BYTES,
    BulkLimits,
    Incoming,
    OnProgress,
    Outgoing,
    Segment,
    Tally,
    Wanted,
    batches_of,
    frames_of,
    incoming_path,
    md5_of,
    missing_of,
    outgoing,
    segments_of,
    take_frames,
)

AT_ONCE = 8
LISTING_LIMIT = 1000
_TRIES = 5


class StoredObject(BaseModel):
    """An object in a listing, or, where `subdir` is set, a directory that a delimiter made of several."""

    name: str = ""
    bytes: int = 0
    hash: str | None = None
    content_type: str | None = None
    last_modified: str | None = None
    slo_etag: str | None = None
    subdir: str | None = None


class StoredContainer(BaseModel):
    """A container in a listing."""

    name: str
    count: int
    bytes: int


class WrittenObject(BaseModel):
    """What the store says of an object that it took together with others."""

    name: str
    etag: str


class ContainerGrants(BaseModel):
    """The access lists of a container."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()


SYSTEM = "system"
"""In access lists of the SDK: the account that trainings and endpoints act as."""
_ACCESS_HEADERS = ("x-container-read", "x-container-write")
_BULK_HEADERS = ("x-bulk-write", "x-bulk-write-bytes")
_OBJECTS = TypeAdapter(list[StoredObject])
_WRITTEN = TypeAdapter(list[WrittenObject])
_CONTAINERS = TypeAdapter(list[StoredContainer])


class AsyncStorage:
    """`client.storage`."""

    def __init__(self, api: Api, places: Places, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._api = api
        self._places = places
        self._segment_bytes = segment_bytes

    async def account(self) -> StorageAccountOut:
        """The project's account: tenant id, the platform's API user id to grant access to, and the store's URL."""
        return await self._places.account()

    async def uri(self, place: str) -> str:
        """The full `obs://` form of a place."""
        return await self._places.uri(place)

    async def containers(self) -> Sequence[StoredContainer]:
        """All containers of the account."""
        found: list[StoredContainer] = []
        while True:
            params = {"format": ["json"], "limit": [str(LISTING_LIMIT)], "marker": [found[-1].name if found else ""]}
            answer = await self._store("GET", (await self.account()).object_store_url, params=params)
            page = _CONTAINERS.validate_json(answer.body or b"[]")
            if not page:
                return found
            found.extend(page)

    async def create_container(self, name: str) -> None:
        """Create a container; one that is there stays as it is."""
        path = await self._places.locate(name)
        await self._store("PUT", await self._places.url(replace(path, path="")))

    async def grants(self, container: str) -> ContainerGrants | None:
        """Who may read and write a container; None where there is no such container."""
        try:
            answer = await self._store("HEAD", await self._places.url(await self._places.locate(container)))
        except NotFound:
            return None
        system = await self._system_account()
        lists = (answer.headers.get(name, "") for name in _ACCESS_HEADERS)
        read, write = (tuple(SYSTEM if name == system else name for name in _names(text)) for text in lists)
        return ContainerGrants(read=read, write=write)

    async def grant(
        self, container: str, *, read: Sequence[str] | None = None, write: Sequence[str] | None = None
    ) -> None:
        """Set who may read or write a container; a list that is not given stays as it is.

        Names are those of Swift's access lists (`tenant:user`, `.r:*`); `system` stands for the account that trainings and endpoints act as.
        Once a list was set on a container, an empty one too, only lists count.
        """
        system = await self._system_account()
        headers: dict[str, str] = {}
        for header, names in zip(_ACCESS_HEADERS, (read, write), strict=True):
            if names is not None:
                headers[header] = ",".join(system if name == SYSTEM else name for name in names)
        await self._store("POST", await self._places.url(await self._places.locate(container)), headers=headers)

    async def _system_account(self) -> str:
        account = await self.account()
        return f"{account.tenant_id}:{account.api_user_id}"

    async def list(self, place: str, *, recursive: bool = True) -> Sequence[StoredObject]:
        """The objects at and below a place, sorted by name. Without `recursive`, directories are folded (`subdir`)."""
        return [item async for item in self.iterate(place, recursive=recursive)]

    async def iterate(self, place: str, *, recursive: bool = True) -> AsyncIterator[StoredObject]:
        """Like `list`, fetched page by page."""
        path = await self._places.locate(place)
        is_directory = place.endswith("/")
        async for item in self._objects(path, recursive=recursive):
            if item.name != path.path or not is_directory:
                yield item

    async def upload(
        self, local: Path | str, place: str, *, progress: OnProgress | None = None, at_once: int = AT_ONCE
    ) -> str:
        """Upload a file or a directory; returns where it lies, as `obs://…`.

        What is in a directory goes below `place`. A file is stored as `place` itself, or, where `place` ends with '/' or is a container, below it
        under its own name. A missing container is created. Raises `TransferFailed`, `PermissionDenied`, `StoreFull`, OSError.
        """
        path = await self._places.locate(place)
        files = await self._api.door.work(partial(outgoing, Path(local), path, place.endswith("/")))
        limits = await self._ensure_container(path)
        tally = Tally({str(item.target): item.size for item in files}, progress)
        batches, alone = batches_of(files, limits)
        jobs = [partial(self._put_batch, path, batch, tally) for batch in batches]
        await self._api.door.together([*jobs, *(partial(self._put, item, tally) for item in alone)], at_once)
        return str(files[0].target if len(files) == 1 and files[0].is_alone else path)

    async def download(
        self, place: str, local: Path | str, *, progress: OnProgress | None = None, at_once: int = AT_ONCE
    ) -> Sequence[Path]:
        """Download an object or all objects below a place; returns the files.

        One object becomes the file `local` (or a file in it, where it is a directory); a directory's content goes below `local`. A file is
        complete and checked before it takes its name; what is there with the same content is not fetched again. Raises `NotFound`,
        `TransferFailed`, OSError.
        """
        path = await self._places.locate(place)
        base, is_directory = Path(local), str(local).endswith("/")
        wanted: list[Wanted] = []
        limits = BulkLimits()
        async for page, answer in self._pages(path):
            limits = BulkLimits(int(answer.headers.get("x-bulk-read", "0")))
            for item in page:
                if not item.name.endswith("/"):
                    md5 = None if item.slo_etag else item.hash
                    file = incoming_path(base, path, item.name, is_directory)
                    wanted.append(Wanted(item.name, item.bytes, md5, file))
        if not wanted:
            raise NotFound(404, 404001, f"{path} has no objects")
        tally = Tally({item.name: item.size for item in wanted}, progress)
        batches, alone = batches_of(wanted, limits)
        jobs = [partial(self._get_batch, path, batch, tally) for batch in batches]
        await self._api.door.together([*jobs, *(partial(self._get, path, item, tally) for item in alone)], at_once)
        return [item.file for item in wanted]

    async def read(self, place: str) -> bytes:
        """The whole content of one (small) object. Raises `NotFound`."""
        return (await self._store("GET", await self._places.url(await self._places.locate(place)))).body

    async def delete(self, place: str, *, recursive: bool = False, at_once: int = AT_ONCE) -> int:
        """Delete the object `place`, with `recursive` also all below it, and a container itself. Returns how many objects went.

        Raises `NotFound` when there was nothing, `Conflict` for a container with objects and no `recursive`.
        """
        path = await self._places.locate(place)
        items = [item async for item in self._objects(path) if recursive or item.name == path.path]
        await self._api.door.together([partial(self._remove, path, item) for item in items], at_once)
        if not path.path:
            await self._store("DELETE", await self._places.url(path))
        elif not items:
            raise NotFound(
                404, 404001, f"there is no object {path}" + ("" if recursive else " (a directory? use recursive)")
            )
        return len(items)

    async def _objects(self, path: ObsPath, *, recursive: bool = True) -> AsyncIterator[StoredObject]:
        """Objects named `path` or `path/…`, page by page."""
        async for page, _ in self._pages(path, recursive=recursive):
            for item in page:
                yield item

    async def _pages(
        self, path: ObsPath, *, recursive: bool = True
    ) -> AsyncIterator[tuple[Sequence[StoredObject], Answer]]:
        """Pages of such objects, with the answers that they came in. A plain prefix would also match neighbours such as `path2`."""
        url = await self._places.url(replace(path, path=""))
        params = {"format": ["json"], "limit": [str(LISTING_LIMIT)], "prefix": [path.path]}
        if not recursive:
            params |= {"delimiter": ["/"], "prefix": [path.directory_prefix]}
        marker = ""
        while True:
            answer = await self._store("GET", url, params={**params, "marker": [marker]})
            page = _OBJECTS.validate_json(answer.body or b"[]")
            names = [item.name or item.subdir or "" for item in page]
            yield (
                [
                    item
                    for item, name in zip(page, names, strict=True)
                    if not path.path or name == path.path or name.startswith(path.directory_prefix)
                ],
                answer,
            )
            if len(page) < LISTING_LIMIT:
                return
            marker = names[-1]

    async def _ensure_container(self, path: ObsPath) -> BulkLimits:
        """Make a container that is missing; how many objects its store takes at once."""
        url = await self._places.url(replace(path, path=""))
        try:
            told = (await self._store("HEAD", url)).headers
        except NotFound:
            await self._store("PUT", url)
            told = (await self._store("HEAD", url)).headers
        return BulkLimits(*(int(told.get(name, "0")) for name in _BULK_HEADERS))

    async def _put_batch(self, path: ObsPath, batch: Sequence[Outgoing], tally: Tally) -> None:
        """Several small files in one request: the store compares the md5 of each and takes all of them or none."""
        body, digests = await self._api.door.work(partial(frames_of, batch))
        url = await self._places.url(replace(path, path=""))
        answer = await self._store("POST", url, params={"bulk-write": [""]}, body=body)
        stored = {item.name: item.etag for item in _WRITTEN.validate_json(answer.body)}
        if stored != digests:
            damaged = next(name for name, etag in digests.items() if stored.get(name) != etag)
            raise TransferFailed(
                f"{damaged} did not arrive: its md5 is {digests[damaged]}, the store has {stored.get(damaged)}"
            )
        for item in batch:
            tally.done(str(item.target))

    async def _put(self, item: Outgoing, tally: Tally) -> None:
        name = str(item.target)
        url = await self._places.url(item.target)
        if item.size <= self._segment_bytes:
            await self._put_slice(item.file, Segment(0, item.size), url, partial(tally.at, name))
            tally.done(name)
            return
        parts = replace(item.target, container=f"{item.target.container}_segments")
        await self._ensure_container(parts)
        manifest: list[dict[str, str | int]] = []
        for number, segment in enumerate(segments_of(item.size, self._segment_bytes)):
            part = parts.child(f"{item.modified_at:.6f}/{item.size}/{number:08d}")
            moved = partial(tally.at, name, base=segment.offset)
            etag = await self._put_slice(item.file, segment, await self._places.url(part), moved)
            manifest.append({"path": f"/{part.container}/{part.path}", "etag": etag, "size_bytes": segment.length})
        await self._store("PUT", url, params={"multipart-manifest": ["put"]}, body=json.dumps(manifest).encode())
        tally.done(name)

    async def _put_slice(self, file: Path, segment: Segment, url: str, moved: partial[None]) -> str:
        etag = await self._api.door.work(partial(md5_of, file, segment))
        body = FileSlice(file, segment.offset, segment.length, moved)
        # The store compares what arrived with this md5 and refuses it otherwise (422), so nothing damaged is ever visible.
        answer = await self._store("PUT", url, headers={"ETag": etag}, body=body)
        stored = answer.headers.get("etag", etag).strip('"')
        if stored != etag:
            raise TransferFailed(f"{file} arrived damaged: its md5 is {etag}, the store has {stored}")
        return etag

    async def _get_batch(self, path: ObsPath, batch: Sequence[Wanted], tally: Tally) -> None:
        """Several small objects by one request; what does not come so is fetched by itself."""
        left = await self._api.door.work(partial(missing_of, batch))
        if len(left) > 1:
            url = await self._places.url(replace(path, path=""))
            names = json.dumps([item.name for item in left]).encode()
            with suppress(ApiError, ConnectionFailed):  # whoever asks for the single object hears why
                answer = await self._store("POST", url, params={"bulk-read": [""]}, body=names)
                given_up = Event()
                try:
                    left = await self._api.door.work(partial(take_frames, answer.body, left, given_up.is_set))
                finally:
                    given_up.set()  # a thread goes on when nobody waits for it any more
        remaining = {item.name for item in left}
        for item in batch:
            if item.name not in remaining:
                tally.done(item.name)
        for item in left:
            await self._get(path, item, tally)

    async def _get(self, path: ObsPath, item: Wanted, tally: Tally) -> None:
        if await self._api.door.work(item.is_there):
            tally.done(item.name)
            return
        url = await self._places.url(replace(path, path=item.name))
        for attempt in range(1, _TRIES + 1):
            incoming = Incoming(item.file, partial(tally.at, item.name))
            try:
                call = Call("GET", url, {}, self._headers({"Accept-Encoding": "identity"}), timeout_seconds=60.0)
                answer = await self._api.send(call, incoming.write)
                if answer.status != 200:
                    raise error_of(answer, call)
                incoming.finish(None if _is_composed(answer) else answer.headers.get("etag", "").strip('"'), item.size)
            except ConnectionFailed as error:
                incoming.discard()
                if attempt == _TRIES:
                    raise TransferFailed(f"{url} could not be fetched whole: {error}") from error
                await self._api.pause(attempt)
                continue
            except BaseException:
                incoming.discard()
                raise
            tally.done(item.name)
            return

    async def _remove(self, path: ObsPath, item: StoredObject) -> None:
        url = await self._places.url(replace(path, path=item.name))
        # An object in segments takes its segments along.
        params = {"multipart-manifest": ["delete"]} if item.slo_etag else {}
        await self._store("DELETE", url, params=params, allowed=(404,))

    async def _store(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, Sequence[str]] | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | FileSlice | None = None,
        allowed: tuple[int, ...] = (),
    ) -> Answer:
        call = Call(method, url, params or {}, self._headers(headers or {}), body, timeout_seconds=60.0)
        answer = await self._api.send(call)
        if 200 <= answer.status < 300 or answer.status in allowed:
            return answer
        raise error_of(answer, call)

    def _headers(self, more: dict[str, str]) -> dict[str, str]:
        return {"X-Auth-Token": self._api.connection.access_token, **more}


def _names(access_list: str) -> list[str]:
    return [name.strip() for name in access_list.split(",") if name.strip()]


def _is_composed(answer: Answer) -> bool:
    """Whether the ETag is not the md5 of the content: an object made of segments."""
    return "x-static-large-object" in answer.headers or "x-object-manifest" in answer.headers
