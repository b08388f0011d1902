"""The way from workloads to remote stores: `/v1/remote/{host}/{version}/{account}/{container}/{object}`.

A sandbox holds a token of the platform only. The request is checked against the allow-list, and the platform speaks to the remote store
with the admin's credentials. A store that speaks Swift itself gets the request as it came; for the others the basic requests (GET with one
range, HEAD, PUT, DELETE, listings in text and JSON) are done through the port.
"""

from __future__ import annotations

import json
from typing import cast
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import Request

from modelyard.objectstore.access import READ_SCOPE, WRITE_SCOPE, Principal
from modelyard.objectstore.hosts import RemoteStore, StoreHosts, check_remote
from modelyard.objectstore.paths import BadStoragePath, ObsPath, parse_obs_path
from modelyard.objectstore.port import (
    NoSuchPath,
    ObjectPage,
    ObjectStat,
    RelaysRequests,
    StoreFull,
    StoreRefused,
    StoreUnreachable,
)
from modelyard.server.doors.objects_answers import HTML, Answer, Headers, Refusal, refuse, standard
from modelyard.server.doors.objects_headers import http_date, iso_time, unmet_condition
from modelyard.server.doors.objects_ranges import parse_ranges, spans
from modelyard.server.doors.objects_request import method_not_allowed, parse_query, unauthorized

PREFIX = b"/v1/remote/"
_READING = {"GET", "HEAD", "OPTIONS"}
_ALLOWED = "GET, DELETE, OPTIONS, HEAD, PUT"
# What must not travel on: the connection's own headers, and the caller's token, which is good here only.
_DROPPED = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "expect",
    "x-auth-token",
    "x-storage-token",
    "x-service-token",
    "authorization",
    "cookie",
    "destination-account",
    "x-copy-from-account",
}
_TICKS_PER_SECOND = 100_000


def is_remote(raw_path: bytes) -> bool:
    """Whether the request goes to a remote store."""
    return raw_path.startswith(PREFIX)


async def answer_remote(
    http: Request, raw_path: bytes, principal: Principal | None, hosts: StoreHosts | None
) -> Answer:
    """Check against the allow-list and do the request there."""
    path = _path(raw_path)
    if principal is None:
        raise unauthorized(path.account)
    if hosts is None:
        raise _told(403, f"The object store host '{path.host}' is not allowed.")
    is_write = http.method not in _READING
    scope = WRITE_SCOPE if is_write else READ_SCOPE
    if principal.scopes is not None and scope not in principal.scopes:
        raise _told(403, f"The token of account '{principal.name}' does not include the scope '{scope}'.")
    try:
        remote = hosts.remote(path.host)
        check_remote(remote, path.tenant, project_id=principal.project_id, is_write=is_write)
        if hasattr(remote.store, "relay"):
            return await _relay(http, raw_path, remote)
        return await _translate(http, path, remote)
    except NoSuchPath:
        raise refuse(404) from None
    except StoreFull:
        raise refuse(507) from None
    except StoreRefused as refused:
        raise _told(403, str(refused)) from None
    except StoreUnreachable as unreachable:
        raise _told(502, str(unreachable)) from None


async def _relay(http: Request, raw_path: bytes, remote: RemoteStore) -> Answer:
    tail = raw_path.removeprefix(PREFIX).partition(b"/")[2].decode("latin-1")
    headers = {name: value for name, value in http.headers.items() if name not in _DROPPED}
    has_body = "content-length" in http.headers or "transfer-encoding" in http.headers
    answer = await cast("RelaysRequests", remote.store).relay(
        http.method,
        f"/{tail}",
        http.scope.get("query_string", b"").decode("latin-1"),
        headers,
        http.stream() if has_body else None,
    )
    if http.method == "HEAD":  # nothing will read the empty body, and an unread one keeps its connection
        async for _ in answer.body:
            continue
    kept = [(name, value) for name, value in answer.headers if name.lower() not in _DROPPED]
    return Answer(answer.status, kept, answer.body)


async def _translate(http: Request, path: ObsPath, remote: RemoteStore) -> Answer:
    store = remote.store
    match http.method:
        case "GET" | "HEAD" if not path.path:
            return await _list(http, path, remote)
        case "HEAD" | "GET":
            return await _read(http, path, remote)
        case "PUT" if path.path:
            length = http.headers.get("content-length")
            size = int(length) if length and length.isdigit() else None
            stat = await store.put(path, http.stream(), size=size, content_type=http.headers.get("content-type", ""))
            return Answer(201, [("Content-Type", HTML), ("Etag", stat.etag)])
        case "DELETE" if path.path:
            await store.head(path)
            await store.delete(path)
            return Answer(204, [("Content-Type", HTML)])
        case "PUT" if not path.path:
            await store.list(path, limit=1)  # clients make sure of the container this way; a missing one is told
            return standard(202)
        case "OPTIONS":
            return Answer(200, [("Content-Type", HTML), ("Allow", _ALLOWED)])
        case _:
            return method_not_allowed(_ALLOWED)


async def _read(http: Request, path: ObsPath, remote: RemoteStore) -> Answer:
    stat = await remote.store.head(path)
    headers: Headers = [
        ("Content-Type", stat.content_type or "application/octet-stream"),
        ("Etag", stat.etag),
        ("Last-Modified", http_date(_ticks(stat))),
        ("X-Timestamp", f"{stat.modified_at.timestamp():.5f}"),
        ("Accept-Ranges", "bytes"),
    ]
    status = unmet_condition(http.headers, stat.etag, _ticks(stat))
    if status is not None:
        return Answer(status, [*headers, ("Content-Length", "0")])
    if http.method == "HEAD":
        return Answer(200, [*headers, ("Content-Length", str(stat.size))])
    ranges = parse_ranges(http.headers.get("range"))
    if ranges is None or len(ranges) != 1:
        body = remote.store.get(path) if stat.size else b""
        return Answer(200, [*headers, ("Content-Length", str(stat.size))], body)
    parts = spans(ranges, stat.size)
    if not parts:
        return Answer(416, [*headers, ("Content-Range", f"bytes */{stat.size}")], b"")
    start, end = parts[0]
    headers += [("Content-Range", f"bytes {start}-{end - 1}/{stat.size}"), ("Content-Length", str(end - start))]
    return Answer(206, headers, remote.store.get(path, offset=start, length=end - start))


async def _list(http: Request, path: ObsPath, remote: RemoteStore) -> Answer:
    query = parse_query(http.scope.get("query_string", b""))
    text = {name: value.encode("latin-1").decode(errors="replace") for name, value in query.items()}
    limit = min(int(text["limit"]), 10_000) if text.get("limit", "").isdigit() else 10_000
    page = await remote.store.list(
        path,
        prefix=text.get("prefix", ""),
        delimiter=text.get("delimiter", ""),
        marker=text.get("marker", ""),
        limit=limit,
    )
    if http.method == "HEAD":
        return Answer(204, [("Content-Type", "text/plain; charset=utf-8")])
    if text.get("format") == "json" or "application/json" in http.headers.get("accept", ""):
        body = json.dumps(_entries(page)).encode()
        return Answer(200, [("Content-Type", "application/json; charset=utf-8")], body)
    names = sorted([*(stat.name for stat in page.objects), *page.prefixes], key=str.encode)
    body = "".join(f"{name}\n" for name in names).encode()
    return Answer(200 if body else 204, [("Content-Type", "text/plain; charset=utf-8")], body)


def _entries(page: ObjectPage) -> list[dict[str, object]]:
    found: dict[str, dict[str, object]] = {prefix: {"subdir": prefix} for prefix in page.prefixes}
    for stat in page.objects:
        found[stat.name] = {
            "bytes": stat.size,
            "hash": stat.etag,
            "name": stat.name,
            "content_type": stat.content_type,
            "last_modified": iso_time(_ticks(stat)),
        }
    return [found[name] for name in sorted(found, key=str.encode)]


def _path(raw_path: bytes) -> ObsPath:
    try:
        text = unquote_to_bytes(raw_path.removeprefix(PREFIX)).decode()
        return parse_obs_path(f"obs://{quote(text, safe='/:[]')}")
    except UnicodeDecodeError:
        raise refuse(412, "Invalid UTF8 or contains NULL") from None
    except BadStoragePath as fault:
        raise _told(400, str(fault)) from None


def _told(status: int, sentence: str) -> Refusal:
    return Refusal(Answer(status, [("Content-Type", "text/plain; charset=utf-8")], sentence.encode()))


def _ticks(stat: ObjectStat) -> int:
    return int(stat.modified_at.timestamp() * _TICKS_PER_SECOND)
