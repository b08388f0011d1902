"""Listings of accounts and containers on the wire: parameters in, text, JSON or XML out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from modelyard.objectstore.backends.local.model import Container, ListingRequest, StoredObject, Subdirectory
from modelyard.server.doors.objects_answers import Answer, Headers, Refusal, refuse, standard
from modelyard.server.doors.objects_headers import iso_time
from modelyard.server.doors.objects_request import MAX_LISTING, DoorRequest

_FORMATS = ("text/plain", "application/json", "application/xml", "text/xml")
_BY_PARAMETER = {"plain": "text/plain", "json": "application/json", "xml": "application/xml"}
_TRUE = {"true", "1", "yes", "on", "t", "y"}
_WORD = r"[^\s\x00-\x1f()<>@,;:\"/\[\]?={}]+"
_MEDIA_RANGE = re.compile(rf"\s*({_WORD}/{_WORD})\s*((?:;[^,]*)?)\s*")
_PARAMETER = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"|")+')
_QUALITY = re.compile(r";\s*q\s*=\s*([0-9.]+)\s*(?:;|$)")


def listing_request(request: DoorRequest) -> ListingRequest:
    """The names that the parameters ask for."""
    limit = MAX_LISTING
    given = request.parameter("limit")
    if re.fullmatch(r"[0-9]{1,9}", given):
        limit = int(given)
        if limit > MAX_LISTING:
            raise refuse(412, f"Maximum limit is {MAX_LISTING}")
    is_reverse = request.parameter("reverse").lower() in _TRUE
    marker, end_marker = request.parameter("marker"), request.parameter("end_marker")
    prefix, delimiter = request.parameter("prefix"), request.parameter("delimiter")
    path = request.parameter("path") if "path" in request.query else None
    if "\0" in prefix or (path is not None and "\0" in path):
        return ListingRequest(limit=0)  # no name has a NUL
    return ListingRequest(
        limit=limit,
        marker=_without_nul(marker, is_upper=is_reverse),
        end_marker=_without_nul(end_marker, is_upper=not is_reverse),
        prefix=prefix,
        delimiter="" if "\0" in delimiter else delimiter,
        path=path,
        is_reverse=is_reverse,
    )


def listing_format(request: DoorRequest) -> str:
    """The content type that the caller wants, by `format` or by `Accept`."""
    if request.query.get("format"):
        return _BY_PARAMETER.get(request.parameter("format").lower(), "text/plain")
    accepted = request.headers.get("accept", "")
    if not accepted.strip():
        return "text/plain"
    for wanted in _by_quality(accepted):
        kind, _, subtype = wanted.partition("/")
        for offered in _FORMATS:
            offered_kind, _, offered_subtype = offered.partition("/")
            if kind in {"*", offered_kind} and subtype in {"*", offered_subtype}:
                return offered
    raise Refusal(standard(406))


def container_listing(
    request: DoorRequest, content_type: str, headers: Headers, entries: Sequence[StoredObject | Subdirectory]
) -> Answer:
    """The objects of a container."""
    if content_type == "text/plain":
        body = _lines(entries)
    elif content_type == "application/json":
        body = json.dumps([_object_entry(entry) for entry in entries]).encode()
    else:
        items = "".join(_object_element(entry) for entry in entries)
        body = _document("container", request.container, items)
    return _listing_answer(request, content_type, headers, body)


def account_listing(
    request: DoorRequest, content_type: str, headers: Headers, entries: Sequence[Container | Subdirectory]
) -> Answer:
    """The containers of an account."""
    if content_type == "text/plain":
        body = _lines(entries)
    elif content_type == "application/json":
        body = json.dumps([_container_entry(entry) for entry in entries]).encode()
    else:
        items = "".join(f"{_container_element(entry)}\n" for entry in entries)
        body = _document("account", request.account, f"\n{items}", is_open=True)
    return _listing_answer(request, content_type, headers, body)


def empty_listing(request: DoorRequest, content_type: str, headers: Headers) -> Answer:
    """The answer to HEAD on an account or container."""
    return Answer(204, _with_type(request, content_type, headers))


def _listing_answer(request: DoorRequest, content_type: str, headers: Headers, body: bytes) -> Answer:
    return Answer(200 if body else 204, _with_type(request, content_type, headers), body)


def _with_type(request: DoorRequest, content_type: str, headers: Headers) -> Headers:
    found = [("Content-Type", f"{content_type}; charset=utf-8"), *headers, ("Accept-Ranges", "bytes")]
    if "format" not in request.query:
        found.append(("Vary", "Accept"))
    return found


def _lines(entries: Sequence[StoredObject | Container | Subdirectory]) -> bytes:
    return "".join(f"{entry.name}\n" for entry in entries).encode()


def _object_entry(entry: StoredObject | Subdirectory) -> dict[str, object]:
    if isinstance(entry, Subdirectory):
        return {"subdir": entry.name}
    found: dict[str, object] = {
        "bytes": entry.size,
        "hash": entry.etag,
        "name": entry.name,
        "content_type": _compact(entry.content_type),
        "last_modified": iso_time(entry.modified_at),
    }
    if entry.slo_etag is not None:
        found["slo_etag"] = f'"{entry.slo_etag}"'
    return found


def _container_entry(entry: Container | Subdirectory) -> dict[str, object]:
    if isinstance(entry, Subdirectory):
        return {"subdir": entry.name}
    return {
        "name": entry.name,
        "count": entry.object_count,
        "bytes": entry.bytes_used,
        "last_modified": iso_time(entry.modified_at),
    }


def _object_element(entry: StoredObject | Subdirectory) -> str:
    if isinstance(entry, Subdirectory):
        return f"<subdir name={_attribute(entry.name)}><name>{_text(entry.name)}</name></subdir>"
    return (
        f"<object><name>{_text(entry.name)}</name><hash>{entry.etag}</hash><bytes>{entry.size}</bytes>"
        f"<content_type>{_text(_compact(entry.content_type))}</content_type>"
        f"<last_modified>{iso_time(entry.modified_at)}</last_modified></object>"
    )


def _container_element(entry: Container | Subdirectory) -> str:
    if isinstance(entry, Subdirectory):
        return f"<subdir name={_attribute(entry.name)} />"
    return (
        f"<container><name>{_text(entry.name)}</name><count>{entry.object_count}</count>"
        f"<bytes>{entry.bytes_used}</bytes><last_modified>{iso_time(entry.modified_at)}</last_modified></container>"
    )


def _document(tag: str, name: str, items: str, *, is_open: bool = False) -> bytes:
    start = f'<?xml version="1.0" encoding="UTF-8"?>\n<{tag} name={_attribute(name)}'
    return (f"{start}>{items}</{tag}>" if items or is_open else f"{start} />").encode()


def _text(text: str) -> str:
    return escape(text)


def _attribute(text: str) -> str:
    return quoteattr(text, {'"': "&quot;", "\n": "&#10;", "\t": "&#09;", "\r": "&#13;"})


def _compact(content_type: str) -> str:
    # Listings show parameters without the spaces between them, as Swift's do.
    return ";".join(part.strip() for part in _PARAMETER.findall(content_type))


def _by_quality(accepted: str) -> list[str]:
    ranges: list[tuple[float, str]] = []
    for part in accepted.split(","):
        match = _MEDIA_RANGE.fullmatch(part)
        if match is None:
            raise refuse(400, "Invalid Accept header")
        quality = _QUALITY.search(match[2])
        try:
            ranges.append((float(quality[1]) if quality else 1.0, match[1].lower()))
        except ValueError:
            raise refuse(400, "Invalid Accept header") from None
    return [name for quality, name in sorted(ranges, key=lambda found: -found[0]) if quality > 0]


def _without_nul(marker: str, *, is_upper: bool) -> str:
    # No name has a NUL, and PostgreSQL takes none: a marker with one stands just behind the text before it.
    before, nul, _ = marker.partition("\0")
    return f"{before}\x01" if nul and is_upper else before
