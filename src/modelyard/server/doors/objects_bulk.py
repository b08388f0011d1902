"""Many small objects in one answer or one request, which Swift does not have: a data set of small files costs a request for each otherwise.

`POST /v1/{account}/{container}?bulk-read` with a JSON list of names answers frames: a line of JSON (`name`, `size`, `etag`, `modified_at` in
seconds) and the content after it. What is no plain small object, is not there or finds no more room is left out; the caller asks for that by
itself, and hears why. Listings tell by `X-Bulk-Read` how many names a request takes. `modelyard.runner` and
`modelyard.sdk` read these answers.

`POST /v1/{account}/{container}?bulk-write` takes such frames (`name`, `size`, and `etag`, the hex MD5, which the content is compared with) and
writes all of these objects or none, in one durable transaction. `X-Bulk-Write` tells how many, `X-Bulk-Write-Bytes` how large the request may
be. `modelyard.sdk` and `modelyard.runner` write them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, cast

import orjson
from starlette.datastructures import Headers

from modelyard.objectstore.access import Access
from modelyard.objectstore.backends.local.model import BlobStoreFull, NewObject, NoSuchContainer, StoredObject
from modelyard.server.doors.objects_answers import PLAIN, Answer, refuse
from modelyard.server.doors.objects_containers import find_home
from modelyard.server.doors.objects_headers import content_type_for, timestamp
from modelyard.server.doors.objects_request import MAX_BULK_NAMES, MAX_BULK_WRITE_BYTES, DoorRequest, check_object_name
from modelyard.server.doors.objects_write import body_pieces, check_length

_MAX_REQUEST_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 8 << 20


async def answer_bulk_read(request: DoorRequest) -> Answer:
    """Frames of the objects that are asked for, in that order."""
    home = await find_home(request, Access.READ)
    if home is None:
        raise refuse(404)
    names = await _names(request)
    found = await request.store.find_many(request.account, ((request.container, name) for name in names))
    chosen: list[StoredObject] = []
    room = _MAX_ANSWER_BYTES
    for name in names:
        _, stored = found.get((request.container, name), (None, None))
        if stored is not None and stored.slo_etag is None and stored.dlo_prefix is None and stored.size <= room:
            chosen.append(stored)
            room -= stored.size
    contents = await request.store.read_small(chosen)
    frames: list[bytes] = []
    for stored, content in zip(chosen, contents, strict=True):
        if content is not None:
            frames += [_head(stored), content]
    return Answer(200, [("Content-Type", "application/octet-stream")], b"".join(frames))


async def answer_bulk_write(request: DoorRequest) -> Answer:
    """Write the objects of the frames; a JSON list of their names and tags."""
    if await find_home(request, Access.WRITE) is None:
        raise refuse(404)
    check_length(request, MAX_BULK_WRITE_BYTES)
    body = b"".join([piece async for piece in body_pieces(request, MAX_BULK_WRITE_BYTES)])
    items: dict[str, tuple[NewObject, bytes]] = {}
    for name, etag, content in _frames(body):
        if name in items:
            raise refuse(400, f"The object {name!r} comes twice", content_type=PLAIN)
        if len(items) == MAX_BULK_NAMES:
            raise refuse(413, f"At most {MAX_BULK_NAMES} objects at once", content_type=PLAIN)
        if "\0" in name:
            raise refuse(412, "Invalid UTF8 or contains NULL")
        check_object_name(name)
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if etag != digest:
            raise refuse(422, f"The content of {name!r} has the MD5 {digest}, not {etag}", content_type=PLAIN)
        new = NewObject(
            blob_key=None,
            size=0,
            stored_size=0,
            etag=digest,
            content_type=content_type_for(Headers(), name),
            headers={},
        )
        items[name] = (new, content)
    try:
        stored = await request.store.put_small(
            request.account, request.container, [(name, new, content) for name, (new, content) in items.items()]
        )
    except NoSuchContainer:
        raise refuse(404) from None
    except BlobStoreFull:
        raise refuse(507) from None
    told = [{"name": each.name, "etag": each.etag} for each in stored]
    return Answer(201, [("Content-Type", "application/json; charset=utf-8")], orjson.dumps(told))


def _frames(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Name, tag and content of each frame; refuses what is none."""
    place = 0
    while place < len(body):
        end = body.find(b"\n", place)
        try:
            head: Any = orjson.loads(body[place:end]) if end >= 0 else None
        except ValueError:
            head = None
        match head:
            case {"name": str(name), "size": int(size), "etag": str(etag)} if name and 0 <= size <= len(body) - end - 1:
                place = end + 1 + size
                yield name, etag, body[end + 1 : place]
            case _:
                raise refuse(
                    400,
                    f"At byte {place} a line of JSON with name, size and etag is expected, and as many bytes after it as it says",
                    content_type=PLAIN,
                )


async def _names(request: DoorRequest) -> list[str]:
    check_length(request, _MAX_REQUEST_BYTES)
    body = b"".join([piece async for piece in body_pieces(request, _MAX_REQUEST_BYTES)])
    try:
        names: Any = orjson.loads(body)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast(list[Any], names)):
        raise refuse(400, "The body must be a JSON list of object names", content_type=PLAIN)
    if len(cast(list[str], names)) > MAX_BULK_NAMES:
        raise refuse(413, f"At most {MAX_BULK_NAMES} names at once", content_type=PLAIN)
    return list(dict.fromkeys(cast(list[str], names)))


def _head(stored: StoredObject) -> bytes:
    head = {
        "name": stored.name,
        "size": stored.size,
        "etag": stored.etag,
        "modified_at": float(timestamp(stored.modified_at)),
    }
    return orjson.dumps(head) + b"\n"
