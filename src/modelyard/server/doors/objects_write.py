"""PUT, POST and DELETE on objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from starlette.requests import ClientDisconnect

from modelyard.objectstore.access import Access
from modelyard.objectstore.backends.local.blobs import BlobWriter
from modelyard.objectstore.backends.local.model import (
    EMPTY_MD5,
    BlobStoreFull,
    NewObject,
    NoSuchContainer,
    NoSuchObject,
    ObjectExists,
    StoredObject,
)
from modelyard.server.doors.objects_answers import HTML, PLAIN, Answer, refuse, standard
from modelyard.server.doors.objects_containers import find_home
from modelyard.server.doors.objects_headers import (
    checked_content_type,
    content_type_for,
    delete_at,
    http_date,
    object_headers,
)
from modelyard.server.doors.objects_request import DoorRequest


async def answer_put(request: DoorRequest) -> Answer:
    """Write an object from the request's body."""
    if await find_home(request, Access.WRITE) is None:
        raise refuse(404)
    must_be_new = await check_precondition(request)
    new = described(request)
    check_length(request, request.settings.max_object_bytes)
    blob = request.store.new_blob()
    pieces = body_pieces(request, request.settings.max_object_bytes)
    new = await store_pieces(request, blob, pieces, new, etag=request.headers.get("etag"))
    stored = await commit(request, blob, new, must_be_new=must_be_new)
    return Answer(201, written_headers(stored, stored.etag))


async def answer_post(request: DoorRequest) -> Answer:
    """Replace an object's metadata."""
    if await find_home(request, Access.WRITE) is None:
        raise refuse(404)
    sent_type = request.headers.get("content-type")
    try:
        await request.store.change(
            request.account,
            request.container,
            request.name,
            headers=object_headers(request.headers),
            content_type=checked_content_type(sent_type) if sent_type else None,
            delete_at=delete_at(request.headers, request.store.now()),
        )
    except (NoSuchObject, NoSuchContainer):
        raise refuse(404) from None
    return standard(202)


async def answer_delete(request: DoorRequest) -> Answer:
    """Delete an object."""
    if await find_home(request, Access.WRITE) is None:
        raise refuse(404)
    try:
        await request.store.delete(request.account, request.container, request.name)
    except (NoSuchObject, NoSuchContainer):
        raise refuse(404) from None
    return Answer(204, [("Content-Type", HTML)])


def described(request: DoorRequest) -> NewObject:
    """What the headers say about a new object; its bytes are still to come."""
    return NewObject(
        blob_key=None,
        size=0,
        stored_size=0,
        etag=EMPTY_MD5,
        content_type=content_type_for(request.headers, request.name),
        headers=object_headers(request.headers),
        delete_at=delete_at(request.headers, request.store.now()),
    )


def check_length(request: DoorRequest, limit: int) -> None:
    """Refuse a body without a length, or one that is too long, before it is sent."""
    encoding = request.headers.get("transfer-encoding", "").lower()
    if encoding not in {"", "chunked"}:
        raise refuse(400, "Invalid Transfer-Encoding header value", content_type=PLAIN)
    length = request.headers.get("content-length")
    if length is None and not encoding:
        raise refuse(411, "Missing Content-Length header.", content_type=PLAIN)
    if length is not None and not encoding:
        if not length.isascii() or not length.isdigit():
            raise refuse(400, "Invalid Content-Length header value", content_type=PLAIN)
        if int(length) > limit:
            raise refuse(413, "Your request is too large.", content_type=PLAIN)


async def body_pieces(request: DoorRequest, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes; refuses what grows beyond the limit and what ends before its announced length."""
    size = 0
    async for piece in request.http.stream():
        size += len(piece)
        if size > limit:
            raise refuse(413)
        if piece:
            yield piece
    announced = request.headers.get("content-length")
    if announced is not None and "transfer-encoding" not in request.headers and size != int(announced):
        raise refuse(499)


async def store_pieces(
    request: DoorRequest, blob: BlobWriter, pieces: AsyncIterator[bytes], new: NewObject, *, etag: str | None = None
) -> NewObject:
    """Write pieces to a blob and sync it; the description with key, sizes and tag. Leaves nothing behind when it fails."""
    try:
        async for piece in pieces:
            await blob.write(piece)
        digest = await blob.finish() if blob.size else EMPTY_MD5
        if etag and etag.strip('"') != digest:
            raise refuse(422)
    except BlobStoreFull:
        await blob.discard()
        raise refuse(507) from None
    except ClientDisconnect:
        await blob.discard()
        raise refuse(499) from None
    except BaseException:
        await blob.discard()
        raise
    key = blob.key if blob.size else None
    return replace(new, blob_key=key, size=blob.size, stored_size=blob.size, etag=digest)


async def commit(
    request: DoorRequest,
    blob: BlobWriter | None,
    new: NewObject,
    *,
    account: str | None = None,
    container: str | None = None,
    name: str | None = None,
    must_be_new: bool = False,
) -> StoredObject:
    """Name the finished blob (None: the description names that of another object)."""
    try:
        return await request.store.put(
            account or request.account,
            container or request.container,
            name or request.name,
            new,
            is_copy=blob is None,
            must_be_new=must_be_new,
        )
    except ObjectExists:
        await _discard(blob, new)
        raise refuse(412) from None
    except NoSuchContainer:
        await _discard(blob, new)
        raise refuse(404) from None
    except BlobStoreFull:
        await _discard(blob, new)
        raise refuse(507) from None
    # After any other failure nobody knows whether the transaction was committed, so the blob stays; the sweep finds it if it was not.


def written_headers(stored: StoredObject, etag: str) -> list[tuple[str, str]]:
    """Headers of the answer to a write."""
    return [("Content-Type", HTML), ("Etag", etag), ("Last-Modified", http_date(stored.modified_at))]


async def check_precondition(request: DoorRequest) -> bool:
    """Whether `If-None-Match: *` asks for a new object; refuses at once where there is one already."""
    wanted = request.headers.get("if-none-match")
    if wanted is None:
        return False
    if wanted.strip() != "*":
        raise refuse(400, "If-None-Match only supports *", content_type=PLAIN)
    _, found = await request.store.find(request.account, request.container, request.name)
    if found is not None:
        raise refuse(412)
    return True


async def _discard(blob: BlobWriter | None, new: NewObject) -> None:
    if blob is not None and new.blob_key is not None:
        await blob.discard()
