"""COPY, and PUT with `X-Copy-From`.

A plain object is copied by naming its blob once more, whatever its size. Only a part of an object, or a large object that is to become a
plain one, is read and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote_to_bytes

from modelyard.objectstore.access import Access, Grants
from modelyard.objectstore.backends.local.blobs import BlobWriter
from modelyard.objectstore.backends.local.large import Content, plain
from modelyard.objectstore.backends.local.model import NewObject, NoSuchContainer, StoredObject
from modelyard.objectstore.backends.local.store import retry_moved
from modelyard.server.doors.objects_answers import HTML, PLAIN, Answer, refuse
from modelyard.server.doors.objects_headers import (
    checked_content_type,
    delete_at,
    http_date,
    object_headers,
    unmet_condition,
)
from modelyard.server.doors.objects_ranges import Span, parse_ranges, spans
from modelyard.server.doors.objects_read import content_of, find_readable
from modelyard.server.doors.objects_request import DoorRequest, check_names, check_object_name
from modelyard.server.doors.objects_write import commit, store_pieces, written_headers


@dataclass(frozen=True, slots=True)
class _Place:
    account: str
    container: str
    name: str


async def answer_copy(request: DoorRequest) -> Answer:
    """Copy an object, named by the path or by `X-Copy-From`, to the other of the two."""
    here = _Place(request.account, request.container, request.name)
    if request.method == "COPY":
        there = _other_place(request, "Destination", "Destination-Account")
        return await retry_moved(lambda: _copy(request, here, there))
    if request.headers.get("content-length", "0") != "0":
        raise refuse(400, "Copy requests require a zero byte body", content_type=PLAIN)
    there = _other_place(request, "X-Copy-From", "X-Copy-From-Account")
    return await retry_moved(lambda: _copy(request, there, here))


async def _copy(request: DoorRequest, source: _Place, target: _Place) -> Answer:
    check_object_name(target.name)
    found = await find_readable(request, source.account, source.container, source.name)
    if found is None:
        status = unmet_condition(request.headers, None, None)
        raise refuse(404) if status is None else refuse(status, "")
    await _demand_target(request, target)
    is_manifest = request.query.get("multipart-manifest") == "get"
    content = plain(found) if is_manifest else await content_of(request, source.account, found)
    tag = found.slo_etag if is_manifest and found.slo_etag else content.etag
    status = unmet_condition(request.headers, tag, found.modified_at)
    if status is not None:
        headers = [("Etag", tag), ("Last-Modified", http_date(found.modified_at)), *found.headers.items()]
        if status == 304:
            return Answer(304, [("Content-Type", found.content_type), ("Accept-Ranges", "bytes"), *headers])
        return Answer(status, [("Content-Type", HTML), *headers])
    new = _described(request, found, is_manifest=is_manifest)
    span = _span(request, content)
    if span is None and not content.is_large:
        new = replace(
            new,
            blob_key=found.blob_key,
            size=found.size if is_manifest else found.stored_size,
            stored_size=found.stored_size,
            etag=found.etag,
            slo_etag=found.slo_etag if is_manifest else None,
        )
        stored = await _commit(request, None, new, target)
    else:
        stored = await _write_copy(request, new, content, span or (0, content.size), target)
    etag = f'"{stored.slo_etag}"' if stored.slo_etag else stored.etag
    return Answer(201, [*written_headers(stored, etag), *_copied_headers(source, found, stored)])


async def _write_copy(
    request: DoorRequest, new: NewObject, content: Content, span: Span, target: _Place
) -> StoredObject:
    if span[1] - span[0] > request.settings.max_object_bytes:
        raise refuse(413)
    blob = request.store.new_blob()
    new = await store_pieces(request, blob, request.store.read(content.cut(*span)), new)
    return await _commit(request, blob, new, target)


async def _commit(request: DoorRequest, blob: BlobWriter | None, new: NewObject, target: _Place) -> StoredObject:
    return await commit(
        request,
        blob,
        new,
        account=target.account,
        container=target.container,
        name=target.name,
    )


async def _demand_target(request: DoorRequest, target: _Place) -> None:
    tenant = target.account.removeprefix("AUTH_")
    try:
        home = await request.store.container(target.account, target.container)
    except NoSuchContainer:
        request.demand(Access.WRITE, Grants(tenant, target.container, is_set=True))
        raise refuse(404) from None
    request.demand(Access.WRITE, home.grants)


def _described(request: DoorRequest, found: StoredObject, *, is_manifest: bool) -> NewObject:
    sent = object_headers(request.headers)
    kept: Mapping[str, str] = {}
    expiry = delete_at(request.headers, request.store.now())
    if not request.is_true("x-fresh-metadata"):
        kept = {name: value for name, value in found.headers.items() if is_manifest or name != "X-Object-Manifest"}
        expiry = expiry if expiry is not None else found.delete_at
    sent_type = request.headers.get("content-type")
    return NewObject(
        blob_key=None,
        size=0,
        stored_size=0,
        etag="",
        content_type=checked_content_type(sent_type) if sent_type else found.content_type,
        headers={**kept, **sent},
        delete_at=expiry,
    )


def _span(request: DoorRequest, content: Content) -> Span | None:
    ranges = parse_ranges(request.headers.get("range"))
    if ranges is None:
        return None
    parts = spans(ranges, content.size)
    if len(parts) != 1:
        raise refuse(416)
    return parts[0]


def _copied_headers(source: _Place, found: StoredObject, stored: StoredObject) -> list[tuple[str, str]]:
    shown = [(name, value) for name, value in stored.headers.items() if name.startswith("X-Object-Meta-")]
    if stored.delete_at is not None:
        shown.append(("X-Delete-At", str(stored.delete_at)))
    return [
        ("X-Copied-From-Account", quote(source.account)),
        ("X-Copied-From", quote(f"{source.container}/{source.name}")),
        ("X-Copied-From-Last-Modified", http_date(found.modified_at)),
        *shown,
    ]


def _other_place(request: DoorRequest, header: str, account_header: str) -> _Place:
    value = request.headers.get(header)
    if value is None:
        raise refuse(412, f"{header} header required")
    path = _decoded(value).lstrip("/")
    container, _, name = path.partition("/")
    if not container or not name:
        raise refuse(412, f"{header} header must be of the form <container name>/<object name>")
    account = _decoded(request.headers.get(account_header, quote(request.account)))
    if "/" in account or not account:
        raise refuse(412, "Account name cannot contain slashes")
    check_names(account, container, name)
    return _Place(account, container, name)


def _decoded(value: str) -> str:
    try:
        text = unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise refuse(412, "Invalid UTF8 or contains NULL") from None
    if "\0" in text:
        raise refuse(412, "Invalid UTF8 or contains NULL")
    return text
