"""GET and HEAD on objects: plain ones, dynamic and static large ones, whole or in parts, with conditions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

from modelyard.objectstore.access import Access, Grants
from modelyard.objectstore.backends.local.large import Content, SegmentsChanged, TooDeep, plain
from modelyard.objectstore.backends.local.model import NoSuchContainer, StoredObject
from modelyard.objectstore.backends.local.store import retry_moved
from modelyard.server.doors.objects_answers import HTML, Answer, Headers, refuse, standard
from modelyard.server.doors.objects_headers import http_date, timestamp, unmet_condition
from modelyard.server.doors.objects_ranges import Span, multipart, parse_ranges, spans
from modelyard.server.doors.objects_request import DoorRequest


async def answer_read(request: DoorRequest) -> Answer:
    """GET or HEAD of an object."""
    return await retry_moved(lambda: _read(request))


async def find_readable(request: DoorRequest, account: str, container: str, name: str) -> StoredObject | None:
    """An object that the caller may read; None where there is none and the caller may know that."""
    tenant = account.removeprefix("AUTH_")
    try:
        home, found = await request.store.find(account, container, name)
    except NoSuchContainer:
        request.demand(Access.READ, Grants(tenant, container, is_set=True))
        return None
    request.demand(Access.READ, home.grants)
    return found


async def content_of(request: DoorRequest, account: str, found: StoredObject) -> Content:
    """What a reader of the object gets; refuses where a manifest can't be followed."""
    await _check_dlo_container(request, account, found)
    try:
        return await request.store.reader(account, request.permit_reading).content(found)
    except (SegmentsChanged, TooDeep):
        raise refuse(409) from None


async def _read(request: DoorRequest) -> Answer:
    found = await find_readable(request, request.account, request.container, request.name)
    if found is None:
        status = unmet_condition(request.headers, None, None)
        raise refuse(404) if status is None else refuse(status, "")
    is_manifest_wanted = request.query.get("multipart-manifest") == "get"
    if is_manifest_wanted and found.slo_etag is not None:
        return await _answer_manifest(request, found)
    if is_manifest_wanted:
        content = plain(found)
    elif request.method == "HEAD" and found.slo_etag is not None:
        content = Content([], found.size, found.slo_etag, is_large=True)  # the index knows; segments are not asked
    else:
        content = await content_of(request, request.account, found)
    headers = _headers(found, content)
    status = unmet_condition(request.headers, content.etag, found.modified_at)
    if status == 304:
        return Answer(304, [("Content-Type", found.content_type), *headers, _ACCEPT_RANGES, ("Content-Length", "0")])
    if status is not None:
        return Answer(status, [("Content-Type", HTML), *headers])
    if request.method == "HEAD":
        return _whole(request, found, content, headers)
    return await _answer_bytes(request, found, content, headers)


async def _answer_bytes(request: DoorRequest, found: StoredObject, content: Content, headers: Headers) -> Answer:
    ranges = parse_ranges(request.headers.get("range"))
    if ranges is not None and found.dlo_prefix is not None and content.is_large and len(ranges) > 1:
        ranges = None  # Swift answers several ranges of a dynamic large object with all of it
    if ranges is None or (content.size == 0 and any(first is None and last for first, last in ranges)):
        return await _with_first_piece(_whole(request, found, content, headers))
    parts = spans(ranges, content.size)
    if not parts:
        return _unsatisfiable(found, content, headers)
    headers = [*headers, _ACCEPT_RANGES]
    if len(parts) == 1:
        start, end = parts[0]
        headers += [
            ("Content-Type", found.content_type),
            ("Content-Range", f"bytes {start}-{end - 1}/{content.size}"),
            ("Content-Length", str(end - start)),
        ]
        return await _with_first_piece(Answer(206, headers, _bytes(request, content, parts[0])))
    boundary, length, pieces = multipart(
        parts, content.size, found.content_type, lambda start, end: _bytes(request, content, (start, end))
    )
    headers += [
        ("Content-Type", f"multipart/byteranges;boundary={boundary}"),
        ("Content-Length", str(length)),
    ]
    return await _with_first_piece(Answer(206, headers, pieces))


def _whole(request: DoorRequest, found: StoredObject, content: Content, headers: Headers) -> Answer:
    headers = [
        ("Content-Type", found.content_type),
        *headers,
        _ACCEPT_RANGES,
        ("Content-Length", str(content.size)),
    ]
    if request.method == "HEAD" or not content.size:
        return Answer(200, headers)
    return Answer(200, headers, _bytes(request, content, (0, content.size)))


def _bytes(request: DoorRequest, content: Content, span: Span) -> AsyncIterator[bytes]:
    return request.store.read(content.cut(*span))


async def _with_first_piece(answer: Answer) -> Answer:
    """Read the first piece before the status goes out, while a blob that has just gone can still be looked up anew."""
    if isinstance(answer.body, bytes):
        return answer
    pieces = answer.body
    first = await anext(pieces, b"")
    length = next(int(value) for name, value in answer.headers if name == "Content-Length")
    if len(first) == length:
        return Answer(answer.status, answer.headers, first)

    async def again() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return Answer(answer.status, answer.headers, again())


def _unsatisfiable(found: StoredObject, content: Content, headers: Headers) -> Answer:
    answer = standard(416)
    span = ("Content-Range", f"bytes */{content.size}")
    if content.is_large and found.dlo_prefix is not None:
        return Answer(416, [("Content-Type", HTML), span, _ACCEPT_RANGES], answer.body)
    return Answer(416, [("Content-Type", found.content_type), *headers, span, _ACCEPT_RANGES], answer.body)


def _headers(found: StoredObject, content: Content) -> Headers:
    headers: Headers = list(found.headers.items())
    if found.delete_at is not None:
        headers.append(("X-Delete-At", str(found.delete_at)))
    if found.slo_etag is not None:
        headers += [("X-Static-Large-Object", "True"), ("X-Manifest-Etag", found.etag)]
    return [
        *headers,
        ("Etag", f'"{content.etag}"' if content.is_large else content.etag),
        ("Last-Modified", http_date(found.modified_at)),
        ("X-Timestamp", timestamp(found.modified_at)),
    ]


async def _answer_manifest(request: DoorRequest, found: StoredObject) -> Answer:
    """`multipart-manifest=get`: the manifest as the store keeps it, or with `format=raw` as it can be put again."""
    body = await request.store.read_all(found)
    headers: Headers = [
        *found.headers.items(),
        ("X-Static-Large-Object", "True"),
        ("Last-Modified", http_date(found.modified_at)),
        ("X-Timestamp", timestamp(found.modified_at)),
        _ACCEPT_RANGES,
    ]
    if found.delete_at is not None:
        headers.append(("X-Delete-At", str(found.delete_at)))
    if request.query.get("format") != "raw":
        kind = "application/json; charset=utf-8"
        return Answer(200, [("Content-Type", kind), ("Etag", found.etag), *_length(body), *headers], body)
    raw = json.dumps([_raw_entry(entry) for entry in json.loads(body)]).encode()
    etag = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    return Answer(200, [("Content-Type", found.content_type), ("Etag", etag), *_length(raw), *headers], raw)


def _raw_entry(entry: dict[str, Any]) -> dict[str, Any]:
    if "data" in entry:
        return {"data": entry["data"]}
    raw = {"etag": entry["hash"], "path": entry["name"], "range": entry.get("range"), "size_bytes": entry["bytes"]}
    return {key: value for key, value in raw.items() if value is not None}


def _length(body: bytes) -> Headers:
    return [("Content-Length", str(len(body)))]


async def _check_dlo_container(request: DoorRequest, account: str, found: StoredObject) -> None:
    if found.dlo_prefix is None or found.slo_etag is not None:
        return
    try:
        await request.store.container(account, unquote(found.dlo_prefix.lstrip("/").partition("/")[0]))
    except NoSuchContainer:
        raise refuse(404) from None


_ACCEPT_RANGES = ("Accept-Ranges", "bytes")
