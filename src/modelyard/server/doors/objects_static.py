"""Static large objects: taking a manifest in, and deleting one with its segments.

Source of the format and the texts: OpenStack Swift's static large objects.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, cast
from urllib.parse import quote

from modelyard.objectstore.access import Access
from modelyard.objectstore.backends.local.large import Content, cut_range, manifest_etag, manifest_size
from modelyard.objectstore.backends.local.model import (
    Container,
    NoSuchContainer,
    NoSuchObject,
    StoredObject,
    ticks_to_whole_seconds,
)
from modelyard.server.doors.objects_answers import PLAIN, Answer, Refusal, refuse
from modelyard.server.doors.objects_containers import find_home
from modelyard.server.doors.objects_headers import iso_time
from modelyard.server.doors.objects_ranges import parse_ranges
from modelyard.server.doors.objects_read import content_of
from modelyard.server.doors.objects_request import DoorRequest
from modelyard.server.doors.objects_write import (
    body_pieces,
    check_length,
    check_precondition,
    commit,
    described,
    store_pieces,
    written_headers,
)

MAX_SEGMENTS = 1000
MAX_MANIFEST_BYTES = 8 * 1024 * 1024
_KEYS = {"path", "etag", "size_bytes", "range"}
_TICKS_PER_SECOND = 100_000

Entry = dict[str, Any]
Found = Mapping[tuple[str, str], tuple[Container, StoredObject]]


async def answer_put_manifest(request: DoorRequest) -> Answer:
    """`PUT …?multipart-manifest=put`: check the segments and keep the manifest."""
    if await find_home(request, Access.WRITE) is None:
        raise refuse(404)
    must_be_new = await check_precondition(request)
    new = described(request)
    if "content-length" not in request.headers and "transfer-encoding" not in request.headers:
        raise refuse(411)
    check_length(request, MAX_MANIFEST_BYTES)
    body = b"".join([piece async for piece in body_pieces(request, MAX_MANIFEST_BYTES)])
    wanted = _parsed(request, body)
    found = await request.store.find_many(
        request.account, (_place(entry["path"]) for entry in wanted if "path" in entry)
    )
    entries = await _checked_entries(request, wanted, found)
    etag = manifest_etag(entries)
    expected = request.headers.get("etag")
    if expected and expected.strip('"') != etag:
        raise refuse(422)

    async def pieces() -> AsyncIterator[bytes]:
        yield json.dumps(entries).encode()

    blob = request.store.new_blob()
    new = await store_pieces(request, blob, pieces(), new)
    new = replace(new, size=manifest_size(entries), slo_etag=etag)
    stored = await commit(request, blob, new, must_be_new=must_be_new)
    return Answer(201, written_headers(stored, f'"{etag}"'))


async def answer_delete_manifest(request: DoorRequest) -> Answer:
    """`DELETE …?multipart-manifest=delete`: delete the segments, then the manifest."""
    home = await find_home(request, Access.WRITE)
    deleted = missing = 0
    errors: list[tuple[str, str]] = []
    places: list[tuple[str, str]] = [(request.container, request.name)]
    if home is not None:
        _, found = await request.store.find(request.account, request.container, request.name)
        if found is not None and found.slo_etag is None:
            errors.append((f"/{request.container}/{request.name}", "Not an SLO manifest"))
            places = []
        elif found is not None:
            places = [*await _segment_places(request, found, depth=0), *places]
    for container, name in places:
        try:
            target = await request.store.container(request.account, container)
            request.demand(Access.WRITE, target.grants)
            await request.store.delete(request.account, container, name)
            deleted += 1
        except (NoSuchObject, NoSuchContainer):
            missing += 1
        except Refusal as refusal:
            errors.append((f"/{container}/{name}", f"{refusal.answer.status} Forbidden"))
    return _deletion_answer(request, deleted, missing, errors)


def _parsed(request: DoorRequest, body: bytes) -> list[Entry]:
    try:
        parsed: Any = json.loads(body)
    except ValueError:
        raise refuse(400, "Manifest must be valid JSON.\n") from None
    if not isinstance(parsed, list):
        raise refuse(400, "Manifest must be a list.\n")
    entries = cast("list[Any]", parsed)
    own = f"{request.container}/{request.name}"
    faults: list[str] = []
    for index, entry in enumerate(entries):
        fault = _entry_fault(entry, own, is_last=index == len(entries) - 1)
        if fault:
            faults.append(f"Index {index}: {fault}")
    mappings = [cast("Entry", entry) for entry in entries if isinstance(entry, dict)]
    segment_count = sum(1 for entry in mappings if "path" in entry)
    if not segment_count and any("data" in entry for entry in mappings):
        faults.append("Inline data segments require at least one object-backed segment.")
    if segment_count > MAX_SEGMENTS:
        raise refuse(413, f"Number of object-backed segments must be <= {MAX_SEGMENTS}")
    if faults:
        raise refuse(400, "".join(f"{fault}\n" for fault in faults), content_type=PLAIN)
    return entries


def _entry_fault(entry: Any, own: str, *, is_last: bool) -> str | None:
    if not isinstance(entry, dict):
        return "not a JSON object"
    fields = cast("Entry", entry)
    if "data" in fields:
        return _inline_fault(fields)
    if "path" not in fields:
        return "expected keys to include one of 'data' or 'path'"
    extra = sorted(key for key in fields if key not in _KEYS)
    if extra:
        return "extraneous keys " + ", ".join(json.dumps(key) for key in extra)
    path, etag, size = fields["path"], fields.get("etag"), fields.get("size_bytes")
    if not isinstance(path, str):
        return '"path" must be a string'
    if etag is not None and not isinstance(etag, str):
        return '"etag" must be a string or null (if provided)'
    if "/" not in path.strip("/"):
        return "path does not refer to an object. Path must be of the form /container/object."
    if size is not None:
        try:
            size = int(size)
        except (TypeError, ValueError):
            return "invalid size_bytes"
        fields["size_bytes"] = size
        if size < 1 and not is_last:
            return "too small; each segment must be at least 1 byte."
    if path.lstrip("/") == own:
        return "manifest must not include itself as a segment"
    return _range_fault(fields.get("range"), size)


def _inline_fault(fields: Entry) -> str | None:
    extra = sorted(key for key in fields if key != "data")
    if extra:
        return "extraneous keys " + ", ".join(json.dumps(key) for key in extra)
    try:
        plain = base64.b64decode(fields["data"], validate=True)
    except (TypeError, ValueError, binascii.Error):
        return "data must be valid base64"
    return None if plain else "too small; each segment must be at least 1 byte."


def _range_fault(text: Any, size: int | None) -> str | None:
    if not text:
        return None
    ranges = parse_ranges(f"bytes={text}")
    if ranges is None:
        return "invalid range"
    if len(ranges) > 1:
        return "multiple ranges (only one allowed)"
    if size is not None and cut_range(text, size) is None:
        return "unsatisfiable range"
    return None


async def _checked_entries(request: DoorRequest, wanted: list[Entry], found: Found) -> list[Entry]:
    entries: list[Entry] = []
    problems: list[tuple[str, str]] = []
    for index, entry in enumerate(wanted):
        if "data" in entry:
            entries.append({"data": entry["data"]})
            continue
        pair = found.get(_place(entry["path"]))
        if pair is None:
            problems.append((entry["path"], "404 Not Found"))
            continue
        try:
            request.permit_reading(pair[0])
            content = await content_of(request, request.account, pair[1])
        except Refusal as refusal:
            problems.append((entry["path"], _status_line(refusal.answer.status)))
            continue
        faults = _segment_faults(entry, content, is_last=index == len(wanted) - 1)
        problems += [(entry["path"], fault) for fault in faults]
        entries.append(_kept_entry(entry, pair[1], content))
    if problems:
        raise _problems(request, problems)
    return entries


def _segment_faults(entry: Entry, content: Content, *, is_last: bool) -> list[str]:
    faults: list[str] = []
    if entry.get("size_bytes") is not None and entry["size_bytes"] != content.size:
        faults.append("Size Mismatch")
    if entry.get("etag") and entry["etag"] != content.etag:
        faults.append("Etag Mismatch")
    if content.size < 1 and not is_last:
        faults.append("Too Small; each segment must be at least 1 byte.")
    elif entry.get("range") and cut_range(entry["range"], content.size) is None:
        faults.append("Unsatisfiable Range")
    return faults


def _kept_entry(entry: Entry, segment: StoredObject, content: Content) -> Entry:
    kept: Entry = {
        "name": "/" + entry["path"].lstrip("/"),
        "bytes": content.size,
        "hash": content.etag,
        "content_type": segment.content_type,
        "last_modified": iso_time(ticks_to_whole_seconds(segment.modified_at) * _TICKS_PER_SECOND),
    }
    span = cut_range(entry["range"], content.size) if entry.get("range") else None
    if span is not None:
        kept["range"] = f"{span[0]}-{span[1] - 1}"
    if segment.slo_etag is not None:
        kept["sub_slo"] = True
    return kept


def _problems(request: DoorRequest, problems: list[tuple[str, str]]) -> Refusal:
    if _wants_json(request):
        body = json.dumps({"Errors": [[quote(path), fault] for path, fault in problems]})
        return refuse(400, body, content_type="application/json")
    lines = "".join(f"{quote(path)}, {fault}\n" for path, fault in problems)
    return refuse(400, f"Errors:\n{lines}", content_type=PLAIN)


async def _segment_places(request: DoorRequest, found: StoredObject, depth: int) -> list[tuple[str, str]]:
    if depth > 10:
        raise refuse(409)
    places: list[tuple[str, str]] = []
    for entry in await request.store.reader(request.account).manifest(found):
        if "name" not in entry:
            continue
        place = _place(entry["name"])
        if entry.get("sub_slo"):
            inner = (await request.store.find_many(request.account, [place])).get(place)
            if inner is not None and inner[1].slo_etag is not None:
                places += await _segment_places(request, inner[1], depth + 1)
        places.append(place)
    return places


def _deletion_answer(request: DoorRequest, deleted: int, missing: int, errors: list[tuple[str, str]]) -> Answer:
    status = "400 Bad Request" if errors else "200 OK"
    if _wants_json(request):
        told: dict[str, Any] = {
            "Response Status": status,
            "Response Body": "",
            "Number Deleted": deleted,
            "Number Not Found": missing,
            "Errors": [[quote(path), fault] for path, fault in errors],
        }
        return Answer(200, [("Content-Type", "application/json")], json.dumps(told).encode())
    lines = "".join(f"{quote(path)}, {fault}\n" for path, fault in errors)
    text = (
        f"Number Deleted: {deleted}\nNumber Not Found: {missing}\nResponse Body: \n"
        f"Response Status: {status}\nErrors:\n{lines}"
    )
    return Answer(200, [("Content-Type", PLAIN)], text.encode())


def _wants_json(request: DoorRequest) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _status_line(status: int) -> str:
    return {401: "401 Unauthorized", 403: "403 Forbidden", 404: "404 Not Found", 409: "409 Conflict"}.get(
        status, str(status)
    )


def _place(path: str) -> tuple[str, str]:
    container, _, name = path.lstrip("/").partition("/")
    return container, name
