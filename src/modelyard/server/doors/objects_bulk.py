"""Many small objects in one answer, which Swift does not have: a data set of small files costs a request for each otherwise.

`POST /v1/{account}/{container}?bulk-read` with a JSON list of names answers frames: a line of JSON (`name`, `size`, `etag`, `modified_at` in
seconds) and the content after it. What is no plain small object, is not there or finds no more room is left out; the caller asks for that by
itself, and hears why. Listings tell by `X-Bulk-Read` how many names a request takes. `modelyard.runner` reads these answers.
"""

from __future__ import annotations

from typing import Any, cast

import orjson

from modelyard.objectstore.access import Access
from modelyard.objectstore.backends.local.model import StoredObject
from modelyard.server.doors.objects_answers import PLAIN, Answer, refuse
from modelyard.server.doors.objects_containers import find_home
from modelyard.server.doors.objects_headers import timestamp
from modelyard.server.doors.objects_request import MAX_BULK_NAMES, DoorRequest
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
